"""What is left of a model, against counting its matrices by hand."""

from __future__ import annotations

import pytest
import torch

from gossamer.gates.host import Options
from gossamer.gates.learned import OPEN, LearnedGates
from gossamer.models.attach import attach_missing, find_gate_sets
from gossamer.models.remaining import remaining
from helpers.zoo import DECODERS, ENCODERS, build

WIDTH, HEAD = 32, 8  # of the zoo's models
EXPERTS = {"gpt_oss"}


def closed(name: str, *kinds: str, units: dict[str, list[int]]):
    """A model of the zoo with some units of layer 0 closed."""
    model = build(name)
    attach_missing(model, kinds, Options("eager"))
    sets = find_gate_sets(model)
    sets.bias = 0.0
    with torch.no_grad():
        for kind, which in units.items():
            sets.of_kind(kind).logits["0"][which] = -OPEN  # type: ignore[attr-defined]
    return model


def test_gpt2_by_hand() -> None:
    model = closed("gpt2", "edges", "heads", "neurons", units={"heads": [1, 2], "neurons": [0, 5, 7]})
    base, neurons = build("gpt2"), model.transformer.h[0].mlp.c_fc.weight.shape[1]
    found = remaining(model)
    head, neuron = 4 * HEAD * WIDTH, 2 * WIDTH  # q, k, v, o; in and out
    matrices = 2 * (4 * WIDTH * WIDTH + 2 * WIDTH * neurons) + 96 * WIDTH  # two layers and the logits
    assert found.base.parameters == base.num_parameters()
    assert found.base.multiply_adds == matrices
    assert found.left.multiply_adds == matrices - 2 * head - 3 * neuron
    gone = 2 * (head + 3 * HEAD) + 3 * (neuron + 1)  # with their biases
    assert found.left.parameters == base.num_parameters() - gone
    assert found.base.bytes - found.left.bytes == 4 * gone
    assert found.units["heads"].per_group == [[1, 0, 0, 1], [1, 1, 1, 1]]
    assert found.units["neurons"].per_group == [[neurons - 3], [neurons]]
    assert found.units["neurons"].of_layer == [neurons, neurons]


def test_llama_by_hand_shares_out_the_keys_and_values_of_a_group() -> None:
    model = closed("llama", "heads", "neurons", units={"heads": [0, 2, 3], "neurons": [4]})
    found, base = remaining(model), build("llama")
    side, neuron = HEAD * WIDTH, 3 * WIDTH  # a head's part of one matrix; gate, in and out
    # Three of four query heads are closed: of key-value head 0 a half, and the whole of 1.
    assert found.base.multiply_adds - found.left.multiply_adds == 3 * 2 * side + 1.5 * 2 * side + neuron
    assert found.base.parameters - found.left.parameters == 3 * 2 * side + 2 * side + neuron
    assert found.base.parameters == base.num_parameters()


def test_a_weight_in_a_closed_head_counts_once() -> None:
    model = closed("gpt2", "heads", "weights", units={"heads": [0], "weights": list(range(0, 300, 3))})
    found = remaining(model)
    c_attn = model.transformer.h[0].attn.c_attn.weight
    zero = torch.zeros_like(c_attn)
    zero.view(-1)[0:300:3] = 1
    for part in range(3):
        zero[:, part * WIDTH : part * WIDTH + HEAD] = 1
    assert found.base.multiply_adds - found.left.multiply_adds == zero.sum() + HEAD * WIDTH


@pytest.mark.parametrize("family", sorted({*DECODERS, *ENCODERS}))
def test_it_is_price_times_open_units_on_every_architecture(family: str) -> None:
    kinds = ("heads",) if family in EXPERTS else ("heads", "neurons")
    model = closed(family, *kinds, units={kind: [0, 3] for kind in kinds})
    found = remaining(model)
    sets = [one for one in find_gate_sets(model) if isinstance(one, LearnedGates)]
    gone = sum(one.price * 2 for one in sets)
    assert found.base.multiply_adds - found.left.multiply_adds == pytest.approx(gone)
    assert found.base.parameters == build(family).num_parameters()
    assert 0 < found.left.parameters < found.base.parameters


def test_without_static_gates_nothing_is_gone() -> None:
    found = remaining(closed("gpt2", "edges", units={}))
    assert found.left == found.base
    assert found.units == {}
