"""The same count of open units in every layer: units of one rank share one logit.

    a layer's units are ranked by their own logits l, and unit k of each layer is decided by
    g_k = mean over layers of l_(k),        l_(1) >= l_(2) >= ...

so the hard gates open the first n ranks of every layer, with one n. The gradient of g goes to the unit's own logit:
what a layer needs lifts a unit in its ranking, and the mean weighs what all layers pay for one unit more.

Query heads share key-value heads, and a config knows one number of each. So they are ranked twice, groups by their best
head and heads inside their group, and what is open is a rectangle: the first groups, and of each as many heads,

    G_i = mean over layers of the best head of the i-th group          R_j = mean of the j-th heads of open groups
    g_i0 = G_i,   g_ij = min(G_i, R_j)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UnsupportedModel, refuse


def shared_logits(logits: Tensor) -> Tensor:
    """What decides each unit's gate.

    Args:
        logits: (L, G, r), of r units in each of G groups of L layers.
    Returns: (L, G, r): as many groups, and as many units of each, are above 0 in every layer.
    """
    inside, within = logits.sort(dim=2, descending=True, stable=True)
    best, order = inside[:, :, 0].sort(dim=1, descending=True, stable=True)
    inside = inside.gather(1, order[:, :, None].expand_as(inside))
    groups, ranked = best.mean(0), inside.mean(0)  # (G,), (G, r)
    opened = max(1, int((groups > 0).sum()))
    shared = torch.minimum(ranked[:opened].mean(0).expand_as(ranked), groups[:, None])
    shared[:, 0] = groups
    by_rank = shared.expand_as(inside)
    by_group = torch.empty_like(logits).scatter_(1, order[:, :, None].expand_as(inside), by_rank)
    return torch.empty_like(logits).scatter_(2, within, by_group)


def require_alike(kind: str, layers: Sequence[tuple[int, int]]) -> None:
    """Raise where layers differ in their units or groups, so that no count of one is that of another."""
    if len(set(layers)) > 1:
        sizes = ", ".join(f"{units} in {groups} groups" for units, groups in dict.fromkeys(layers))
        raise refuse(f"gate.uniform for {kind} of layers that have {sizes}", "layers of one size",
                     "leave gate.uniform out", UnsupportedModel)  # fmt: skip
