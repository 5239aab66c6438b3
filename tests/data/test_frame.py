"""Rows to train on begin as prompts begin, whatever a tokenizer puts there, and no text begins twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from gossamer.data.examples import Example
from gossamer.data.frame import Frame
from gossamer.data.padded import Padded
from gossamer.data.pairs import by_tokenizer
from gossamer.data.prompts import Prompt
from gossamer.data.registry import batches
from gossamer.data.text import packed
from helpers.letters import LETTERS

SPECIAL = ("<pad>", "<s>", "</s>")
TEMPLATES = {
    "nothing": ("$A", 0, 0),
    "a beginning": ("<s> $A", 1, 0),
    "two tokens before": ("<s> </s> $A", 2, 0),
    "both ends": ("<s> $A </s>", 1, 1),
    "an end": ("$A </s>", 0, 1),
}
CHAT = "<s>hello there</s>"


def letters(template: str) -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *LETTERS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    words.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=template, special_tokens=[(token, vocabulary[token]) for token in SPECIAL]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


@pytest.fixture(params=TEMPLATES.values(), ids=TEMPLATES)
def case(request: Any) -> tuple[PreTrainedTokenizerFast, list[int], list[int]]:
    template, before, after = request.param
    tokenizer = letters(template)
    ids = tokenizer("hello")["input_ids"]
    return tokenizer, ids[:before], ids[len(ids) - after :]


def test_the_frame_is_what_the_tokenizer_adds(case: tuple) -> None:
    tokenizer, before, after = case
    assert Frame.of(tokenizer) == (before, after)


@pytest.mark.parametrize("length", [8, 11, 16])
@pytest.mark.parametrize("text", ["a line of words, and more of it.", CHAT])
def test_rows_begin_and_end_as_prompts_do(case: tuple, text: str, length: int) -> None:
    tokenizer, before, after = case
    rows = list(packed([text] * 20, tokenizer, length))
    assert {len(row) for row in rows} == {length}
    documents = Padded(tokenizer, length)([Example(text)] * 3, 3)
    rows += [
        ids[mask.bool()].tolist()
        for ids, mask in zip(*(documents.columns[n] for n in ("input_ids", "attention_mask")), strict=True)
    ]
    n = len(before)
    for row in rows:
        assert row[:n] == before
        assert not n or row[n : 2 * n] != before
        assert row[len(row) - len(after) :] == after


def test_no_token_of_a_text_is_lost_between_two_rows() -> None:
    tokenizer, texts = letters("<s> $A"), ["hello there", "and more."] * 10
    whole = [i for text in texts for i in [*tokenizer(text)["input_ids"][1:], 2]]
    rows = list(packed(texts, tokenizer, 9))
    assert [i for row in rows for i in row[1:]] == whole[: 8 * len(rows)]
    assert len(whole) - 8 * len(rows) < 8


def test_a_text_from_a_chat_template_begins_once(case: tuple) -> None:
    tokenizer, before, after = case
    plain = tokenizer(CHAT, add_special_tokens=False)["input_ids"]
    n = 1 if before == plain[:1] else 0
    assert Prompt.of(CHAT, tokenizer).ids[0].tolist() == [*before, *plain[n:], *after]
    assert Prompt.of("hello", tokenizer).ids[0].tolist() == tokenizer("hello")["input_ids"]


def test_prompts_of_a_task_begin_as_prompts_do() -> None:
    def tokenize(pieces: tuple[str, ...]) -> list[int]:
        return [100 + sum(map(ord, piece)) % 1000 for piece in pieces]

    plain, framed = (batches("ioi", 4, tokenize=tokenize, n_vocabulary=1100, before=b) for b in ([], [7, 8]))
    for one, other in zip(plain, framed, strict=True):
        assert torch.equal(other.clean[:, 2:], one.clean)
        assert torch.equal(other.corrupt[:, 2:], one.corrupt)
        assert (other.clean[:, :2] == torch.tensor([7, 8])).all()
        assert torch.equal(other.right, one.right)
    assert by_tokenizer(letters("<s> $A"))(("a", "b")) == [5, 6]
