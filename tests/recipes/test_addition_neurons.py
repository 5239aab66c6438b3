"""The listing of neurons, on an adder whose neurons are made by hand."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from gossamer.gates.host import Options
from gossamer.gates.learned import OPEN
from gossamer.gates.neurons import NeuronGates
from gossamer.models.attach import attach_missing, find_gate_sets
from gossamer.models.forward import evaluating, first_output
from gossamer.recipes.addition.explain.facts import Fact, Truth
from gossamer.recipes.addition.explain.neurons import _codes, _explained, count_open, label_neurons
from gossamer.recipes.addition.page import pack_bert
from gossamer.recipes.addition.task import Addition
from helpers.zoo import adder

TASK = Addition(1)


def few(open_neurons: list[int]):
    """An adder of one digit in which only some neurons of layer 0 are open; closed ones elsewhere."""
    model = adder(1)
    attach_missing(model, ("neurons",), Options("eager"))
    find_gate_sets(model).bias = 0.0
    gates = NeuronGates.on(model)
    assert gates is not None
    with torch.no_grad():
        for logits in gates.logits.values():
            logits.fill_(-OPEN)
        gates.logits["0"][open_neurons] = OPEN
    return model, gates


def answers(model):
    inputs, labels = TASK.encode(torch.arange(TASK.n_sums))
    with evaluating(model):
        return first_output(model, {"input_ids": inputs}).argmax(-1), labels


@pytest.fixture
def digit_reader():
    """Neuron 3 of layer 0 reads, in a layer that attends to nothing, whatever stands at its position."""
    model, gates = few([3, 9])
    layer = model.bert.encoder.layer[0]
    with torch.no_grad():
        layer.attention.output.dense.weight.zero_()
        layer.intermediate.dense.weight[9].zero_()
        layer.intermediate.dense.bias[3] = 1.0
        layer.output.dense.weight[:, 3] *= 50
    return model, gates


def test_only_open_neurons_are_listed_and_a_constant_one_responds_to_nothing(digit_reader):
    model, _ = digit_reader
    found = {one.neuron: one for one in label_neurons(model, Truth(TASK))}
    assert sorted(found) == [3, 9]
    assert count_open(model) == 2
    assert {one.layer for one in found.values()} == {0}
    assert found[9].fact == Fact("nothing")
    assert "the same on all sums" in found[9].sentence(TASK)
    assert found[3].fact.name == "digit"
    assert found[3].position == found[3].fact.position
    assert found[3].eta == pytest.approx(1.0)
    assert "responds to the units digit of the" in found[3].sentence(TASK)


def test_closing_each_alone_is_what_a_closed_logit_does(digit_reader):
    model, gates = digit_reader
    found = {one.neuron: one for one in label_neurons(model, Truth(TASK))}
    own, labels = answers(model)
    assert gates.keep is None
    with torch.no_grad():
        gates.logits["0"][3] = -OPEN
    without, _ = answers(model)
    slots = {place: p for p, (kind, place) in TASK.place.items() if kind == "slot"}
    changed = {place: int((own != without)[:, p].sum()) for place, p in slots.items()}
    assert found[3].wrong_slots == {place: n for place, n in changed.items() if n}
    assert found[3].wrong_slots
    assert found[3].wrong == int(((own == labels).all(1) & (without != labels).any(1)).sum())


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (Fact("carry", 0), "the carry out of the units"),
        (Fact("digit", 1, 3), "the tens digit of the second number"),
    ],
)
def test_the_coarsest_fact_that_explains_a_response_is_named(fact, words):
    task = Addition(2)
    truth = Truth(task)
    response = torch.zeros(task.n_sums, task.length).numpy()
    response[:, 7] = 3.0 * truth.of(fact)
    position, found, eta = _explained(response, _codes(truth))
    assert (position, found) == (7, fact)
    assert eta == pytest.approx(1.0)
    assert found.words(task) == words


def test_a_response_is_looked_at_where_closing_matters_if_it_varies_there():
    task = Addition(2)
    truth = Truth(task)
    response = torch.zeros(task.n_sums, task.length).numpy()
    response[:, 0] = 9.0 * truth.of(Fact("digit", 1, 0))
    response[:, 10] = truth.of(Fact("carry", 0))
    assert _explained(response, _codes(truth), 10)[:2] == (10, Fact("carry", 0))
    assert _explained(response, _codes(truth), 9)[:2] == (0, Fact("digit", 1, 0))


def test_the_page_runs_the_model_without_its_closed_units():
    model = adder(1)
    attach_missing(model, ("edges", "heads", "neurons"), Options("blockwise"))
    sets = find_gate_sets(model)
    sets.bias = 0.0
    with torch.no_grad():
        sets.of_kind("heads").logits["0"][1] = -OPEN
        sets.of_kind("neurons").logits["1"][7:] = -OPEN
    packed = pack_bert(model)
    values = np.frombuffer(base64.b64decode(packed["weights"]["data"]), dtype="<f4")
    sizes = [int(np.prod(tensor["shape"])) for tensor in packed["tensors"]]
    parts = dict(
        zip((x["name"] for x in packed["tensors"]), np.split(values, np.cumsum(sizes)[:-1]), strict=True)
    )
    assert not parts["0.o.weight"].reshape(16, 16)[:, 8:].any()
    assert parts["0.o.weight"].reshape(16, 16)[:, :8].any()
    assert not parts["1.down.weight"].reshape(16, 64)[:, 7:].any()
    assert parts["1.down.weight"].reshape(16, 64)[:, :7].all()


def test_what_no_fact_explains_is_said_to_be_unexplained():
    task = Addition(2)
    truth = Truth(task)
    response = torch.randn(task.n_sums, task.length, generator=torch.Generator().manual_seed(0)).numpy()
    assert _explained(response, _codes(truth))[2] < 0.1


def test_a_model_without_gates_on_neurons_has_no_list():
    assert label_neurons(adder(1), Truth(TASK)) == []
