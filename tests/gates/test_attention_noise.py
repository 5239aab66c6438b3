"""One noise for all: eager, blockwise and triton draw the same gate for the same edge.

With scores of 0 and the identity as values, the result of a query is its own gates over the number of its keys, so
what was drawn can be read off each implementation from outside. Triton runs in its interpreter where there is no CUDA
device, and is skipped where it is missing: `pip install triton` brings it back.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gossamer.gates.attention import gated_attention
from gossamer.gates.noise import NoiseKey, layer_uniform

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEY = NoiseKey(seed=2**31 + 5, step=70_001, layer=3)
SHAPES = [(1, 1, 1, 1), (2, 4, 2, 63), (1, 2, 1, 111), (1, 2, 2, 130)]  # rows, heads, groups, length
BIASES = (-3.0, -0.5, 0.0, 2.0)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def drawn(impl: str, shape: tuple[int, int, int, int], bias: float, key: NoiseKey = KEY) -> Tensor:
    """bool (B, H, T, T): which gates this implementation opens at scores of 0."""
    rows, heads, groups, length = shape
    device = DEVICE if impl == "triton" else "cpu"
    q = torch.zeros(rows, heads, length, 8, device=device)
    k = torch.zeros(rows, groups, length, 8, device=device)
    v = torch.eye(length, device=device).expand(rows, groups, length, length).contiguous()
    return (gated_attention(q, k, v, scale=1.0, bias=bias, noise=key, impl=impl).out > 0).cpu()


def published(shape: tuple[int, int, int, int], bias: float) -> Tensor:
    """The same gates from the noise module alone: open where sigmoid(bias) outweighs 1 - u."""
    rows, heads, _, length = shape
    u = layer_uniform(KEY, (rows, heads, length, length)).double()
    return u > 1 / (1 + torch.tensor(bias, dtype=torch.float64).exp())


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("impl", ["eager", "blockwise"])
def test_the_draw_is_the_one_that_the_key_names(impl: str, shape: tuple[int, int, int, int], bias: float):
    assert torch.equal(drawn(impl, shape, bias), published(shape, bias))


# The interpreter takes seconds a bias for the last shape, whose 18 tiles are what it adds: one bias is drawn there.
@pytest.mark.integration  # in triton's interpreter
@pytest.mark.parametrize(
    ("shape", "biases"), [*((shape, BIASES) for shape in SHAPES[:-1]), (SHAPES[-1], BIASES[2:3])]
)
def test_triton_draws_it_too(shape: tuple[int, int, int, int], biases: tuple[float, ...]):
    pytest.importorskip("triton", reason="triton is missing: pip install triton", exc_type=ImportError)
    for bias in biases:
        assert torch.equal(drawn("triton", shape, bias), published(shape, bias))


def test_another_seed_step_or_layer_draws_otherwise():
    """The comparison above could pass on gates that no key moves."""
    others = (NoiseKey(4, KEY.step, 3), NoiseKey(KEY.seed, 70_002, 3), NoiseKey(KEY.seed, KEY.step, 4))
    shape = SHAPES[1]
    first = drawn("blockwise", shape, 0.0)
    for other in others:
        assert 0.4 < (drawn("blockwise", shape, 0.0, other) == first).double().mean() < 0.6
