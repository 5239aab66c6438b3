"""Gated attention, eager and blockwise, against the oracle: each output and each gradient."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.gates.attention import IMPLEMENTATIONS, gated_attention, resolve
from gossamer.gates.attention import __name__ as package
from gossamer.gates.attention.settings import Settings
from gossamer.gates.attention.workspace import Workspace
from helpers.attention_cases import FEATURES, KEY, B, H, S, T, assert_within_budget, inputs, results

BOTH = pytest.mark.parametrize("impl", ["eager", "blockwise"])


@pytest.fixture(params=[None, 100], ids=["one tile", "many tiles"])
def tiles(request, monkeypatch):
    """Tiles as they come and kept for backward, or small ones that are computed again."""
    if request.param:
        monkeypatch.setattr(f"{package}.tiles.TILE", request.param)
        monkeypatch.setattr(f"{package}.blockwise.KEPT", 0)


@pytest.fixture
def poisoned(monkeypatch):
    """Fill fresh memory with NaN, so that an element nobody wrote shows."""

    def poison(make):
        def fresh(*args, **kwargs):
            x = make(*args, **kwargs)
            return x.fill_(torch.nan) if x.is_floating_point() else x

        return fresh

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poison(torch.Tensor.new_empty))
    # Memory that a tile uses again counts as fresh.
    monkeypatch.setattr(Workspace, "buffer", poison(Workspace.buffer))


@functools.cache
def expected(feature, groups):
    """The oracle's answer, computed once for all implementations and tile sizes."""
    return results(inputs((B, H, groups, T, S, 5, 3)), "oracle", **FEATURES[feature])


