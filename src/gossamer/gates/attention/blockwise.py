"""Gated attention in blocks of plain PyTorch: the same function in memory linear in length.

Letters: B batch row, H query head, G key-value head, R = H / G, T query, S key, D and E widths;
in a tile N = some key-value heads of some rows, M = R * some queries, S the keys they may see.

What. `eager.py` keeps several T x S matrices per head for the backward. Here a tile is computed,
used and forgotten, and the backward computes it again.
How. With m a row's largest logit and r = 1 / sum exp(s - m), softmax(s) = e * r, e = exp(s - m):

    out        = (e z f @ v) * r         f: what `keep` and dropout leave of a weight
    dA         = (dout * r) @ v^T        delta = rowsum(dout * out) * r
    ds         = dA * (e z f + e h f) - e * delta + dm * p (1 - p)
                                         h: the straight-through slope, soft (1 - soft), or 0
    where gates read s - a lse:  delta grows by  a r rowsum(dg),  dg = dA e h f + dm p (1 - p)
    dq, dk, dv = scale * ds @ k,  scale * ds^T @ q,  (e z f)^T @ (dout * r)

Why not the obvious way. torch.softmax, bool tensors and torch.where cost several times what float
arithmetic does on rows of a dozen keys, so r is applied to (T, E) rows, masks are added, and a
gate is a float.
Price. Two matrix products and the draw of the noise again in backward; a layer whose tiles take no
more than `KEPT` elements keeps e, e z f and soft and pays nothing. The arithmetic runs in at least float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .settings import Settings, least_weight
from .tiles import (
    Call,
    Inputs,
    Tile,
    by_group,
    compute,
    keys_of,
    probability_of,
    queries_of,
    spans,
)
from .visibility import Span, Visibility, length
from .workspace import Workspace

KEPT = 1 << 22  # elements of a layer up to which tiles are kept for backward: up to 48 MB


class _Blockwise(torch.autograd.Function):
    """out and expected_open of `gated_attention`; gradients for q, k, v and sinks."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, call: Call
    ) -> tuple[Tensor, Tensor]:
        ctx.call = call
        ctx.dtypes = [None if x is None else x.dtype for x in (q, k, v, sinks)]
        inputs, (rows, groups, per_group, queries, keys) = Inputs.of(q, k, v, sinks), call.visibility.shape
        out = inputs.q.new_empty(*inputs.q.shape[:3], v.shape[-1])
        count = call.settings.count
        opened = inputs.q.new_full((rows * groups, per_group), 0.0 if count else torch.nan)
        keeps = call.wants_grad and opened.numel() * queries * keys <= KEPT
        asked, workspace = call._replace(wants_grad=keeps), Workspace(inputs.q)
        kept: list[Tensor | None] = []
        for span in spans(call.visibility):
            tile, heads = compute(inputs, span, asked, workspace), span.heads(groups)
            part = out[heads, :, span.queries]
            part.copy_(torch.bmm(tile.gated, keys_of(inputs.v, span, call)).mul_(tile.r).view(part.shape))
            if count:
                opened[heads] += _count(tile, span, call.visibility, workspace)
            if keeps:
                kept += tile
                workspace.tear_off("e", "gated", "soft", "probability")
        ctx.save_for_backward(*inputs, out, *kept)
        ctx.set_materialize_grads(False)
        shape = rows, groups * per_group
        return out.view(*shape, queries, -1).to(q.dtype), opened.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor | None, d_open: Tensor | None):  # type: ignore[override]
        call: Call = ctx.call
        q, k, v, sinks, out, *kept = ctx.saved_tensors
        inputs, (rows, groups, per_group, _, _) = Inputs(q, k, v, sinks), call.visibility.shape
        d_out = torch.zeros_like(out) if d_out is None else by_group(d_out.to(out.dtype), groups)
        delta = (d_out * out).sum(-1, keepdim=True)  # (B * G, R, T, 1), not yet times r
        d_sinks = None if sinks is None else torch.zeros_like(sinks)
        grads = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), d_sinks
        if d_open is not None:
            d_open = by_group(d_open, groups)[..., None, None].expand_as(delta)
        width, workspace = len(Tile._fields), Workspace(q)
        for i, span in enumerate(spans(call.visibility)):
            saved = kept[i * width : (i + 1) * width]
            tile = Tile(*saved) if saved else compute(inputs, span, call, workspace)
            _backward_tile(tile, span, inputs, (d_out, d_open, delta), grads, call, workspace)
        dq, dk, dv, _ = grads
        back = (
            dq.view(rows, groups * per_group, *q.shape[2:]),
            *(x.unflatten(0, (rows, groups)) for x in (dk, dv)),
        )
        return *map(_cast, (*back, d_sinks), ctx.dtypes), None


