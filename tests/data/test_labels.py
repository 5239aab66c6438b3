"""Labels as people write them: names in any case, numbers as text, several of them, scores, one of each word."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gossamer.data.examples import Example
from gossamer.data.labels import Labels
from gossamer.data.padded import Padded
from gossamer.errors import GossamerError
from helpers.letters import tokenizer

NAMES = ("negative", "Neutral", "positive")
CLASSES = Labels(NAMES)


@pytest.mark.parametrize("given", ["positive", " Positive ", "POSITIVE", 2, "2", 2.0, "2.0"])
def test_a_class_by_name_or_number(given: Any) -> None:
    assert CLASSES.number(given, "") == 2


def test_a_name_goes_before_a_number_and_a_case_before_none() -> None:
    assert Labels(("1", "2", "3")).number("1", "") == Labels(("1", "2", "3")).number(1, "") == 0
    assert Labels(("it", "IT")).number("IT", "") == 1
    assert Labels(("False", "True")).number(True, "") == CLASSES.number(True, "") == 1


@pytest.mark.parametrize(
    "given", ["bad", -1, 3, "3", 1.5, math.nan, math.inf, [1], {}, "[", "\ud800", 10**400]
)
def test_a_class_that_the_model_does_not_have(given: Any) -> None:
    with pytest.raises(
        GossamerError, match="which the model does not have: expected 0 to 2, or one of negative, N"
    ):
        CLASSES.number(given, "a.csv, row 1")


@pytest.mark.parametrize("reads", ["classes", "labels", "values"])
def test_no_label(reads: str) -> None:
    with pytest.raises(GossamerError, match="row 1 has no label"):
        Labels(NAMES, reads).number("", "row 1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["positive", "negative"], [1, 0, 1]), ([1, 0, 1], [1, 0, 1]), ([1.0, 0.0, 0.0], [1, 0, 0]), ([2], [0, 0, 1]),
        ('["neutral"]', [0, 1, 0]), ("neutral", [0, 1, 0]), ([], [0, 0, 0]), ("[0, 1, 1]", [0, 1, 1]),
    ],
)  # fmt: skip
def test_several_labels(given: Any, expected: list[int]) -> None:
    assert Labels(NAMES, "labels").number(given, "") == expected


def test_scores() -> None:
    score = Labels(("score",), "values")
    assert score.number("0.5", "") == score.number([0.5], "") == [0.5]
    assert Labels(("a", "b"), "values").number("[1, 2.5]", "") == [1.0, 2.5]
    for given in ("much", [1, 2], math.nan, "inf", "[" * 100_000):
        with pytest.raises(GossamerError, match="expected 1 finite numbers"):
            score.number(given, "row 1")


def rows(*given: Example, length: int = 12, words: bool = False, labels: Labels = CLASSES) -> Any:
    return Padded(tokenizer(), length, labels=labels, words=words)(given, None).columns


def test_rows_carry_the_labels_of_their_texts() -> None:
    assert rows(Example("abc", label="positive"), Example("a", label=0))["labels"].tolist() == [2, 0]
    assert "labels" not in rows(Example("abc"), Example("a"))
    hot = rows(Example("abc", label=["positive"]), labels=Labels(NAMES, "labels"))["labels"]
    assert hot.dtype == torch.float32
    assert hot.tolist() == [[0, 0, 1]]


def test_labels_in_a_part_of_the_rows() -> None:
    with pytest.raises(GossamerError, match="row 2 has no label, and rows before it have one"):
        rows(Example("a", label=1), Example("a", where="row 2"))
    with pytest.raises(GossamerError, match="row 2 has a label, and rows before it have none"):
        rows(Example("a"), Example("a", label=1, where="row 2"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_label_of_a_word_stands_at_its_first_token(side: str) -> None:
    given = [Example(" ".join(words), words=words, label=label) for words, label in (
        (("ab", "c", "def"), ["positive", 1, -100]), (("a",), [0]),
    )]  # fmt: skip
    made = tokenizer()
    made.padding_side = side
    found = Padded(made, 12, labels=CLASSES, words=True)(given, None).columns
    first = [2, -100, -100, 1, -100, -100, -100, -100]
    pad = [-100] * 7
    assert found["labels"].tolist() == [first, [*pad, 0] if side == "left" else [0, *pad]]


@pytest.mark.parametrize("trim", [True, False])
def test_a_word_that_begins_with_its_space_has_its_label(trim: bool) -> None:
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim)
    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pieces  # type: ignore[assignment]
    learned = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pieces.alphabet(), show_progress=False)
    whole.train_from_iterator(["Ann went to Oslo"] * 20, learned)
    made = PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="!", eos_token="!")
    words = ("Ann", "naïve", "Oslo")
    found = Padded(made, 32, labels=CLASSES, words=True)(
        [Example(" ".join(words), words=words, label=[2, 1, 0])], None
    )
    labels, ids = found.columns["labels"][0], found.columns["input_ids"][0]
    shown = [made.decode(ids[labels == number]).strip(" Ġ") for number in (2, 1, 0)]
    assert shown == ["Ann", "n", "Oslo"]
    assert (labels >= 0).sum() == len(words)


def test_words_that_are_cut_off_take_their_labels_along() -> None:
    words = ("ab", "c", "def")
    padded = Padded(tokenizer(), 4, labels=CLASSES, words=True)
    found = padded([Example(" ".join(words), words=words, label=[2, 1, 0])], None).columns
    assert found["labels"].tolist() == [[2, -100, -100, 1]]
    assert padded.cut == 1
    with pytest.raises(GossamerError, match="row 1 has 2 labels of 3 words"):
        padded([Example("a b c", words=("a", "b", "c"), label=[1, 2], where="row 1")], None)


def test_words_have_classes() -> None:
    for reads in ("labels", "values"):
        with pytest.raises(
            GossamerError, match=f"reads its outputs as {reads}: expected one class of each token"
        ):
            Padded(tokenizer(), 8, labels=Labels(NAMES, reads), words=True)


def test_pairs_are_one_input() -> None:
    made = tokenizer(pairs=True)
    found = Padded(made, 12)([Example("ab", "c"), Example("a")], None).columns
    cls, sep, pad = made.cls_token_id, made.sep_token_id, made.pad_token_id
    a, b, c = made.convert_tokens_to_ids(list("abc"))
    assert found["input_ids"].tolist() == [[cls, a, b, sep, c, sep], [cls, a, sep, pad, pad, pad]]
    assert found["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]
    assert "token_type_ids" not in Padded(made, 12)([Example("ab")], None).columns
