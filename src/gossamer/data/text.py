"""Text in, equally long rows of tokens out; the held-out part is split off by document, before any cutting.

A source is one of

    stdlib              the sources of the running Python's standard library: real text on every machine
    a file or folder    .txt .md .py and the like, tables as .jsonl, .csv, .parquet; see `sources.py`, `tables.py`
    anything else       a dataset on the hub, as name or name:config, streamed

A document is held out if a hash of its text says so: the split needs no second pass over a stream, does not
move when data is added, and puts two copies of one document on one side. Rows are cut from the documents laid
end to end with an end token between them (packed, as GPT-2 was trained), or hold one each (`padded.py`).
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ..errors import refuse, require_range
from .examples import Columns, Example
from .frame import Frame
from .sequences import IGNORED, TensorRows
from .sources import SOURCES, examples_of
from .tables import require_encoding

STDLIB = "stdlib"
# Not prose of the library itself: its tests, other people's packages, and tables of code points.
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings"}
MASKED_SHARE = 0.15  # Devlin et al. 2018 (BERT); each becomes the mask token, so that no label is visible
HOLD_OUT = "hold out"  # what rows are for, in words
BATCH = 64  # documents tokenized at a time; assumed


@dataclass(frozen=True)
class Corpus:
    """Documents of one source, split into train and held out.

    Attributes:
        source: see the module docstring.
        columns: what is read of tables, and for which task.
        split: which split of a hub dataset is read.
        held_out_share: share of documents that is held out, 0 to 1.
        seed: of the split.
        encoding: of files; empty for what they tell themselves, or UTF-8.
    """

    source: str
    columns: Columns = field(default_factory=Columns)
    split: str = "train"
    held_out_share: float = 0.05
    seed: int = 0
    encoding: str = ""

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise refuse("data without a name", SOURCES, "pass one of them")
        require_range("held_out_share", self.held_out_share, 0.0, 0.9)
        require_encoding(self.encoding)

    def examples(self) -> Iterator[Example]:
        """All examples, in a fixed order, without empty ones."""
        return (one for one in self._all() if one.text.strip())

    def part(self, *, held_out: bool) -> Iterator[Example]:
        """The examples that are never learned from, or those that are."""
        return (one for one in self.examples() if self._holds_out(one.text) == held_out)

    def documents(self) -> Iterator[str]:
        """The texts of all examples."""
        return (one.text for one in self.examples())

    def train(self) -> Iterator[str]:
        """The texts to learn from."""
        return (one.text for one in self.part(held_out=False))

    def held_out(self) -> Iterator[str]:
        """The texts that are never learned from."""
        return (one.text for one in self.part(held_out=True))

    def _holds_out(self, text: str) -> bool:
        digest = hashlib.blake2b(
            text.encode("utf-8", "replace"), digest_size=8, key=str(self.seed).encode()
        ).digest()
        return int.from_bytes(digest, "big") < self.held_out_share * 2**64

    def _all(self) -> Iterator[Example]:
        if self.source != STDLIB:
            return examples_of(self.source, self.columns, split=self.split, encoding=self.encoding)
        root = Path(sysconfig.get_path("stdlib"))
        files = [p for p in sorted(root.rglob("*.py")) if not SKIPPED & set(p.relative_to(root).parts)]
        # A handful of the library's own files are in other encodings on purpose.
        return (Example(p.read_text(encoding="utf-8", errors="ignore"), where=p.name) for p in files)


def tokenized(documents: Iterable[str], tokenizer: Any) -> Iterator[list[int]]:
    """The documents as lists of token ids, without special tokens."""
    stream = iter(documents)
    while batch := list(islice(stream, BATCH)):
        yield from tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]


def packed(documents: Iterable[str], tokenizer: Any, length: int) -> Iterator[list[int]]:
    """Rows of exactly `length` tokens: documents end to end, an end token after each; the rest is dropped.

    Each row is framed as the tokenizer frames a prompt: by BERT's start and separator, by Llama's start of sequence.
    """
    frame = Frame.of(tokenizer)
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    rest: list[int] = []
    for ids in tokenized(documents, tokenizer):
        rest += ids if end is None else [*ids, end]
        start = 0
        while (stop := start + frame.width(length) + frame.doubled(rest, start)) <= len(rest):
            yield frame.around(rest[start:stop], length)
            start = stop
        rest = rest[start:]


def as_rows(rows: list[list[int]], *, mask_token: int | None, seed: int) -> TensorRows:
    """Packed rows as a data set: labels are the tokens, or the masked ones of a masked language model.

    Args:
        mask_token: None for a causal model.
        seed: of the choice of masked tokens, which is made once.
    """
    ids = torch.tensor(rows)
    return TensorRows(
        **with_labels(ids, mask_token=mask_token, generator=torch.Generator().manual_seed(seed))
    )


def with_labels(ids: Tensor, *, mask_token: int | None, generator: torch.Generator) -> dict[str, Tensor]:
    """{input_ids, labels}, both (N, T): see `as_rows`."""
    if mask_token is None:
        return {"input_ids": ids, "labels": ids.clone()}
    chosen = torch.rand(ids.shape, generator=generator) < MASKED_SHARE
    chosen[..., 0] = chosen[..., -1] = False
    return {"input_ids": ids.masked_fill(chosen, mask_token), "labels": ids.masked_fill(~chosen, IGNORED)}


class PackedStream(IterableDataset):
    """`packed` over an endless number of epochs, read as it is needed; memory holds one batch of documents.

    Every pass is the same, so a resumed run that skips what it has seen is where it was.
    """

    def __init__(self, corpus: Corpus, tokenizer: Any, length: int, *, mask_token: int | None) -> None:
        self.corpus, self.tokenizer, self.length, self.mask_token = corpus, tokenizer, length, mask_token

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(self.corpus.seed)
        while True:
            seen = False
            for row in packed(self.corpus.train(), self.tokenizer, self.length):
                seen = True
                yield with_labels(torch.tensor(row), mask_token=self.mask_token, generator=generator)
            if not seen:
                raise too_short(self.corpus, 0, self.length, "train on")


def too_short(corpus: Corpus, rows: int, length: int, purpose: str) -> Exception:
    """The error for a source that gives too few rows."""
    more = ", a larger --held-out-share" if purpose == HOLD_OUT else ""
    return refuse(
        f"{corpus.source} gives {rows} rows of {length} tokens to {purpose}",
        f"at least {2 if purpose == HOLD_OUT else 1}",
        f"pass more documents{more}, or a smaller --length",
    )
