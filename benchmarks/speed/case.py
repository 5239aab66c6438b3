"""What is measured: a case of gated attention with its correctness check, and a small GPT-2.

A case is checked before it is timed, against eager in float64, and refused if it fails. A record names device, dtype,
versions, shapes and commit, and no host, no user and no path.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from gossamer.gates.attention import gated_attention
from gossamer.gates.noise import NoiseKey

KEY = NoiseKey(seed=0, step=1, layer=2)
CHECKED_LENGTH = 200  # a check at full length would need the matrices that we avoid


@dataclass(frozen=True)
class Case:
    """One shape and one way of gating; B rows, H heads, G key-value heads, T positions, D wide."""

    rows: int
    heads: int
    groups: int
    length: int
    width: int
    mode: str  # "sampled", "hard", "open", or "dense" for scaled_dot_product_attention
    backward: bool
    causal: bool = True
    bias: float = 0.0

    def inputs(self, device: str, dtype: torch.dtype, length: int | None = None) -> list[Tensor]:
        """q, k, v as a transformer lays them out: (B, T, H, D), seen as (B, H, T, D)."""
        maker = torch.Generator().manual_seed(0)
        sizes = (self.heads, self.groups, self.groups)
        return [
            torch.randn(self.rows, length or self.length, n, self.width, generator=maker)
            .to(device, dtype)
            .transpose(1, 2)
            .requires_grad_(self.backward)
            for n in sizes
        ]

    def arguments(self) -> dict[str, Any]:
        """The keywords of `gated_attention`."""
        bias = torch.inf if self.mode == "open" else self.bias
        noise = KEY if self.mode == "sampled" else None
        return {"scale": self.width**-0.5, "causal": self.causal, "bias": bias, "noise": noise}


def run(case: Case, impl: str, qkv: list[Tensor]) -> list[Tensor]:
    """One forward, and one backward where the case has one; returns results and gradients."""
    if impl == "sdpa":
        out = torch.nn.functional.scaled_dot_product_attention(
            *qkv, is_causal=case.causal, enable_gqa=case.heads != case.groups
        )
        results, loss = [out], out.sum()
    elif impl == "authors":
        out, share, _ = _authors()(*qkv, case.bias, case.causal, case.mode == "sampled", False)
        visible = (
            qkv[0].shape[2] * (qkv[0].shape[2] + 1) / 2
        )  # theirs is a share of the causal pairs, ours a count
        results = [out, share * visible]
        loss = results[0].sum() + results[1].sum()
    else:
        results = list(gated_attention(*qkv, impl=impl, **case.arguments()))
        loss = results[0].sum() + results[1].sum()
    return [*results, *torch.autograd.grad(loss, qkv)] if case.backward else results


def check(case: Case, impl: str, device: str, dtype: torch.dtype) -> str | None:
    """None if each result errs at most twice what eager does in this precision, else why not."""
    if impl == "sdpa":
        return None
    if impl == "authors":  # its noise is its own, so what can be compared is the gate without noise
        case = replace(case, mode="hard")
    length = min(case.length, CHECKED_LENGTH)
    given = case.inputs(device, dtype, length)
    exact = run(case, "eager", [_to(x, "cpu", torch.float64) for x in given])
    eager, got = run(case, "eager", given), run(case, impl, given)
    names = ("out", "expected_open", "dq", "dk", "dv")
    for name, x, e, true in zip(names, got, eager, exact, strict=False):
        errors = [float(_rms(y.double().cpu() - true)) for y in (x, e)]
        size = float(_rms(true))
        if not errors[0] <= 2 * errors[1] + 2 * torch.finfo(dtype).eps * size:
            return f"{impl} {name}: error {errors[0]:.2e}, eager's {errors[1]:.2e}"
    return None


def _authors() -> Callable[..., Any]:
    """The kernel of the paper's authors: (q, k, v, bias, causal, sample, return_map) -> out, open share, map."""
    from splash_attention import splash_attention  # type: ignore[import-not-found]

    return splash_attention


def has_authors() -> bool:
    """Whether the authors' kernel can be a peer: CUDA, and their package splash_attention installed."""
    return torch.cuda.is_available() and importlib.util.find_spec("splash_attention") is not None


def _rms(x: Tensor) -> Tensor:
    return x.detach().square().mean().sqrt()


def _to(x: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    return x.detach().to(device, dtype).requires_grad_(x.requires_grad)


def small_gpt2(positions: int) -> PreTrainedModel:
    """A GPT-2 of 4 layers, 128 wide, 4 heads, 4,096 tokens, without dropout; random weights of seed 0."""
    torch.manual_seed(0)
    sizes = {"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 4096, "n_positions": positions}
    off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **off)).eval()
