"""Random subsets of what a circuit leaves out: is the answer still the model's own while only some of it is closed?

Closing everything else at once lets errors cancel: two edges that work against each other are gone together, and a
circuit without both passes. So in each draw a random share of the removed edges is closed. The circuit and the rest
of them may be open, and the model's gates decide. Told are the draw that changes most answers, and the prompts whose
answer no draw changes.

    live        removed are open edges on no path into the outputs
    necessary   removed are the redundant edges: live, but necessary for no prompt
    smallest    removed is what the search for a smallest subset left out

Price: one forward pass of one row per draw and prompt from which something is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .circuit import Circuit, Edge
from .intervene import Keep, PatchedModel
from .statistics import wilson

DRAWS = 32  # by default; assumed
CLAIMED = ("live", "smallest")  # circuits of which `verify` says that they suffice


@dataclass(frozen=True)
class Subsets:
    """What random subsets of the removed edges did to the answers of N prompts.

    Attributes:
        circuit: which circuit's removed edges these are, see the module docstring.
        removed: edges that were removed, over all prompts.
        all_removed: prompts with the model's own answer while every removed edge is closed.
        same: the same of each draw.
        always: prompts with the model's own answer in every draw.
        n: prompts.
    """

    circuit: str
    removed: int
    all_removed: int
    same: tuple[int, ...]
    always: int
    n: int

    @property
    def worst(self) -> int:
        """Prompts with the model's own answer in the draw that changes most."""
        return min(self.same)

    def as_record(self) -> dict[str, Any]:
        """Counts over all prompts, the worst draw with Wilson's 95 % interval."""
        worst = {"hits": self.worst, "n": self.n, "interval": wilson(self.worst, self.n)}
        names = ("circuit", "removed", "all_removed", "always")
        return {name: getattr(self, name) for name in names} | {"draws": len(self.same), "worst": worst}


def subsets(
    patched: PatchedModel,
    removed: np.ndarray,
    *,
    circuit: str,
    allowed: Sequence[Edge] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> Subsets:
    """Close random subsets of some edges of a traced circuit, prompt by prompt, and compare the answers.

    Args:
        patched: inside its `ready` block.
        removed: (E,) bool, the edges of its circuit that the circuit in question leaves out.
        circuit: the name of that one.
        allowed: edges that may be open on every prompt, besides the prompt's own.
        draws: how many subsets; the share that is closed is drawn anew for each, uniformly.
    """
    rows = np.unique(patched.circuit.prompt[removed])
    unchanged = len(patched.input_ids) - len(rows)
    if not len(rows):
        return Subsets(circuit, 0, unchanged, (unchanged,) * draws, unchanged, unchanged)
    prompts, draw = torch.from_numpy(rows.astype(np.int64)), np.random.default_rng(seed)
    own = patched.run(prompts)

    def same(closed: np.ndarray) -> Tensor:
        return (patched.run(prompts, _without(patched, prompts, closed, allowed)) == own).all(1)

    def subset() -> np.ndarray:
        closed = removed.copy()
        closed[removed] = draw.random(int(removed.sum())) < draw.random()
        return closed

    drawn = torch.stack([same(subset()) for _ in range(draws)])
    counts = tuple((unchanged + drawn.sum(1)).tolist())
    always, together = (unchanged + int(one.sum()) for one in (drawn.all(0), same(removed)))
    return Subsets(circuit, int(removed.sum()), together, counts, always, len(patched.input_ids))


def _without(patched: PatchedModel, prompts: Tensor, closed: np.ndarray, allowed: Sequence[Edge]) -> Keep:
    """On the row of each prompt, its edges that are not `closed`, (E,) bool, may be open, and those of `allowed`."""
    c, row_of = patched.circuit, np.full(len(patched.input_ids), -1)
    row_of[prompts.numpy()] = np.arange(len(prompts))
    everywhere = patched.keep_edges(allowed)

    def keep(part: Tensor) -> dict[int, Tensor]:
        shared, rows = everywhere(part[:1]), row_of[c.prompt] - int(part[0])
        here = ~closed & (row_of[c.prompt] >= 0) & (rows >= 0) & (rows < len(part))
        masks = {layer: mask.repeat(len(part), 1, 1, 1) for layer, mask in shared.items()}
        for layer, mask in masks.items():
            mine = np.flatnonzero(here & (c.layer == layer))
            mask[rows[mine], c.head[mine], c.query[mine], c.key[mine]] = True
        return masks

    return keep


def removed_edges(circuit: Circuit, edges: Collection[Edge], *, keep: bool) -> np.ndarray:
    """(E,) bool: which edges of a circuit are outside `edges`, or, unless these are to be kept, among them."""
    chosen = set(edges)
    places = zip(circuit.layer, circuit.head, circuit.query, circuit.key, strict=True)
    found = np.fromiter((place in chosen for place in places), dtype=bool, count=len(circuit))
    return ~found if keep else found


def joined(parts: Sequence[Subsets]) -> Subsets:
    """One result of several on different prompts, draw by draw."""
    first = parts[0]
    counts = tuple(sum(same) for same in zip(*(part.same for part in parts), strict=True))
    removed, together, always, n = (
        sum(getattr(part, name) for part in parts) for name in ("removed", "all_removed", "always", "n")
    )
    return Subsets(first.circuit, removed, together, counts, always, n)
