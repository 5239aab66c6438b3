"""Whatever holds the keys of earlier tokens, a gated model says what it says when it reads a row whole."""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionMaskInterface, DynamicCache, QuantizedCache, StaticCache
from transformers.masking_utils import sdpa_mask

from gossamer import attach
from gossamer.errors import UnsupportedModel
from gossamer.gates.attention import blockwise
from gossamer.models import interface
from gossamer.training.metrics import Tally, counting
from helpers import zoo

LENGTH, ROOM, BIAS = 12, 20, 0.1
ONE_BY_ONE, CHUNKS, WHOLE = (1,) * LENGTH, (3, 4, 5), (LENGTH,)
needs_quanto = pytest.mark.skipif(importlib.util.find_spec("optimum") is None, reason="needs optimum-quanto")


class NoStream:
    """A stream of a device on which everything is done in turn."""

    def wait_stream(self, other: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def _streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offloaded caches ask CUDA for streams; without CUDA they keep keys on the CPU, and copy them in turn."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch, "Stream", NoStream)
        monkeypatch.setattr(torch.cuda, "default_stream", lambda device: NoStream())


def dynamic(config: Any) -> DynamicCache:
    """As `generate` makes it: its layers slide where the model's do."""
    return DynamicCache(config=config)


def static(config: Any) -> StaticCache:
    return StaticCache(config=config, max_cache_len=ROOM)


def full(config: Any) -> StaticCache:
    """With no room behind the last token."""
    return StaticCache(config=config, max_cache_len=LENGTH)


def never_slides(config: Any) -> DynamicCache:
    return DynamicCache()


def offloaded(config: Any) -> DynamicCache:
    return DynamicCache(config=config, offloading=True)


def offloaded_static(config: Any) -> StaticCache:
    return StaticCache(config=config, max_cache_len=ROOM, offloading=True)


def quantized(config: Any) -> QuantizedCache:
    return QuantizedCache(backend="quanto", config=config, nbits=4, residual_length=ROOM)


CACHES = [
    dynamic,
    never_slides,
    static,
    full,
    offloaded,
    offloaded_static,
    pytest.param(quantized, marks=needs_quanto),  # nothing is quantized before `residual_length` tokens
]


def ids(rows: int = 2, seed: int = 1, length: int = LENGTH) -> Tensor:
    return torch.randint(4, zoo.VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


@functools.cache
def gated(family: str, **options: Any) -> tuple[Any, Any]:
    """A model with gates, and these; nothing here changes either."""
    model = zoo.build(family)
    gates = attach(model, **{"bias": BIAS, **options})
    return (model.cuda() if torch.cuda.is_available() else model), gates


def whole(model: Any, tokens: Tensor, gates: Any = None) -> tuple[Tensor, Tally]:
    """The logits of rows read whole, without a cache, and what was open."""
    tally = Tally()
    with torch.no_grad(), counting(gates, tally):
        return model(input_ids=tokens.to(model.device), use_cache=False).logits, tally


def in_chunks(
    model: Any, tokens: Tensor, cache: Any, sizes: tuple[int, ...], gates: Any
) -> tuple[Tensor, Tally]:
    """The logits of rows read `sizes` tokens at a time, and what was open."""
    tally, parts = Tally(), []
    with torch.no_grad(), counting(gates, tally):
        for part in tokens.to(model.device).split(sizes, dim=1):
            parts.append(model(input_ids=part, past_key_values=cache, use_cache=True).logits)
    return torch.cat(parts, dim=1), tally


def same_edges(one: Tally, other: Tally) -> None:
    for part in ("visible", "hard", "queries"):
        assert one.sums[f"edges/{part}"] == other.sums[f"edges/{part}"], part
    assert 0 < one.sums["edges/hard"] < one.sums["edges/visible"]


def same_in_any_chunks(model: Any, gates: Any, make: Callable[[Any], Any]) -> None:
    """With a cache, however rows are cut, logits and edges are those without one."""
    expected, alone = whole(model, ids(), gates)
    for sizes in (ONE_BY_ONE, CHUNKS, WHOLE):
        found, tally = in_chunks(model, ids(), make(model.config), sizes, gates)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        same_edges(tally, alone)


@pytest.mark.parametrize("make", CACHES)
@pytest.mark.parametrize("family", zoo.DECODERS)
def test_a_cache_changes_neither_logits_nor_edges(family: str, make: Callable[[Any], Any]) -> None:
    model, gates = gated(family)
    if make is offloaded_static and all(static(model.config).is_sliding):
        pytest.skip("transformers offloads no static cache in which every layer slides")
    same_in_any_chunks(model, gates, make)


@pytest.mark.parametrize("make", [dynamic, static])
@pytest.mark.parametrize(
    ("impl", "reads", "bias"),
    [("eager", "logit", BIAS), ("eager", "weight", 2.0), ("blockwise", "weight", 2.0)],
)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "gpt_oss"])
def test_whatever_computes_the_gates_and_whatever_they_read(
    family: str, impl: str, reads: str, bias: float, make: Callable[[Any], Any]
) -> None:
    model, gates = gated(family, impl=impl, reads=reads, bias=bias)
    same_in_any_chunks(model, gates, make)


