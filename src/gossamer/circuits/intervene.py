"""Intervening on attention edges: what a model answers when some edges are closed.

    sufficient   only the circuit's edges may be open: are the answers the same?
    necessary    one edge is closed at a time: on how many prompts does the answer change?
    leaks        closed edges leave the softmax denominator as well: does any answer change?

A gate depends on the input, so "the circuit" of many prompts is one of three things, and every result names
it:

    prompt   each prompt keeps its own edges and they are held open: what was drawn for it, and nothing else
    union    every edge that any prompt opens is allowed, and the model's own gates still decide
    static   every edge that any prompt opens is held open on every prompt: one wiring for all

An answer is the row of top-1 tokens at the circuit's output positions, or the class of a classifier. Price: one
forward pass of one row per prompt for `sufficient`, and per (prompt, live edge) for `necessary`; rows are batched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import refuse, require_choice
from ..gates.edges import EdgeGates
from ..models.attach import gated
from ..models.forward import device_of, evaluating, first_output, prompt_inputs
from ..models.interface import attention_modules
from ..training.counted import counted
from .answers import comparable
from .circuit import Circuit, Edge, as_edge
from .statistics import wilson

SCOPES = ("prompt", "union", "static")
Keep = Callable[[Tensor], dict[int, Tensor]]  # row numbers -> per layer (rows or 1, H, T, S) bool


class PatchedModel:
    """A model, a circuit of it and the prompts of that circuit, ready for interventions.

    Args:
        model: gated, or dense (then it runs with all gates open inside `ready`).
        circuit: traced on exactly these prompts.
        input_ids, attention_mask: (N, T).
        batch_size: rows per forward pass; a row of interventions costs layers * heads * T * T bytes.
    Raises: `GossamerError` for prompts or edges that do not fit the model, and for an empty circuit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        circuit: Circuit,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        batch_size: int = 1024,
    ) -> None:
        _check_prompts(circuit, input_ids)
        self.model, self.circuit, self.batch_size = model, circuit, batch_size
        self.input_ids, self.attention_mask = input_ids, attention_mask
        self.outputs = list(circuit.outputs)
        self.gates: EdgeGates

    @contextmanager
    def ready(self) -> Iterator[PatchedModel]:
        """The bench with its model in evaluation mode and its gates on, whatever they were."""
        with gated(self.model) as gates, evaluating(self.model), gates.using(keep=None, impl="eager"):
            self.gates = gates
            check_edges(self.circuit, gates.n_layers, gates.n_heads)
            if all(getattr(module, "is_causal", False) for module in attention_modules(self.model)):
                _check_causal(self.circuit)
            yield self

    def run(self, rows: Tensor, keep: Keep | None = None, **gates: Any) -> Tensor:
        """Answers of prompts `rows` (R,) under an intervention: (R, outputs) int64.

        Args:
            keep: called with positions in `rows`; what it returns is multiplied onto the gates.
            gates: further settings of the gates, such as bias or renormalise.
        """
        found = []
        with self.gates.using(**gates):
            for part in counted(torch.arange(len(rows)).split(self.batch_size), "batches of interventions"):
                mask = None if self.attention_mask is None else self.attention_mask[rows[part]]
                inputs = prompt_inputs(self.model, self.input_ids[rows[part]], mask)
                with self.gates.using(keep=None if keep is None else keep(part)):
                    found.append(comparable(self.model, first_output(self.model, inputs), self.outputs).cpu())
        return torch.cat(found)

    @property
    def all_rows(self) -> Tensor:
        """Every prompt once."""
        return torch.arange(len(self.input_ids))

    def blank(self, rows: int, opened: bool) -> dict[int, Tensor]:
        """Per layer a (rows, H, T, S) bool tensor, all open or all closed."""
        shape = (rows, self.gates.n_heads, self.input_ids.shape[1], self.input_ids.shape[1])
        return {
            layer: torch.full(shape, opened, device=device_of(self.model))
            for layer in range(self.gates.n_layers)
        }

    def keep_edges(self, edges: Sequence[Edge], chosen: Tensor | None = None) -> Keep:
        """Only `edges` may be open: all of them, or on row r those where `chosen` (R, E) is true."""
        table = torch.tensor(edges, dtype=torch.int64).view(-1, 4)

        def keep(part: Tensor) -> dict[int, Tensor]:
            masks = self.blank(1 if chosen is None else len(part), False)
            for layer, mask in masks.items():
                here = (table[:, 0] == layer).nonzero()[:, 0]
                _, head, query, key = table[here].unbind(1)
                mask[:, head, query, key] = True if chosen is None else chosen[part][:, here].to(mask.device)
            return masks

        return keep

    def keep_own(self) -> Keep:
        """On the row of prompt i (rows are `all_rows`) only the circuit's edges of prompt i may be open."""

        def keep(part: Tensor) -> dict[int, Tensor]:
            masks, first = self.blank(len(part), False), int(part[0])
            c = self.circuit
            here = np.flatnonzero((c.prompt >= first) & (c.prompt <= int(part[-1])))
            for layer, mask in masks.items():
                mine = here[c.layer[here] == layer]
                mask[c.prompt[mine] - first, c.head[mine], c.query[mine], c.key[mine]] = True
            return masks

        return keep

    def drop_one(self, which: np.ndarray) -> Keep:
        """On row r all edges but number `which[r]` of the circuit may be open."""

        def keep(part: Tensor) -> dict[int, Tensor]:
            masks, numbers, c = self.blank(len(part), True), which[part.numpy()], self.circuit
            for layer, mask in masks.items():
                rows = np.flatnonzero(c.layer[numbers] == layer)
                gone = numbers[rows]
                mask[rows, c.head[gone], c.query[gone], c.key[gone]] = False
            return masks

        return keep


