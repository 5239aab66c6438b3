"""The noise: known answers, one draw per edge whoever asks, and the shape of the distribution."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gossamer.gates.noise import (
    DROPOUT,
    NoiseKey,
    _uniform_torch,
    edge_uniform,
    layer_uniform,
    philox,
    round_keys,
)
from helpers import oracles

KEY = NoiseKey(seed=0xDEADBEEF, step=70_000, layer=3)

# Random123, tests/kat_vectors, "philox4x32 7": counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, words):
    got = philox(tuple(torch.tensor(c) for c in counter), round_keys(NoiseKey(*key, layer=0)))
    assert tuple(int(w) for w in got) == words
    assert tuple(oracles.philox_words(counter, key)) == words


@pytest.mark.parametrize("stream", [0, 1])
def test_cpu_torch_and_oracle_draw_alike(stream):
    heads, queries = torch.tensor([0, 5, 2**20]), torch.tensor([0, 1, 40_000])
    arguments = KEY, stream, heads, queries, 8, 7
    cpu = edge_uniform(KEY, heads=heads, queries=queries, n_keys=7, first_key=8, stream=stream)
    assert torch.equal(cpu, _uniform_torch(*arguments))
    name = dataclasses.astuple(KEY)
    slow = [
        [[oracles.uniform(name, h, t, s, stream) for s in range(8, 15)] for t in queries.tolist()]
        for h in heads.tolist()
    ]
    assert torch.equal(cpu.double(), torch.tensor(slow, dtype=torch.float64))


def test_a_tile_is_a_part_of_the_layer():
    whole = layer_uniform(KEY, (2, 3, 6, 21))
    tile = edge_uniform(KEY, heads=torch.tensor([4]), queries=torch.arange(2, 5), n_keys=10, first_key=8)
    assert torch.equal(tile[0], whole[1, 1, 2:5, 8:18])


def test_chunks_and_threads_do_not_matter(monkeypatch):
    whole = layer_uniform(KEY, (2, 3, 6, 21))
    monkeypatch.setattr("gossamer.gates.noise._CHUNK", 8)
    assert torch.equal(layer_uniform(KEY, (2, 3, 6, 21)), whole)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(layer_uniform(KEY, (2, 3, 6, 21)), whole)


@pytest.mark.parametrize("field", ["seed", "step", "layer"])
def test_every_part_of_the_key_changes_the_draw(field):
    other = dataclasses.replace(KEY, **{field: getattr(KEY, field) + 1})
    a, b = layer_uniform(KEY, (1, 2, 9, 9)), layer_uniform(other, (1, 2, 9, 9))
    assert (a == b).sum() == 0
    assert (a == layer_uniform(KEY, (1, 2, 9, 9), stream=DROPOUT)).sum() == 0


def test_draws_are_uniform_and_never_0_or_1():
    u = layer_uniform(KEY, (8, 4, 64, 64)).flatten().double()
    n = u.numel()
    assert u.min() > 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    bins = torch.histc(u, 256, 0, 1)
    chi = ((bins - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi - 255) < 4 * (2 * 255) ** 0.5
    neighbours = ((u[1:] - 0.5) * (u[:-1] - 0.5)).mean() * 12
    assert abs(neighbours) < 4 / n**0.5


def test_the_largest_draw_stays_below_one():
    assert ((2**23 - 1) + 0.5) * 2.0**-23 == torch.tensor(1 - 2.0**-24).item() < 1


def test_no_keys_no_noise():
    drawn = edge_uniform(KEY, heads=torch.arange(2), queries=torch.arange(3), n_keys=0)
    assert drawn.shape == (2, 3, 0)
