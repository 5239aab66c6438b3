"""Inputs, features and the error budget that the tests of every implementation share."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from gossamer.gates.attention import gated_attention
from gossamer.gates.noise import NoiseKey
from helpers import oracles

KEY = NoiseKey(seed=7, step=11, layer=2)
B, H, T, S = 2, 4, 6, 9


def _random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


def _padding() -> Tensor:
    mask = _random(B, 1, 1, S) > 0.3
    mask[1] = False  # a row of nothing but padding
    return mask


# Each is a set of arguments of `gated_attention` for (B, H, T, S) = (2, 4, 6, 9).
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "noise": {"noise": KEY, "bias": 0.3},
    "open": {"bias": torch.inf, "noise": KEY},
    "closed": {"bias": -torch.inf},
    "causal": {"causal": True, "noise": KEY},
    "padding": {"mask": _padding(), "noise": KEY},
    "padding open": {"mask": _padding(), "bias": torch.inf},
    "mask of heads": {"mask": _random(B, H, T, S) > 0.3, "causal": True},
    "mask (T, S)": {"mask": _random(T, S) > 0.3},
    "window": {"window": 3, "noise": KEY},
    "causal window": {"window": 3, "causal": True},
    "segments": {"segments": (_random(B, S) * 3).long().sort().values, "noise": KEY},
    "softcap": {"softcap": 1.5, "causal": True, "noise": KEY},
    "sinks": {"sinks": _random(H) * 2 - 1, "mask": _padding()},
    "keep": {"keep": _random(B, 1, T, S) > 0.4, "noise": KEY},
    "keep open": {"keep": (_random(B, H, T, S) > 0.4).double(), "bias": torch.inf},
    "dropout": {"dropout": 0.3, "dropout_key": KEY},
    "dropout of noisy gates": {"dropout": 0.3, "noise": KEY, "causal": True},
    "weight": {"lse_share": 1.0, "bias": 1.7},
    "weight, noise": {"lse_share": 1.0, "bias": 1.7, "noise": KEY, "causal": True},
    "weight, open": {"lse_share": 1.0, "bias": torch.inf, "causal": True},
    "weight, closed": {"lse_share": 1.0, "bias": -torch.inf},
    "weight, padding": {"lse_share": 1.0, "bias": 1.2, "mask": _padding(), "noise": KEY},
    "weight, window": {"lse_share": 1.0, "bias": 1.2, "window": 3, "causal": True},
    "weight, segments": {"lse_share": 1.0, "bias": 1.2, "segments": (_random(B, S) * 3).long().sort().values},
    "weight, softcap": {"lse_share": 1.0, "bias": 1.7, "softcap": 1.5, "causal": True, "noise": KEY},
    "weight, sinks": {
        "lse_share": 1.0,
        "bias": 1.7,
        "sinks": _random(H) * 2 - 1,
        "mask": _padding(),
        "noise": KEY,
    },
    "weight, keep": {"lse_share": 1.0, "bias": 1.7, "keep": _random(B, 1, T, S) > 0.4, "noise": KEY},
    "weight, dropout": {"lse_share": 1.0, "bias": 1.7, "dropout": 0.3, "noise": KEY, "causal": True},
    "true gradient": {"straight_through": False, "bias": 0.3, "causal": True},
    "true gradient, noise": {"straight_through": False, "noise": KEY, "mask": _padding()},
    "true gradient, softcap": {"straight_through": False, "softcap": 1.5, "bias": 0.3},
    "true gradient, keep": {"straight_through": False, "keep": _random(B, 1, T, S) > 0.4, "bias": 0.3},
    "true gradient, weight": {"straight_through": False, "lse_share": 1.0, "bias": 1.7, "causal": True},
    "true gradient, weight, sinks": {
        "straight_through": False,
        "lse_share": 1.0,
        "bias": 1.7,
        "sinks": _random(H) * 2 - 1,
        "mask": _padding(),
        "noise": KEY,
    },
    "least slope": {"least_slope": 0.1, "bias": -2.0, "causal": True},
    "least slope, noise": {"least_slope": 0.2, "bias": -2.0, "noise": KEY, "mask": _padding()},
    "least slope, keep": {
        "least_slope": 0.2,
        "keep": _random(B, 1, T, S) > 0.4,
        "softcap": 1.5,
        "noise": KEY,
    },
    "least slope, weight": {"least_slope": 0.2, "lse_share": 1.0, "bias": 1.7, "causal": True, "noise": KEY},
    "least slope, open": {"least_slope": 0.2, "bias": torch.inf},
    "least slope, closed": {"least_slope": 0.2, "bias": -torch.inf},
    "between": {"lse_share": 0.4, "bias": 0.8, "causal": True, "noise": KEY},
}


def inputs(
    shape: tuple[int, int, int, int, int, int, int], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v for (B, H, G, T, S, D, E): bfloat16 values, hence the same in every dtype."""
    rows, heads, groups, queries, keys, width, value_width = shape
    maker = torch.Generator().manual_seed(queries * 1000 + width)
    q = torch.randn(rows, queries, heads, width, generator=maker).transpose(1, 2)
    k = torch.randn(rows, keys, groups, width, generator=maker).transpose(1, 2)
    v = torch.randn(rows, groups, keys, value_width, generator=maker)
    return tuple(x.bfloat16().to(dtype).requires_grad_() for x in (q, k, v))  # type: ignore


def results(qkv: tuple[Tensor, ...], impl: str, **arguments: Any) -> list[Tensor]:
    """out, expected_open and the gradient of each input (sinks last, if any), in that order."""
    q, k, v = qkv
    arguments.setdefault("scale", q.shape[-1] ** -0.5)
    wrt = list(qkv)
    if arguments.get("sinks") is not None:
        arguments["sinks"] = arguments["sinks"].to(q.dtype).requires_grad_()
        wrt.append(arguments["sinks"])
    if impl == "oracle":
        for name in ("noise", "dropout_key"):
            if arguments.get(name) is not None:
                arguments[name] = dataclasses.astuple(arguments[name])
        out, count = oracles.gated_attention(q, k, v, **arguments)
    else:
        out, count = gated_attention(q, k, v, impl=impl, **arguments)
    maker = torch.Generator().manual_seed(5)
    loss = (out * torch.randn(out.shape, generator=maker).to(out)).sum()
    loss = loss + (count * torch.randn(count.shape, generator=maker).to(count)).sum()
    if not loss.requires_grad:
        return [out, count, *(torch.zeros_like(x) for x in wrt)]
    grads = torch.autograd.grad(loss, wrt, allow_unused=True)
    grads = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, wrt, strict=True)]
    return [out.detach(), count.detach(), *grads]


def assert_within_budget(got: list[Tensor], eager: list[Tensor], exact: list[Tensor]) -> None:
    """Each result errs at most twice as much as eager's, root mean square, plus rounding."""
    names = ["out", "expected_open", "dq", "dk", "dv", "d_sinks"]
    for name, x, e, true in zip(names, got, eager, exact, strict=False):
        size = true.double().square().mean().sqrt()
        errors = [(y.double() - true.double()).square().mean().sqrt() for y in (x, e)]
        rounding = 2 * torch.finfo(x.dtype).eps * size
        assert errors[0] <= 2 * errors[1] + rounding, (name, errors, rounding)
