"""What edges and bundles carry: the facts, the program made of them, and the interchange on which they rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gossamer.circuits.trace import trace
from gossamer.models.attach import attach, gates_of
from gossamer.recipes.addition.explain.edges import gate_of
from gossamer.recipes.addition.explain.explanation import explain
from gossamer.recipes.addition.explain.facts import (
    CONFLICT,
    UNKNOWN,
    Fact,
    Truth,
    derive,
    pool,
    position_name,
    slot_of,
)
from gossamer.recipes.addition.explain.head_outputs import (
    HeadFinding,
    candidates,
    head_outputs_of,
    position_findings,
)
from gossamer.recipes.addition.explain.interchange import Interchange, same_value
from gossamer.recipes.addition.explain.program import HeadOutput, Message, Program
from gossamer.recipes.addition.task import Addition, as_text
from helpers.zoo import adder

TASK = Addition(2)
UNITS, TENS, HUNDREDS = (slot_of(TASK, place) for place in range(3))
FIRST_UNITS, SECOND_UNITS = Fact("digit", 0, 1), Fact("digit", 0, 4)
FIRST_TENS, SECOND_TENS = Fact("digit", 1, 0), Fact("digit", 1, 3)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(TASK)


def chain() -> dict[HeadOutput, Message]:
    """The six edges of METHOD: digits into their own slots, then the carry upwards, slot by slot."""
    return {
        (0, 0, UNITS): Message((1, 4), (FIRST_UNITS, SECOND_UNITS)),
        (1, 0, TENS): Message((0,), (FIRST_TENS,)),
        (1, 1, TENS): Message((3,), (SECOND_TENS,)),
        (1, 2, TENS): Message((UNITS,), (Fact("carry", 0),)),
        (2, 0, HUNDREDS): Message((TENS,), (Fact("carry", 1),)),
    }


def test_facts_are_what_their_names_say(truth):
    for first, second in ((36, 28), (99, 1), (50, 49), (7, 8), (18, 81)):
        number = TASK.index(first, second)
        assert truth.of(FIRST_TENS)[number] == first // 10
        assert truth.of(SECOND_UNITS)[number] == second % 10
        assert truth.of(Fact("pair", 0))[number] == first % 10 + second % 10
        assert truth.of(Fact("step", 1))[number] == 1 + np.sign(first // 10 + second // 10 - 9)
        assert truth.of(Fact("carry", 0))[number] == (first % 10 + second % 10) // 10
        assert truth.of(Fact("carry", 1))[number] == (first + second) // 100
        assert truth.of(Fact("seen", 1, 0, (3, 5)))[number] == (first // 10 if first // 10 in (3, 5) else 10)
        answers = [truth.of(Fact("answer", place))[number] for place in range(3)]
        assert answers[0] + 10 * answers[1] + 100 * answers[2] == first + second


def test_a_message_has_as_many_entries_as_its_facts_have_values(truth):
    assert truth.entries(()) == 1
    assert truth.entries((Fact("pair", 0),)) == 19
    assert truth.entries((FIRST_UNITS, SECOND_UNITS)) == 100
    assert truth.entries((Fact("carry", 0), Fact("step", 1))) == 6
    assert truth.entries((Fact("seen", 0, 1, (1, 2)), Fact("seen", 0, 4, (7,)))) == 6
    sizes = [truth.entries(facts) for facts in candidates(TASK, truth)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (1, 10_000)


def test_silence_tells_one_digit_and_not_two(truth):
    n = len(truth.columns)
    eight, nine = (Fact("seen", 0, 1, tuple(range(top))) for top in (8, 9))
    known = derive(TASK, {nine: truth.of(nine)}, FIRST_UNITS, n)
    assert (known == truth.of(FIRST_UNITS)).all()
    known = derive(TASK, {eight: truth.of(eight)}, FIRST_UNITS, n)
    silent = truth.of(FIRST_UNITS) > 7
    assert (known[silent] == UNKNOWN).all()
    assert (known[~silent] == truth.of(FIRST_UNITS)[~silent]).all()
    other = Fact("seen", 0, 1, (8,))
    together = {eight: truth.of(eight), other: truth.of(other)}
    assert (derive(TASK, together, FIRST_UNITS, n) == truth.of(FIRST_UNITS)).all()


def test_two_tellings_that_differ_are_a_conflict_and_no_answer(truth):
    n = len(truth.columns)
    carry = Fact("carry", 0)
    text = pool(({carry: truth.of(carry)}, {carry: 1 - truth.of(carry)}))
    assert (text[carry] == CONFLICT).all()
    silent = pool(({carry: np.full(n, UNKNOWN)}, {carry: truth.of(carry)}))
    assert (silent[carry] == truth.of(carry)).all()
    against = {FIRST_UNITS: truth.of(FIRST_UNITS), SECOND_UNITS: truth.of(SECOND_UNITS)}
    wrong = against | {Fact("pair", 0): truth.of(Fact("pair", 0)) + 1}
    assert (derive(TASK, against, carry, n) == truth.of(carry)).all()
    assert (derive(TASK, wrong, Fact("answer", 0), n) < 0).all()


def test_six_edges_are_a_program_that_adds(truth):
    program = Program(TASK, chain())
    assert program.correct(truth).all()
    assert sum(program.entries(truth).values()) == 100 + 10 + 10 + 2 + 2
    words = program.words()
    assert words[0].endswith("and answers (the units digits) mod 10.")
    assert "the carry out of the units (from the units slot; head 2)" in words[1]


def test_a_program_without_a_message_does_not_guess(truth):
    one = chain() | {(0, 0, UNITS): Message((1,), (FIRST_UNITS,))}
    assert (Program(TASK, one).run(truth)[:, 0] == UNKNOWN).all()
    blind = chain() | {(0, 0, UNITS): Message((1,), (FIRST_UNITS, SECOND_UNITS))}
    assert (Program(TASK, blind).run(truth)[:, 0] == UNKNOWN).all(), "it looked past its declared inputs"
    wrong = chain() | {(1, 2, TENS): Message((UNITS,), (Fact("answer", 0),))}
    assert not Program(TASK, wrong).correct(truth).any()
    late = chain()
    late[0, 2, TENS] = late.pop((1, 2, TENS))  # before the units slot has read its digits
    assert (Program(TASK, late).run(truth)[:, 1] == UNKNOWN).any()


def test_a_carry_may_follow_from_the_higher_digits_alone(truth):
    messages = chain()
    del messages[1, 2, TENS]
    known = Program(TASK, messages).run(truth)[:, 2]
    pair = truth.of(Fact("pair", 1))
    assert ((known == UNKNOWN) == (pair == 9)).all()
    assert (known[pair != 9] == truth.of(Fact("carry", 1))[pair != 9]).all()


def test_an_interchange_in_the_program_moves_what_it_should(truth):
    other = np.full(TASK.n_sums, TASK.index(1, 1))  # no carry
    answers = Program(TASK, chain()).run(truth, instead={(1, 2, TENS): other})
    assert answers[TASK.index(36, 28)].tolist() == [4, 5, 0]  # 64; without the carry, 54
    assert answers[TASK.index(45, 44)].tolist() == [9, 8, 0]
    other = np.full(TASK.n_sums, TASK.index(5, 5))  # a carry
    answers = Program(TASK, chain()).run(truth, instead={(1, 2, TENS): other})
    assert answers[TASK.index(45, 44)].tolist() == [9, 9, 0]  # 89; with a carry that is not there, 99


def test_same_value_draws_within_classes():
    values = np.array([0, 1, 0, 2, 1, 0])
    drawn = same_value(values, np.random.default_rng(0))
    assert (values[drawn] == values).all()


def test_a_gate_is_explained_by_the_fewest_digits_that_decide_it(truth):
    units, tens = truth.of(FIRST_UNITS), truth.of(SECOND_TENS)
    alone = gate_of(truth, np.isin(units, (1, 7)))
    assert (alone.digits, alone.values) == ((1,), (1, 7))
    assert alone.share == pytest.approx(0.2)
    assert "exactly where the units digit of the first number is 1 or 7" in alone.words(TASK)
    assert gate_of(truth, (units > 3) & (tens < 2)).digits == (1, 3)
    assert gate_of(truth, np.ones(TASK.n_sums, dtype=bool)).words(TASK) == "always open"
    almost = np.isin(units, (1, 7))
    almost[0] = True
    assert len(gate_of(truth, almost).digits) == 4, "one sum of 10,000 was rounded away"


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
    model = adder()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "query.weight" in name or "key.weight" in name:
                weight.mul_(60)
    attach(model, bias=-1.0, impl="eager")
    return task, model


def small_edges(task, model):
    inputs, _ = task.encode(torch.arange(task.n_sums))
    circuit = trace(model, inputs, text=as_text, outputs=[slot_of(task, 0), slot_of(task, 1)])
    return circuit, circuit.live().edges()


def test_an_interchange_with_itself_changes_nothing(small):
    task, model = small
    _, edges = small_edges(task, model)
    assert edges, "an empty test"
    head_outputs = list(head_outputs_of(edges))
    patched = Interchange(model, Truth(task), edges, head_outputs, batch_size=33)
    rows = torch.arange(task.n_sums)
    for part in (*edges[:3], *head_outputs[:3]):
        assert (patched.answers(rows, {part: rows}) == patched.own).all()
    assert patched.unchanged(rows, dict.fromkeys(head_outputs, rows)) == task.n_sums
    total = sum(patched.written[edge] for edge in edges if edge[:3] == head_outputs[0])
    torch.testing.assert_close(total, patched.written[head_outputs[0]], atol=1e-5, rtol=1e-4)


def test_exchanging_all_that_is_live_gives_the_other_sum(small):
    """On a model with every gate open, the attention of all layers of x' and the tokens of x: not a no-op."""
    task, model = small
    _, edges = small_edges(task, model)
    head_outputs = list(head_outputs_of(edges))
    patched = Interchange(model, Truth(task), edges, head_outputs)
    rows = torch.arange(task.n_sums)
    others = rows.flip(0)
    seen = []
    layer, head, query = head_outputs[-1]
    note = gates_of(model).observing(
        lambda call: seen.append(call.out[:, head, query].clone()) if call.layer == layer else None
    )
    with patched._observing(lambda call: None), note:
        patched._answers(others)
    torch.testing.assert_close(torch.cat(seen), patched.written[head_outputs[-1]][others])
    assert patched.unchanged(rows, dict.fromkeys(head_outputs, others)) < task.n_sums, "an empty test"


