"""Nothing half-written under a final name."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gossamer.errors import GossamerError
from gossamer.files import (
    locked,
    read_json,
    require_room,
    require_writable,
    write_json,
    write_text,
    writing,
)
from helpers.processes import another_writer


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


@contextmanager
def little_space(size: int) -> Iterator[None]:
    """No file can become larger than `size` bytes, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS: dict[str, Any] = {
    "torch": lambda path: torch.save({"a": torch.ones(100_000)}, path),
    "safetensors": lambda path: save_file({"a": torch.ones(100_000)}, path),
    "text": lambda path: path.write_text("a" * 400_000),
}


@pytest.mark.parametrize("size", [0, 16_000])
@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_writes_on_a_full_disk_it_is_one_clear_line(writer: str, size: int, tmp_path: Path) -> None:
    write_text(tmp_path / "x", "old")
    told = pytest.raises(GossamerError, match=r"x cannot be written \(.+\): expected")
    with told as caught, little_space(size), writing(tmp_path / "x") as temporary:
        WRITERS[writer](temporary)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "old"}


def test_an_error_that_is_not_of_writing_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), writing(tmp_path / "x"):
        _ = torch.ones(2) + torch.ones(3)


def link(path: Path) -> None:
    (path.parent / "real").write_text("old")
    path.symlink_to(path.parent / "real")


NOT_PLAIN: dict[str, Any] = {
    "a link": link,
    "a link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_what_is_neither_absent_nor_plain_is_not_replaced(kind: str, tmp_path: Path) -> None:
    NOT_PLAIN[kind](tmp_path / "x")
    before = os.lstat(tmp_path / "x")
    for write in (lambda path: write_text(path, "new"), require_room):
        with pytest.raises(GossamerError, match=r"x is a (link|device)"):
            write(tmp_path / "x")
    assert os.lstat(tmp_path / "x") == before
    assert not (tmp_path / "real").exists() or (tmp_path / "real").read_text() == "old"


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(GossamerError, match=r"/dev/null is a device"):
        require_room(Path("/dev/null"))


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("old")
    told = pytest.raises(GossamerError, match=r"model cannot be written \(Not a directory\)")
    with told, writing(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert (tmp_path / "model").read_text() == "old"


def test_a_place_is_probed_and_left_as_it_was(tmp_path: Path) -> None:
    require_room(tmp_path / "a" / "b" / "x.json")
    with pytest.raises(GossamerError, match="Is a directory"):
        require_room(tmp_path)
    with little_space(4096), pytest.raises(GossamerError, match="cannot be written"):
        require_room(tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_a_folder_has_one_writer_and_a_killed_one_is_none(tmp_path: Path) -> None:
    message = f"another process writes in {tmp_path}: expected one run"
    with another_writer(tmp_path), pytest.raises(GossamerError, match=message), locked(tmp_path):
        raise AssertionError
    with locked(tmp_path), locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
