"""Where data comes from: a file, a folder of files, or a data set of the hub; as examples of a task.

A table gives an example a row, a text file one, or alone one a paragraph. In a folder with tables nothing else is read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import GossamerWarning, first_line, refuse
from .examples import Columns, Example
from .places import hub_answers, looks_like_path
from .prompts import require_text
from .tables import extra, is_table, read_text, rows_in

SOURCES = "stdlib, a text, JSONL, CSV, parquet or CoNLL file, a folder of them, or a hub dataset"
BLANK_LINE = re.compile(r"\n[ \t]*\n")
SHOWN = 3  # names of files in a message


def examples_of(source: str, columns: Columns, *, split: str, encoding: str = "") -> Iterator[Example]:
    """The examples of a file, a folder in sorted order, or a data set of the hub.

    Args:
        split: which split of a hub data set.
        encoding: of files; empty for what they tell themselves, or UTF-8.
    Raises: `GossamerError` for what is none of these, or lacks what the task reads.
    """
    path = Path(source)
    if path.is_dir():
        files = _files(path)
        return chain.from_iterable(_file(p, columns, encoding, alone=len(files) == 1) for p in files)
    if path.is_file():
        return _file(path, columns, encoding, alone=True)
    if path.exists():
        raise refuse(f"data {source!r} is a device, a pipe or a socket", SOURCES, "copy it to a file")
    if path.suffix or looks_like_path(source.partition(":")[0]):
        raise refuse(f"data {source!r} does not exist", SOURCES, "check the path")
    return _with_text(columns.examples(_hub(source, split), source), source)


def _files(folder: Path) -> list[Path]:
    """The files of a folder that are read: its tables where it has some, since what lies beside them is about them."""
    inside = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    seen = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    tables = [p for p in seen if is_table(p)]
    others = [p.name for p in seen if not is_table(p)]
    if not tables or not others:
        return seen
    names = ", ".join([*others[:SHOWN], *["..."] * (len(others) > SHOWN)])
    message = (
        f"{folder} holds {len(tables):,} tables, which are read; {len(others):,} other files are not: {names}"
    )
    warnings.warn(message, GossamerWarning, stacklevel=2)
    return tables


def _file(path: Path, columns: Columns, encoding: str, *, alone: bool) -> Iterator[Example]:
    if is_table(path):
        return _with_text(columns.examples(rows_in(path, encoding), str(path)), path)
    text = read_text(path, encoding)
    return (Example(one, where=str(path)) for one in (_paragraphs(text, path) if alone else [text]))


def _with_text(examples: Iterator[Example], path: Path | str) -> Iterator[Example]:
    """The examples that have a text; how many have none is said once."""
    empty = 0
    for one in examples:
        if one.text.strip():
            for text in (one.text, one.pair):
                require_text(text, one.where)
            yield one
        else:
            empty += 1
    if empty:
        message = f"{empty:,} rows of {path} have an empty text and are left out"
        warnings.warn(message, GossamerWarning, stacklevel=2)


def _paragraphs(text: str, path: Path) -> list[str]:
    """One file alone must still be split into documents: at blank lines, or where there are none, at every line."""
    found = BLANK_LINE.split(text.strip("\n"))
    lines = text.strip("\n").split("\n")
    if len(found) > 1 or len(lines) < 2:
        return found
    message = f"{path} has no blank line, so each of its {len(lines):,} lines is taken for a document"
    warnings.warn(message, GossamerWarning, stacklevel=2)
    return lines


def _hub(source: str, split: str) -> Any:
    load_dataset = extra("datasets").load_dataset
    name, _, config = source.partition(":")
    try:
        if not hub_answers():
            raise OSError("the hub does not answer")
        return load_dataset(name, config or None, split=split, streaming=True)
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise refuse(
            f"data {source!r} is no file here and cannot be had from the hub ({first_line(error)})",
            f"{SOURCES} with network access",
            "check the name, or log in if it is gated",
        ) from error
