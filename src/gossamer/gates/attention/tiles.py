"""One tile of gated attention: its logits, gates and weights.

Letters: B batch row, H query head, G key-value head, R = H / G, T query, S key, D width;
in a tile N = some key-value heads of some rows, M = R * some queries, S the keys they may see.

With m a row's largest logit, e = exp(s - m), r = 1 / sum e and k = exp(-c - m):

    softmax(s) = e r        p = sigma(s + c) = e / (e + k)
    sigma(s + c + logit(u)) = e u / (e u + k (1 - u))

so one exponential does for the softmax, the open probability and the noisy gate. A gate that reads
s - a lse(s) changes k alone: lse = m - log r, so k = exp(-c - (1 - a) m - a log r). Where the exponent is so
far from 0 that k would leave the range of a float (`REACH`), p and 1 - p stand for e and k.
Why not the obvious way. Smaller tiles would fit the L2 cache, but a tile costs about 300 calls from Python, nearly
1 ms. torch.softmax, bool tensors and torch.where cost several times what float arithmetic does on rows of a dozen
keys, so r stays apart, for the caller to apply to (M, E) rows; masks are added; a gate is a float.
Price. A tile of `TILE` elements holds at most eight matrices of that size, in at least float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..noise import DROPOUT, GATES, NoiseKey, edge_uniform
from .settings import Settings
from .visibility import Span, Visibility, five_axes, length, narrow
from .workspace import Workspace

TILE = 1 << 18  # elements of one tile; measured: as fast as 2**19 and 2**20, and 2**16 is a third slower
WORTH = 1 << 16  # elements below which a tile is not split to leave out hidden keys
REACH = 40.0  # nats; exp(40) = 2e17, so that squares of e / k stay inside float32

LOG2_E = 1.4426950408889634


class Call(NamedTuple):
    """What does not change from tile to tile."""

    settings: Settings
    visibility: Visibility
    wants_grad: bool


class Inputs(NamedTuple):
    """The differentiable inputs, in the dtype of the arithmetic."""

    q: Tensor  # (B * G, R, T, D)
    k: Tensor  # (B * G, S, D)
    v: Tensor  # (B * G, S, E)
    sinks: Tensor | None  # (H,)

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None) -> Inputs:
        """Lay out (B, H, T, D), (B, G, S, D) and (B, G, S, E) for tiles."""
        work, groups = torch.promote_types(q.dtype, torch.float32), k.shape[1]
        k, v = (x.to(work).contiguous().flatten(0, 1) for x in (k, v))
        return cls(by_group(q.to(work), groups), k, v, None if sinks is None else sinks.to(work))


class Tile(NamedTuple):
    """A tile, computed; matrices are (N, M, S), columns (N, M, 1)."""

    e: Tensor  # exp(s - m)
    r: Tensor  # column: 1 / (sum of e, sinks included)
    gated: Tensor  # e z f
    soft: Tensor | None  # sigma(g + n); None where every gate is open or passes no gradient straight through
    k: (
        Tensor | None
    )  # column: 1 / (e at which a gate is even); None where every gate is open or it would leave its range
    probability: Tensor | None  # p, where k would leave its range
    factor: Tensor | None  # f, what `keep` and dropout leave of a weight; None for all of it
    cap_slope: Tensor | None  # derivative of the capped logit by the raw one
    sink: Tensor | None  # column: the sink's share of the softmax


def spans(visibility: Visibility) -> list[Span]:
    """Cut (B, G, T) into spans of about `TILE` elements: queries first, then heads, then rows."""
    rows, groups, per_group, queries, keys = visibility.shape
    line = max(1, per_group * keys)
    n_queries = max(1, min(queries, TILE // line))
    if visibility.causal or visibility.window is not None:
        # Short spans leave out more hidden keys, with an eighth of the queries 7 pairs in 16, but do not pay
        # for themselves where all heads together make a small tile.
        n_queries = min(n_queries, max(32, queries // 8, WORTH // (rows * groups * line)))
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


def by_group(x: Tensor, groups: int) -> Tensor:
    """What belongs to queries, (B, H, T, D), contiguous as (B * G, R, T, D)."""
    return x.contiguous().view(x.shape[0] * groups, x.shape[1] // groups, *x.shape[2:])


def queries_of(x: Tensor, span: Span, call: Call) -> Tensor:
    """The queries' side of a tile: (B * G, R, T, D) -> (N, M, D)."""
    part = x[span.heads(call.visibility.shape[1]), :, span.queries]
    return part.reshape(part.shape[0], -1, part.shape[3])


