"""Keep attention logits within reach of their gates, so that a closed gate can open again.

    R = mean over visible (l, b, h, i, j) of max(0, |s| - limit)^2

A gate reads the logit that also weighs the edge. Left alone, finetuning drives closed logits to -20 and beyond, where
neither the penalty nor the divergence has a gradient (a ratchet), and open ones to +30, where one digit takes all the
mass of a row that should read two. Within the limit a gate stays both decided (sigma(8) = 0.9997) and movable.
Source: after the regulariser of arXiv 2603.14483, mean(exp(s) + exp(-s)), but free inside the limit and quadratic
outside, so that it neither biases live gates nor overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention.eager import attention_logits
from .attention.visibility import Span, Visibility

PAIRS = 2**16  # pairs a row and head that one step looks at, so that memory stays linear in length (assumed)


def logit_excess(
    q: Tensor, k: Tensor, seen: Visibility, *, limit: float, scale: float, softcap: float | None, step: int
) -> tuple[Tensor, Tensor]:
    """Sum of max(0, |s| - limit)^2 over the visible pairs looked at, and how many they are: two scalars.

    Where a call has more than `PAIRS` pairs a head, a window of its queries is looked at, the next one at each step.

    Args:
        q, k: (B, H, T, D) and (B, G, S, D), with a gradient.
        seen: which pairs are visible.
        limit: in nats.
    """
    rows, groups, repeats, queries, keys = seen.shape
    width = max(1, min(queries, PAIRS // keys))
    start = step * width % queries
    window = slice(start, min(start + width, queries))
    logits = attention_logits(q[:, :, window], k, scale=scale, softcap=softcap)
    over = (logits.float().abs() - limit).clamp_min(0).square().unflatten(1, (groups, repeats))
    span = Span(slice(0, rows), slice(0, groups), window, slice(0, keys))
    found = seen.hidden(span)
    if found is not None:
        column, hidden = found
        over = torch.cat([over[..., :column], over[..., column:].masked_fill(hidden, 0.0)], dim=-1)
    return over.sum(), seen.count(span).sum()
