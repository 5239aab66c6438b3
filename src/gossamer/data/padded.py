"""One example a row, cut and padded: sentences, labelled texts and pairs of them, sentences with a label a word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import refuse
from .examples import Example
from .frame import Frame
from .labels import Labels
from .sequences import IGNORED, TensorRows


class _Row(NamedTuple):
    """Token ids (T,), what kind each is where a tokenizer says so, and how many tokens were cut off."""

    ids: list[int]
    kinds: list[int] | None
    cut: int
    label: Any  # a number, K numbers, (T,) numbers of words, or None


class Padded:
    """Makes rows of at most `length` tokens of examples.

    Args:
        labels: what the labels of examples mean; None where they are not read.
        words: whether a label is of each word. It stands at the word's first token, and -100 at all others.

    Attributes:
        cut: how many rows were longer.
        labelled: whether the rows that were made have labels; None before there are any.
    """

    def __init__(
        self, tokenizer: Any, length: int, *, labels: Labels | None = None, words: bool = False
    ) -> None:
        self.tokenizer, self.length, self.labels, self.words = tokenizer, length, labels, words
        self.frame = Frame.of(tokenizer)
        self.cut, self.labelled = 0, None if labels else False
        if words and labels and labels.reads != "classes":
            raise refuse(f"a model of tokens that reads its outputs as {labels.reads}", "one class of each token",
                         "set num_labels to two or more, and leave problem_type out of its config.json")  # fmt: skip
        if words and labels and not tokenizer.is_fast:
            raise refuse(f"labels of words with {type(tokenizer).__name__}, which does not say where its tokens stand",
                         "a tokenizer with a tokenizer.json", "save it again with the fast class")  # fmt: skip

    def __call__(self, examples: Iterable[Example], limit: int | None) -> TensorRows:
        """The first `limit` examples: input_ids, attention_mask, token_type_ids of pairs, labels where there are some.

        Raises: `GossamerError` for labels in a part of the rows, and for one that the model does not know.
        """
        rows = [self._row(one) for one in islice(examples, limit)]
        if not rows:
            return TensorRows(
                input_ids=torch.zeros(0, self.length), attention_mask=torch.zeros(0, self.length)
            )
        self.cut += sum(row.cut > 0 for row in rows)
        given = {"input_ids": [row.ids for row in rows]}
        if any(row.kinds and any(row.kinds) for row in rows):
            given["token_type_ids"] = [row.kinds or [0] * len(row.ids) for row in rows]
        batch = dict(self.tokenizer.pad(given, padding=True, return_tensors="pt"))
        if self.labelled:
            batch["labels"] = self._labels([row.label for row in rows], batch["attention_mask"].bool())
        return TensorRows(**batch)

    def _row(self, one: Example) -> _Row:
        if self.labels is not None:
            self._require_same(one)
        if self.words and self.labelled:
            return self._of_words(one)
        label = self.labels.number(one.label, one.where) if self.labels and self.labelled else None
        if one.pair:
            whole = self.tokenizer(one.text, one.pair, verbose=False)
            kept = self.tokenizer(one.text, one.pair, truncation=True, max_length=self.length, verbose=False)
            ids = kept["input_ids"]
            return _Row(ids, kept.get("token_type_ids"), len(whole["input_ids"]) - len(ids), label)
        ids = self.tokenizer(one.text, add_special_tokens=False, verbose=False)["input_ids"]
        return _Row(self.frame.around(ids, self.length), None, self._over(ids), label)

    def _over(self, ids: Sequence[int]) -> int:
        return max(0, len(ids) - self.frame.doubled(ids) - self.frame.width(self.length))

    def _require_same(self, one: Example) -> None:
        """Raise for labels in a part of the rows: what has none would be measured as something else."""
        has = one.label is not None
        if self.labelled is None:
            self.labelled = has
        elif self.labelled != has:
            this, others = ("a label", "none") if has else ("no label", "one")
            raise refuse(f"{one.where} has {this}, and rows before it have {others}",
                         "a label in every row, or in none", "remove such rows")  # fmt: skip

    def _of_words(self, one: Example) -> _Row:
        assert self.labels is not None
        numbers = self.labels.numbers(one.label, one.words, one.where)
        encoded = self.tokenizer(one.text, add_special_tokens=False, verbose=False)
        ids, start = encoded["input_ids"], 0
        at = [IGNORED] * len(ids)
        for word, number in zip(one.words, numbers, strict=True):
            places = (encoded.char_to_token(i) for i in range(start, start + len(word)))
            token = next((place for place in places if place is not None), None)
            if token is not None and at[token] == IGNORED:
                at[token] = number
            start += len(word) + 1
        frame, doubled = self.frame, self.frame.doubled(ids)
        inside = at[doubled:][: frame.width(self.length)]
        label = [*[IGNORED] * len(frame.before), *inside, *[IGNORED] * len(frame.after)]
        return _Row(frame.around(ids, self.length), None, self._over(ids), label)

    def _labels(self, given: list[Any], tokens: Tensor) -> Tensor:
        if self.words:
            labels = torch.full(tokens.shape, IGNORED)
            labels[tokens] = torch.tensor([x for row in given for x in row])
            return labels
        return torch.tensor(given)
