"""Gated attention in plain PyTorch: the specification that every other implementation is held to.

Letters: B batch row, H query head, G key-value head, T query, S key, D query/key width, E value
width.

    s   = scale * q @ k^T,  softcap * tanh(s / softcap) where the model caps    (B, H, T, S)
    g   = s - a lse + bias              lse over visible keys and sinks; a = 0: the logit, a = 1: the log weight
    z   = hard gate of g                                                        0 or 1
    out = (softmax(s) * z) @ v          over visible keys; a closed edge's mass is lost
    m   = sum over visible (t, s) of sigma(g)            (B, H) expected open edges

Both results are differentiable. Softmax and gate run in at least float32; weights are cast back,
as the eager attention of transformers does, so that open gates (bias = +inf) repeat the base model
bit for bit in float32.
Price: several (T, S) matrices per head, kept for backward.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..gate import hard_gate
from ..noise import DROPOUT, NoiseKey, layer_uniform
from .settings import Settings


def repeat_heads(x: Tensor, groups: int) -> Tensor:
    """Repeat each key-value head for its query heads: (B, G, S, D) -> (B, G * groups, S, D)."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def attention_logits(q: Tensor, k: Tensor, *, scale: float, softcap: float | None) -> Tensor:
    """s, the scaled and possibly capped logits (B, H, T, S), before any mask."""
    logits = torch.matmul(q, repeat_heads(k, q.shape[1] // k.shape[1]).transpose(-1, -2)) * scale
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def softmax_scores(logits: Tensor, visible: Tensor | None, sinks: Tensor | None) -> Tensor:
    """What the softmax runs over, (B, H, T, S) and one column more for sinks: -inf where hidden.

    A row without one visible key would be 0 / 0 there. It is all zeros, since any finite numbers do: its weights
    end as zeros.
    """
    scores = logits if visible is None else logits.masked_fill(~visible, -torch.inf)
    if sinks is not None:
        column = sinks.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)
        return torch.cat([scores, column], dim=-1)
    return scores if visible is None else scores.masked_fill(~visible.any(dim=-1, keepdim=True), 0.0)


def attention_weights(logits: Tensor, visible: Tensor | None, sinks: Tensor | None) -> Tensor:
    """softmax(s) over the visible keys, in at least float32; a row that sees nothing is zero.

    Args:
        sinks: (H,) extra logits, one more softmax column per head that is dropped again, or None.
    """
    scores = softmax_scores(logits, visible, sinks)
    weights = torch.softmax(scores, dim=-1, dtype=at_least_float32(logits)).to(logits.dtype)
    weights = weights if sinks is None else weights[..., :-1]
    return weights if visible is None else weights.masked_fill(~visible, 0.0)


def gate_logits(logits: Tensor, visible: Tensor | None, sinks: Tensor | None, lse_share: float) -> Tensor:
    """s - a lse(s), what a gate reads before its bias, (B, H, T, S) in at least float32.

    Hidden pairs have a number too, which means nothing; a row that sees nothing has a finite lse.
    """
    s = logits.to(at_least_float32(logits))
    if not lse_share:
        return s
    return s - lse_share * torch.logsumexp(softmax_scores(s, visible, sinks), dim=-1, keepdim=True)


def at_least_float32(x: Tensor) -> torch.dtype:
    """The dtype of softmax, gate and count: float32, or float64 where x is."""
    return torch.promote_types(x.dtype, torch.float32)


def kept_weights(key: NoiseKey, dropout: float, like: Tensor) -> Tensor:
    """What dropout leaves of each weight, 0 or 1 / (1 - dropout), the same for the same key."""
    drawn = layer_uniform(key, like.shape, like.device, DROPOUT)  # type: ignore[arg-type]
    return (drawn >= dropout).to(like.dtype) / (1 - dropout)


def gated_attention_eager(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The specification; `gated_attention` documents and checks the arguments."""
    visible = settings.visibility(q, k).all_pairs()
    logits = attention_logits(q, k, scale=settings.scale, softcap=settings.softcap)
    # The gate runs in float32 even where the logits do not: in half precision u and p would
    # round to 0 and 1.
    g = gate_logits(logits, visible, settings.sinks, settings.lse_share) + settings.bias
    uniform = None
    if settings.noise is not None:
        rows, heads, queries, keys = g.shape
        uniform = layer_uniform(settings.noise, (rows, heads, queries, keys), g.device).to(g.dtype)
    least = settings.least_slope if settings.bias < math.inf else 0.0  # what is always open has no gradient
    gate, probability = hard_gate(g, uniform, straight_through=settings.straight_through, least_slope=least)
    if visible is not None:
        probability = probability.masked_fill(~visible, 0.0)
    if settings.keep is not None:
        gate = gate * settings.keep
    if settings.renormalise:
        opened = gate.bool() if visible is None else gate.bool() & visible
        weights = attention_weights(logits, opened, settings.sinks)
    else:
        weights = attention_weights(logits, visible, settings.sinks) * gate.to(logits.dtype)
    if settings.dropout:
        assert settings.dropout_key is not None
        weights = weights * kept_weights(settings.dropout_key, settings.dropout, weights)
    out = torch.matmul(weights, repeat_heads(v, q.shape[1] // v.shape[1]))
    return out, probability.sum(dim=(-1, -2))