def keys_of(x: Tensor, span: Span, call: Call) -> Tensor:
    """The keys' side of a tile: (B * G, S, D) -> (N, S, D)."""
    return x[span.heads(call.visibility.shape[1]), span.keys]


def _uniform(key: NoiseKey, stream: int, span: Span, call: Call, out: Tensor) -> Tensor:
    """The noise of one tile, into `out`, (N, M, S)."""
    _, groups, per_group, _, _ = call.visibility.shape
    heads, n_keys = span.heads(groups), length(span.keys)
    edge_uniform(
        key,
        heads=range(heads.start * per_group, heads.stop * per_group),
        queries=range(span.queries.start, span.queries.stop),
        n_keys=n_keys,
        first_key=span.keys.start,
        stream=stream,
        out=out.view(-1, length(span.queries), n_keys),
    )
    return out


def _wall(span: Span, call: Call, workspace: Workspace, dtype: torch.dtype) -> tuple[int, Tensor] | None:
    """`Visibility.hidden` to be added to logits: -inf where hidden, else 0."""
    seen, key = call.visibility, None
    if seen.is_plain and seen.causal:
        # Most tiles hide the same triangle.
        column = seen.first_hidden(span)
        here = span.queries.start + seen.offset - span.keys.start - column
        key = (length(span.queries), length(span.keys) - column, here)
        if key in workspace.walls:
            return column, workspace.walls[key]
    found = seen.hidden(span)
    if found is None:
        return None
    column, hidden = found
    wall = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
    if key is not None:
        workspace.walls[key] = wall
    return column, wall


def logits_of(inputs: Inputs, span: Span, call: Call, workspace: Workspace) -> tuple[Tensor, Tensor | None]:
    """s of one tile, -inf where hidden, and the derivative of the cap."""
    scale, cap = call.settings.scale, call.settings.softcap
    q, k = queries_of(inputs.q, span, call), keys_of(inputs.k, span, call)
    s = workspace.buffer("e", (*q.shape[:2], k.shape[1]))
    torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale, out=s)
    cap_slope = None
    if cap is not None:
        s = s.div_(cap).tanh_()
        cap_slope = 1 - s * s if call.wants_grad else None
        s = s.mul_(cap)
    found = _wall(span, call, workspace, s.dtype)
    if found is not None:
        column, wall = found
        shape = length(span.rows), length(span.groups), -1, length(span.queries), s.shape[-1]
        s.view(shape)[..., column:] += wall
    return s, cap_slope


def row_top(s: Tensor, sinks: Tensor | None) -> Tensor:
    """m, a finite (N, M, 1): each row's largest logit, sinks included; 0 where a row sees nothing."""
    top = s.amax(-1, keepdim=True)
    if sinks is not None:
        top = torch.maximum(top, sinks)
    return top.masked_fill_(top == -torch.inf, 0.0)


