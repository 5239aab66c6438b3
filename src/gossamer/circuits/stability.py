"""How alike circuits are: of several seeds, models, paraphrases, or the same model on resampled prompts.

    Jaccard(A, B) = |A and B| / |A or B|        1 for the same set, 0 for nothing in common

Heads have no names: two models may do the same in head 1 and in head 3. So three numbers are given, from
strict to
kind: edges as they are; edges after the best matching of heads within each layer; position pairs alone, with
layers and heads merged. The matching tries all permutations up to `EXACT_HEADS` heads, and is greedy (largest
overlap first) above; the record tells which.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise, permutations
from statistics import fmean
from typing import Any

import numpy as np

from ..errors import refuse
from ..training.counted import counted
from .circuit import Circuit, Edge

EXACT_HEADS = 6  # 720 permutations per layer


def jaccard(first: set[Any], second: set[Any]) -> float:
    """|A and B| / |A or B|; two empty sets are the same set, 1."""
    return len(first & second) / len(first | second) if first | second else 1.0


@dataclass(frozen=True)
class Overlap:
    """How alike two circuits are, each number in [0, 1].

    Attributes:
        edges: Jaccard of their (layer, head, query, key).
        up_to_heads: the same after the best matching of heads within layers.
        pairs: Jaccard of their (query, key).
        matching: how heads were matched, "exact" or "greedy".
    """

    edges: float
    up_to_heads: float
    pairs: float
    matching: str

    def as_record(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


def overlap(first: Circuit, second: Circuit) -> Overlap:
    """Compare the edges that two circuits open on any of their prompts.

    Raises: `GossamerError` for circuits of models with another number of layers or heads.
    """
    if (first.n_layers, first.n_heads) != (second.n_layers, second.n_heads):
        raise refuse(
            f"circuits of {first.n_layers} x {first.n_heads} and {second.n_layers} x {second.n_heads} heads",
            "models of one shape",
            "compare their `pairs()` instead",
        )
    ours, theirs = set(first.edges()), set(second.edges())
    matched = match_heads(theirs, ours, first.n_layers, first.n_heads)
    exact = "exact" if first.n_heads <= EXACT_HEADS else "greedy"
    return Overlap(
        jaccard(ours, theirs), jaccard(ours, matched), jaccard(first.pairs(), second.pairs()), exact
    )


def match_heads(edges: set[Edge], target: set[Edge], n_layers: int, n_heads: int) -> set[Edge]:
    """`edges` with the heads of each layer renamed one to one, so as to share edges with `target`."""
    shared = np.zeros((n_layers, n_heads, n_heads), dtype=int)  # [layer, from, to]
    for layer, head, query, key in edges:
        for to in range(n_heads):
            shared[layer, head, to] += (layer, to, query, key) in target
    names = [_assign(table) for table in shared]
    return {(layer, names[layer][head], query, key) for layer, head, query, key in edges}


def _assign(gain: np.ndarray) -> list[int]:
    n = len(gain)
    if n <= EXACT_HEADS:
        return list(max(permutations(range(n)), key=lambda to: sum(gain[i, j] for i, j in enumerate(to))))
    to, left = [-1] * n, gain.astype(float)
    for _ in range(n):
        i, j = np.unravel_index(left.argmax(), left.shape)
        to[int(i)] = int(j)
        left[i], left[:, j] = -np.inf, -np.inf
    return to


@dataclass(frozen=True)
class Stability:
    """All pairwise overlaps of several circuits."""

    overlaps: tuple[Overlap, ...]

    def as_record(self) -> dict[str, Any]:
        """Mean and smallest of each number."""
        found: dict[str, Any] = {"comparisons": len(self.overlaps), "matching": self.overlaps[0].matching}
        for name in ("edges", "up_to_heads", "pairs"):
            values = [getattr(one, name) for one in self.overlaps]
            found |= {f"{name}_mean": fmean(values), f"{name}_min": min(values)}
        return found


def stable(circuits: Sequence[Circuit]) -> Stability:
    """Compare every two of several circuits, of seeds, models, paraphrases or samples."""
    if len(circuits) < 2:
        raise refuse(f"{len(circuits)} circuits", "two or more", "pass another seed, paraphrase or sample")
    return Stability(
        tuple(overlap(a, b) for a, b in counted(list(combinations(circuits, 2)), "circuits compared"))
    )


@dataclass(frozen=True)
class Paraphrases:
    """How alike the heads are that a task's templates use, whatever the lengths of their prompts.

    Attributes:
        templates: how many there are.
        heads: Jaccard of the heads, (layer, head), of every two templates.
    """

    templates: int
    heads: tuple[float, ...]

    def as_record(self) -> dict[str, Any]:
        """Mean and smallest."""
        return {"templates": self.templates, "heads_mean": fmean(self.heads), "heads_min": min(self.heads)}


def paraphrased(
    circuits: Sequence[tuple[Circuit, Sequence[int]]], *, share: float = 0.1
) -> Paraphrases | None:
    """Compare the heads that a model uses on each template of a task; None if there is one template only.

    Positions of one template are not those of another, so edges are compared by their heads.

    Args:
        circuits: of any lengths, each with the template of each of its prompts.
        share: a template uses a head if at least this share of its prompts has a live edge there.
    """
    using: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    prompts: Counter[int] = Counter()
    for circuit, templates in circuits:
        prompts.update(templates)
        live = circuit.live()
        seen = zip(live.prompt.tolist(), live.layer.tolist(), live.head.tolist(), strict=True)
        for prompt, layer, head in set(seen):
            using[templates[prompt]][layer, head] += 1
    heads = [
        {head for head, n in using[template].items() if n >= share * prompts[template]}
        for template in prompts
    ]
    if len(heads) < 2:
        return None
    return Paraphrases(len(heads), tuple(jaccard(a, b) for a, b in combinations(heads, 2)))


def resampled(circuit: Circuit, *, draws: int = 20, seed: int = 0, share: float = 0.01) -> Stability:
    """The overlap of a circuit with itself when its prompts are drawn again, with replacement.

    Args:
        draws: resampled circuits, each compared with the next.
        share: an edge belongs to a sample's circuit if at least this share of the sample's prompts opens it.
    """
    rng = np.random.default_rng(seed)
    n = circuit.n_prompts
    places = np.stack([circuit.layer, circuit.head, circuit.query, circuit.key], axis=1)
    edges, inverse = np.unique(places, axis=0, return_inverse=True)
    sets = []
    for _ in counted(range(draws + 1), "samples drawn"):
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        seen = np.bincount(inverse.ravel(), weights=times[circuit.prompt], minlength=len(edges)) / n
        sets.append({tuple(edge) for edge in edges[seen >= share].tolist()})
    compared = [(jaccard(a, b), jaccard(_pairs(a), _pairs(b))) for a, b in pairwise(sets)]
    return Stability(tuple(Overlap(edge, edge, pair, "none needed") for edge, pair in compared))


def _pairs(edges: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {edge[2:] for edge in edges}
