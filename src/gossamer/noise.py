"""Counter-based noise: the same draw for the same edge, whoever computes it and how often.

What. One uniform number u in (0, 1) for every edge (batch row, head, query, key) of a layer at a step.
How. Philox-4x32 (Salmon et al., SC 2011), 7 rounds, the fewest that pass BigCrush in that paper:

    key     = (seed, step)                           two 32-bit words
    counter = (key // 4, query, row * H + head, layer)   four 32-bit words
    u       = (word[key % 4] >> 8 + 1/2) * 2**-24

Why not torch.rand. A stateful generator draws again when gradient checkpointing runs the forward a second time,
cannot be asked for one tile of a large matrix, and differs between devices. A counter has no state: a fused
kernel recomputes the draw in its backward, and resuming a run needs the step number and nothing else.
Price. Integer arithmetic in int64 on a CPU; `benchmarks/training.py` holds the share of a step that it costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 7  # Salmon et al. 2011, table 2: Philox4x32-7 is the smallest that is Crush-resistant
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # Salmon et al. 2011, section 3.3
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, same source


@dataclass(frozen=True)
class NoiseKey:
    """What names a layer's noise at one step; all fields are taken modulo 2**32."""

    seed: int
    step: int
    layer: int


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four 32-bit words per counter (as int64 in [0, 2**32)), by Philox-4x32 with `ROUNDS` rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key[0] & _WORD, key[1] & _WORD
    for _ in range(ROUNDS):
        # int64 products wrap modulo 2**64, so both halves stay exact after masking.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((p1 >> 32) & _WORD) ^ c1 ^ k0, p1 & _WORD
        c2, c3 = ((p0 >> 32) & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def edge_uniform(
    key: NoiseKey,
    *,
    heads: Tensor,
    queries: Tensor,
    n_keys: int,
    first_key: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform noise in (0, 1) for the edges (heads x queries x keys) of one layer.

    Args:
        heads: integer (N,): batch row * H + head.
        queries: integer (T,): query positions.
        n_keys: S, the number of keys, from `first_key` on (a multiple of 4).
    Returns: (N, T, S) in `dtype` on the device of `heads`.
    """
    device = heads.device
    groups = torch.arange(first_key // 4, (first_key + n_keys + 3) // 4, device=device)
    c0, c1, c2, _ = torch.broadcast_tensors(
        groups[None, None, :], queries[None, :, None], heads[:, None, None], groups.new_zeros(())
    )
    words = philox((c0, c1, c2, torch.full_like(c0, key.layer & _WORD)), (key.seed, key.step))
    u = torch.stack([w >> 8 for w in words], dim=-1).flatten(-2)[..., :n_keys]  # (N, T, S)
    return (u.to(dtype) + 0.5) * 2.0**-24


def layer_uniform(key: NoiseKey, shape: tuple[int, int, int, int], device: torch.device | str = "cpu") -> Tensor:
    """The whole noise of one layer: (B, H, T, S), each entry in (0, 1), float32."""
    rows, heads, queries, keys = shape
    index = torch.arange(rows * heads, device=device)
    return edge_uniform(key, heads=index, queries=torch.arange(queries, device=device), n_keys=keys).view(shape)
