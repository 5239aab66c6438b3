"""A folder belongs to one run: another one is refused there, and a resumed one is the run that was started."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from gossamer.errors import CheckpointError, GossamerWarning
from gossamer.training.run_manifest import STARTED, begin

FIXED, MOVABLE = {"--length": 32, "--set gate.bias": [4.0]}, {"--steps": 10}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with one checkpoint."""
    begin(tmp_path, FIXED, MOVABLE, resume=False)
    (tmp_path / "checkpoint-5").mkdir()
    return tmp_path


def test_the_same_run_goes_on(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin(folder, FIXED, MOVABLE, resume=True)


@pytest.mark.parametrize(("changed", "message"), [
    ({"--length": 16}, "--length 16 on a run that was started with 32"),
    ({"--set gate.bias": None}, r"--set gate.bias None on a run that was started with \[4.0\]"),
    ({"--set gate.regrow_bias": 1.0}, "--set gate.regrow_bias 1.0 on a run that was started with none"),
])  # fmt: skip
def test_another_run_is_refused_by_what_differs(changed: Any, message: str, folder: Path) -> None:
    before = (folder / STARTED).read_text()
    with pytest.raises(CheckpointError, match=message):
        begin(folder, FIXED | changed, MOVABLE, resume=True)
    assert (folder / STARTED).read_text() == before


def test_more_steps_are_told(folder: Path) -> None:
    with pytest.warns(GossamerWarning, match="--steps 20 where it was 10: it is not, bit for bit"):
        begin(folder, FIXED, {"--steps": 20}, resume=True)


def test_a_new_run_does_not_mix_with_an_old_one(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="holds the checkpoints of an earlier run"):
        begin(folder, FIXED, MOVABLE, resume=False)


def test_a_folder_of_an_earlier_version_goes_on(folder: Path) -> None:
    (folder / STARTED).unlink()
    begin(folder, {"--length": 16}, MOVABLE, resume=True)


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    begin(tmp_path, FIXED, MOVABLE, resume=False, first=False)
    assert not list(tmp_path.iterdir())
