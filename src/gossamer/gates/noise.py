"""Counter-based noise: the same draw for the same edge, whoever computes it and how often.

What. One uniform number u in (0, 1) for every edge (batch row, head, query, key) of a layer at a
step.
How. Philox-4x32 (Salmon et al., SC 2011), 7 rounds, the fewest that pass BigCrush in that paper:

    key     = (seed, step)                                                two 32-bit words
    counter = (key // 4, query, row * H + head, layer + 2**24 * stream)   four 32-bit words
    u       = (word[ORDER[key % 4]] >> 9 + 1/2) * 2**-23                  ORDER = (1, 0, 3, 2)

Stream 0 decides gates and stream 1 drops weights. 23 bits and not 24, so that u is exact in
float32 and never rounds to 1. ORDER is how two words lie in one little-endian 64-bit integer,
which saves the CPU a shuffle.

Why not torch.rand. A stateful generator draws again when gradient checkpointing runs the forward a
second time, cannot be asked for one tile of a large matrix, and differs between devices. A counter
has no state: a fused kernel recomputes the draw in its backward, and resuming a run needs the step
number and nothing else.
Price. 6 to 8 ns an edge on one CPU thread (numpy, two words to an integer, blocks that stay in
cache), about twice what torch.rand takes; elsewhere int64 arithmetic in torch.
"""

from __future__ import annotations

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ROUNDS = 7  # Salmon et al. 2011, table 2: Philox4x32-7 is the smallest that is Crush-resistant
ORDER = (1, 0, 3, 2)
GATES, DROPOUT = 0, 1  # streams
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # Salmon et al. 2011, section 3.3
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, same source
_CHUNK = 1 << 15  # counters at a time; measured: fastest of 2**13 .. 2**16 where L2 holds 1 MB


@dataclass(frozen=True)
class NoiseKey:
    """What names a layer's noise at one step: seed, step modulo 2**32, layer modulo 2**24."""

    seed: int
    step: int
    layer: int


def round_keys(key: NoiseKey) -> list[tuple[int, int]]:
    """The two 32-bit words of each round: (seed, step) plus a multiple of the Weyl constants."""
    return [((key.seed + i * _WEYL[0]) & _WORD, (key.step + i * _WEYL[1]) & _WORD) for i in range(ROUNDS)]


def layer_word(key: NoiseKey, stream: int) -> int:
    """The fourth counter word."""
    return (key.layer & 0xFFFFFF) | (stream << 24)


