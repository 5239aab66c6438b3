"""Gates on single weights: every matrix of a layer once, by a learned logit or by magnitude."""

from __future__ import annotations

import math

import pytest
import torch

from gates.test_learned import output
from gossamer import load, save
from gossamer.gates.weights import FEWEST, WeightGates
from helpers.closed_units import gated


@pytest.mark.parametrize(("name", "matrices"), [("gpt2", 4), ("llama", 7), ("gpt_neox", 4), ("bert", 6)])
def test_each_matrix_of_a_layer_is_a_group(name: str, matrices: int) -> None:
    _, sets = gated(name, "weights")
    masks = sets.of_kind("weights").places[0]  # type: ignore[attr-defined]
    assert len(masks) == matrices
    sizes = [mask.module.weight.numel() for mask in masks]
    assert [mask.units.stop - mask.units.start for mask in masks] == sizes


def test_magnitude_keeps_the_largest_of_each_matrix_and_the_bias_says_how_many(tmp_path: object) -> None:
    model, sets = gated("gpt2", "weights")
    one = sets.of_kind("weights")
    assert isinstance(one, WeightGates)
    one.reads = "magnitude"
    assert not one.learns
    for share in (0.5, 0.01):
        one.bias = math.log(share / FEWEST)
        for mask in one.places[1]:
            size = mask.module.weight.detach().abs().flatten()
            kept = one.hard(1)[mask.units].bool()
            assert kept.sum() == math.ceil(share * len(size))
            assert size[kept].min() >= size[~kept].max()
    expected = output(model)
    save(model, str(tmp_path))
    again = load(str(tmp_path), impl="eager")
    assert torch.equal(output(again), expected)
    one.bias = math.inf
    assert not torch.equal(output(model), expected)
