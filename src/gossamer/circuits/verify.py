"""Does the sparse model still do what the base model does, and is the drawn graph the whole graph?

Answers are compared on every prompt given, edges are counted on the gates that are used in evaluation, and
the leak test asks whether closed edges speak through the softmax denominator: it takes them out of there as
well, so that the open weights of a row sum to one, and counts the answers that change. If any does, the open
edges alone do not determine the answer.

`prove` goes on to intervene (`gossamer.circuits.intervene`): is the circuit sufficient, is each live edge necessary,
how small can it be made? Prompts are compared one by one; shares carry Wilson's interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import refuse
from ..models.attach import gates_of
from ..models.forward import device_of, evaluating, first_output
from ..training.counted import counted
from .circuit import Circuit
from .intervene import SCOPES, Necessity, PatchedModel, Sufficiency, leaks, necessary, sufficient
from .minimal import Minimal, minimal
from .statistics import wilson
from .subsets import CLAIMED, Subsets, removed_edges, subsets
from .trace import trace


@dataclass(frozen=True)
class Proof:
    """What interventions say about a circuit on its N prompts.

    Attributes:
        sufficient: scope -> how often the circuit alone gives the model's own answer.
        live_alone: the same for its live edges alone, held open prompt by prompt.
        necessity: what breaks when a live edge is closed.
        minimal: a smallest working subset over all prompts; None if it was not asked for.
        leaks: prompts whose answer changes when closed edges leave the softmax denominator.
        n: prompts.
        subsets: what closing random subsets of the removed edges does; empty if it was not asked for.
    """

    sufficient: dict[str, Sufficiency]
    live_alone: Sufficiency
    necessity: Necessity
    minimal: Minimal | None
    leaks: int
    n: int
    subsets: tuple[Subsets, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Plain numbers, each with its denominator."""
        return {
            "n": self.n,
            "sufficient": {scope: found.as_record() for scope, found in self.sufficient.items()},
            "live_alone": self.live_alone.as_record(),
            "necessary": self.necessity.as_record(),
            "minimal": None if self.minimal is None else self.minimal.as_record(),
            "leaks": {"changed": self.leaks, "n": self.n, "interval": wilson(self.leaks, self.n)},
            "subsets": [one.as_record() for one in self.subsets],
        }


def prove(
    model: PreTrainedModel,
    circuit: Circuit,
    input_ids: Tensor,
    *,
    attention_mask: Tensor | None = None,
    smallest: bool = True,
    draws: int = 0,
    leaking: Tensor | None = None,
    batch_size: int = 1024,
) -> Proof:
    """Put a circuit to the test by closing edges of the model it was traced on.

    Args:
        model: gated, or dense.
        circuit: traced on exactly `input_ids`, (N, T).
        smallest: also search the smallest working subset, which costs most.
        draws: random subsets of the removed edges to close, as `gossamer.circuits.subsets` has it.
        leaking: (N, T) bool, which answers leak, where `verify` has measured it on these prompts already.
    Raises: `GossamerError` for an empty circuit, other prompts, or edges that the model does not have.
    """
    with PatchedModel(model, circuit, input_ids, attention_mask, batch_size).ready() as patched:
        found = necessary(patched)
        order = sorted(found.edges, key=lambda edge: found.edges[edge])
        with PatchedModel(model, circuit.live(), input_ids, attention_mask, batch_size).ready() as live:
            live_alone = sufficient(live)
        least = minimal(patched, order=order) if smallest else None
        return Proof(
            sufficient={scope: sufficient(patched, scope=scope) for scope in SCOPES},
            live_alone=live_alone,
            necessity=found,
            minimal=least,
            leaks=leaks(patched) if leaking is None else int(leaking[:, patched.outputs].any(1).sum()),
            n=len(input_ids),
            subsets=_subsets(patched, found, least, draws) if draws else (),
        )


def _subsets(
    patched: PatchedModel, necessity: Necessity, least: Minimal | None, draws: int
) -> tuple[Subsets, ...]:
    circuit, found = patched.circuit, partial(subsets, patched, draws=draws)
    live = circuit.live_mask()
    redundant = live & removed_edges(circuit, necessity.redundant, keep=False)
    first = (found(~live, circuit="live"), found(redundant, circuit="necessary"))
    if least is None:
        return first
    rest = removed_edges(circuit, least.edges, keep=True)
    return (*first, found(rest, circuit="smallest", allowed=least.edges))