def philox(counter: tuple[Tensor, ...], keys: list[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Four 32-bit words per counter (as int64 in [0, 2**32)), by Philox-4x32, on any device."""
    c0, c1, c2, c3 = counter
    for k0, k1 in keys:
        # int64 products wrap modulo 2**64, so both halves stay exact after masking.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((p1 >> 32) & _WORD) ^ c1 ^ k0, p1 & _WORD
        c2, c3 = ((p0 >> 32) & _WORD) ^ c3 ^ k1, p0 & _WORD
    return c0, c1, c2, c3


def _philox_packed(
    groups: np.ndarray,
    queries: np.ndarray,
    heads: np.ndarray,
    last: int,
    keys: list[tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """`philox` over heads x (queries x groups), in pairs: a = c0 << 32 | c1, b = c2 << 32 | c3.

    A round in this form is a' = hi(b) * M1 ^ a << 32 ^ k0 << 32 and b' = hi(a) * M0 ^ b << 32 ^ k1
    << 32. The first two are written out, since most of their terms depend on one axis only.
    """
    m0, m1 = (np.uint64(m) for m in _MULTIPLIERS)
    half = np.uint64(32)
    shifted = [(np.uint64(k0 << 32), np.uint64(k1 << 32)) for k0, k1 in keys]
    # (T, groups) in one axis, because a numpy loop over 3 groups alone would be mostly overhead.
    column = np.repeat(queries, len(groups)) << half
    row = np.tile(groups, len(queries)) * m0 ^ np.uint64(last << 32) ^ shifted[0][1]
    a = (heads * m1)[:, None] ^ (column ^ shifted[0][0])
    t = a >> half
    t *= m0
    a <<= half
    a ^= (row >> half) * m1 ^ shifted[1][0]
    b = t ^ (row << half ^ shifted[1][1])
    u = np.empty_like(t)
    for k0, k1 in shifted[2:]:
        np.right_shift(a, half, out=t)
        np.right_shift(b, half, out=u)
        t *= m0
        u *= m1
        a <<= half
        a ^= u
        a ^= k0
        b <<= half
        b ^= t
        b ^= k1
    return a, b


def _uniform_cpu(
    key: NoiseKey, stream: int, heads: np.ndarray, queries: np.ndarray, first: int, out: np.ndarray
) -> None:
    """`edge_uniform` on the CPU into float32 (N, T, S), chunk by chunk."""
    n_keys = out.shape[-1]
    groups = np.arange(first // 4, (first + n_keys + 3) // 4, dtype=np.uint64)
    keys, last = round_keys(key), layer_word(key, stream)
    some_queries = max(1, min(len(queries), _CHUNK // len(groups)))
    some_heads = max(1, _CHUNK // (some_queries * len(groups)))

    def fill(corner: tuple[int, int]) -> None:
        n, t = corner
        part = out[n : n + some_heads, t : t + some_queries]
        words = np.empty((part.shape[0], part.shape[1] * len(groups), 2), np.uint64)
        some = queries[t : t + some_queries]
        packed = _philox_packed(groups, some, heads[n : n + some_heads], last, keys)
        words[..., 0], words[..., 1] = packed
        bits = words.view(np.uint32)
        # 23 random bits under the exponent of 1 are a float32 in [1, 2).
        bits >>= np.uint32(9)
        bits |= np.uint32(0x3F800000)
        drawn = bits.view(np.float32).reshape(*part.shape[:2], -1)[..., :n_keys]
        np.subtract(drawn, np.float32(1 - 2.0**-24), out=part)

    corners = itertools.product(range(0, len(heads), some_heads), range(0, len(queries), some_queries))
    threads = torch.get_num_threads()
    # numpy lets go of the interpreter inside each operation, so chunks fill side by side.
    for _ in map(fill, corners) if threads == 1 else _pool(threads).map(fill, corners):
        pass


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """As many threads as torch itself uses, kept for the next draw."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gossamer-noise")


def _uniform_torch(
    key: NoiseKey, stream: int, heads: Tensor, queries: Tensor, first: int, n_keys: int
) -> Tensor:
    """`edge_uniform` in int64, on any device: float32 (N, T, S)."""
    groups = torch.arange(first // 4, (first + n_keys + 3) // 4, device=heads.device)
    axes = groups[None, None, :], queries[None, :, None], heads[:, None, None]
    words = philox((*axes, groups.new_tensor(layer_word(key, stream))), round_keys(key))
    drawn = torch.stack(torch.broadcast_tensors(*(words[i] for i in ORDER)), dim=-1)
    bits = drawn.flatten(-2)[..., :n_keys] >> 9  # (N, T, S)
    return (bits.to(torch.float32) + 0.5) * 2.0**-23


def edge_uniform(
    key: NoiseKey,
    *,
    heads: Tensor | range,
    queries: Tensor | range,
    n_keys: int,
    first_key: int = 0,
    stream: int = GATES,
    out: Tensor | None = None,
) -> Tensor:
    """Uniform noise in (0, 1) for the edges (heads x queries x keys) of one layer.

    Args:
        heads: integer (N,): batch row * H + head; a range costs less than a tensor.
        queries: integer (T,): query positions.
        n_keys: S, the number of keys, from `first_key` on (a multiple of 4).
        stream: `GATES` or `DROPOUT`.
        out: contiguous (N, T, S) of any floating dtype to write into, or None.
    Returns: `out`, or (N, T, S) float32 on the device of `heads` (the CPU for a range); every entry
        is a multiple of 2**-24.
    """
    assert first_key % 4 == 0, first_key
    device = next((x.device for x in (heads, out) if isinstance(x, Tensor)), torch.device("cpu"))
    if not n_keys or device.type != "cpu":
        rows, lines = (
            torch.arange(x.start, x.stop, device=device) if isinstance(x, range) else x
            for x in (heads, queries)
        )
        drawn = _uniform_torch(key, stream, rows, lines, first_key, n_keys)
        return drawn if out is None else out.copy_(drawn)
    drawn = out
    if drawn is None or drawn.dtype != torch.float32:
        drawn = torch.empty(len(heads), len(queries), n_keys, dtype=torch.float32)
    _uniform_cpu(key, stream, _counters(heads), _counters(queries), first_key, drawn.numpy())
    return drawn if out is None or out is drawn else out.copy_(drawn)


def _counters(x: Tensor | range) -> np.ndarray:
    if isinstance(x, range):
        return np.arange(x.start, x.stop, dtype=np.uint64)
    return x.numpy().astype(np.uint64)


def layer_uniform(
    key: NoiseKey,
    shape: tuple[int, int, int, int],
    device: torch.device | str = "cpu",
    stream: int = GATES,
) -> Tensor:
    """The whole noise of one layer: (B, H, T, S), each entry in (0, 1), float32."""
    rows, heads, queries, keys = shape
    index = torch.arange(rows * heads, device=device)
    positions = torch.arange(queries, device=device)
    drawn = edge_uniform(key, heads=index, queries=positions, n_keys=keys, stream=stream)
    return drawn.view(shape)
