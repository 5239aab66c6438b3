"""Nothing half-written under a final name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gossamer.errors import GossamerError
from gossamer.files import read_json, require_writable, write_json, write_text, writing


def fail_while_writing(target: Path) -> None:
    with writing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_failed_write_leaves_the_old_content_and_no_debris(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError):
        fail_while_writing(target)
    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with writing(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / f"{content}.txt").write_text(content)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["new.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GossamerError, match=r"cannot be written \(.*\): expected a writable folder"):
        require_writable(tmp_path / "file" / "out")
    with pytest.raises(GossamerError, match="cannot be written"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "x.txt", "old")
    monkeypatch.setattr("gossamer.files.replace", full)
    with pytest.raises(
        GossamerError, match=r"x\.txt cannot be written \(No space left on device\): expected a writable"
    ):
        write_text(tmp_path / "x.txt", "new")
    assert (tmp_path / "x.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_broken_json_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(GossamerError, match="cannot be read"):
        read_json(tmp_path / "x.json")