def _cast(x: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    return x if x is None or dtype is None else x.to(dtype)


def _count(tile: Tile, span: Span, visibility: Visibility, workspace: Workspace) -> Tensor:
    """Expected open edges of one tile, (N, R); with open gates its visible pairs."""
    probability = probability_of(tile, workspace)
    if probability is None:
        return visibility.count(span).flatten(0, 1)
    return probability.view(probability.shape[0], visibility.shape[2], -1).sum(-1)


def _logit_gradient(
    tile: Tile, d_kept: Tensor, delta: Tensor, d_open: Tensor | None, least: float, workspace: Workspace
) -> Tensor:
    """ds = dA * (e z f + e h f) - e * delta + dm * p (1 - p), by the raw logit where a cap was applied.

    For gates that read the logit alone; `_row_gradient` is for the others.

    Args:
        d_kept: dA, (N, M, S), overwritten; d_open: dm, (N, M, 1), or None; least: the least h.
    """
    through = tile.gated
    if tile.soft is not None:
        slope = _slope(tile.soft, least, workspace)
        if tile.factor is not None:
            slope.mul_(tile.factor)
        through = torch.addcmul(tile.gated, tile.e, slope, out=slope)
    ds = d_kept.mul_(through).addcmul_(tile.e, delta, value=-1)
    probability = None if d_open is None else probability_of(tile, workspace)
    if probability is not None:
        into = workspace.buffer("rest", tuple(ds.shape))
        ds.add_(torch.ops.aten.sigmoid_backward.grad_input(d_open, probability, grad_input=into))
    return ds if tile.cap_slope is None else ds.mul_(tile.cap_slope)


def _slope(soft: Tensor, least: float, workspace: Workspace) -> Tensor:
    """h = max(soft (1 - soft), least), in the workspace's buffer `rest`."""
    slope = torch.addcmul(soft, soft, soft, value=-1, out=workspace.buffer("rest", tuple(soft.shape)))
    return slope.clamp_min_(least) if least else slope


def _row_gradient(
    tile: Tile, d_kept: Tensor, delta: Tensor, d_open: Tensor | None, settings: Settings, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    """ds where gates read s - a lse, and a rowsum(dg), (N, M, 1), which the sinks' gradient needs too.

    Args: as of `_logit_gradient`.
    """
    e, dg = tile.e, _into_gates(tile, d_kept, d_open, settings.least_slope, workspace)
    row = torch.zeros_like(delta) if dg is None else dg.sum(-1, keepdim=True).mul_(settings.lse_share)
    ds = d_kept.mul_(tile.gated)
    ds = (ds if dg is None else ds.add_(dg)).addcmul_(e, row * tile.r + delta, value=-1)
    return (ds if tile.cap_slope is None else ds.mul_(tile.cap_slope)), row


def _into_gates(
    tile: Tile, d_kept: Tensor, d_open: Tensor | None, least: float, workspace: Workspace
) -> Tensor | None:
    """dg = dA e h f + dm p (1 - p), or None where nothing passes to what gates read, as where all are open."""
    shape, dg = tuple(tile.e.shape), None
    if tile.soft is not None:
        slope = _slope(tile.soft, least, workspace).mul_(tile.e)
        if tile.factor is not None:
            slope.mul_(tile.factor)
        dg = torch.mul(d_kept, slope, out=workspace.buffer("dg", shape))
    probability = None if d_open is None else probability_of(tile, workspace)
    if probability is None:
        return dg
    into = workspace.buffer("rest", shape)
    counted = torch.ops.aten.sigmoid_backward.grad_input(d_open, probability, grad_input=into)
    return counted if dg is None else dg.add_(counted)


def _backward_tile(
    tile: Tile,
    span: Span,
    inputs: Inputs,
    upstream: tuple[Tensor, Tensor | None, Tensor],
    grads: tuple[Tensor, Tensor, Tensor, Tensor | None],
    call: Call,
    workspace: Workspace,
) -> None:
    """Write dq of one tile and add what it gives to dk, dv and the sinks."""
    q, k, v, _ = inputs
    dq, dk, dv, d_sinks = grads
    groups, per_group = call.visibility.shape[1:3]
    d_out, delta = (queries_of(x, span, call) for x in (upstream[0], upstream[2]))
    d_open = None if upstream[1] is None else queries_of(upstream[1], span, call)
    d_rows = d_out * tile.r  # (N, M, E)
    buffer = workspace.buffer("ds", tuple(tile.e.shape))
    d_kept = torch.bmm(d_rows, keys_of(v, span, call).transpose(1, 2), out=buffer)
    if call.settings.lse_share:
        ds, row = _row_gradient(tile, d_kept, delta * tile.r, d_open, call.settings, workspace)
        delta = delta + row
    else:
        ds = _logit_gradient(tile, d_kept, delta * tile.r, d_open, call.settings.least_slope, workspace)
    part = dq[span.heads(groups), :, span.queries]
    part.copy_(torch.bmm(ds, keys_of(k, span, call)).mul_(call.settings.scale).view(part.shape))
    query, scale = queries_of(q, span, call), call.settings.scale
    keys_of(dk, span, call).baddbmm_(ds.transpose(1, 2), query, alpha=scale)
    keys_of(dv, span, call).baddbmm_(tile.gated.transpose(1, 2), d_rows)
    if d_sinks is not None and tile.sink is not None:
        shape = length(span.rows), length(span.groups), per_group, -1
        shares = (tile.sink * delta).view(shape).sum(dim=(0, -1))
        d_sinks.view(groups, per_group)[span.groups] -= shares


def _is_one_plain_query(q: Tensor, call: Call) -> bool:
    """Whether `_one_query` can do it: one query, hard gates, nothing to differentiate, count or drop."""
    settings = call.settings
    rest = (settings.noise, settings.softcap, settings.sinks, settings.keep)
    asked = call.wants_grad or settings.count or settings.dropout
    return q.shape[2] == 1 and not asked and all(x is None for x in rest)


def one_query(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    bias: float,
    hidden: Tensor | None = None,
    lse_share: float = 0.0,
) -> Tensor:
    """Hard gates on one query per row and head, as generation with a cache asks it: a row of keys needs no tiles.

    Args:
        q, k, v: (B, H, 1, D), (B, G, S, D), (B, G, S, E), all float32 or all float64.
        hidden: bool, broadcastable to (B, G, R, S), True where no edge may exist, or None.
    Returns: (B, H, 1, E).
    """
    rows, heads, _, width = q.shape
    groups, keys = k.shape[1:3]
    k, v = k.reshape(-1, keys, width), v.reshape(rows * groups, keys, -1)
    q = q.reshape(rows * groups, -1, width)
    s = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    if hidden is not None:
        s.view(rows, groups, -1, keys).masked_fill_(hidden, -torch.inf)
    weights = torch.softmax(s, -1)
    if hidden is not None:
        weights = weights.nan_to_num_(0.0)  # a row that sees nothing
    if lse_share == 1:
        opened = torch.gt(weights, least_weight(bias), out=s)
    else:
        if lse_share:
            s = s.sub_(torch.logsumexp(s, -1, keepdim=True).nan_to_num_(0.0).mul_(lse_share))
        # The same as s + bias > 0, as a sum of two floats is rounded to zero only where it is zero.
        opened = torch.gt(s, -bias, out=s)
    weights = weights.mul_(opened)
    return torch.bmm(weights, v).view(rows, heads, 1, -1)


def _one_query(q: Tensor, k: Tensor, v: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """`one_query` with whatever hides keys; `expected_open` is not counted, its place holds NaN."""
    settings, (rows, groups, _, _, keys) = call.settings, call.visibility.shape
    found = call.visibility.hidden(Span(slice(0, rows), slice(0, groups), slice(0, 1), slice(0, keys)))
    hidden = None
    if found is not None:
        column, hidden = found
        hidden = torch.nn.functional.pad(hidden, (column, 0))
        hidden = hidden.view(*(1,) * (5 - hidden.dim()), *hidden.shape)[..., 0, :]
    work = torch.promote_types(q.dtype, torch.float32)
    some = (x.to(work) for x in (q, k, v))
    given = {"scale": settings.scale, "bias": settings.bias, "lse_share": settings.lse_share}
    out = one_query(*some, **given, hidden=hidden)
    return out.to(q.dtype), out.new_full(q.shape[:2], torch.nan)


def gated_attention_blockwise(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The specification in linear memory; `gated_attention` documents the arguments."""
    settings.refuse_eager_only("blockwise")
    needs = any(x is not None and x.requires_grad for x in (q, k, v, settings.sinks))
    call = Call(settings, settings.visibility(q, k), needs and torch.is_grad_enabled())
    if _is_one_plain_query(q, call):
        return _one_query(q, k, v, call)
    return _Blockwise.apply(q, k, v, settings.sinks, call)  # type: ignore[return-value]
