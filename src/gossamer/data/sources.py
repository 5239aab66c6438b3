"""Documents from files: text, tables with a column of text, folders of both; and from data sets of the hub.

.jsonl .ndjson .json .csv .tsv   read here, row by row
.parquet                         by pyarrow, in the extra `gossamer[data]`
hub                              by datasets, in the same extra
anything else                    UTF-8 text, or refused
"""

from __future__ import annotations

import csv
import importlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import GossamerWarning, refuse
from .places import hub_answers, looks_like_path
from .prompts import require_text

Row = dict[str, Any]
SOURCES = "stdlib, a text, JSONL, CSV or parquet file, a folder of them, or a hub dataset"
BLANK_LINE = re.compile(r"\n[ \t]*\n")
LONGEST_CELL = 2**31 - 1  # of CSV; a document may be a book


def documents_of(source: str, field: str, split: str) -> Iterator[str]:
    """The documents of a file, a folder in sorted order, or a data set of the hub.

    Args:
        field: the column that holds the text, in tables.
        split: which split of a hub data set.
    Raises: `GossamerError` for what is none of these, or holds no text there.
    """
    path = Path(source)
    if path.is_dir():
        files = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        return chain.from_iterable(_file(p, field, alone=len(files) == 1) for p in files)
    if path.is_file():
        return _file(path, field, alone=True)
    if path.exists():
        raise refuse(f"data {source!r} is a device, a pipe or a socket", SOURCES, "copy it to a file")
    if path.suffix or looks_like_path(source.partition(":")[0]):
        raise refuse(f"data {source!r} does not exist", SOURCES, "check the path")
    return _hub(source, field, split)


def _file(path: Path, field: str, *, alone: bool) -> Iterator[str]:
    table = TABLES.get(path.suffix.lower())
    if table is None:
        text = read_text(path)
        return iter(_paragraphs(text, path) if alone else [text])
    return _column(_whole(table(path), path), field, str(path))


def read_text(path: Path) -> str:
    """A text file, whatever its line ends, without a byte order mark."""
    content = path.read_bytes()
    try:
        if b"\0" in content:
            raise ValueError("it holds zero bytes")
        text = content.decode("utf-8-sig")
    except ValueError as error:
        raise refuse(
            f"{path} is not text ({error})", "UTF-8 text, JSONL, CSV, parquet", "convert it"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _paragraphs(text: str, path: Path) -> list[str]:
    """One file alone must still be split into documents: at blank lines, or where there are none, at every line."""
    found = BLANK_LINE.split(text.strip("\n"))
    lines = text.strip("\n").split("\n")
    if len(found) > 1 or len(lines) < 2:
        return found
    message = f"{path} has no blank line, so each of its {len(lines):,} lines is taken for a document"
    warnings.warn(message, GossamerWarning, stacklevel=2)
    return lines


def _whole(rows: Iterable[Row], path: Path) -> Iterator[Row]:
    """The rows of a table, with one line for a file that is torn or none of its kind."""
    try:
        yield from rows
    except (
        OSError,
        ValueError,
        LookupError,
        RecursionError,
        csv.Error,
    ) as error:  # pyarrow's are ValueErrors
        kinds = "JSONL, CSV, parquet"
        raise refuse(f"{path} cannot be read as a table ({_line(error)})", kinds, "check it") from error


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            yield _object(row, f"line {number}")


def _json(path: Path) -> Iterator[Row]:
    """One list of objects, or one object a line, which the ending .json is used for as well."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:
        yield from _json_lines(path)
        return
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        yield _object(row, f"row {number}")


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__} where an object is due")
    return row


def _separated(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        dialect = csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel
        yield from csv.DictReader(lines, dialect=dialect, strict=True)


def _parquet(path: Path) -> Iterator[Row]:
    if path.stat().st_size == 0:
        return
    with _extra("pyarrow.parquet").ParquetFile(path) as table:
        for batch in table.iter_batches():
            yield from batch.to_pylist()


TABLES = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated,
    ".tsv": _separated,
    ".parquet": _parquet,
}


def _extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        expected = "the extra gossamer[data], for parquet and the hub"
        raise refuse(
            f"{error.name} is not installed", expected, "run pip install 'gossamer[data]'"
        ) from error


def _hub(source: str, field: str, split: str) -> Iterator[str]:
    load_dataset = _extra("datasets").load_dataset
    name, _, config = source.partition(":")
    try:
        if not hub_answers():
            raise OSError("the hub does not answer")
        rows = load_dataset(name, config or None, split=split, streaming=True)
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise refuse(
            f"data {source!r} is no file here and cannot be had from the hub ({_line(error)})",
            f"{SOURCES} with network access",
            "check the name, or log in if it is gated",
        ) from error
    return _column(rows, field, source)


def _column(rows: Iterable[Row], field: str, source: str) -> Iterator[str]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get(field), str):
            raise _no_text(row, number, field, source)
        require_text(row[field], f"row {number} of {source}")
        yield row[field]


def _no_text(row: Row, number: int, field: str, source: str) -> Exception:
    """Why a row has no text: the column is another, holds something else, or holds nothing in this row."""
    columns = ", ".join(map(str, row)) or "none"
    if field in row:
        found = row[field]
        kind = "nothing (null)" if found is None else f"a {type(found).__name__}"
        problem = f"{source} has no text in column {field!r}: row {number} holds {kind} there"
        fix = "remove such rows" if found is None else "name the column that holds the text with --field"
        return refuse(problem, f"text in every row (columns: {columns})", fix)
    problem = f"{source} has no text in column {field!r}: row {number} has no such column"
    if "messages" in row or "conversations" in row:
        fix = (
            "write them out as text first, with the tokenizer's apply_chat_template(messages, tokenize=False)"
        )
        return refuse(f"{problem}, but conversations", f"a column of text (columns: {columns})", fix)
    return refuse(problem, columns, "name the column that holds the text with --field")


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
