"""The operation: what gated attention is, and which implementation computes it.

The caller names the implementation and that one runs; what it cannot do is an error that names
those which can.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import UnsupportedModel, refuse, require_choice
from ..noise import NoiseKey
from .blockwise import gated_attention_blockwise, one_query
from .eager import gated_attention_eager
from .settings import Settings


def _gated_attention_triton(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """`fused.gated_attention_triton`, imported when first called: triton is optional and heavy."""
    try:
        from .fused import gated_attention_triton
    except ImportError as missing:
        got = f"impl='triton', but {missing.name} cannot be imported"
        do = "pip install triton, or pass impl='blockwise'"
        raise refuse(got, "eager, blockwise", do) from missing
    return gated_attention_triton(q, k, v, settings)


IMPLEMENTATIONS = {
    "eager": gated_attention_eager,
    "blockwise": gated_attention_blockwise,
    "triton": _gated_attention_triton,
}


class Choice(NamedTuple):
    """An implementation, and in words why it is this one."""

    impl: str
    why: str


def choose(impl: str, device: torch.device | str) -> Choice:
    """The implementation which `impl` means on a device, with its reason; only "auto" is a question.

    Args:
        impl: "auto" or one of `IMPLEMENTATIONS`.
    Returns: "triton" on CUDA where triton can be imported, else "blockwise".
    """
    require_choice("impl", impl, ["auto", *IMPLEMENTATIONS])
    if impl != "auto":
        return Choice(impl, "asked for by name")
    kind = torch.device(device).type
    if kind != "cuda":
        return Choice(
            "blockwise", f"linear memory on any device; the fused kernel needs CUDA, this is {kind}"
        )
    if importlib.util.find_spec("triton") is None:
        return Choice(
            "blockwise", "linear memory on any device; the fused kernel needs triton, not installed"
        )
    return Choice("triton", "the fused kernel runs on CUDA, and triton is installed")


def resolve(impl: str, device: torch.device | str) -> str:
    """The implementation which `impl` means on a device, as `choose` finds it."""
    return choose(impl, device).impl


class GatedAttention(NamedTuple):
    """What `gated_attention` returns; a gradient flows through both."""

    out: Tensor  # (B, H, T, E), the dtype of q
    expected_open: Tensor  # (B, H) float32 or wider: sum of sigma(g) over visible pairs


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    bias: float = 0.0,
    noise: NoiseKey | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    segments: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    dropout_key: NoiseKey | None = None,
    keep: Tensor | None = None,
    renormalise: bool = False,
    count: bool = True,
    lse_share: float = 0.0,
    straight_through: bool = True,
    least_slope: float = 0.0,
    impl: str = "eager",
) -> GatedAttention:
    """Attention gated after the softmax: out = (softmax(s) * 1[s - a lse(s) + bias + n > 0]) @ v.

    Args:
        q: (B, H, T, D) queries.
        k: (B, G, S, D) keys, H a multiple of G; not repeated.
        v: (B, G, S, E) values.
        scale: the model's own factor on q @ k^T; the gate reads the scaled logit, in nats.
        bias: c, the gate bias in nats; +inf opens every gate and gives plain attention.
        noise: names the draw of logistic noise on the gates; None for deterministic gates.
        mask: bool, broadcastable to (B, H, T, S), True where an edge may exist; None for everywhere.
        causal: query t of T sees keys up to t + S - T, besides what `mask` says.
        window: query t sees keys less than `window` positions away from t + S - T, on both sides
            if not causal.
        segments: integer (B, S), which packed sequence a position belongs to; edges stay inside one.
        softcap: cap * tanh(s / cap) on the logits before gate and mask, as Gemma 2 does.
        sinks: (H,) extra softmax column per head, as GPT-OSS has.
        dropout: probability of dropping a gated weight; the rest is scaled by 1 / (1 - dropout).
        dropout_key: names the draw of the dropout; None for the key in `noise`.
        keep: {0, 1} or bool, broadcastable to (B, H, T, S); multiplies the gates. For interventions.
        renormalise: divide by the open edges' mass alone. For the leak test, not for training.
        count: whether expected_open is wanted; leaving it out may cost less, and it may be NaN then.
        lse_share: a, how much of its row's log-sum-exp (over visible keys and sinks) a gate takes off its logit:
            0 reads the logit, as the paper does; 1 reads the log of the attention weight.
        straight_through: give the hard gate the gradient of its probability, as training needs; else it has none,
            and the gradient of `out` is the derivative of what is computed.
        least_slope: the least of that gradient, in [0, 1/4], however far a gate is from opening or closing.
        impl: which implementation computes it, one of `IMPLEMENTATIONS`.
    Returns: `GatedAttention(out, expected_open)`. A query that sees no key yields zero and counts
    no edge.
    Raises: `GossamerError` on shapes that do not fit, a NaN bias, or an unknown `impl`.
    Source: arXiv 2512.05865; numerator-only gating and the noise-free penalty as in its public
    kernel.
    """
    require_choice("impl", impl, IMPLEMENTATIONS)
    _check_shapes(q, k, v)
    settings = Settings(
        scale=scale,
        bias=bias,
        noise=noise,
        mask=mask,
        causal=causal,
        window=window,
        segments=segments,
        softcap=softcap,
        sinks=sinks,
        dropout=dropout,
        dropout_key=dropout_key or noise,
        keep=keep,
        renormalise=renormalise,
        count=count,
        lse_share=lse_share,
        straight_through=straight_through,
        least_slope=least_slope,
    )
    settings.check(q, k)
    return GatedAttention(*IMPLEMENTATIONS[impl](q, k, v, settings))


def _check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise one clear line for shapes that cannot be attention."""
    fits = (
        q.dim() == k.dim() == v.dim() == 4
        and q.shape[0] == k.shape[0] == v.shape[0]
        and q.shape[-1] == k.shape[-1]
        and k.shape[1:3] == v.shape[1:3]
        and q.shape[1] % k.shape[1] == 0
    )
    if not fits:
        want = "(B, H, T, D), (B, G, S, D), (B, G, S, E) with H a multiple of G"
        raise refuse(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}", want, "reshape")


__all__ = [
    "IMPLEMENTATIONS",
    "Choice",
    "GatedAttention",
    "UnsupportedModel",
    "choose",
    "gated_attention",
    "one_query",
    "resolve",
]