@pytest.mark.usefixtures("poisoned", "tiles")
@pytest.mark.parametrize("groups", [H, 2, 1])
@pytest.mark.parametrize("feature", FEATURES)
@BOTH
def test_every_feature_repeats_the_oracle(impl, feature, groups):
    qkv = inputs((B, H, groups, T, S, 5, 3))
    got = results(qkv, impl, **FEATURES[feature])
    for x, want in zip(got, expected(feature, groups), strict=True):
        torch.testing.assert_close(x, want, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("poisoned", "tiles")
@pytest.mark.parametrize("groups", [2, 1])
@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_repeats_the_oracle_where_logits_are_out_of_reach(feature, groups, monkeypatch):
    monkeypatch.setattr(f"{package}.tiles.REACH", 0.0)
    got = results(inputs((B, H, groups, T, S, 5, 3)), "blockwise", **FEATURES[feature])
    for x, want in zip(got, expected(feature, groups), strict=True):
        torch.testing.assert_close(x, want, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("scale", [10.0, 30.0, 100.0])
@pytest.mark.parametrize("bias", [-30.0, 0.0, 30.0])
def test_large_logits_stay_within_the_error_budget(scale, bias):
    shape = (1, 2, 1, 30, 30, 8, 8)
    arguments = {"causal": True, "noise": KEY, "bias": bias, "scale": scale}
    exact = results(inputs(shape), "oracle", **arguments)
    qkv = inputs(shape, torch.float32)
    got, eager = (results(qkv, impl, **arguments) for impl in ("blockwise", "eager"))
    assert_within_budget(got, eager, exact)


def test_renormalise_repeats_the_oracle():
    qkv = inputs((B, H, 2, T, S, 5, 3))
    for feature in ("noise", "causal", "padding"):
        got = results(qkv, "eager", renormalise=True, **FEATURES[feature])[0]
        want = results(qkv, "oracle", renormalise=True, **FEATURES[feature])[0]
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("tiles")
@BOTH
def test_more_queries_than_keys_leaves_the_first_blind(impl):
    qkv = inputs((1, 2, 1, 7, 3, 4, 4))
    got = results(qkv, impl, causal=True, noise=KEY)
    assert got[0][:, :, :4].abs().max() == 0
    for x, want in zip(got, results(qkv, "oracle", causal=True, noise=KEY), strict=True):
        torch.testing.assert_close(x, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "width"), [(1, 40), (63, 40), (63, 96), (111, 40)])
def test_awkward_sizes_stay_within_the_error_budget(length, width, causal, dtype, monkeypatch):
    monkeypatch.setattr(f"{package}.tiles.TILE", 2000)
    monkeypatch.setattr(f"{package}.blockwise.KEPT", 0)
    shape = (1, 2, 1, length, length, width, width)
    arguments = {"causal": causal, "noise": KEY, "bias": 0.5}
    exact = results(inputs(shape), "oracle", **arguments)
    qkv = inputs(shape, dtype)
    eager = results(qkv, "eager", **arguments)
    assert_within_budget(results(qkv, "blockwise", **arguments), eager, exact)


@BOTH
def test_open_gates_are_plain_attention(impl):
    q, k, v = inputs((B, H, 2, T, T, 8, 8), torch.float32)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    out, count = gated_attention(q, k, v, scale=8**-0.5, bias=torch.inf, causal=True, impl=impl)
    torch.testing.assert_close(out, plain)
    assert torch.equal(count, torch.full((B, H), T * (T + 1) / 2))


@pytest.mark.usefixtures("tiles")
def test_blockwise_passes_gradcheck():
    qkv = inputs((1, 2, 1, 3, 5, 3, 2))

    def opened(*x):
        return gated_attention(*x, scale=0.6, bias=torch.inf, causal=True, impl="blockwise").out

    def counted(*x):
        return gated_attention(*x, scale=0.6, bias=0.4, impl="blockwise").expected_open

    def counted_by_weight(*x):
        return gated_attention(
            *x, scale=0.6, bias=1.4, causal=True, lse_share=1.0, impl="blockwise"
        ).expected_open

    assert torch.autograd.gradcheck(opened, qkv)
    for count in (counted, counted_by_weight):
        assert torch.autograd.gradcheck(count, (*qkv[:2], qkv[2].detach()))


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("share", [0.0, 1.0])
@BOTH
def test_without_the_straight_through_path_both_outputs_pass_gradcheck(impl, share):
    qkv = inputs((1, 2, 1, 3, 5, 3, 2))
    given = {"scale": 0.6, "bias": 0.4 + share, "causal": True, "lse_share": share, "impl": impl}
    assert torch.autograd.gradcheck(lambda *x: gated_attention(*x, straight_through=False, **given)[:2], qkv)
    out = gated_attention(*qkv, straight_through=False, **given).out
    closed = gated_attention(*qkv, **{**given, "bias": torch.inf}).out
    assert not torch.allclose(out, closed), "an empty test"


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("which", [0, 1])
@BOTH
def test_either_output_alone_has_its_gradient(impl, which):
    qkv = inputs((B, H, 2, T, S, 5, 3))
    got = gated_attention(*qkv, scale=1.0, noise=KEY, impl=impl)[which]
    want = gated_attention(*qkv, scale=1.0, noise=KEY, impl="eager")[which]
    got = torch.autograd.grad(got.sum(), qkv[:2])
    for x, y in zip(got, torch.autograd.grad(want.sum(), qkv[:2]), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.usefixtures("tiles")
def test_the_same_call_gives_the_same_bits_twice_also_under_checkpointing():
    qkv = inputs((B, H, 2, T, S, 5, 3), torch.float32)

    def run(*x):
        return gated_attention(*x, scale=1.0, noise=KEY, dropout=0.2, impl="blockwise").out

    once = torch.autograd.grad(run(*qkv).sum(), qkv)
    again = torch.autograd.grad(checkpoint(run, *qkv, use_reentrant=False).sum(), qkv)
    assert all(torch.equal(x, y) for x, y in zip(once, again, strict=True))


@pytest.mark.usefixtures("tiles")
def test_a_second_backward_repeats_the_first():
    qkv = inputs((B, H, 2, T, S, 5, 3))
    out, count = gated_attention(*qkv, scale=1.0, noise=KEY, softcap=2.0, impl="blockwise")
    loss = out.sum() + count.sum()
    first = torch.autograd.grad(loss, qkv, retain_graph=True)
    second = torch.autograd.grad(loss, qkv)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@BOTH
def test_extreme_logits_stay_finite(impl):
    q, k, v = inputs((1, 2, 2, 5, 5, 4, 4), torch.float32)
    for x in results((q, k, v), impl, scale=1e4, noise=KEY, causal=True):
        assert x.isfinite().all()


def test_blockwise_never_holds_a_square_matrix(monkeypatch):
    monkeypatch.setattr(f"{package}.tiles.TILE", 1 << 14)
    monkeypatch.setattr(f"{package}.blockwise.KEPT", 0)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            made = result if isinstance(result, (tuple, list)) else [result]
            sizes.extend(x.untyped_storage().nbytes() for x in made if torch.is_tensor(x))
            return result

    qkv = inputs((1, 1, 1, 1024, 1024, 4, 4), torch.float32)
    with Watch():
        results(qkv, "blockwise", noise=KEY, causal=True)
    assert max(sizes) <= 4 << 14


def test_dropout_keeps_the_mean():
    q, k = torch.zeros(1, 1, 64, 4), torch.zeros(1, 1, 64, 4)
    v = torch.ones(1, 1, 64, 1)
    arguments = {"scale": 1.0, "bias": torch.inf, "dropout": 0.25, "dropout_key": KEY}
    out = gated_attention(q, k, v, impl="blockwise", **arguments).out
    assert abs(out.mean() - 1) < 4 * (0.25 / 0.75 / 64**2) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"impl": "flash"}, GossamerError, "eager, blockwise, triton"),
        ({"bias": float("nan")}, GossamerError, r"bias=nan: expected any number of nats"),
        ({"window": 0}, GossamerError, "window=0: expected 1 and above"),
        ({"dropout": 1.0}, GossamerError, "dropout=1.0: expected 0 <= dropout < 1"),
        ({"dropout": 0.1}, GossamerError, "without a key.*dropout_key"),
        ({"mask": torch.zeros(T, S)}, GossamerError, "mask is torch.float32: expected bool"),
        ({"sinks": torch.zeros(3)}, GossamerError, r"sinks \(3,\): expected \(4,\)"),
        ({"segments": torch.zeros(2, 3)}, GossamerError, r"segments \(2, 3\): expected \(2, 9\)"),
        ({"impl": "blockwise", "renormalise": True}, UnsupportedModel, "renormalise.*eager"),
        (
            {"impl": "blockwise", "keep": torch.ones(T, S, requires_grad=True)},
            UnsupportedModel,
            "gradient for keep: expected eager. Pass impl='eager'",
        ),
    ],
)
def test_errors_say_got_possible_and_do(arguments, kind, words):
    with pytest.raises(kind, match=words):
        gated_attention(*inputs((B, H, 2, T, S, 5, 3)), scale=1.0, **arguments)


