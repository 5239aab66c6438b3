"""Gated attention on the device: checks and launches around the kernels of `triton_kernel.py`.

Letters: B batch row, H query head, G key-value head, T query, S key, D and E widths.

What. A torch.autograd.Function that saves q, k, v, out and one number per query, and the checks of
what the kernels can do: float32, bfloat16 and float16, D and E up to 256, CUDA tensors (any
tensors under TRITON_INTERPRET=1, which is how the tests run it). Triton is imported here and
nowhere else, and this module only when impl="triton" is called.
Price. Two small passes in torch: rowsum(dout * out) before the backward, the gradient of the sinks
after it.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import refuse
from ..noise import DROPOUT, GATES, NoiseKey, layer_word
from . import triton_kernel
from .settings import Settings
from .visibility import cannot

kernels: Any = triton_kernel  # a jitted function is launched as kernel[grid](...)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WIDEST = 256


class Launch(NamedTuple):
    """The arguments that all three kernels share, in their order."""

    sizes: tuple[int, ...]  # H, R, T, S
    numbers: tuple[float | int, ...]  # scale, bias, then seeds and words
    masks: tuple[Any, ...]  # mask, keep and segments with their strides
    flags: dict[str, Any]  # constexpr


def _signed(word: int) -> int:
    """A 32-bit word as a signed integer, so that its type never changes with its value."""
    return ((word + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def _words(key: NoiseKey | None, stream: int) -> tuple[int, int, int]:
    """Seed, step and fourth counter word."""
    if key is None:
        return 0, 0, 0
    return _signed(key.seed), _signed(key.step), _signed(layer_word(key, stream))


def _strided(x: Tensor | None, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What broadcasts to (B, H, T, S) as bytes with four strides, or None and zeros."""
    if x is None:
        return None, 0, 0, 0, 0
    pairs = x.bool().view(torch.uint8).expand(shape)
    return pairs, *pairs.stride()


def _blocks(width: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """BM, BN and warps for a head width; assumed, but compiled for sm_90 to see that they fit."""
    if dtype == torch.float32:
        return (32, 32, 4) if width <= 128 else (16, 16, 4)
    if width <= 64:
        return 64, 64, 4
    return (64, 32, 4) if width <= 128 else (32, 32, 4)


def _columns(x: Tensor) -> Tensor:
    """x with contiguous columns; rows may lie anywhere."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Fused(torch.autograd.Function):
    """out and expected_open of `gated_attention`; gradients for q, k, v and sinks."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, launch: Launch
    ) -> tuple[Tensor, Tensor]:
        q, k, v = _columns(q), _columns(k), _columns(v)
        rows, heads, queries, _ = q.shape
        out = q.new_empty(rows, queries, heads, v.shape[-1]).transpose(1, 2)
        lse = q.new_empty(rows, heads, queries, dtype=torch.float32)
        grid = (-(-queries // launch.flags["BM"]), rows * heads)
        count = q.new_empty(rows, heads, grid[0], dtype=torch.float32)
        # Only without noise can a whole tile be expected to be closed.
        skip = not launch.flags["NOISE"] and not launch.flags["OPEN"]
        strides = (s for x in (q, k, v, out) for s in x.stride()[:3])
        kernels.forward[grid](
            q, k, v, sinks, out, lse, count, *strides,
            *launch.sizes, *launch.numbers, *launch.masks, SKIP=skip, **launch.flags,
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, sinks, out, lse)
        ctx.launch = launch
        ctx.set_materialize_grads(False)
        return out, count.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor | None, d_count: Tensor | None):  # type: ignore[override]
        q, k, v, sinks, out, lse = ctx.saved_tensors
        launch: Launch = ctx.launch
        given_out = _columns(torch.zeros_like(out) if d_out is None else d_out)
        d_count = torch.zeros_like(lse[:, :, 0]) if d_count is None else d_count.contiguous()
        delta = (given_out.float() * out.float()).sum(-1)  # (B, H, T)
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        strides = [s for x in (q, k, v, given_out) for s in x.stride()[:3]]
        shared = (*launch.sizes, *launch.numbers, *launch.masks)
        by_query = (-(-q.shape[2] // launch.flags["BM"]), q.shape[0] * q.shape[1])
        by_key = (-(-k.shape[2] // launch.flags["BN"]), k.shape[0] * k.shape[1])
        given = (q, k, v, given_out, lse, delta, d_count)
        kernels.backward_queries[by_query](*given, dq, *strides, *shared, **launch.flags)
        kernels.backward_keys[by_key](*given, dk, dv, *strides, *shared, **launch.flags)
        d_sinks = None
        if sinks is not None:
            share = torch.exp(sinks.float()[:, None] - lse)
            d_sinks = -(share * delta).sum((0, 2)).to(sinks.dtype)
        return dq, dk, dv, d_sinks, None


def _check(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> None:
    """Raise for what the kernels cannot do."""
    settings.refuse_eager_only("triton")
    if q.dtype not in DTYPES or not q.dtype == k.dtype == v.dtype:
        raise cannot("triton", f"{q.dtype} x {k.dtype} x {v.dtype}", ["blockwise", "eager"])
    if max(q.shape[-1], v.shape[-1]) > WIDEST:
        raise cannot("triton", f"a head wider than {WIDEST}", ["blockwise", "eager"])
    if q.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        got = f"impl='triton' with tensors on {q.device.type}"
        raise refuse(got, "cuda", "pass impl='blockwise', or set TRITON_INTERPRET=1 to test")


def gated_attention_triton(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The specification in fused kernels; `gated_attention` documents the arguments."""
    _check(q, k, v, settings)
    pairs = (*q.shape[:3], k.shape[2])
    is_open = settings.bias == torch.inf
    block_m, block_n, warps = _blocks(max(q.shape[-1], v.shape[-1]), q.dtype)
    flags: dict[str, Any] = {
        "CAUSAL": settings.causal,
        "WINDOW": settings.window or 0,
        "CAP": settings.softcap or 0.0,
        "NOISE": settings.noise is not None and not is_open,
        "DROP": settings.dropout > 0,
        "OPEN": is_open,
        "SHARE": 0.0 if is_open else float(settings.lse_share),
        "STRAIGHT": settings.straight_through,
        "D": q.shape[-1],
        "E": v.shape[-1],
        "BD": max(16, 1 << (q.shape[-1] - 1).bit_length()),
        "BE": max(16, 1 << (v.shape[-1] - 1).bit_length()),
        "BM": block_m,
        "BN": block_n,
        "num_warps": warps,
    }
    gate_words, drop_words = _words(settings.noise, GATES), _words(settings.dropout_key, DROPOUT)
    launch = Launch(
        sizes=(q.shape[1], q.shape[1] // k.shape[1], q.shape[2], k.shape[2]),
        numbers=(
            settings.scale,
            0.0 if is_open else settings.bias,
            settings.least_slope,
            *gate_words,
            settings.dropout,
            *drop_words,
        ),
        masks=(
            *_strided(settings.mask, pairs),
            *_strided(settings.keep, pairs),
            None if settings.segments is None else settings.segments.to(torch.int32).contiguous(),
        ),
        flags=flags,
    )
    return _Fused.apply(q, k, v, settings.sinks, launch)  # type: ignore[return-value]