@dataclass(frozen=True)
class Sufficiency:
    """On `same` of `n` prompts the circuit alone, in this scope, gives the model's own answer."""

    scope: str
    same: int
    n: int

    def as_record(self) -> dict[str, Any]:
        """Counts and Wilson's 95 % interval of the share."""
        return {"scope": self.scope, "same": self.same, "n": self.n, "interval": wilson(self.same, self.n)}


def sufficient(patched: PatchedModel, *, scope: str = "prompt") -> Sufficiency:
    """Close everything but the circuit and count the prompts whose answer stays the model's own.

    Args:
        bench: inside its `ready` block.
        scope: what the circuit of many prompts is, see the module docstring.
    """
    require_choice("scope", scope, SCOPES)
    require_edges(patched.circuit)
    own = patched.run(patched.all_rows)
    if scope == "prompt":
        alone = patched.run(patched.all_rows, patched.keep_own(), bias=math.inf)
    else:
        held = {"bias": math.inf} if scope == "static" else {}
        alone = patched.run(patched.all_rows, patched.keep_edges(patched.circuit.edges()), **held)
    return Sufficiency(scope, int((own == alone).all(1).sum()), len(own))


@dataclass(frozen=True)
class Necessity:
    """What breaks when a live edge is closed alone, the model's other gates deciding for themselves.

    Attributes:
        number: (E,) of the live edges in the circuit.
        broken: (E,) bool, whether the answer of that edge's prompt changes.
        edges: (layer, head, query, key) -> (prompts whose answer changes, prompts that open it).
        n: prompts.
    """

    number: np.ndarray
    broken: np.ndarray
    edges: dict[Edge, tuple[int, int]]
    n: int

    @property
    def redundant(self) -> list[Edge]:
        """Live edges that are necessary for no prompt at all."""
        return [edge for edge, (broken, _) in self.edges.items() if not broken]

    def as_record(self) -> dict[str, Any]:
        """One line per edge, the most necessary first."""
        ranked = sorted(self.edges.items(), key=lambda item: -item[1][0])
        lines = [{"edge": list(edge), "broken": b, "open": o} for edge, (b, o) in ranked]
        return {"n": self.n, "edges": lines, "redundant": len(self.redundant)}


def necessary(patched: PatchedModel) -> Necessity:
    """Remove every live edge of every prompt in turn and see whether that prompt's answer changes."""
    require_edges(patched.circuit)
    c = patched.circuit
    number = np.flatnonzero(c.live_mask())
    own = patched.run(patched.all_rows)
    prompts = torch.from_numpy(c.prompt[number].astype(np.int64))
    without = patched.run(prompts, patched.drop_one(number))
    broken = (without != own[prompts]).any(1).numpy()
    places = np.stack([c.layer, c.head, c.query, c.key], axis=1)[number]
    edges, inverse = np.unique(places, axis=0, return_inverse=True)
    breaks = np.bincount(inverse.ravel(), weights=broken, minlength=len(edges)).astype(int)
    opens = np.bincount(inverse.ravel(), minlength=len(edges))
    found = {as_edge(edge): (int(b), int(o)) for edge, b, o in zip(edges, breaks, opens, strict=True)}
    return Necessity(number, broken, found, len(own))


def leaks(patched: PatchedModel) -> int:
    """Prompts whose answer changes when closed edges leave the softmax denominator too: 0 is leak-free."""
    own = patched.run(patched.all_rows)
    return int((patched.run(patched.all_rows, renormalise=True) != own).any(1).sum())


def require_edges(circuit: Circuit) -> None:
    """Raise one clear line for a circuit without edges."""
    if not len(circuit):
        raise refuse(
            "an empty circuit",
            "a circuit with at least one edge",
            "trace again with a lower threshold, or train under a tighter ceiling",
        )


def check_edges(circuit: Circuit, n_layers: int, n_heads: int) -> None:
    """Raise unless every edge of the circuit is one that the model has."""
    length = max((len(row) for row in circuit.tokens), default=0)
    limits = {"layer": n_layers, "head": n_heads, "query": length, "key": length}
    for name, limit in limits.items():
        values = getattr(circuit, name)
        if len(values) and not (values.min() >= 0 and values.max() < limit):
            wrong = int(values.max() if values.max() >= limit else values.min())
            raise refuse(
                f"an edge with {name} {wrong}",
                f"0 to {limit - 1}",
                "trace the circuit on this very model",
            )


def _check_causal(circuit: Circuit) -> None:
    ahead = np.flatnonzero(circuit.key > circuit.query)
    if len(ahead):
        first = ahead[0]
        raise refuse(
            f"an edge from key {circuit.key[first]} to query {circuit.query[first]} in a causal model",
            "keys up to the query",
            "trace the circuit on this very model",
        )


def _check_prompts(circuit: Circuit, input_ids: Tensor) -> None:
    expected = (circuit.n_prompts, len(circuit.tokens[0]) if circuit.tokens else 0)
    if tuple(input_ids.shape) != expected:
        raise refuse(
            f"input_ids {tuple(input_ids.shape)} for a circuit on {expected[0]} of {expected[1]} tokens",
            "the prompts that were traced",
            "trace the circuit on these prompts",
        )
