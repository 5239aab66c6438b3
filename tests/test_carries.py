"""What an edge carries: the facts, the program made of them, and the interchange on which they rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from gossamer.modeling import attach, gates_of
from gossamer.tasks.addition import Addition, as_text
from gossamer.tasks.algorithm import Fact, Program, Truth, position_name, slot_of
from gossamer.tasks.carries import Interchange, explain, same_value
from gossamer.trace import trace

TASK = Addition(2)
UNITS, TENS, HUNDREDS = (slot_of(TASK, place) for place in range(3))


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(TASK)


def chain() -> dict:
    """The six edges of METHOD: digits into their own slots, then the carry upwards, slot by slot."""
    return {
        (0, 0, UNITS, 1): Fact("digit", 0, 1),
        (0, 0, UNITS, 4): Fact("digit", 0, 4),
        (1, 0, TENS, 0): Fact("digit", 1, 0),
        (1, 1, TENS, 3): Fact("digit", 1, 3),
        (1, 2, TENS, UNITS): Fact("carry", 0),
        (2, 0, HUNDREDS, TENS): Fact("carry", 1),
    }


def test_facts_are_what_their_names_say(truth):
    for first, second in ((36, 28), (99, 1), (50, 49), (7, 8)):
        number = TASK.index(first, second)
        assert truth.of(Fact("digit", 1, 0))[number] == first // 10
        assert truth.of(Fact("digit", 0, 4))[number] == second % 10
        assert truth.of(Fact("pair", 0))[number] == first % 10 + second % 10
        assert truth.of(Fact("carry", 0))[number] == (first % 10 + second % 10) // 10
        assert truth.of(Fact("carry", 1))[number] == (first + second) // 100
        answers = [truth.of(Fact("answer", place))[number] for place in range(3)]
        assert answers[0] + 10 * answers[1] + 100 * answers[2] == first + second


def test_six_edges_are_a_program_that_adds(truth):
    program = Program(TASK, chain())
    assert program.correct(truth).all()
    words = program.words()
    assert words[0].endswith("and answers (the units digits) mod 10.")
    assert "the carry out of the units (from the units slot)" in words[1]


def test_a_program_without_an_edge_does_not_guess(truth):
    labels = chain()
    del labels[0, 0, UNITS, 4]
    answers = Program(TASK, labels).run(truth)
    assert (answers[:, 0] == -1).all()
    wrong = chain() | {(1, 2, TENS, UNITS): Fact("answer", 0)}
    assert not Program(TASK, wrong).correct(truth).all()
    late = chain()
    late[0, 2, TENS, UNITS] = late.pop((1, 2, TENS, UNITS))  # before the units slot has read its digits
    assert (Program(TASK, late).run(truth)[:, 1] == -1).any()


def test_a_carry_may_follow_from_the_higher_digits_alone(truth):
    labels = chain()
    del labels[1, 2, TENS, UNITS]
    known = Program(TASK, labels).run(truth)[:, 2]
    pair = truth.of(Fact("pair", 1))
    assert ((known == -1) == (pair == 9)).all()
    assert (known[pair != 9] == truth.of(Fact("carry", 1))[pair != 9]).all()


def test_an_interchange_in_the_program_moves_what_it_should(truth):
    edge = (1, 2, TENS, UNITS)
    flipped = 1 - truth.of(Fact("carry", 0))
    answers = Program(TASK, chain()).run(truth, instead=(edge, flipped))
    number = TASK.index(36, 28)  # 64: without the carry, 54
    assert answers[number].tolist() == [4, 5, 0]
    assert answers[TASK.index(45, 44)].tolist() == [9, 9, 0]  # 89: with a carry that is not there, 99


def test_same_value_draws_within_classes():
    values = np.array([0, 1, 0, 2, 1, 0])
    drawn = same_value(values, np.random.default_rng(0))
    assert (values[drawn] == values).all()


def test_positions_have_names():
    assert position_name(TASK, 0) == "tens digit of the first number"
    assert position_name(TASK, 4) == "units digit of the second number"
    assert position_name(TASK, UNITS) == "units slot"
    assert position_name(TASK, 2) == "the plus sign"
    assert position_name(TASK, 5) == "the equals sign"


@pytest.fixture(scope="module")
def small():
    """A random gated model on one-digit sums, few of whose edges are open."""
    task = Addition(1)
    torch.manual_seed(0)
    model = BertForMaskedLM(task.model_config(width=16, layers=2, heads=2)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "query.weight" in name or "key.weight" in name:
                weight.mul_(60)
    attach(model, bias=-1.0, impl="eager")
    return task, model


def test_an_interchange_with_itself_changes_nothing(small):
    task, model = small
    inputs, _ = task.encode(torch.arange(task.n_sums))
    circuit = trace(model, inputs, outputs=[slot_of(task, 0), slot_of(task, 1)])
    edges = circuit.live().edges()
    assert edges, "an empty test"
    bench = Interchange(model, task, edges, batch_size=33)
    rows = torch.arange(task.n_sums)
    for edge in edges[:3]:
        assert (bench.answers(edge, rows, rows) == bench.own).all()
    layer = edges[0][0]
    total = sum(x for edge, x in bench.contributions.items() if edge[:3] == edges[0][:3])
    seen = []
    note = gates_of(model).observing(lambda call: seen.append(call.out) if call.layer == layer else None)
    with note, torch.no_grad():
        model(input_ids=inputs)
    torch.testing.assert_close(total, seen[0][:, edges[0][1], edges[0][2]], atol=1e-5, rtol=1e-4)


def test_an_untrained_model_is_not_said_to_add(small):
    task, model = small
    inputs, _ = task.encode(torch.arange(task.n_sums))
    circuit = trace(model, inputs, text=as_text, outputs=[slot_of(task, 0), slot_of(task, 1)])
    found = explain(model, task, circuit)
    assert found.n == 100
    assert found.correct < 100
    assert len(found.sentences()) == len(circuit.live([slot_of(task, 0), slot_of(task, 1)]).edges())
    assert all("of 100 sums" in sentence for sentence in found.sentences())
    record = found.as_record()
    assert record["program"]["n"] == 100
