"""A run killed at any moment ends, resumed, bit for bit where an uninterrupted one does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gossamer.errors import CheckpointError, GossamerWarning
from gossamer.training.resume import MANIFEST, is_whole, last_checkpoint
from gossamer.training.trainer import SparsityTrainer
from helpers import run_tiny
from helpers.processes import environment


def command(out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "helpers.run_tiny",
        str(out),
        "--set",
        json.dumps({"load_best_model_at_end": False}),
    ]


def same(a: Any, b: Any, path: str = "") -> None:
    """Equal, bit for bit; times apart."""
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        timed = {k for k in a if isinstance(k, str) and ("runtime" in k or "per_second" in k or "flos" in k)}
        assert a.keys() == b.keys(), path
        for key in a.keys() - timed:
            same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}/{i}")
    else:
        assert a == b, (path, a, b)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole")
    subprocess.run(command(out), check=True, env=environment())
    return torch.load(out / "final-0.pt")


# What the process is about to do when it is killed: an audit event, and the end of its path.
MOMENTS = {
    "after a checkpoint": ("os.mkdir", ".saving/checkpoint-6"),
    "inside a checkpoint": ("open", ".saving/checkpoint-6/trainer_state.json"),
    "before a checkpoint has its name": ("os.rename", ".saving/checkpoint-6"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_is_bit_for_bit_the_same(
    moment: str, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    killed = subprocess.run([*command(tmp_path), "--die", *MOMENTS[moment]], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert is_whole(tmp_path / ".saving" / "checkpoint-6") == (moment == "before a checkpoint has its name")
    assert not (tmp_path / "checkpoint-6").exists()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert not (tmp_path / "final-0.pt").exists()
    subprocess.run(command(tmp_path), check=True, env=environment())
    again = torch.load(tmp_path / "final-0.pt")
    for part in ("weights", "optimizer", "controller"):
        same(again[part], uninterrupted[part], part)
    logged = [[h for h in run["history"] if "train_runtime" not in h] for run in (again, uninterrupted)]
    same(*logged, "history")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SparsityTrainer]:
    out = tmp_path_factory.mktemp("finished")
    trainer = run_tiny.trainer(str(out), max_steps=4)
    trainer.train()
    return out, trainer


@pytest.mark.parametrize("damage", ["a file is cut", "a file is missing", "no manifest", "a broken manifest"])
def test_torn_checkpoints_are_skipped_with_a_warning(damage: str, finished: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished[0], tmp_path / "run")
    newest, older = tmp_path / "run" / "checkpoint-4", tmp_path / "run" / "checkpoint-2"
    assert is_whole(newest)
    assert is_whole(older)
    if damage == "a file is cut":
        content = (newest / "optimizer.pt").read_bytes()
        (newest / "optimizer.pt").write_bytes(content[:-1])
    elif damage == "a file is missing":
        (newest / "model.safetensors").unlink()
    else:
        (newest / MANIFEST).unlink()
        if damage == "a broken manifest":
            (newest / MANIFEST).write_text("{")
    with pytest.warns(GossamerWarning, match="checkpoint-4 is torn and is skipped"):
        assert last_checkpoint(tmp_path / "run") == str(older)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_nothing_is_left_beside_the_checkpoints(finished: Any) -> None:
    assert {p.name for p in finished[0].iterdir()} == {"checkpoint-0", "checkpoint-2", "checkpoint-4"}
    assert finished[1].state.best_model_checkpoint in {str(p) for p in finished[0].iterdir()}


@pytest.mark.parametrize(("name", "other"), [("ceiling", {"ceiling": "kl=0.5"}), ("seed", {"seed": 7})])
def test_another_run_is_refused(name: str, other: dict[str, Any], finished: Any, tmp_path: Path) -> None:
    trainer = run_tiny.trainer(str(tmp_path), max_steps=4, **other)
    with pytest.raises(CheckpointError, match=rf"{name} .* on a checkpoint made with {name}"):
        trainer.train(resume_from_checkpoint=last_checkpoint(finished[0]))


def test_another_base_is_refused(finished: Any, tmp_path: Path) -> None:
    trainer = run_tiny.trainer(str(tmp_path), max_steps=4)
    state = finished[1].state_dict() | {"base": "0123456789abcdef"}
    with pytest.raises(CheckpointError, match=r"base .* on a checkpoint made with base 0123456789abcdef"):
        trainer.load_state_dict(state)
