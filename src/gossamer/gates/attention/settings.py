"""What one call of gated attention is asked to do, besides q, k and v: one record for all implementations."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from ...errors import refuse
from ..noise import NoiseKey
from .visibility import Visibility, cannot


class Settings(NamedTuple):
    """The arguments of `gated_attention`, which documents each; its `dropout_key` is never None where it drops."""

    scale: float
    bias: float = 0.0
    noise: NoiseKey | None = None
    mask: Tensor | None = None
    causal: bool = False
    window: int | None = None
    segments: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0
    dropout_key: NoiseKey | None = None
    keep: Tensor | None = None
    renormalise: bool = False
    count: bool = True
    lse_share: float = 0.0
    straight_through: bool = True
    least_slope: float = 0.0

    def visibility(self, q: Tensor, k: Tensor) -> Visibility:
        """Which pairs of q (B, H, T, D) and k (B, G, S, D) may be edges."""
        return Visibility.of(
            q, k, mask=self.mask, causal=self.causal, window=self.window, segments=self.segments
        )

    def check(self, q: Tensor, k: Tensor) -> None:
        """Raise one clear line for numbers that mean nothing and for tensors that do not fit q and k."""
        if math.isnan(self.bias):
            raise refuse("bias=nan", "any number of nats, +inf for open gates", "pass one")
        if not 0 <= self.lse_share <= 1:
            raise refuse(f"lse_share={self.lse_share}", "0 (the logit) to 1 (the weight)", "pass one of them")
        if not 0 <= self.least_slope <= 0.25:
            raise refuse(
                f"least_slope={self.least_slope}", "0 to 1/4, the largest slope of sigma", "pass one of them"
            )
        if self.window is not None and self.window < 1:
            raise refuse(f"window={self.window}", "1 and above, or None", "pass one of them")
        if not 0 <= self.dropout < 1:
            raise refuse(f"dropout={self.dropout}", "0 <= dropout < 1", "pass a probability")
        if self.dropout and self.dropout_key is None:
            got = f"dropout={self.dropout} without a key, so that nothing could repeat its draw"
            raise refuse(got, "dropout_key or noise", "pass dropout_key=NoiseKey(seed, step, layer)")
        if self.mask is not None and self.mask.dtype.is_floating_point:
            got = f"mask is {self.mask.dtype}"
            raise refuse(got, "bool, True where an edge may exist", "pass `mask == 0`")
        pairs = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        if self.mask is not None and not _spreads(self.mask.shape, pairs):
            got, want = f"mask {tuple(self.mask.shape)}", f"broadcastable to (B, H, T, S) = {pairs}"
            raise refuse(got, want, "reshape, or leave out what is not there")
        if self.sinks is not None and self.sinks.shape != (q.shape[1],):
            got = f"sinks {tuple(self.sinks.shape)}"
            raise refuse(got, f"({q.shape[1]},), one per head", "reshape")
        if self.segments is not None and self.segments.shape != (k.shape[0], k.shape[2]):
            want = f"({k.shape[0]}, {k.shape[2]}), one per key position"
            raise refuse(f"segments {tuple(self.segments.shape)}", want, "reshape")
        if self.segments is not None and q.shape[2] > k.shape[2]:
            got = f"segments with {q.shape[2]} queries on {k.shape[2]} keys"
            raise refuse(got, "at most as many queries as keys", "pass the keys of every query")

    def refuse_eager_only(self, impl: str) -> None:
        """Raise for what only the eager implementation can do."""
        if self.renormalise:
            raise cannot(impl, "renormalise=True", ["eager"])
        if self.keep is not None and self.keep.requires_grad:
            raise cannot(impl, "a gradient for keep", ["eager"])


def least_weight(bias: float) -> float:
    """exp(-bias), the weight above which a gate that reads the weight is open; a bias far below 0 does not overflow."""
    return math.exp(min(-bias, 700.0))


def _spreads(shape: tuple[int, ...], pairs: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape can be broadcast to exactly `pairs`."""
    return len(shape) <= len(pairs) and all(
        n in (1, m) for n, m in zip(shape[::-1], pairs[::-1], strict=False)
    )
