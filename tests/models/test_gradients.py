"""In evaluation mode a gated model's gradient is the derivative of what it computes, by finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gossamer import attach
from gossamer.models.forward import first_output, probe_inputs
from helpers import zoo

STEP = 1e-6


@pytest.fixture(autouse=True)
def _all_of_it_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms and routers of transformers cast to float32, which no step of a finite difference survives."""
    to, wide = Tensor.to, torch.float64

    def stays(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        narrows = torch.float32 in (*args, kwargs.get("dtype")) and x.dtype == wide
        return x if narrows else to(x, *args, **kwargs)

    monkeypatch.setattr(Tensor, "to", stays)
    monkeypatch.setattr(Tensor, "float", lambda x: stays(x, torch.float32))


def gated(family: str, **options: Any) -> tuple[Any, Any]:
    model = zoo.build(family).double()
    if "experts" in str(model):
        model.set_experts_implementation("eager")  # the default multiplies in float32 alone
    gates = attach(model, **options, check=False)
    return model, gates


def inner(model: Any) -> list[Tensor]:
    """What attention is made from in its first block: the parameters that it alone has."""
    modules = [m for m in model.modules() if "edge_gate_layer" in m.__dict__]
    return [p for p in modules[0].parameters() if p.dim() > 1] or [
        p for name, p in model.named_parameters() if "attention" in name and p.dim() > 1
    ]


def value(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """One number of a forward pass, which weighs every output differently."""
    out = first_output(model, inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=out.dtype)
    return (out * weights).sum()


def along(model: Any, inputs: dict[str, Tensor], parameters: list[Tensor]) -> tuple[float, float]:
    """The derivative in a random direction, by autograd and by a central difference."""
    maker = torch.Generator().manual_seed(4)
    directions = [torch.randn(p.shape, generator=maker, dtype=p.dtype) for p in parameters]
    found = torch.autograd.grad(value(model, inputs), parameters)
    by_autograd = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=sign * STEP)
            values.append(float(value(model, inputs)))
    return by_autograd, (values[0] - values[1]) / (2 * STEP)


@pytest.mark.parametrize(("reads", "bias"), [("logit", 0.1), ("weight", 2.0)])
@pytest.mark.parametrize("impl", ["eager", "blockwise"])
@pytest.mark.parametrize("family", zoo.ALL)
def test_the_gradient_of_evaluation_is_the_derivative(
    family: str, impl: str, reads: str, bias: float
) -> None:
    model, gates = gated(family, bias=bias, impl=impl, reads=reads)
    by_autograd, by_difference = along(model, probe_inputs(model), inner(model))
    assert by_autograd == pytest.approx(by_difference, rel=1e-6)
    with gates.using(straight_through=True):
        passed, _ = along(model, probe_inputs(model), inner(model))
    assert passed != pytest.approx(by_difference, rel=1e-3), "an empty test"


@pytest.mark.parametrize("impl", ["eager", "blockwise"])
def test_training_passes_gates_straight_through(impl: str) -> None:
    model, gates = gated("llama", bias=0.1, impl=impl)
    inputs, parameters = probe_inputs(model), inner(model)
    with gates.using(sampling=False):
        training = torch.autograd.grad(value(model.train(), inputs), parameters)
    with gates.using(straight_through=True):
        asked = torch.autograd.grad(value(model.eval(), inputs), parameters)
    for one, other in zip(training, asked, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("impl", ["eager", "blockwise"])
def test_integrated_gradients_sum_to_the_change_where_no_gate_is_crossed(impl: str) -> None:
    model, gates = gated("gpt2", bias=0.1, impl=impl)
    embed = model.get_input_embeddings()
    ids = probe_inputs(model)["input_ids"]
    start = embed(ids).detach()
    change = 1e-3 * torch.randn(start.shape, generator=torch.Generator().manual_seed(5), dtype=start.dtype)

    def of(x: Tensor) -> Tensor:
        return value(model, {"inputs_embeds": x})

    opened: list[Tensor] = []
    with (
        gates.observing(lambda call: opened.append(call.open_gates(call.logits(), gates.bias))),
        torch.no_grad(),
    ):
        ends = [of(start), of(start + change)]
    assert all(torch.equal(a, b) for a, b in zip(opened[:2], opened[2:], strict=True)), "a gate was crossed"
    points = [(start + (k + 0.5) / 20 * change).requires_grad_() for k in range(20)]
    total = sum((torch.autograd.grad(of(x), x)[0] * change).sum() / 20 for x in points)
    torch.testing.assert_close(total, ends[1] - ends[0], rtol=1e-5, atol=0)
