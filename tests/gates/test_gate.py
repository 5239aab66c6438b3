"""The gate: hard forward, straight-through backward, and the open probability beside it."""

from __future__ import annotations

import pytest
import torch

from gossamer.gates.gate import hard_gate, soften

LOGITS = torch.tensor([-120.0, -3.0, -1e-30, 0.0, 1e-30, 0.5, 4.0, 120.0])


def test_without_noise_the_gate_is_the_sign_of_the_logit():
    gate, probability = hard_gate(LOGITS)
    assert gate.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert torch.equal(probability, torch.sigmoid(LOGITS))


def test_noise_one_half_is_no_noise():
    half = torch.full_like(LOGITS, 0.5)
    assert torch.allclose(soften(torch.sigmoid(LOGITS), half), torch.sigmoid(LOGITS))


def test_soften_is_the_sigmoid_of_logit_plus_logistic_noise():
    logits = torch.linspace(-8, 8, 41, dtype=torch.float64)
    u = torch.linspace(0.01, 0.99, 41, dtype=torch.float64).flip(0)
    noisy = torch.sigmoid(logits + torch.log(u / (1 - u)))
    assert torch.allclose(soften(torch.sigmoid(logits), u), noisy, rtol=1e-12)


@pytest.mark.parametrize("noisy", [False, True])
def test_gradients_are_those_of_the_surrogate(noisy):
    g = torch.linspace(-5, 5, 23, dtype=torch.float64).requires_grad_()
    u = torch.rand(23, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = u if noisy else None
    weight, other = torch.randn(2, 23, dtype=torch.float64)
    gate, p = hard_gate(g, u)
    (got,) = torch.autograd.grad((gate * weight).sum() + (p * other).sum(), g)
    soft = soften(torch.sigmoid(g), u)
    (want,) = torch.autograd.grad((soft * weight + torch.sigmoid(g) * other).sum(), g)
    assert torch.allclose(got, want, rtol=1e-12, atol=1e-15)


def test_a_least_slope_reaches_gates_far_from_opening_and_leaves_the_gate_and_its_price_alone():
    g = torch.tensor([-40.0, -8.0, 0.5, 8.0], dtype=torch.float64, requires_grad=True)
    (gate, probability), (plain, same) = hard_gate(g, least_slope=0.1), hard_gate(g)
    assert torch.equal(gate, plain)
    assert torch.equal(probability, same)
    (got,) = torch.autograd.grad(gate.sum(), g, retain_graph=True)
    slope = torch.sigmoid(g) * (1 - torch.sigmoid(g))
    assert torch.allclose(got, slope.clamp_min(0.1).detach())
    assert got.tolist()[:2] == [0.1, 0.1]
    (price,) = torch.autograd.grad(probability.sum(), g)
    assert torch.allclose(price, slope.detach())


@pytest.mark.parametrize("which", [0, 1])
def test_either_gradient_alone(which):
    g = torch.randn(7, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(hard_gate(g)[which].sum(), g)
    p = torch.sigmoid(g)
    assert torch.allclose(got, p * (1 - p))


def test_infinite_logits_are_open_or_closed_and_have_no_gradient():
    g = torch.tensor([torch.inf, -torch.inf], requires_grad=True)
    for uniform in (None, torch.tensor([0.01, 0.99])):
        gate, probability = hard_gate(g, uniform)
        assert gate.tolist() == probability.tolist() == [1, 0]
        (grad,) = torch.autograd.grad((gate + probability).sum(), g)
        assert grad.tolist() == [0, 0]
