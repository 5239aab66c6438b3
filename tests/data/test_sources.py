"""Files as people have them: other line ends, one document a line, tables of every ending, rows without text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gossamer.data.text import Corpus
from gossamer.errors import GossamerError, GossamerWarning

TEXTS = ["red and\nblue", "green, “said” she", "grey"]


def documents(path: Path, encoding: str = "") -> list[str]:
    return list(Corpus(str(path), encoding=encoding).documents())


def refusal(path: Path) -> str:
    with pytest.raises(GossamerError) as error:
        documents(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", ["", "  ", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_paragraphs_are_documents_whatever_ends_a_line(tmp_path, end, blank, mark):
    text = mark + f"\n{blank}\n".join(TEXTS)
    (tmp_path / "a.txt").write_bytes(text.replace("\n", end).encode())
    assert documents(tmp_path / "a.txt") == TEXTS
    assert documents(tmp_path) == TEXTS  # a folder of one file


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_documents_where_nothing_else_parts_them(tmp_path, end):
    (tmp_path / "a.txt").write_bytes(end.join(["red", "blue", "grey", ""]).encode())
    with pytest.warns(GossamerWarning, match="no blank line, so each of its 3 lines"):
        assert documents(tmp_path / "a.txt") == ["red", "blue", "grey"]


def test_files_of_a_folder_are_documents(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_bytes(b"red\r\n\r\nblue")
    assert documents(tmp_path) == ["red\n\nblue"] * 2


@pytest.mark.parametrize("ending", [".jsonl", ".JSONL", ".ndjson", ".json", ".csv", ".CSV", ".tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_give_their_column_and_not_their_labels(tmp_path, ending, end):
    path = tmp_path / f"a{ending}"
    if "sv" in ending.lower():
        sep = "\t" if ending == ".tsv" else ","
        rows = [f'"{text}"' for text in TEXTS]
        lines = [f"label{sep}text", *(f"7{sep}{row}" for row in rows)]
    else:
        lines = [json.dumps({"label": 7, "text": text}) for text in TEXTS]
    path.write_bytes(end.join([*lines, ""]).encode())
    assert documents(path) == TEXTS


def test_a_json_file_may_be_one_list(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    assert documents(tmp_path / "a.json") == TEXTS


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a"}, {"text": None}], "row 2 holds nothing (null) there: expected text in every row"),
        ([{"text": ["a"]}], "row 1 holds a list there"),
        ([{"other": "a"}], "row 1 has no such column: expected other. Name the column"),
        ([{"messages": []}], "has no list of turns in column 'messages': row 1 holds a list there"),
        ([{"messages": [{"role": "user", "content": "a"}]}], "holds a conversation: expected texts"),
        ([{"messages": [{"role": "user"}]}], "has a turn \"{'role': 'user'}\" in 'messages'"),
        (["a"], "line 1 is a str where an object is due"),
    ],
)
def test_rows_without_text_are_refused_for_their_own_reason(tmp_path, rows, words):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert words in refusal(path)


def test_torn_tables_are_one_line(tmp_path):
    for name, content in (("a.jsonl", '{"text": "a"}\n{"te'), ("b.json", '[{"text"'), ("c.csv", 'text\n"a')):
        (tmp_path / name).write_text(content)
        assert f"{name} cannot be read as a table" in refusal(tmp_path / name)
    assert "line 2" in refusal(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_no_folder(name):
    with pytest.raises(GossamerError, match="data without a name"):
        Corpus(name)


@pytest.mark.parametrize(("name", "package"), [("a.parquet", "pyarrow.parquet"), ("owner/name", "datasets")])
def test_what_needs_the_extra_says_how_to_get_it(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    path = Path(name)
    if path.suffix:
        path = tmp_path / name
        path.write_bytes(b"PAR1")
    assert "Run pip install 'gossamer[data]'." in refusal(path)
