"""One tile of gated attention: its logits, gates and weights.

Letters: B batch row, H query head, G key-value head, R = H / G, T query, S key, D width;
in a tile N = some key-value heads of some rows, M = R * some queries, S the keys they may see.

With m a row's largest logit and r = 1 / sum exp(s - m), softmax(s) = e * r with e = exp(s - m).
torch.softmax, bool tensors and torch.where cost several times what float arithmetic does on rows
of a dozen keys (measured), so r stays apart, for the caller to apply to (M, E) rows; masks are
added; a gate is a float.
Price. A tile of `TILE` elements holds at most six matrices of that size, in at least float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..noise import DROPOUT, GATES, NoiseKey, edge_uniform
from .settings import Settings
from .visibility import Span, Visibility, five_axes, length, narrow

TILE = 1 << 18  # elements of one tile; assumed: a few such matrices stay near the L2 cache

LOG2_E = 1.4426950408889634


class Call(NamedTuple):
    """What does not change from tile to tile."""

    settings: Settings
    visibility: Visibility
    wants_grad: bool


class Inputs(NamedTuple):
    """The differentiable inputs, in the dtype of the arithmetic."""

    q: Tensor  # (B, H, T, D)
    k: Tensor  # (B, G, S, D)
    v: Tensor  # (B, G, S, E)
    sinks: Tensor | None  # (H,)


class Tile(NamedTuple):
    """A tile, computed; matrices are (N, M, S), columns (N, M, 1)."""

    e: Tensor  # exp(s - m)
    r: Tensor  # column: 1 / (sum of e, sinks included)
    gated: Tensor  # e z f
    slope: Tensor | None  # t; None where it is 1 or where no backward is wanted
    probability: Tensor | None  # p; None where every gate is open
    cap_slope: Tensor | None  # derivative of the capped logit by the raw one
    sink: Tensor | None  # column: the sink's share of the softmax


def spans(visibility: Visibility) -> list[Span]:
    """Cut (B, G, T) into spans of about `TILE` elements: queries first, then heads, then rows."""
    rows, groups, per_group, queries, keys = visibility.shape
    line = max(1, per_group * keys)
    n_queries = max(1, min(queries, TILE // line))
    if visibility.causal or visibility.window is not None:
        # Short spans leave out more hidden keys: with an eighth of the queries, 7 pairs in 16.
        n_queries = min(n_queries, max(32, queries // 8))
    n_groups = max(1, min(groups, TILE // (line * n_queries)))
    n_rows = max(1, min(rows, TILE // (line * n_queries * n_groups))) if n_groups == groups else 1
    return [
        Span(rows_, groups_, queries_, visibility.key_range(queries_.start, queries_.stop))
        for rows_ in _cuts(rows, n_rows)
        for groups_ in _cuts(groups, n_groups)
        for queries_ in _cuts(queries, n_queries)
    ]


def _cuts(length: int, step: int) -> Iterator[slice]:
    """0 .. length in slices of at most `step`."""
    return (slice(i, min(i + step, length)) for i in range(0, length, step))


def queries_of(x: Tensor, groups: int, span: Span) -> Tensor:
    """The queries' side of a tile: (B, H, T, D) -> (N, M, D)."""
    part = x.unflatten(1, (groups, -1))[span.rows, span.groups, :, span.queries]
    return part.reshape(-1, part.shape[2] * part.shape[3], part.shape[4])


def keys_of(x: Tensor, span: Span) -> Tensor:
    """The keys' side of a tile: (B, G, S, D) -> (N, S, D)."""
    return x[span.rows, span.groups, span.keys].flatten(0, 1)


def _uniform(key: NoiseKey, stream: int, span: Span, call: Call, like: Tensor) -> Tensor:
    """The noise of one tile, shaped and typed like `like`."""
    _, groups, per_group, _, _ = call.visibility.shape
    rows, heads, queries = (
        torch.arange(start, stop, device=like.device)
        for start, stop in (
            (span.rows.start, span.rows.stop),
            (span.groups.start * per_group, span.groups.stop * per_group),
            (span.queries.start, span.queries.stop),
        )
    )
    drawn = edge_uniform(
        key,
        heads=(rows[:, None] * (groups * per_group) + heads).flatten(),
        queries=queries,
        n_keys=length(span.keys),
        first_key=span.keys.start,
        stream=stream,
    )
    return drawn.view(like.shape).to(like.dtype)