def test_shapes_that_do_not_fit_are_refused():
    q, k, v = inputs((B, H, 2, T, S, 5, 3))
    with pytest.raises(GossamerError, match=r"expected \(B, H, T, D\)"):
        gated_attention(q, k[:, :, :4], v, scale=1.0)


def test_auto_is_blockwise_without_cuda_and_names_stand_for_themselves():
    assert resolve("auto", "cpu") == "blockwise"
    assert [resolve(name, "cpu") for name in IMPLEMENTATIONS] == list(IMPLEMENTATIONS)
    with pytest.raises(GossamerError, match="auto, eager, blockwise, triton"):
        resolve("fast", "cpu")


@pytest.mark.parametrize("groups", [H, 2, 1])
@pytest.mark.parametrize(
    "feature", ["plain", "open", "closed", "padding", "padding open", "window", "softcap", "sinks", "keep"]
)
def test_one_query_without_a_count_repeats_the_oracle(feature, groups):
    arguments = {name: x for name, x in FEATURES[feature].items() if name != "noise"}
    if arguments.get("keep") is not None:
        arguments["keep"] = arguments["keep"][:, :, :1]
    qkv = inputs((B, H, groups, 1, S, 5, 3))
    with torch.no_grad():
        want = results(qkv, "oracle", **arguments)[0]
        out, count = gated_attention(*qkv, scale=5**-0.5, count=False, impl="blockwise", **arguments)
    torch.testing.assert_close(out, want, rtol=1e-9, atol=1e-11)
    assert count.isnan().all()


@BOTH
def test_the_result_does_not_depend_on_the_count(impl):
    qkv = inputs((B, H, 2, T, S, 5, 3))
    with torch.no_grad():
        outs = [gated_attention(*qkv, scale=1.0, causal=True, count=x, impl=impl).out for x in (True, False)]
    assert torch.equal(*outs)


@pytest.mark.parametrize(
    "arguments",
    [
        FEATURES[name]
        for name in (
            "plain",
            "causal",
            "padding",
            "mask of heads",
            "mask (T, S)",
            "window",
            "causal window",
            "segments",
        )
    ],
)
def test_visible_pairs_are_counted_as_they_are_listed(arguments):
    q, k, _ = inputs((B, H, 2, T, S, 5, 3))
    names = ("mask", "causal", "window", "segments")
    visibility = Settings(1.0, **{name: arguments[name] for name in names if name in arguments}).visibility(
        q, k
    )
    pairs = visibility.all_pairs()
    listed = torch.full((B, H), T * S) if pairs is None else pairs.expand(B, H, T, S).sum((-1, -2))
    assert torch.equal(visibility.count_all().flatten(1, 2), listed)