def test_an_untrained_model_is_not_said_to_add(small):
    task, model = small
    circuit, edges = small_edges(task, model)
    found = explain(model, task, circuit)
    assert found.n == 100
    # A program of facts that hold the digits adds whatever the model answers; that the model adds takes both.
    assert found.agrees < 100
    assert len(found.edges) == len(edges)
    assert len(found.head_outputs) == len(head_outputs_of(edges))
    assert len(found.sentences()) == len(found.edges) + len(found.head_outputs) + len(found.positions)
    assert all("of 100 sums" in sentence for sentence in found.sentences())
    record = found.as_record()
    assert record["program"]["n"] == 100
    assert record["program"]["entries"] == sum(one["entries"] for one in record["head_outputs"])


def test_some_sums_are_explained_as_all_are_and_in_any_order(small):
    """Facts of a sample are those of its sums, and all sums drawn are all sums; fewer claim no more than they saw."""
    task, model = small
    drawn = torch.randperm(task.n_sums, generator=torch.Generator().manual_seed(0))
    some, every = Truth(task, drawn[:30]), Truth(task)
    for fact in (Fact("digit", 0, 0), Fact("pair"), Fact("step"), Fact("carry"), Fact("answer")):
        assert (some.of(fact) == every.of(fact)[drawn[:30].numpy()]).all()
    circuit, _ = small_edges(task, model)
    whole = explain(model, task, circuit).as_record()
    again = explain(model, task, circuit, sums=torch.arange(task.n_sums)).as_record()
    assert whole == again
    inputs, _ = task.encode(drawn[:30])
    part = trace(model, inputs, text=as_text, outputs=[slot_of(task, 0), slot_of(task, 1)])
    found = explain(model, task, part, sums=drawn[:30])
    assert found.n == 30
    assert all("of 30 sums" in sentence for sentence in found.sentences())
    kept = {tuple(one["edge"]) for one in found.as_record()["edges"]}
    assert kept <= {tuple(one["edge"]) for one in whole["edges"]}


