"""The addition task: encoding, splits, and what counts as a needed edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gossamer.circuits.circuit import Circuit
from gossamer.errors import GossamerError
from gossamer.recipes.addition.task import Addition, as_text

# The six-edge wiring of DESIGN.md: units slot from both units, carry up, tens from both tens, carry up.
SIX = [(0, 10, 1), (0, 10, 4), (1, 9, 10), (1, 9, 0), (1, 9, 3), (2, 8, 9)]


def circuit_of(edges: list[tuple[int, int, int]], length: int = 11) -> Circuit:
    layer, query, key = (np.array(x, dtype=np.int32) for x in zip(*edges, strict=True))
    zeros, ones = np.zeros(len(edges), dtype=np.int32), np.ones(len(edges), dtype=np.float32)
    row = tuple("?" * length)
    return Circuit(
        4, 4, (row,), (row,), tuple(range(length)), (1936,), zeros, layer, zeros, query, key, ones, ones, ones
    )


def test_the_figure_s_sum() -> None:
    task = Addition()
    inputs, labels = task.encode(torch.tensor([task.parse("36 + 28")]))
    assert "".join(as_text(inputs[0])) == "36+28=?????"
    assert "".join(as_text(labels[0])) == "36+28=00064"


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_every_label_is_the_sum(digits: int) -> None:
    task = Addition(digits)
    index = torch.arange(task.n_sums) if digits < 3 else torch.randperm(task.n_sums)[:500]
    inputs, labels = task.encode(index)
    assert inputs.shape == labels.shape == (len(index), task.length)
    first, second = task.operands(index)
    for row, a, b in zip(labels.tolist(), first.tolist(), second.tolist(), strict=True):
        assert int("".join(map(str, row[-task.n_slots :]))) == a + b


def test_the_split_is_seeded_whole_and_disjoint() -> None:
    task = Addition()
    train, held_out = task.split(3)
    assert len(train) == 8000
    assert len(held_out) == 2000
    assert torch.cat([train, held_out]).sort().values.equal(torch.arange(10000))
    assert train.equal(task.split(3)[0])
    assert not train.equal(task.split(4)[0])


@pytest.mark.parametrize("text", ["36", "3x+28", "136+28", "36+28+1", "-3+4", "", "٣+4"])
def test_wrong_sums_are_one_clear_line(text: str) -> None:
    with pytest.raises(GossamerError, match=r"sum .*: expected .*. Write for example 36\+28"):
        Addition().parse(text)


def test_the_six_edge_wiring_is_sound_and_complete() -> None:
    task, circuit = Addition(), circuit_of(SIX)
    assert task.precision(circuit) == 1.0
    assert task.recall(circuit) == 1.0
    assert len(task.dependencies) == 10


def test_each_of_the_six_edges_is_needed() -> None:
    task = Addition()
    for gone in range(6):
        assert task.recall(circuit_of([e for i, e in enumerate(SIX) if i != gone])) < 1.0


def test_order_of_layers_matters() -> None:
    # The carry cannot go up before it is there.
    early_carry = [(0, 9, 10), *[e for e in SIX if e != (1, 9, 10)]]
    assert Addition().recall(circuit_of(early_carry)) < 1.0


def test_unsound_edges_lower_precision() -> None:
    task = Addition()
    assert not task.is_sound(2, 0)  # plus reads a digit
    assert not task.is_sound(10, 0)  # the units slot has no use for the tens
    assert not task.is_sound(6, 8)  # the first two slots are always zero
    assert task.precision(circuit_of([*SIX, (0, 2, 0), (0, 10, 0)])) == pytest.approx(6 / 8)


def test_a_relay_from_a_higher_slot_is_told_apart() -> None:
    task, circuit = Addition(), circuit_of([*SIX, (2, 9, 8)])
    assert task.precision(circuit) == pytest.approx(6 / 7)
    assert task.precision(circuit, relays=True) == 1.0
    assert not task.is_sound(9, 9, relays=True)
    assert not task.is_sound(9, 6, relays=True)
