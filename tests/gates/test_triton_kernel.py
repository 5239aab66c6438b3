"""The fused kernels against the oracle, in Triton's interpreter where there is no CUDA device.

Skipped where triton is not installed; `pip install triton` brings it back, with or without a GPU.
"""

from __future__ import annotations

import os

import pytest
import torch

from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.gates.attention import gated_attention
from helpers.attention_cases import FEATURES, KEY, B, H, S, T, assert_within_budget, inputs, results

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    # Read when triton_kernel is imported, which the first call below does.
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton", reason="triton is missing: pip install triton", exc_type=ImportError)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]  # the kernel runs in triton's interpreter, a tile at a time


def on_device(qkv, arguments):
    """Inputs and tensor arguments on the device under test."""
    moved = tuple(x.detach().to(DEVICE).requires_grad_() for x in qkv)
    return moved, {k: x.to(DEVICE) if torch.is_tensor(x) else x for k, x in arguments.items()}


def compare(shape, dtype, arguments):
    """Triton and eager in one precision, both against the oracle in float64."""
    exact = results(inputs(shape), "oracle", **arguments)
    qkv, arguments = on_device(inputs(shape, dtype), arguments)
    got = [x.cpu() for x in results(qkv, "triton", **arguments)]
    eager = [x.cpu() for x in results(qkv, "eager", **arguments)]
    assert_within_budget(got, eager, exact)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fill fresh memory with NaN, so that an element no kernel wrote shows."""

    def poison(make):
        def fresh(*args, **kwargs):
            x = make(*args, **kwargs)
            return x.fill_(torch.nan) if x.is_floating_point() else x

        return fresh

    monkeypatch.setattr(torch.Tensor, "new_empty", poison(torch.Tensor.new_empty))


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature(feature):
    compare((B, H, 2, T, S, 5, 3), torch.float32, FEATURES[feature])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton 3.9's interpreter multiplies bfloat16 as integers: runs on CUDA")
    compare((1, 2, 1, 40, 40, 16, 16), dtype, {"causal": True, "noise": KEY, "bias": 0.5})


@pytest.mark.parametrize(
    ("length", "width", "causal"),
    [(1, 40, True), (63, 40, False), (63, 96, True), (111, 40, True)],
)
def test_awkward_sizes(length, width, causal):
    arguments = {"causal": causal, "noise": KEY, "bias": 0.5}
    compare((1, 2, 1, length, length, width, width), torch.float32, arguments)


def test_a_window_skips_blocks_on_both_sides():
    compare((1, 1, 1, 100, 130, 4, 4), torch.float32, {"window": 20, "noise": KEY})


def test_wholly_closed_blocks_are_skipped_to_the_same_result():
    q, k, v = inputs((1, 1, 1, 70, 70, 8, 8), torch.float32)
    k = k.detach().clone()
    k[:, :, :40] *= 0  # s = 0 is closed, so the first block of keys holds no open edge
    compared = {}
    for impl in ("eager", "triton"):
        x, _ = on_device((q, k, v), {})
        with torch.no_grad():
            compared[impl] = gated_attention(*x, scale=1.0, bias=-1.0, impl=impl).out.cpu()
    torch.testing.assert_close(compared["triton"], compared["eager"], atol=1e-5, rtol=1e-4)


def test_deterministic():
    qkv, _ = on_device(inputs((1, 4, 1, 40, 40, 8, 8), torch.float32), {})
    first = results(qkv, "triton", noise=KEY, causal=True)
    again = results(qkv, "triton", noise=KEY, causal=True)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("dtype", "width", "arguments", "words"),
    [
        (torch.float64, 8, {}, "float64.*expected blockwise, eager"),
        (torch.float32, 264, {}, "wider than 256: expected blockwise, eager"),
        (torch.float32, 8, {"renormalise": True}, "renormalise=True: expected eager"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused_by_name(dtype, width, arguments, words):
    qkv, _ = on_device(inputs((1, 1, 1, 2, 2, width, 4), dtype), {})
    with pytest.raises(UnsupportedModel, match=words):
        gated_attention(*qkv, scale=1.0, impl="triton", **arguments)


@pytest.mark.skipif(DEVICE == "cuda", reason="needs tensors off the GPU: runs where there is none")
def test_cpu_tensors_are_refused_outside_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(GossamerError, match="tensors on cpu: expected cuda"):
        gated_attention(*inputs((1, 1, 1, 2, 2, 4, 4), torch.float32), scale=1.0, impl="triton")