class Adder:
    """A stand-in for a model that adds by the chain of six edges, with the two faces that are intervened on."""

    def __init__(self, program: Program, truth: Truth) -> None:
        self.task, self.program, self.truth = program.task, program, truth
        self.own = program.run(truth)

    def answers(self, rows, others):
        found = self.program.run(self.truth, instead={part: drawn.numpy() for part, drawn in others.items()})
        return found[rows.numpy()]


def test_what_a_position_is_told_is_exchanged_together(truth):
    program = Program(TASK, chain())
    text = position_findings(Adder(program, truth), truth, program)
    assert [(one.query, one.digits) for one in text] == [
        (UNITS, (1, 4)), (TENS, (0,)), (TENS, (3,)), (TENS, (1, 4)), (HUNDREDS, (0, 1, 3, 4)),
    ]  # fmt: skip
    assert all(one.moved == TASK.n_sums and one.foreseen == 3 * TASK.n_sums for one in text)
    other = Program(TASK, chain() | {(1, 2, TENS): Message((UNITS,), ())})
    wrong = position_findings(Adder(other, truth), truth, program)
    assert min(one.moved for one in wrong) < TASK.n_sums, "a program that tells another story passed"


def test_a_bundle_says_in_one_sentence_what_it_hands_over():
    message = Message((1, 4), (Fact("seen", 0, 1, (1, 2)), Fact("seen", 0, 4, (1, 2))))
    sentence = HeadFinding((1, 0, UNITS), message, 9, 10_000, 10_000, True).sentence(TASK)
    assert sentence == (
        "Layer 1, head 0, units slot: from the units digit of the first number and the units digit of the second "
        "number, each units digit that is 1 or 2 (9 values); held on 100.00 % of 10,000 sums."
    )
    doubtful = HeadFinding((1, 0, UNITS), message, 9, 5_000, 10_000, False).sentence(TASK)
    assert "something else (nearest: each units digit that is 1 or 2)" in doubtful
