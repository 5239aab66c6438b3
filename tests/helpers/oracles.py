"""Slow, obvious versions to test against: explicit loops in float64, nothing imported from
gossamer.

Gradients come from autograd: a hard gate z enters as slope (g - g.detach()) + z, whose value is z and whose derivative
is the slope of sigma, or the least slope that is asked for, which is what "straight-through" means.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MASK32 = 0xFFFFFFFF


def philox_words(counter: tuple[int, ...], key: tuple[int, int], rounds: int = 7) -> list[int]:
    """Philox-4x32 in Python's unbounded integers, as in Salmon et al. 2011, section 3.3."""
    c, k = [x & MASK32 for x in counter], [x & MASK32 for x in key]
    for _ in range(rounds):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (right >> 32) ^ c[1] ^ k[0],
            right & MASK32,
            (left >> 32) ^ c[3] ^ k[1],
            left & MASK32,
        ]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c


def uniform(key: tuple[int, int, int], head: int, query: int, at: int, stream: int = 0) -> float:
    """The noise of one edge, from (seed, step, layer)."""
    seed, step, layer = key
    words = philox_words((at // 4, query, head, layer + (stream << 24)), (seed, step))
    return ((words[(1, 0, 3, 2)[at % 4]] >> 9) + 0.5) / 2**23


def visible_keys(
    b: int,
    h: int,
    t: int,
    queries: int,
    keys: int,
    *,
    mask: Tensor | None,
    causal: bool,
    window: int | None,
    segments: Tensor | None,
) -> list[int]:
    """The keys that one query may see."""
    at = t + keys - queries
    found = []
    for s in range(keys):
        hidden = causal and s > at
        hidden = hidden or (window is not None and abs(at - s) >= window)
        hidden = hidden or (segments is not None and bool(segments[b, at] != segments[b, s]))
        if mask is not None:
            full = mask.view(*(1,) * (4 - mask.dim()), *mask.shape)
            place = [i if n > 1 else 0 for i, n in zip((b, h, t, s), full.shape, strict=True)]
            hidden = hidden or not bool(full[tuple(place)])
        if not hidden:
            found.append(s)
    return found


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    bias: float = 0.0,
    noise: tuple[int, int, int] | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    segments: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    dropout_key: tuple[int, int, int] | None = None,
    keep: Tensor | None = None,
    renormalise: bool = False,
    lse_share: float = 0.0,
    straight_through: bool = True,
    least_slope: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Gated attention, one query of one head after the other, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    (rows, heads, queries, _), (_, groups, keys, _) = q.shape, k.shape
    out = torch.zeros(rows, heads, queries, v.shape[-1], dtype=torch.float64)
    count = torch.zeros(rows, heads, dtype=torch.float64)
    lines, sums = [], []
    for b in range(rows):
        for h in range(heads):
            g, opened = h * groups // heads, torch.zeros((), dtype=torch.float64)
            for t in range(queries):
                seen = visible_keys(
                    b, h, t, queries, keys,
                    mask=mask, causal=causal, window=window, segments=segments,
                )  # fmt: skip
                if not seen:
                    lines.append(torch.zeros(v.shape[-1], dtype=torch.float64))
                    continue
                s = (k[b, g, seen] * q[b, h, t]).sum(-1) * scale
                s = s if softcap is None else softcap * torch.tanh(s / softcap)
                if math.isinf(bias) and bias > 0:
                    z, opened = torch.ones_like(s), opened + len(seen)
                else:
                    row = s if sinks is None else torch.cat([s, sinks[h].double()[None]])
                    taken = lse_share * torch.logsumexp(row, 0) if lse_share else 0.0
                    read = s - taken
                    x = read + bias
                    opened = opened + torch.sigmoid(x).sum()
                    if noise is not None:
                        u = torch.tensor([uniform(noise, b * heads + h, t, i) for i in seen]).double()
                        x = x + torch.log(u) - torch.log(1 - u)
                    soft = torch.sigmoid(x)
                    z = (x > 0).double()
                    if straight_through:
                        slope = (soft * (1 - soft)).detach().clamp_min(least_slope)
                        z = slope * (read - read.detach()) + z
                if keep is not None:
                    z = z * keep.expand(rows, heads, queries, keys)[b, h, t, seen].double()
                e = torch.exp(s - s.detach().max())
                counted = e * (z.detach() != 0) if renormalise else e
                total = counted.sum()
                if sinks is not None:
                    total = total + torch.exp(sinks[h].double() - s.detach().max())
                total = torch.where(total > 0, total, torch.ones_like(total))
                weight = counted / total * (torch.ones_like(z) if renormalise else z)
                if dropout:
                    key = dropout_key or noise
                    assert key is not None
                    u = torch.tensor([uniform(key, b * heads + h, t, i, 1) for i in seen])
                    weight = weight * (u >= dropout) / (1 - dropout)
                lines.append((weight[:, None] * v[b, g, seen]).sum(0))
            sums.append(opened)
    out = torch.stack(lines).view(out.shape)
    return out, torch.stack(sums).view(count.shape)
