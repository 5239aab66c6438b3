"""Files as people have them, row by row: JSONL, CSV, parquet, CoNLL; and plain text, whatever its encoding.

.jsonl .ndjson .json             one object a line, or one list of objects
.csv .tsv                        with a header; the separator is read off it
.parquet                         by pyarrow, in the extra `gossamer[data]`
.conll .iob .iob2 .bio           a word and its tag a line, an empty line after each sentence

Text is UTF-8, or what its byte order mark says, or what `encoding` names.
"""

from __future__ import annotations

import codecs
import csv
import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from ..errors import GossamerError, first_line, refuse

Row = dict[str, Any]
LONGEST_CELL = 2**31 - 1  # of CSV; a document may be a book
KINDS = "text, JSONL, CSV, parquet or CoNLL"
# The longer ones first: UTF-32's mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
SEPARATOR = re.compile(r'"?sep=(.)"?')  # a first line of Excel's own
QUOTED = re.compile(r'"[^"]*"')
NOT_A_SENTENCE = "-DOCSTART-"  # of CoNLL 2003, between documents
TOKENS, TAGS = "tokens", "tags"  # the columns that a CoNLL file has


def is_table(path: Path) -> bool:
    """Whether a file is read as rows, by its ending."""
    return path.suffix.lower() in TABLES


def rows_in(path: Path, encoding: str = "") -> Iterator[Row]:
    """The rows of a table.

    Raises: `GossamerError` for a file that is torn, in another encoding, or none of its kind, with the line.
    """
    try:
        yield from TABLES[path.suffix.lower()](path, encoding)
    except GossamerError:
        raise
    except UnicodeError as error:
        raise _undecodable(path, encoding, error) from error
    except (OSError, ValueError, LookupError, RecursionError) as error:  # pyarrow's are ValueErrors
        raise refuse(f"{path} cannot be read as a table ({first_line(error)})", KINDS, "check it") from error


def read_text(path: Path, encoding: str = "") -> str:
    """A text file, whatever its line ends, without a byte order mark."""
    try:
        with _opened(path, encoding) as lines:
            text = lines.read()
    except UnicodeError as error:
        raise _undecodable(path, encoding, error) from error
    if "\0" in text:
        raise _binary(path)
    return text


def require_encoding(name: str) -> None:
    """Raise unless Python knows an encoding by this name; none is the one that a file tells."""
    try:
        "".encode(name or "utf-8")
    except (LookupError, ValueError) as error:
        raise refuse(
            f"encoding {name!r} is not known", "one of Python's", "pass for example cp1252"
        ) from error


def _opened(path: Path, encoding: str, newline: str | None = None) -> TextIO:
    """A file as text; what its mark says goes before UTF-8, and what a person says before both."""
    if not encoding:
        with path.open("rb") as file:
            head = file.read(4096)
        encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "")
        if not encoding and b"\0" in head:
            raise _binary(path)
        encoding = encoding or "utf-8"
    return path.open(encoding=encoding, newline=newline)


def _binary(path: Path) -> Exception:
    return refuse(
        f"{path} is not text (it holds zero bytes)",
        f"a file of {KINDS}",
        "save it as one of these, or name its encoding, for example --encoding utf-16",
    )


def _undecodable(path: Path, encoding: str, error: UnicodeError) -> Exception:
    return refuse(
        f"{path} is not text in {encoding or 'UTF-8'} ({first_line(error)})",
        "UTF-8, or a file whose first bytes tell its encoding",
        "name its encoding, for example --encoding cp1252, or save it as UTF-8",
    )


# ---- JSON ----


def _json_lines(path: Path, encoding: str) -> Iterator[Row]:
    with _opened(path, encoding) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            yield _object(row, f"line {number}")


def _json(path: Path, encoding: str) -> Iterator[Row]:
    """One list of objects, or one object a line, which the ending .json is used for as well."""
    with _opened(path, encoding) as file:
        whole = file.read()
    try:
        rows = json.loads(whole)
    except json.JSONDecodeError:
        yield from _json_lines(path, encoding)
        return
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        yield _object(row, f"row {number}")


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__} where an object is due")
    return row


# ---- CSV ----


def _separated(path: Path, encoding: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    with _opened(path, encoding, newline="") as lines:
        first = lines.readline()
        named = SEPARATOR.fullmatch(first.strip(" \r\n"))
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        separator = named[1] if named else _separator(first, usual)
        reader = csv.reader(lines if named else chain([first], lines), delimiter=separator, strict=True)
        try:
            yield from _under_header(reader)
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num + bool(named)}: {error}") from error


def _separator(header: str, usual: str) -> str:
    """The usual one if the header has it; else that of other countries' Excel, a tab or a bar, if it has one."""
    plain = QUOTED.sub("", header)
    return next((one for one in (usual, ";", "\t", "|") if one in plain), usual)


def _under_header(reader: Any) -> Iterator[Row]:
    header = [name.strip() for name in next(reader, [])]
    doubled = next((name for name in header if name and header.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(f"two columns are named {doubled!r}")
    for cells in reader:
        if len(cells) < 2 and not "".join(cells).strip():
            continue
        if len(cells) != len(header):
            where = f"line {reader.line_num} has {len(cells)} cells under a header of {len(header)}"
            raise ValueError(f"{where}: a text with the separator in it stands in quotes")
        yield dict(zip(header, cells, strict=True))


# ---- parquet and CoNLL ----


def _parquet(path: Path, encoding: str) -> Iterator[Row]:
    if path.stat().st_size == 0:
        return
    with extra("pyarrow.parquet").ParquetFile(path) as table:
        for batch in table.iter_batches():
            yield from batch.to_pylist()


def extra(name: str) -> Any:
    """A package of the extra `gossamer[data]`, or one line that says how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        expected = "the extra gossamer[data], for parquet and the hub"
        raise refuse(
            f"{error.name} is not installed", expected, "run pip install 'gossamer[data]'"
        ) from error


def _sentences(path: Path, encoding: str) -> Iterator[Row]:
    """The word is the first thing on a line and the tag the last one."""
    words: list[list[str]] = []
    with _opened(path, encoding) as lines:
        for number, line in enumerate(chain(lines, [""]), 1):
            cells = line.split()
            if cells and not (cells[0] == NOT_A_SENTENCE or (cells[0] == "#" and not words)):
                if len(cells) == 1:
                    raise ValueError(f"line {number}: {cells[0]!r} has no tag")
                words.append(cells)
            elif not cells and words:
                yield {TOKENS: [word[0] for word in words], TAGS: [word[-1] for word in words]}
                words = []


TABLES: dict[str, Callable[[Path, str], Iterable[Row]]] = {
    **dict.fromkeys((".jsonl", ".ndjson"), _json_lines),
    ".json": _json,
    **dict.fromkeys((".csv", ".tsv"), _separated),
    ".parquet": _parquet,
    **dict.fromkeys((".conll", ".iob", ".iob2", ".bio"), _sentences),
}
