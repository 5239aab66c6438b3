"""Tasks: seeded, answerable, with clean and corrupt prompts of one length, and refused where they are not."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from gossamer.data.pairs import METRICS, Pair, Vocabulary, by_tokenizer, encode
from gossamer.data.registry import TASKS, batches, task_vocabulary, training_rows
from gossamer.errors import GossamerError


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return task_vocabulary()


@pytest.mark.parametrize("name", TASKS)
def test_pairs_are_seeded_and_of_one_length(name):
    task = TASKS[name]
    assert task.metric in METRICS
    pairs = task.pairs(200, 1)
    assert pairs == task.pairs(200, 1) != task.pairs(200, 2)
    assert len(pairs) == 200
    for pair in pairs:
        assert len(pair.clean) == len(pair.corrupt)
        assert pair.clean != pair.corrupt
        assert pair.right
        assert pair.wrong
        assert not set(pair.right) & set(pair.wrong)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"nonsense", "quotes"}))
def test_templates_vary(name):
    assert len(Counter(pair.template for pair in TASKS[name].pairs(200, 1))) >= 2


def test_the_answers_are_those_of_the_prompt():
    for pair in TASKS["ioi"].pairs(100, 0):
        assert pair.clean.count(pair.right[0]) == 1
        assert pair.clean.count(pair.wrong[0]) == 2
        assert pair.corrupt.count(pair.wrong[0]) == 1
    for pair in TASKS["induction"].pairs(100, 0):
        assert pair.clean[pair.clean.index(pair.clean[-1]) + 1] == pair.right[0]
        assert pair.corrupt[pair.corrupt.index(pair.corrupt[-1]) + 1] == pair.wrong[0]
    for pair in TASKS["greater_than"].pairs(100, 0):
        year = next(piece for piece in pair.clean if piece.isdigit())
        assert min(pair.right) > year == max(pair.wrong)
        assert " year" in pair.clean or pair.template != 0
    for pair in TASKS["docstring"].pairs(100, 0):
        assert pair.clean.count(pair.right[0]) == 1
        assert pair.wrong[0] not in pair.clean
    for pair in TASKS["quotes"].pairs(100, 0):
        assert pair.right[0] in pair.clean
    closers = {" (": " )", " [": " ]", " {": " }", " =": "\n"}
    for pair in TASKS["brackets"].pairs(100, 0):
        assert pair.right == (closers[pair.clean[1]],)


def test_nonsense_has_no_answer_to_know():
    pairs = TASKS["nonsense"].pairs(2000, 0)
    heads = sum(pair.right == (" heads",) for pair in pairs)
    assert 900 < heads < 1100


def test_every_piece_has_an_id(vocabulary):
    for name, task in TASKS.items():
        for pair in task.pairs(500, 77):
            for pieces in (pair.clean, pair.corrupt, pair.right, pair.wrong):
                vocabulary(pieces)
        assert sum(len(batch) for batch in batches(name, 40, seed=5)) == 40
    with pytest.raises(GossamerError, match=r"piece ' qwerty': expected \d+ known pieces"):
        vocabulary((" qwerty",))


def test_metrics_are_their_formulas(vocabulary):
    (batch,) = batches("nonsense", 4, seed=0)
    logits = torch.randn(4, 9, len(vocabulary))
    right, wrong = batch.right.float().argmax(-1), batch.wrong.float().argmax(-1)
    rows = torch.arange(4)
    expected = logits[rows, -1, right] - logits[rows, -1, wrong]
    torch.testing.assert_close(batch.measure(logits), expected)
    assert batch.accuracy(logits) == float((expected > 0).float().mean())
    years = batches("greater_than", 4, seed=0)[0]
    logits = torch.randn(len(years), len(vocabulary))
    share = logits.softmax(-1)
    expected = (share * years.right).sum(-1) - (share * years.wrong).sum(-1)
    torch.testing.assert_close(years.measure(logits), expected)
    assert len(years[:1]) == 1


def test_training_rows_hold_prompts_with_their_answers(vocabulary):
    ids, labels, mask = training_rows(["ioi", "quotes"], 50, seed=0, vocabulary=vocabulary)
    assert ids.shape == labels.shape == mask.shape
    assert ((labels == -100) == (mask == 0)).all()
    again, *_ = training_rows(["ioi", "quotes"], 50, seed=0, vocabulary=vocabulary)
    assert torch.equal(ids, again)


def test_lengths_that_differ_are_refused():
    vocabulary = Vocabulary("abc")
    uneven = [Pair(("a", "b"), ("a",), ("b",), ("c",), 0)]
    with pytest.raises(GossamerError, match="the clean prompt has 2 tokens and the corrupt one 1"):
        encode(uneven, vocabulary, 4, task="made up")
    both = [Pair(("a",), ("b",), ("c",), ("c",), 0)]
    with pytest.raises(GossamerError, match="an answer that is right and wrong"):
        encode(both, vocabulary, 4, task="made up")
    letters = by_tokenizer(lambda text, add_special_tokens: {"input_ids": [ord(c) - 97 for c in text]})
    assert letters(("ab", "c")) == [0, 1, 2]
    with pytest.raises(GossamerError, match=r"the answer 'bb' has 2 tokens: expected answers of one token"):
        encode([Pair(("a",), ("b",), ("bb",), ("c",), 0)], letters, 4, task="made up")
    with pytest.raises(GossamerError, match="task='sudoku' is not known"):
        batches("sudoku", 3)
    for n in (0, -1):
        with pytest.raises(GossamerError, match=f"n_prompts={n} is out of range"):
            batches("ioi", n)