@pytest.mark.parametrize("make", [dynamic, static])
@pytest.mark.parametrize("family", zoo.DECODERS)
def test_a_prefix_is_computed_once_for_several_ends(family: str, make: Callable[[Any], Any]) -> None:
    model, gates = gated(family)
    prefix, cache = ids(1, length=8).to(model.device), make(model.config)
    with torch.no_grad():
        model(input_ids=prefix, past_key_values=cache, use_cache=True)
        for seed in (2, 3):
            end = ids(1, seed=seed, length=4).to(model.device)
            found = model(input_ids=end, past_key_values=copy.deepcopy(cache), use_cache=True).logits
            expected, _ = whole(model, torch.cat([prefix, end], 1), gates)
            torch.testing.assert_close(found, expected[:, 8:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", zoo.DECODERS)
def test_the_last_token_changes_nothing_before_it_in_a_static_cache(family: str) -> None:
    model, gates = gated(family)
    edited = ids().clone()
    edited[:, -1] = (edited[:, -1] + 1) % zoo.VOCABULARY
    before, after = (in_chunks(model, x, static(model.config), WHOLE, gates)[0] for x in (ids(), edited))
    torch.testing.assert_close(before[:, :-1], after[:, :-1], rtol=0, atol=1e-6)
    assert not torch.equal(before[:, -1], after[:, -1])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("options", [
    {"cache_implementation": "dynamic"},
    {"cache_implementation": "static"},
    {"prefill_chunk_size": 4},
    {"cache_implementation": "offloaded"},
    {"cache_implementation": "offloaded_static"},
], ids=lambda options: next(iter(options.values())))  # fmt: skip
@pytest.mark.parametrize("family", zoo.DECODERS)
def test_generation_with_a_cache_is_generation_without(
    family: str, options: dict[str, Any], beams: int
) -> None:
    """Two rows, one of them padded on the left: tokens and their scores."""
    model, _ = gated(family)
    if "offloaded_static" in options.values() and all(static(model.config).is_sliding):
        pytest.skip("transformers offloads no static cache in which every layer slides")
    prompt, mask = ids(), torch.ones(2, LENGTH, dtype=torch.long)
    prompt[1, :3], mask[1, :3] = zoo.pad_of(model), 0
    given = {
        "attention_mask": mask.to(model.device),
        "max_new_tokens": 5,
        "min_new_tokens": 5,
        "do_sample": False,
    }
    given |= {"num_beams": beams, "return_dict_in_generate": True, "output_scores": True}
    found = model.generate(prompt.to(model.device), use_cache=True, **options, **given)
    expected = model.generate(prompt.to(model.device), use_cache=False, **given)
    assert torch.equal(found.sequences, expected.sequences)
    assert found.sequences.shape == (2, LENGTH + 5)
    torch.testing.assert_close(torch.stack(found.scores), torch.stack(expected.scores), rtol=1e-4, atol=1e-4)


def test_attaching_proves_a_static_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask function that drops the mask of a static cache, as ours once did, is refused when gates are attached."""
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, interface.KEY, sdpa_mask)
    with pytest.raises(
        UnsupportedModel, match="LlamaForCausalLM: a static cache changes the output by"
    ) as error:
        attach(zoo.build("llama"))
    assert "\n" not in str(error.value)


def test_a_token_of_a_plain_generation_goes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dynamic cache ends with the last query, so one query needs no mask."""
    calls: list[int] = []
    plain = blockwise.one_query
    monkeypatch.setattr(interface, "one_query", lambda *x, **y: calls.append(1) or plain(*x, **y))
    model, _ = gated("llama", impl="blockwise")
    model.generate(ids().to(model.device), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert len(calls) == 2 * 2  # layers, and tokens after the first
