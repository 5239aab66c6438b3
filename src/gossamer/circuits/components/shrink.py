"""A component circuit from which no edge can go: exact elimination inside a circuit that attribution found.

    C <- C without e,  while F(C without e) >= share for some e        the least harmful edges first

Attribution ranks every edge once, in the whole model; inside a circuit an edge matters more or less than there, as what
stood in for it, or worked against it, is gone. So each round measures what every edge that is left costs *now*, then
goes through those that could go alone, the cheapest first, and drops what still can, a quarter of the circuit at most.
What is returned is minimal in this sense alone: no single edge can go. Another circuit may be smaller.

A round costs one or two forward passes an edge: for circuits of hundreds of edges in small models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import refuse
from .curve import Ablator

PART = 0.25  # of a circuit's edges that one round may drop


def shrink(ablator: Ablator, edge_mask: Tensor, *, share: float = 0.9) -> Tensor:
    """(W, R) bool: edges of `edge_mask` that still explain `share` of the effect, none of which can go alone.

    Args:
        ablator: the model, its prompts and what stands in for an ablated edge.
        edge_mask: (W, R) bool, a circuit with F of at least `share`; its dead ends go first.
    Raises: `GossamerError` if F of `edge_mask` is below `share`, or if the model does not know the task.
    """
    now = ablator.components.graph.prune(edge_mask)
    if (start := ablator.faithfulness(now)) < share:
        raise refuse(
            f"a circuit with F = {start:.3f}",
            f"{share:g} or more, so that something can go",
            "keep more edges",
        )
    while True:
        edges = now.nonzero()
        left = torch.tensor([ablator.faithfulness(without(ablator, now, edge[None])) for edge in edges])
        order = left.argsort(descending=True)
        could_go = edges[order[left[order] >= share]]
        if not len(could_go):
            return now
        now = _drop(ablator, now, could_go, share, most=max(1, int(PART * len(edges))))


def _drop(ablator: Ablator, edge_mask: Tensor, edges: Tensor, share: float, most: int) -> Tensor:
    """`edge_mask` without those of `edges` that can go one after the other, `most` of them; blocks double and halve."""
    first, size, dropped = 0, most, 0
    while first < len(edges) and dropped < most:
        size = min(size, most - dropped, len(edges) - first)
        fewer = without(ablator, edge_mask, edges[first : first + size])
        if ablator.faithfulness(fewer) >= share:
            edge_mask, first, dropped, size = fewer, first + size, dropped + size, 2 * size
        elif size > 1:
            size //= 2
        else:
            first += 1
    return edge_mask


def without(ablator: Ablator, edge_mask: Tensor, edges: Tensor) -> Tensor:
    """(W, R) bool: `edge_mask` without `edges`, (n, 2) of writer and reader, and without the dead ends that remain."""
    fewer = edge_mask.clone()
    fewer[edges[:, 0], edges[:, 1]] = False
    return ablator.components.graph.prune(fewer)
