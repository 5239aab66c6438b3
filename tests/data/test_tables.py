"""Tables as people save them: in any encoding, with other countries' separators, torn, ragged, with empty lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gossamer.data.examples import Columns
from gossamer.data.sources import examples_of
from gossamer.data.tables import read_text, rows_in
from gossamer.data.text import Corpus
from gossamer.errors import GossamerError, GossamerWarning

WORDS = "naïve café, “quoted”; €5"
ROWS = [{"text": "red", "label": "1"}, {"text": WORDS, "label": "0"}]
MARKED = ("utf-8-sig", "utf-16", "utf-32")  # their first bytes say what they are


def written(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def refusal(path: Path, encoding: str = "") -> str:
    with pytest.raises(GossamerError) as error:
        list(rows_in(path, encoding))
    assert "\n" not in str(error.value)
    return str(error.value)


def as_csv(rows: list[dict[str, str]], separator: str, end: str) -> str:
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row.values()] for row in rows]
    return end.join([separator.join(rows[0]), *map(separator.join, quoted), ""])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", *MARKED])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_of_any_country(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    path = written(tmp_path / "a.csv", as_csv(ROWS, separator, end), encoding)
    assert list(rows_in(path)) == ROWS
    path.write_bytes((f"sep={separator}{end}" + as_csv(ROWS, separator, end)).encode(encoding))
    assert list(rows_in(path)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", *MARKED])
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_json_and_text_of_any_encoding_that_tells_itself(tmp_path: Path, ending: str, encoding: str) -> None:
    lines = "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    assert list(rows_in(written(tmp_path / f"a.{ending}", lines, encoding))) == ROWS
    assert read_text(written(tmp_path / "a.txt", WORDS, encoding)) == WORDS


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_another_encoding_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "text\n" + WORDS.replace(",", ""), "cp1252")
    read = read_text if name == "a.txt" else lambda *given: next(rows_in(*given))["text"]
    with pytest.raises(GossamerError, match=r"is not text in UTF-8 .*--encoding cp1252"):
        read(path, "")
    assert read(path, "cp1252").splitlines()[-1] == WORDS.replace(",", "")


@pytest.mark.parametrize("name", ["utf-99", "hex", "\0", "a b"])
def test_an_encoding_that_is_none(name: str) -> None:
    with pytest.raises(GossamerError, match="is not known: expected one of Python's"):
        Corpus("x", encoding=name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\na,1\nb, c,1\n", "line 3 has 3 cells under a header of 2"),
        ("text,label\na\n", "line 2 has 1 cells under a header of 2"),
        ("text,text\na,b\n", "two columns are named 'text'"),
        ('text,label\n"a,1\n', "line 2"),
        ('sep=,\ntext,label\n"a"b,1\n', "line 3"),
    ],
)
def test_a_csv_that_means_nothing(tmp_path: Path, content: str, words: str) -> None:
    assert words in refusal(written(tmp_path / "a.csv", content))


def test_names_are_stripped_and_empty_lines_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", " text , label\n\na,1\n   \nb,2\n\n")
    assert list(rows_in(path)) == [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_conll_sentences(tmp_path: Path, end: str) -> None:
    lines = [
        "-DOCSTART- -X- O O",
        "",
        "# a comment",
        "Ann NNP B-NP B-PER",
        "ran VBD B-VP O",
        "",
        "",
        "# NN O",
        "Oslo\tB-LOC",
    ]
    path = written(tmp_path / "a.conll", end.join(lines), "utf-8-sig")
    found = [(row["tokens"], row["tags"]) for row in rows_in(path)]
    assert found[0] == (["Ann", "ran"], ["B-PER", "O"])
    assert found[1][0][-1] == "Oslo"
    assert "line 2: 'ran' has no tag" in refusal(written(tmp_path / "b.conll", "Ann B-PER\nran\n"))


def texts(path: Path, **columns: Any) -> list[str]:
    return [one.text for one in examples_of(str(path), Columns(**columns), split="train")]


def test_what_lies_beside_tables_is_left_out_and_said(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", "text\nred\n")
    for name in ("README.md", ".hidden", "picture.png"):
        written(tmp_path / name, "\0")
    (tmp_path / ".git").mkdir()
    written(tmp_path / ".git" / "b.csv", "text\nblue\n")
    with pytest.warns(
        GossamerWarning, match=r"holds 1 tables, which are read; 2 other files are not: README.md, picture"
    ):
        assert texts(tmp_path) == ["red"]


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\nred,1\n ,1\n,0\n")
    with pytest.warns(GossamerWarning, match="2 rows of .*a.csv have an empty text and are left out"):
        assert texts(path) == ["red"]