def row_scale(s: Tensor, top: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Turn s into e = exp(s - m) in place; return it with r = 1 / sum and the sinks' share."""
    # exp takes 2 to 30 times as long as exp2, the more where it underflows (torch 2.13, measured).
    e = s.sub_(top).mul_(LOG2_E).exp2_()
    total = e.sum(-1, keepdim=True)
    sink = None if sinks is None else torch.exp(sinks - top)
    if sink is not None:
        total += sink
    # A row that sees a key sums to at least exp(0), so this touches only rows that see none.
    r = total.clamp_(min=0.5).reciprocal_()
    return e, r, None if sink is None else sink * r


def probability_of(tile: Tile, workspace: Workspace, buffer: str = "p") -> Tensor | None:
    """p, (N, M, S), in the buffer of that name; None where every gate is open."""
    if tile.k is None:
        return tile.probability
    p = torch.add(tile.e, tile.k, out=workspace.buffer(buffer, tuple(tile.e.shape)))
    return torch.div(tile.e, p, out=p)


def _soften(opening: Tensor, closing: Tensor, u: Tensor, workspace: Workspace) -> Tensor:
    """sigma(g + logit(u)) for odds of opening : closing = exp(g) : 1, in place on u."""
    # Two passes, since torch vectorises no addcmul of two columns.
    rest = torch.sub(u.new_ones(()), u, out=workspace.buffer("rest", tuple(u.shape))).mul_(closing)
    opened = u.mul_(opening)
    return opened.div_(rest.add_(opened))


def _closing(s: Tensor, top: Tensor, bias: float, workspace: Workspace) -> tuple[Tensor, Tensor | None]:
    """What makes exp(g) : 1 of a tile whose logits are still s: k for e, and None; or 1 - p for p, and p.

    On a GPU this waits for it, once a tile.
    """
    reach = top + bias
    if bool((reach.abs() <= REACH).all()):
        return torch.exp(-reach), None
    return _both_sides(torch.add(s, bias, out=workspace.buffer("probability", tuple(s.shape))), workspace)


def _both_sides(g: Tensor, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """1 - p and p of g, the latter in its place."""
    closing = torch.neg(g, out=workspace.buffer("closing", tuple(g.shape))).sigmoid_()
    return closing, g.sigmoid_()


def _closing_by_row(
    e: Tensor, r: Tensor, top: Tensor, settings: Settings, workspace: Workspace
) -> tuple[Tensor, Tensor | None]:
    """`_closing` where gates read their row's log-sum-exp, m - log r, too: it is known once e is."""
    share = settings.lse_share
    reach = torch.log(r).mul_(share).add_(top, alpha=1 - share).add_(settings.bias)
    if bool((reach.abs() <= REACH).all()):
        return torch.exp(-reach), None
    g = torch.log(e, out=workspace.buffer("probability", tuple(e.shape))).add_(reach)
    return _both_sides(g, workspace)


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
        u = _uniform(settings.dropout_key, DROPOUT, span, call, torch.empty_like(like))
        rest = torch.ge(u, settings.dropout, out=u).div_(1 - settings.dropout)
        factor = rest if factor is None else rest * factor
    return factor


def compute(inputs: Inputs, span: Span, call: Call, workspace: Workspace) -> Tile:
    """All that is known of one tile but its product with the values; valid until the workspace's next one."""
    settings, sinks = call.settings, sinks_of(inputs.sinks, span, call)
    s, cap_slope = logits_of(inputs, span, call, workspace)
    shape, top, noise = tuple(s.shape), row_top(s, sinks), settings.noise
    z = k = closing = p = soft = None
    gates, by_row = settings.bias < torch.inf, settings.lse_share > 0
    if gates and not by_row and (noise is not None or settings.count or call.wants_grad):
        closing, p = _closing(s, top, settings.bias, workspace)
        k = closing if p is None else None
    if gates and not by_row and noise is None:
        # The same as s + bias > 0, as a sum of two floats is rounded to zero only where it is zero.
        z = torch.gt(s, -settings.bias, out=workspace.buffer("gated", shape))
    e, r, sink = row_scale(s, top, sinks)
    if gates and by_row:
        closing, p = _closing_by_row(e, r, top, settings, workspace)
        k = closing if p is None else None
        if noise is None:
            opening, even = (e, closing) if p is None else (p, p.new_full((), 0.5))
            z = torch.gt(opening, even, out=workspace.buffer("gated", shape))
    if noise is not None and closing is not None:
        u = _uniform(noise, GATES, span, call, workspace.buffer("soft", shape))
        soft = _soften(e if p is None else p, closing, u, workspace)
        z = torch.gt(soft, 0.5, out=workspace.buffer("gated", shape))
    gated = e if z is None else z.mul_(e)
    factor = _factor(span, call, e)
    if factor is not None:
        gated = (
            torch.mul(e, factor, out=workspace.buffer("gated", shape)) if z is None else gated.mul_(factor)
        )
    tile = Tile(e, r, gated, soft if settings.straight_through else None, k, p, factor, cap_slope, sink)
    if gates and noise is None and call.wants_grad and settings.straight_through:
        tile = tile._replace(soft=probability_of(tile, workspace, "soft"))
    return tile


def sinks_of(sinks: Tensor | None, span: Span, call: Call) -> Tensor | None:
    """The sinks of a tile's rows: (H,) -> (N, M, 1)."""
    if sinks is None:
        return None
    _, groups, per_group, _, _ = call.visibility.shape
    some = sinks.view(1, groups, per_group, 1)[:, span.groups]
    some = some.expand(length(span.rows), -1, -1, length(span.queries))
    return some.flatten(2, 3).flatten(0, 1)[..., None]
