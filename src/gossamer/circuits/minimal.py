"""The smallest part of a circuit that still works, and by which search it was found.

    a subset S of the circuit's edges works  iff  on at least n - allowed of n prompts the model answers, with
    every edge outside S closed, as it does by itself

Exhaustive search tries all subsets, the small ones first, and so its answer is *a* smallest one for certain.
Greedy search starts from all edges and drops, the least necessary first, whatever can go: its answer works
and no single edge of it can be dropped, but a smaller one may exist. Either way other subsets of the same
size may work as well ("All circuits lead to Rome", arXiv 2605.12671): the report says how many were found,
where it knows.

Prompts that break easily are tried first, so that most subsets fail after a few rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import refuse, require_choice
from .circuit import Edge
from .intervene import PatchedModel, require_edges

EXHAUSTIVE = 10  # edges up to which all subsets are tried by default: 1,024 of them
FIRST, GROWTH = 32, 8  # prompts in the first round of a trial, and by how much rounds grow; assumed


@dataclass(frozen=True)
class Minimal:
    """A smallest working part, as the method knows it.

    Attributes:
        edges: the subset that was found.
        method: "exhaustive" or "greedy".
        of: edges that the search started from.
        ties: working subsets of that size; None where the search did not look.
        same, n: prompts with the model's own answer under `edges`, and all prompts.
        static: whether the edges were held open, or left to the model's gates.
    """

    edges: tuple[Edge, ...]
    method: str
    of: int
    ties: int | None
    same: int
    n: int
    static: bool

    def as_record(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {**self.__dict__, "edges": [list(edge) for edge in self.edges]}


def minimal(
    patched: PatchedModel,
    *,
    method: str = "auto",
    static: bool = False,
    allowed: int = 0,
    order: Sequence[Edge] | None = None,
) -> Minimal:
    """Search the smallest subset of the circuit's edges that still works on its prompts.

    It starts from the live edges, or from all edges where the live ones alone do not work.

    Args:
        bench: inside its `ready` block.
        method: exhaustive, greedy, or auto (exhaustive up to `EXHAUSTIVE` edges).
        static: hold the edges open on every prompt, instead of leaving them to the model's gates.
        allowed: prompts whose answer may change.
        order: edges from the least to the most necessary, for greedy; the rest come first, rare to frequent.
    Raises: `GossamerError` if all edges together already change more than `allowed` answers.
    """
    require_choice("method", method, ("auto", "exhaustive", "greedy"))
    require_edges(patched.circuit)
    search = _Search(patched, static, allowed)
    given = list(order or ())
    rest = [edge for edge in reversed(patched.circuit.live().frequency()) if edge not in set(given)]
    ranked = (*rest, *given)
    if not search.works(ranked):  # what is not live may still speak through the softmax denominator
        dead = [edge for edge in reversed(patched.circuit.frequency()) if edge not in set(ranked)]
        ranked = (*dead, *ranked)
    if method == "exhaustive" or (method == "auto" and len(ranked) <= EXHAUSTIVE):
        return search.exhaustive(ranked)
    return search.greedy(ranked)


class _Search:
    def __init__(self, patched: PatchedModel, static: bool, allowed: int) -> None:
        self.patched, self.static, self.allowed = patched, static, allowed
        self.own = patched.run(patched.all_rows)
        self.hard = np.zeros(len(self.own))  # how often each prompt has broken a trial

    def works(self, edges: tuple[Edge, ...]) -> bool:
        return int(self.broken(edges, torch.ones(1, len(edges), dtype=torch.bool))[0]) <= self.allowed

    def exhaustive(self, edges: tuple[Edge, ...]) -> Minimal:
        if len(edges) > 20:
            raise refuse(f"exhaustive search over {len(edges)} edges", "up to 20", "pass method='greedy'")
        self._require_start(edges)
        for size in range(len(edges) + 1):
            subsets = torch.zeros(math.comb(len(edges), size), len(edges), dtype=torch.bool)
            for row, members in enumerate(combinations(range(len(edges)), size)):
                subsets[row, list(members)] = True
            working = subsets[self.broken(edges, subsets) <= self.allowed]
            if len(working):
                return self._found(edges, working[0], "exhaustive", len(working))
        raise AssertionError("all edges together work, so some size must")

    def greedy(self, edges: tuple[Edge, ...]) -> Minimal:
        self._require_start(edges)
        edge_mask = torch.ones(len(edges), dtype=torch.bool)
        before = torch.zeros_like(edge_mask)
        while not torch.equal(
            before, edge_mask
        ):  # what had to stay may become droppable later, so go round again
            before = edge_mask
            for number in edge_mask.nonzero()[:, 0].tolist():
                trial = edge_mask.clone()
                trial[number] = False
                if int(self.broken(edges, trial[None])[0]) <= self.allowed:
                    edge_mask = trial
        return self._found(edges, edge_mask, "greedy", None)

    def _require_start(self, edges: tuple[Edge, ...]) -> None:
        if not self.works(edges):
            raise refuse(
                f"all {len(edges)} edges together change more than {self.allowed} of {len(self.own)} answers",
                f"circuits that change at most {self.allowed}",
                "allow more, or leave the edges to the model's own gates (static=False)",
            )

    def _found(self, edges: tuple[Edge, ...], edge_mask: Tensor, method: str, ties: int | None) -> Minimal:
        chosen = tuple(edge for edge, here in zip(edges, edge_mask.tolist(), strict=True) if here)
        same = len(self.own) - int(self.broken(edges, edge_mask[None])[0])
        return Minimal(tuple(sorted(chosen)), method, len(edges), ties, same, len(self.own), self.static)

    def broken(self, edges: tuple[Edge, ...], subsets: Tensor) -> Tensor:
        """(n_subsets,) how many prompts each subset breaks; counting stops once it is more than allowed."""
        counts = torch.zeros(len(subsets), dtype=torch.int64)
        order = torch.from_numpy(np.argsort(-self.hard, kind="stable"))
        start, size = 0, FIRST
        while start < len(order):
            alive = (counts <= self.allowed).nonzero()[:, 0]
            if not len(alive):
                break
            self._round(edges, subsets, alive, order[start : start + size], counts)
            start, size = start + size, size * GROWTH
        return counts

    def _round(
        self, edges: tuple[Edge, ...], subsets: Tensor, alive: Tensor, prompts: Tensor, counts: Tensor
    ) -> None:
        rows = prompts.repeat(len(alive))
        which = alive.repeat_interleave(len(prompts))
        held = {"bias": math.inf} if self.static else {}
        answers = self.patched.run(rows, self.patched.keep_edges(edges, subsets[which]), **held)
        broke = (answers != self.own[rows]).any(1)
        counts.index_add_(0, which, broke.long())
        np.add.at(self.hard, rows[broke].numpy(), 1)
