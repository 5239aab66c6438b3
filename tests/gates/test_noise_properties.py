"""Noise: a part is the part of the whole, however it is computed; keys tell draws apart; it is logistic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gossamer.gates import noise
from gossamer.gates.noise import DROPOUT, GATES, NoiseKey, edge_uniform, layer_uniform

# Negative and beyond 32 bits too: a key is taken modulo its words, never refused.
WORD = st.integers(-(2**40), 2**40)
KEYS = st.builds(NoiseKey, seed=WORD, step=WORD, layer=st.integers(0, 2**30))
STREAMS = st.sampled_from([GATES, DROPOUT])
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 40))
N = 1 << 15  # draws of one marginal
# Kolmogorov-Smirnov: n draws are farther than c / sqrt(n) with probability 2 exp(-2 c^2), 3e-14 for c = 4.
FARTHEST = 4.0


def named(key: NoiseKey) -> tuple[int, int, int]:
    """What a key names, with everything modulo its words."""
    return key.seed % 2**32, key.step % 2**32, key.layer % 2**24


@contextmanager
def computed(chunk: int, threads: int) -> Iterator[None]:
    """Draw in chunks of so many counters, on so many threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "_CHUNK", chunk)
        patch.setattr(torch, "get_num_threads", lambda: threads)
        yield


@st.composite
def pieces(draw: st.DrawFn, shape: tuple[int, int, int, int]) -> tuple[range, range, range]:
    """Heads, queries and keys of a part of (B, H, T, S), keys from a multiple of 4."""

    def some(size: int, step: int = 1) -> range:
        start = draw(st.integers(0, (size - 1) // step)) * step
        return range(start, draw(st.integers(start + 1, size)))

    rows, heads, queries, keys = shape
    return some(rows * heads), some(queries), some(keys, step=4)


@given(KEYS, STREAMS, SHAPES, st.data(), st.sampled_from([1, 7, 64, 1 << 15]), st.integers(1, 3))
@settings(deadline=None)
def test_the_noise_of_a_part_is_the_part_of_the_noise(
    key: NoiseKey,
    stream: int,
    shape: tuple[int, int, int, int],
    data: st.DataObject,
    chunk: int,
    threads: int,
) -> None:
    heads, queries, keys = data.draw(pieces(shape))
    whole = layer_uniform(key, shape, stream=stream).flatten(0, 1)
    want = whole[heads.start : heads.stop, queries.start : queries.stop, keys.start : keys.stop]
    with computed(chunk, threads):
        got = edge_uniform(
            key, heads=heads, queries=queries, n_keys=len(keys), first_key=keys.start, stream=stream
        )
    assert torch.equal(got, want)


@given(KEYS, SHAPES, st.data(), st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None)
def test_heads_and_queries_may_come_in_any_order_and_go_into_any_memory(
    key: NoiseKey, shape: tuple[int, int, int, int], data: st.DataObject, dtype: torch.dtype
) -> None:
    rows, n_heads, n_queries, keys = shape
    heads = torch.tensor(data.draw(st.lists(st.integers(0, rows * n_heads - 1), min_size=1, max_size=5)))
    queries = torch.tensor(data.draw(st.lists(st.integers(0, n_queries - 1), min_size=1, max_size=5)))
    want = layer_uniform(key, shape).flatten(0, 1)[heads][:, queries]
    out = torch.full(want.shape, torch.nan, dtype=dtype)
    got = edge_uniform(key, heads=heads, queries=queries, n_keys=keys, out=out)
    assert got is out
    assert torch.equal(got, want.to(dtype))


@given(KEYS, STREAMS, st.tuples(*[st.integers(-3, 3)] * 3))
@settings(deadline=None)
def test_the_same_name_draws_the_same(key: NoiseKey, stream: int, turns: tuple[int, int, int]) -> None:
    """A key is taken modulo its words: a run of more than 2**32 steps starts again, and does not fail."""
    seed, step, layer = named(key)
    again = NoiseKey(seed + turns[0] * 2**32, step + turns[1] * 2**32, layer + abs(turns[2]) * 2**24)
    shape = (1, 2, 3, 8)
    assert torch.equal(layer_uniform(key, shape, stream=stream), layer_uniform(again, shape, stream=stream))


@given(KEYS, KEYS, STREAMS, STREAMS)
@settings(deadline=None)
def test_another_name_draws_otherwise(key: NoiseKey, other: NoiseKey, stream: int, another: int) -> None:
    assume((*named(key), stream) != (*named(other), another))
    assert_told_apart(key, other, stream, another)


@given(KEYS, st.sampled_from(["seed", "step", "layer"]), st.integers(0, 31))
@settings(deadline=None)
def test_each_bit_of_a_key_counts(key: NoiseKey, field: str, bit: int) -> None:
    assume(field != "layer" or bit < 24)
    other = dataclasses.replace(key, **{field: getattr(key, field) ^ (1 << bit)})
    assert_told_apart(key, other, GATES, GATES)


def assert_told_apart(key: NoiseKey, other: NoiseKey, stream: int, another: int) -> None:
    """Two draws of 23 bits are equal once in eight million pairs, so three in 64 is never chance."""
    a = layer_uniform(key, (1, 2, 4, 8), stream=stream)
    b = layer_uniform(other, (1, 2, 4, 8), stream=another)
    assert (a == b).sum() < 3


@given(
    KEYS, STREAMS, st.sampled_from([(N, 1, 1, 1), (1, N, 1, 1), (1, 1, N, 1), (1, 1, 1, N), (2, 4, 64, 64)])
)
@settings(deadline=None, max_examples=50)
def test_noise_is_logistic_along_every_axis(
    key: NoiseKey, stream: int, shape: tuple[int, int, int, int]
) -> None:
    assert distance(layer_uniform(key, shape, stream=stream)) < FARTHEST / N**0.5


@given(KEYS, st.sampled_from(["seed", "step", "layer"]))
@settings(deadline=None, max_examples=4)
def test_the_noise_of_one_edge_is_logistic_over_seeds_steps_and_layers(key: NoiseKey, field: str) -> None:
    """A gate meets one draw a step: what it sees over a run must be logistic too."""
    start, n = getattr(key, field), 1024
    keys = (dataclasses.replace(key, **{field: start + i}) for i in range(n))
    drawn = torch.cat([layer_uniform(one, (1, 1, 1, 1)) for one in keys])
    assert distance(drawn) < FARTHEST / n**0.5


def distance(u: Tensor) -> float:
    """How far the logits of these draws are from the logistic distribution, by Kolmogorov and Smirnov."""
    x = torch.logit(u.flatten().double()).sort().values
    assert torch.isfinite(x).all()
    below, step = torch.sigmoid(x), torch.arange(len(x) + 1) / len(x)
    return float(torch.maximum((below - step[:-1]).abs(), (step[1:] - below).abs()).max())
