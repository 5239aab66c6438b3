"""A circuit: the attention edges that are open, for one prompt or many, and which of them reach the answer.

An edge (prompt, layer, head, query, key) says: in that layer and head, token position `query` reads position
`key`. Edges are stored as a list, never as matrices, so memory grows with what is open and not with T * T *
L.

The live part. Position q matters above layer l if its residual stream reaches a chosen output. Walk down:

    matters_L = the chosen output positions
    an edge of layer l is live  iff  its query is in matters_{l+1}
    matters_l = matters_{l+1}  united with the keys of the live edges of layer l

An open edge that is not live writes into a residual stream that no live edge reads. Where attention is
normalised over open edges alone (`EdgeGates.renormalise`) that is a theorem: removing what is not live changes
nothing in the chosen outputs. Numerator-only gates leave one more door, the softmax denominator, where a
position speaks to every query that sees it; `verify` counts how often something came through.
numpy only: a circuit outlives its model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import refuse

EDGE_FIELDS = ("prompt", "layer", "head", "query", "key")
VALUE_FIELDS = ("logit", "weight", "contribution")

Edge = tuple[int, int, int, int]  # layer, head, query, key


class Standing(NamedTuple):
    """Which edges of a model are open over a data set."""

    always: frozenset[Edge]  # on every prompt
    sometimes: dict[Edge, float]  # share of prompts in (0, 1)
    never: int | None  # visible edges that no prompt opens; None where prompts see different pairs


class UnitsLeft(NamedTuple):
    """What gates that do not depend on the prompt leave of a model; empty where it has none, or all are open.

    Attributes:
        closed_heads: (layer, head), in that order; none of their edges is open.
        neurons: per layer, how many are left and how many there were.
    """

    closed_heads: tuple[tuple[int, int], ...] = ()
    neurons: tuple[tuple[int, int], ...] = ()

    def heads(self, n_layers: int, n_heads: int) -> list[list[bool]]:
        """[layer][head]: whether it is open."""
        closed = set(self.closed_heads)
        return [[(layer, head) not in closed for head in range(n_heads)] for layer in range(n_layers)]


@dataclass(frozen=True)
class Circuit:
    """The open attention edges of a model on some prompts.

    Attributes:
        n_layers, n_heads: of the model; n_heads is the number of query heads per layer.
        tokens: per prompt, the input tokens as text.
        answers: per prompt, the model's top-1 output tokens as text, one per position.
        outputs: the output positions that count as the answer, the same for all prompts.
        visible: number of edges that could be open in each prompt, over all layers and heads.
        prompt, layer, head, query, key: (E,) int32.
        logit: (E,) float32, s in nats, without the gate bias.
        weight: (E,) float32, the softmax weight that the value is multiplied with.
        contribution: (E,) float32, the length of what the edge adds to the residual stream, weight * v W_h; where
            meta["contribution"] is "head", of weight * v inside the head.
        meta: where the circuit came from; JSON values.
        left: the heads that are closed, and the neurons that are left.
    """

    n_layers: int
    n_heads: int
    tokens: tuple[tuple[str, ...], ...]
    answers: tuple[tuple[str, ...], ...]
    outputs: tuple[int, ...]
    visible: tuple[int, ...]
    prompt: np.ndarray
    layer: np.ndarray
    head: np.ndarray
    query: np.ndarray
    key: np.ndarray
    logit: np.ndarray
    weight: np.ndarray
    contribution: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)
    left: UnitsLeft = field(default_factory=UnitsLeft)

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in (*EDGE_FIELDS, *VALUE_FIELDS)}
        if len(set(lengths.values())) > 1:
            raise refuse(f"edge arrays of lengths {lengths}", "one length for all", "pass whole edges")
        if not len(self.tokens) == len(self.answers) == len(self.visible):
            raise refuse(
                f"{len(self.tokens)} prompts, {len(self.answers)} answers, {len(self.visible)} counts",
                "one of each per prompt",
                "pass whole prompts",
            )

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def n_prompts(self) -> int:
        """How many prompts the circuit was traced on."""
        return len(self.tokens)

    @property
    def mean_edges(self) -> float:
        """Mean number of open edges per prompt."""
        return len(self) / self.n_prompts if self.n_prompts else 0.0

    @property
    def density(self) -> float:
        """Open edges over visible pairs, all prompts together, in [0, 1]."""
        return len(self) / max(1, sum(self.visible))

    def units_in_words(self) -> str:
        """`5 of 16 heads closed, 33 of 1,024 neurons left`; empty where no gate is on either."""
        closed, (left, whole) = (
            len(self.left.closed_heads),
            map(sum, zip(*self.left.neurons or [(0, 0)], strict=True)),
        )
        heads = f"{closed:,} of {self.n_layers * self.n_heads:,} heads closed" if closed else ""
        neurons = f"{left:,} of {whole:,} neurons left" if whole else ""
        return ", ".join(filter(None, (heads, neurons)))

    def select(self, chosen: np.ndarray) -> Circuit:
        """The same circuit with only the edges where `chosen` (E,) is true, or at those indices."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in (*EDGE_FIELDS, *VALUE_FIELDS)})

    def of_prompt(self, index: int) -> Circuit:
        """The circuit of one prompt, as a circuit on that prompt alone."""
        if not 0 <= index < self.n_prompts:
            raise refuse(f"prompt {index}", f"0 to {self.n_prompts - 1}", "choose one of them")
        part = self.select(self.prompt == index)
        return replace(
            part,
            tokens=(self.tokens[index],),
            answers=(self.answers[index],),
            visible=(self.visible[index],),
            prompt=np.zeros(len(part), dtype=np.int32),
        )

    def live_mask(self, outputs: Iterable[int] | None = None) -> np.ndarray:
        """(E,) bool: which edges lie on a path into the output positions (default: those of the circuit).

        A layer without attention (`meta["mixing_layers"]`, of a hybrid model) may read any earlier position.
        """
        chosen = list(self.outputs if outputs is None else outputs)
        length = max((len(row) for row in self.tokens), default=0)
        matters = np.zeros((self.n_prompts, length), dtype=bool)
        matters[:, chosen] = True
        live, mixing = np.zeros(len(self), dtype=bool), self.meta.get("mixing_layers", ())
        for layer in sorted({*np.unique(self.layer).tolist(), *mixing}, reverse=True):
            if layer in mixing:
                matters = np.logical_or.accumulate(matters[:, ::-1], axis=1)[:, ::-1]
            here = np.flatnonzero(self.layer == layer)
            reached = here[matters[self.prompt[here], self.query[here]]]
            live[reached] = True
            matters[self.prompt[reached], self.key[reached]] = True
        return live

    def live(self, outputs: Iterable[int] | None = None) -> Circuit:
        """The part of the circuit that reaches the output positions."""
        return self.select(self.live_mask(outputs))

    def per_head(self) -> np.ndarray:
        """(n_layers, n_heads) float: mean open edges per prompt in each head."""
        counts = np.zeros((self.n_layers, self.n_heads))
        np.add.at(counts, (self.layer, self.head), 1.0)
        return counts / max(1, self.n_prompts)

    def per_prompt(self) -> np.ndarray:
        """(n_prompts,) int: open edges of each prompt."""
        return np.bincount(self.prompt, minlength=self.n_prompts)

    def frequency(self) -> dict[Edge, float]:
        """How often each (layer, head, query, key) is open: share of prompts in (0, 1], commonest first."""
        if not len(self):
            return {}
        keys = np.stack([self.layer, self.head, self.query, self.key], axis=1)
        edges, counts = np.unique(keys, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {as_edge(edges[i]): float(counts[i]) / self.n_prompts for i in order}

    def edges(self) -> list[Edge]:
        """The (layer, head, query, key) that are open on any prompt, in that order."""
        return sorted(self.frequency())

    def standing(self) -> Standing:
        """Which edges are always, sometimes and never open over the circuit's prompts."""
        shares = self.frequency()
        always = frozenset(edge for edge, share in shares.items() if share == 1)
        sometimes = {edge: share for edge, share in shares.items() if share < 1}
        never = self.visible[0] - len(shares) if len(set(self.visible)) == 1 else None
        return Standing(always, sometimes, never)

    def without_rare(self, share: float) -> Circuit:
        """The circuit with only those (layer, head, query, key) that at least `share` of the prompts open."""
        common = {edge for edge, found in self.frequency().items() if found >= share}
        places = zip(self.layer, self.head, self.query, self.key, strict=True)
        return self.select(np.fromiter((place in common for place in places), dtype=bool, count=len(self)))

    def pairs(self) -> set[tuple[int, int]]:
        """The (query, key) position pairs that are open anywhere, layers and heads merged."""
        return {(int(q), int(k)) for q, k in zip(self.query, self.key, strict=True)}


def as_edge(row: np.ndarray) -> Edge:
    """(4,) integers as an edge."""
    layer, head, query, key = row.tolist()
    return layer, head, query, key


def concatenate(parts: Sequence[Circuit]) -> Circuit:
    """One circuit of several on different prompts of the same model; prompts are renumbered in order."""
    if not parts:
        raise refuse("no circuits", "one or more", "pass at least one")
    first = parts[0]
    kept = ("n_layers", "n_heads", "outputs", "left")
    if any(getattr(p, name) != getattr(first, name) for p in parts for name in kept):
        raise refuse("circuits of different models or outputs", "one model, one set of outputs", "separate")
    starts = np.cumsum([0, *(p.n_prompts for p in parts)])
    arrays = {n: np.concatenate([getattr(p, n) for p in parts]) for n in (*EDGE_FIELDS, *VALUE_FIELDS)}
    arrays["prompt"] = np.concatenate([p.prompt + s for p, s in zip(parts, starts[:-1], strict=True)]).astype(
        np.int32
    )
    return replace(
        first,
        tokens=tuple(row for p in parts for row in p.tokens),
        answers=tuple(row for p in parts for row in p.answers),
        visible=tuple(n for p in parts for n in p.visible),
        **arrays,
    )