@dataclass(frozen=True)
class Verification:
    """What `verify` found on N prompts of T tokens.

    Attributes:
        n: prompts.
        base_exact, sparse_exact: prompts whose every output token is the label.
        same_row: prompts on which both models give the same output row.
        leaking: which sparse answers change when closed edges leave the softmax denominator; (N, T) bool.
        correct: per prompt, whether the sparse row is exact; (N,) bool.
        circuit: the sparse model's open edges on all prompts.
    """

    n: int
    base_exact: int
    sparse_exact: int
    same_row: int
    leaking: Tensor
    correct: Tensor
    circuit: Circuit

    @property
    def leaks(self) -> int:
        """Prompts with an answer that leaks, at any position."""
        return int(self.leaking.any(1).sum())

    def as_record(self) -> dict[str, Any]:
        """The counts as plain numbers."""
        per_prompt, per_head = self.circuit.per_prompt(), self.circuit.per_head()
        return {
            "prompts": self.n,
            "base_exact": self.base_exact,
            "sparse_exact": self.sparse_exact,
            "same_row": self.same_row,
            "leaks": self.leaks,
            "edges_mean": float(per_prompt.mean()),
            "edges_max": int(per_prompt.max()),
            "live_edges_mean": self.circuit.live().mean_edges,
            "edges_possible": self.circuit.visible[0],
            "density": self.circuit.density,
            "edges_per_layer": per_head.sum(1).tolist(),
            "edges_per_layer_and_head": per_head.tolist(),
        }


def answers(model: PreTrainedModel, input_ids: Tensor, batch_size: int = 1024) -> Tensor:
    """Top-1 output tokens, (N, T) int64, of a model as it stands."""
    with evaluating(model):
        rows = [
            first_output(model, {"input_ids": ids.to(device_of(model))})
            for ids in counted(input_ids.split(batch_size), "batches answered")
        ]
    return torch.cat([row.argmax(-1).cpu() for row in rows])


def verify(
    base: PreTrainedModel,
    sparse: PreTrainedModel,
    input_ids: Tensor,
    labels: Tensor,
    *,
    text: Callable[[Tensor], tuple[str, ...]] | None = None,
    outputs: tuple[int, ...] | None = None,
    batch_size: int = 1024,
) -> Verification:
    """Compare a sparse model with its base on prompts with known answers.

    Args:
        base: the dense model.
        sparse: the gated model.
        input_ids, labels: (N, T) each.
        text, outputs: as for `trace`.
    Raises: `GossamerError` on shapes that do not fit; `UnsupportedModel` if `sparse` has no gates.
    """
    if input_ids.shape != labels.shape or not len(input_ids):
        raise refuse(
            f"input_ids {tuple(input_ids.shape)}, labels {tuple(labels.shape)}",
            "(N, T) twice",
            "stack rows",
        )
    gates = gates_of(sparse)
    ours, theirs = answers(sparse, input_ids, batch_size), answers(base, input_ids, batch_size)
    with gates.using(renormalise=True, impl="eager"):
        without_denominator = answers(sparse, input_ids, batch_size)
    correct = (ours == labels).all(1)
    return Verification(
        n=len(input_ids),
        base_exact=int((theirs == labels).all(1).sum()),
        sparse_exact=int(correct.sum()),
        same_row=int((ours == theirs).all(1).sum()),
        leaking=without_denominator != ours,
        correct=correct,
        circuit=trace(sparse, input_ids, text=text, outputs=outputs, batch_size=batch_size),
    )


def all_claims_hold(proof: Proof) -> bool:
    """Whether all claims hold on every prompt: sufficient, leak-free, and no live edge is redundant.

    Where random subsets were closed, the live edges and the smallest subset must suffice in every draw.
    """
    steady = all(one.worst == one.n for one in proof.subsets if one.circuit in CLAIMED)
    whole = proof.sufficient["prompt"].same == proof.n
    return whole and steady and not proof.necessity.redundant and not proof.leaks