def logits_of(q: Tensor, k: Tensor, span: Span, call: Call) -> tuple[Tensor, Tensor | None]:
    """s of one tile, -inf where hidden, and the derivative of the cap; q, k are the tile's own."""
    scale, cap = call.settings.scale, call.settings.softcap
    s = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    cap_slope = None
    if cap is not None:
        s = s.div_(cap).tanh_()
        cap_slope = 1 - s * s if call.wants_grad else None
        s = s.mul_(cap)
    found = call.visibility.hidden(span)
    if found is not None:
        column, hidden = found
        wall = torch.zeros(hidden.shape, dtype=s.dtype, device=s.device)
        wall.masked_fill_(hidden, -torch.inf)
        shape = length(span.rows), length(span.groups), -1, length(span.queries), s.shape[-1]
        s.view(shape)[..., column:] += wall
    return s, cap_slope


def _gates(s: Tensor, span: Span, call: Call) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """z as 0. and 1., p, and z + h; all None where the bias opens every gate."""
    bias, noise = call.settings.bias, call.settings.noise
    if bias == torch.inf:
        return None, None, None
    g = s + bias if bias else s
    p = torch.sigmoid(g) if call.settings.count or call.wants_grad else None
    noisy = g
    if noise is not None:
        noisy = _uniform(noise, GATES, span, call, s).logit_().add_(g)
    z = torch.gt(noisy, 0, out=torch.empty_like(s))
    if not call.wants_grad:
        return z, p, None
    soft = p if noise is None else torch.sigmoid(noisy)
    assert soft is not None
    return z, p, torch.addcmul(z, soft, 1 - soft)


def _factor(span: Span, call: Call, like: Tensor) -> Tensor | None:
    """f, what `keep` and dropout leave of a gated weight, or None for all of it."""
    settings, factor = call.settings, None
    if settings.keep is not None:
        _, groups, per_group, _, _ = call.visibility.shape
        keep = narrow(five_axes(settings.keep, groups * per_group, groups), span).to(like.dtype)
        shape = length(span.rows), length(span.groups), per_group, length(span.queries), like.shape[-1]
        factor = keep.expand(shape).reshape(like.shape)
    if settings.dropout:
        assert settings.dropout_key is not None
        u = _uniform(settings.dropout_key, DROPOUT, span, call, like)
        rest = torch.ge(u, settings.dropout, out=u).div_(1 - settings.dropout)
        factor = rest if factor is None else rest * factor
    return factor


def row_scale(s: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Turn s into e = exp(s - m) in place; return it with r = 1 / sum and the sinks' share."""
    top = s.amax(-1, keepdim=True)
    if sinks is not None:
        top = torch.maximum(top, sinks)
    # A row that sees nothing has m = -inf; with any finite m its e is 0, as it should be.
    top.clamp_(min=torch.finfo(s.dtype).min)
    # exp takes 30 times as long where it underflows (torch 2.13, measured); exp2 does not.
    e = s.sub_(top).mul_(LOG2_E).exp2_()
    total = torch.mm(e.view(-1, e.shape[-1]), e.new_ones(e.shape[-1], 1)).view(top.shape)
    sink = None if sinks is None else torch.exp(sinks - top)
    if sink is not None:
        total += sink
    # A row that sees a key sums to at least exp(0), so this touches only rows that see none.
    r = total.clamp_(min=0.5).reciprocal_()
    return e, r, None if sink is None else sink * r


def compute(inputs: Inputs, span: Span, call: Call) -> Tile:
    """All that is known of one tile but its product with the values."""
    q = queries_of(inputs.q, call.visibility.shape[1], span)
    s, cap_slope = logits_of(q, keys_of(inputs.k, span), span, call)
    z, p, slope = _gates(s, span, call)
    e, r, sink = row_scale(s, sinks_of(inputs.sinks, span, call))
    gated = e if z is None else z.mul_(e)
    factor = _factor(span, call, e)
    if factor is not None:
        gated = gated * factor
        slope = factor if slope is None else slope.mul_(factor)
    return Tile(e, r, gated, slope if call.wants_grad else None, p, cap_slope, sink)


def sinks_of(sinks: Tensor | None, span: Span, call: Call) -> Tensor | None:
    """The sinks of a tile's rows: (H,) -> (N, M, 1)."""
    if sinks is None:
        return None
    _, groups, per_group, _, _ = call.visibility.shape
    some = sinks.view(1, groups, per_group, 1)[:, span.groups]
    some = some.expand(length(span.rows), -1, -1, length(span.queries))
    return some.flatten(2, 3).flatten(0, 1)[..., None]
