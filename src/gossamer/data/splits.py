"""The three splits of a text: to learn from, to choose the best checkpoint by, and to report on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ..errors import GossamerWarning, refuse
from .sequences import TensorRows
from .text import HOLD_OUT, Corpus, PackedStream, as_rows, packed, padded_rows, too_short


class Splits:
    """The splits as data sets, made once.

    Args:
        corpus: the text, split into train and held out.
        length: tokens per row.
        train: rows to learn from, at most.
        held_out: rows to choose by, and as many again to report on; fewer are told.
        stream: read the rows to learn from as they are needed.
        sentences: one document per row, padded, instead of packed rows.
        mask_token: of a masked language model; None for a causal one.
        seed: of the choice of masked tokens.
    Raises: `GossamerError` for a text that gives too little.
    """

    def __init__(
        self, corpus: Corpus, tokenizer: Any, length: int, *, train: int, held_out: int, stream: bool = False,
        sentences: bool = False, mask_token: int | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        def take(documents: Iterable[str], n: int, least: int, purpose: str) -> TensorRows:
            if sentences:
                rows = padded_rows(documents, tokenizer, length, n)
            else:
                found = list(islice(packed(documents, tokenizer, length), n))
                rows = as_rows(found, mask_token=mask_token, seed=seed)
            if len(rows) < least:
                raise too_short(corpus, len(rows), length, purpose)
            return rows

        if stream and sentences:
            raise refuse("--stream of one document a row", "whole texts", "drop --stream")
        if stream:
            self.train: Any = PackedStream(corpus, tokenizer, length, mask_token=mask_token)
        else:
            self.train = take(corpus.train(), train, 1, "train on")
        both = take(corpus.held_out(), 2 * held_out, 2, HOLD_OUT)
        cut = len(both) // 2
        if cut < held_out:
            message = f"only {cut} held-out rows to choose by and {cut} to report on, where {held_out} were asked for"
            advice = "pass more text, or a larger --held-out-share"
            warnings.warn(f"{message}: {advice}", GossamerWarning, stacklevel=2)
        parts = (slice(0, cut), slice(cut, 2 * cut))
        self.choose, self.report = (TensorRows(**{k: v[s] for k, v in both.columns.items()}) for s in parts)

    def fingerprint(self) -> str:
        """A short name of the held-out rows: another text, column, length or tokenizer gives another."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.choose, self.report):
            digest.update(part.columns["input_ids"].contiguous().numpy().tobytes())
        return digest.hexdigest()
