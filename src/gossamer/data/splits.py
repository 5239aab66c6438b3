"""The three splits of a text: to learn from, to choose the best checkpoint by, and to report on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from ..errors import GossamerWarning, refuse
from .examples import Example
from .padded import Padded
from .sequences import TensorRows
from .text import HOLD_OUT, Corpus, PackedStream, as_rows, packed, too_short


class Splits:
    """The splits as data sets, made once.

    Args:
        corpus: the text, split into train and held out.
        length: tokens per row.
        train: rows to learn from, at most.
        held_out: rows to choose by, and as many again to report on; fewer are told.
        stream: read the rows to learn from as they are needed.
        padded: makes one row of an example, instead of packed rows of all.
        mask_token: of a masked language model; None for a causal one.
        seed: of the choice of masked tokens.

    Attributes:
        train, choose, report: the data sets.
        labelled: whether rows carry labels of the task's own.
    Raises: `GossamerError` for data that give too little.
    """

    def __init__(
        self, corpus: Corpus, tokenizer: Any, length: int, *, train: int, held_out: int, stream: bool = False,
        padded: Padded | None = None, mask_token: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        def packed_rows(examples: Iterable[Example], n: int) -> TensorRows:
            found = list(islice(packed((one.text for one in examples), tokenizer, length), n))
            return as_rows(found, mask_token=mask_token, seed=seed)

        make: Callable[[Iterable[Example], int], TensorRows] = padded or packed_rows

        def take(n: int, least: int, purpose: str) -> TensorRows:
            rows = make(corpus.part(held_out=purpose == HOLD_OUT), n)
            if len(rows) < least:
                raise too_short(corpus, len(rows), length, purpose)
            return rows

        if stream and padded:
            raise refuse("--stream of one document a row", "whole texts", "drop --stream")
        if stream:
            self.train: Any = PackedStream(corpus, tokenizer, length, mask_token=mask_token)
        else:
            self.train = take(train, 1, "train on")
        both = take(2 * held_out, 2, HOLD_OUT)
        cut = len(both) // 2
        if cut < held_out:
            message = f"only {cut} held-out rows to choose by and {cut} to report on, where {held_out} were asked for"
            advice = "pass more text, or a larger --held-out-share"
            warnings.warn(f"{message}: {advice}", GossamerWarning, stacklevel=2)
        parts = (slice(0, cut), slice(cut, 2 * cut))
        self.choose, self.report = (TensorRows(**{k: v[s] for k, v in both.columns.items()}) for s in parts)
        self.labelled = bool(padded and padded.labelled)
        if padded and padded.cut:
            rows = len(self.train) + len(both)
            message = f"{padded.cut:,} of {rows:,} rows are cut to {length} tokens: pass a larger --length to read more"
            warnings.warn(message, GossamerWarning, stacklevel=2)

    def fingerprint(self) -> str:
        """A short name of the held-out rows: another text, column, length or tokenizer gives another."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.choose, self.report):
            for name in ("input_ids", *["labels"] * self.labelled):
                digest.update(part.columns[name].contiguous().numpy().tobytes())
        return digest.hexdigest()
