"""The gate: a hard 0/1 decision per attention edge, from the logit that the head already computes.

    g      = s + c                         s: scaled attention logit in nats; c: the gate bias
    z      = 1[ g + n > 0 ]                n: logistic noise while training, 0 otherwise
    dz/dg := max(sigma'(g + n), m)         straight-through, while training; the true derivative is 0
    p      = sigma(g)                      the probability that the noisy gate is open

With n = logit(u) and u uniform, sigma(g + n) = p u / (p u + (1 - p)(1 - u)): no logarithm is
needed, and u = 1/2 is the gate without noise. There is nothing to initialise and nothing to save:
c = +inf opens every gate.
Source: arXiv 2512.05865 and its public kernel; the closed form in u is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soften(probability: Tensor, uniform: Tensor | None) -> Tensor:
    """sigma(g + logit(u)) from p = sigma(g): the surrogate of the straight-through gradient.

    Args:
        probability: any shape, in [0, 1].
        uniform: the same shape, in (0, 1), or None for no noise.
    """
    if uniform is None:
        return probability
    opened = probability * uniform
    return opened / (opened + (1 - probability) * (1 - uniform))


class _HardGate(torch.autograd.Function):
    """z = 1[soft > 1/2] with dz/dg := max(soft (1 - soft), least), or 0; and p = sigma(g) with its derivative."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, logits: Tensor, uniform: Tensor | None, straight_through: bool, least_slope: float
    ) -> tuple[Tensor, Tensor]:
        probability = torch.sigmoid(logits)
        soft = soften(probability, uniform)
        ctx.save_for_backward(probability, soft if straight_through else None)
        ctx.least_slope = least_slope
        # Comparing g itself keeps the noise-free gate exact where sigma(g) rounds to 1/2.
        opened = logits > 0 if uniform is None else soft > 0.5
        return opened.to(logits.dtype), probability

    @staticmethod
    def backward(  # type: ignore[override]
        ctx, grad_gate: Tensor | None, grad_probability: Tensor | None
    ):
        probability, soft = ctx.saved_tensors
        grad = torch.zeros_like(probability)
        if grad_gate is not None and soft is not None:
            grad = grad + grad_gate * (soft * (1 - soft)).clamp_min(ctx.least_slope)
        if grad_probability is not None:
            grad = grad + grad_probability * probability * (1 - probability)
        return grad, None, None, None


def hard_gate(
    logits: Tensor,
    uniform: Tensor | None = None,
    *,
    straight_through: bool = True,
    least_slope: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Draw the gate of every edge.

    Args:
        logits: g, any shape, in nats; +inf is always open, -inf never.
        uniform: noise in (0, 1) of the same shape, or None for the deterministic gate.
        straight_through: give z the gradient above; else its true one, none.
        least_slope: m, in [0, 1/4]. Above 0 a gate far below zero, which sigma' leaves alone, learns that it is missed.
    Returns: (z, p), both of that shape: z in {0, 1}; p = sigma(g).
    """
    return _HardGate.apply(logits, uniform, straight_through, least_slope)  # type: ignore[return-value]
