"""A run killed at any moment ends, resumed, bit for bit where an uninterrupted one does."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from gossamer.errors import CheckpointError, GossamerWarning
from gossamer.files import locked
from gossamer.training.resume import MANIFEST, STATE_FILE, is_whole, last_checkpoint, write_manifest
from gossamer.training.trainer import SparsityTrainer
from helpers import forked, run_tiny


def command(out: Path, *, load_best_model_at_end: bool = False) -> list[str]:
    settings = {"load_best_model_at_end": load_best_model_at_end}
    return ["-m", "helpers.run_tiny", str(out), "--set", json.dumps(settings)]


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
    forked.run(command(out)).check_returncode()
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
    killed = forked.run([*command(tmp_path), "--die", *MOMENTS[moment]])
    assert killed.returncode == -signal.SIGKILL
    assert is_whole(tmp_path / ".saving" / "checkpoint-6") == (moment == "before a checkpoint has its name")
    assert not (tmp_path / "checkpoint-6").exists()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert not (tmp_path / "final-0.pt").exists()
    forked.run(command(tmp_path)).check_returncode()
    again = torch.load(tmp_path / "final-0.pt")
    same(again, uninterrupted)


def test_killed_before_the_first_step_it_draws_the_same_random_numbers(tmp_path: Path) -> None:
    whole, killed = (command(tmp_path / name, load_best_model_at_end=True) for name in ("whole", "killed"))
    forked.run(whole).check_returncode()
    die = ["--die", "os.mkdir", ".saving/checkpoint-2"]
    assert forked.run([*killed, *die]).returncode == -9
    assert last_checkpoint(tmp_path / "killed") == str(tmp_path / "killed" / "checkpoint-0")
    forked.run(killed).check_returncode()
    same(*(torch.load(tmp_path / name / "final-0.pt") for name in ("killed", "whole")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SparsityTrainer]:
    out = tmp_path_factory.mktemp("finished")
    trainer = run_tiny.trainer(str(out), max_steps=4)
    trainer.train()
    return out, trainer


DAMAGES = ("a file is cut", "a bit is another", "a file is missing", "no manifest", "a broken manifest")


@pytest.mark.parametrize("damage", DAMAGES)
def test_torn_checkpoints_are_skipped_with_a_warning(damage: str, finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    newest, older = tmp_path / "run" / "checkpoint-4", tmp_path / "run" / "checkpoint-2"
    assert is_whole(newest)
    assert is_whole(older)
    if damage == "a file is cut":
        content = (newest / "optimizer.pt").read_bytes()
        (newest / "optimizer.pt").write_bytes(content[:-1])
    elif damage == "a bit is another":
        weights = bytearray((newest / "model.safetensors").read_bytes())
        weights[-2] ^= 1
        (newest / "model.safetensors").write_bytes(weights)
    elif damage == "a file is missing":
        (newest / "model.safetensors").unlink()
    else:
        (newest / MANIFEST).unlink()
        if damage == "a broken manifest":
            (newest / MANIFEST).write_text("{")
    with pytest.warns(GossamerWarning, match="checkpoint-4 is torn and is skipped"):
        assert last_checkpoint(tmp_path / "run") == str(older)
    with pytest.raises(CheckpointError, match="checkpoint-4 is damaged"):
        run_tiny.trainer(str(tmp_path / "run"), max_steps=4).train(resume_from_checkpoint=str(newest))


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


def copied(finished: Any, tmp_path: Path) -> Path:
    """The newest checkpoint of a copy of the finished run."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run" / "checkpoint-4"


def planted(*_: Any) -> None:
    """What an unpickler would call."""
    raise AssertionError


class Payload:
    """A pickle that wants to run something."""

    def __reduce__(self) -> Any:
        return planted, (1,)


def rewrite(path: Path, *keys: str, value: Any) -> None:
    """Change one value of a JSON file."""
    whole = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(whole))


LIES = {
    "optimizer.pt is cut": lambda x: (x / "optimizer.pt").write_bytes((x / "optimizer.pt").read_bytes()[:99]),
    "scheduler.pt is a payload": lambda x: torch.save({"a": Payload()}, x / "scheduler.pt"),
    "scheduler.pt is a list": lambda x: torch.save([1], x / "scheduler.pt"),
    "rng_state.pth is a list": lambda x: torch.save([1], x / "rng_state.pth"),
    "weights are text": lambda x: (x / "model.safetensors").write_text("weights"),
    "trainer_state.json is cut": lambda x: (x / "trainer_state.json").write_text("{"),
    "trainer_state.json is a list": lambda x: (x / "trainer_state.json").write_text("[]"),
    "a step is a text": lambda x: rewrite(x / "trainer_state.json", "global_step", value="four"),
    "progress is empty": lambda x: (x / "progress-0.json").write_text("{}"),
    "a loss is a text": lambda x: rewrite(x / "progress-0.json", "loss", value="much"),
    "the state is a list": lambda x: (x / STATE_FILE).write_text("[]"),
    "no count of forwards": lambda x: rewrite(x / STATE_FILE, "forwards", value=None),
    "a start with other fields": lambda x: rewrite(x / STATE_FILE, "starts", value={"logit": {"a": 1}}),
    "a controller that is a list": lambda x: rewrite(x / STATE_FILE, "controller", value=[]),
    "lambda is a text": lambda x: rewrite(x / STATE_FILE, "controller", "integral", value="high"),
    "lambda is not a number": lambda x: rewrite(x / STATE_FILE, "controller", "integral", value=float("nan")),
    "a step of the controller is a half": lambda x: rewrite(x / STATE_FILE, "controller", "taken", value=0.5),
    "noise is a number": lambda x: rewrite(x / STATE_FILE, "controller", "sampling", value=3),
    "no bias": lambda x: rewrite(x / STATE_FILE, "controller", "bias", value=None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_checkpoint_that_lies_is_one_line(lie: str, finished: Any, tmp_path: Path) -> None:
    newest = copied(finished, tmp_path)
    LIES[lie](newest)
    write_manifest(newest)
    trainer = run_tiny.trainer(str(tmp_path / "run"), max_steps=6)
    with pytest.raises(CheckpointError) as caught:
        trainer.train(resume_from_checkpoint=str(newest))
    assert "\n" not in str(caught.value)
    assert "is damaged" not in str(caught.value)  # which is what the manifest says, and here it fits


def test_a_damaged_best_checkpoint_is_told_before_anything_is_trained(finished: Any, tmp_path: Path) -> None:
    newest = copied(finished, tmp_path)
    best = tmp_path / "run" / Path(str(finished[1].state.best_model_checkpoint)).name
    assert best != newest
    (best / "model.safetensors").write_bytes(bytes((best / "model.safetensors").stat().st_size))
    trainer = run_tiny.trainer(str(tmp_path / "run"), max_steps=6)
    with pytest.raises(CheckpointError, match=f"{best.name} is damaged"):
        trainer.train(resume_from_checkpoint=str(newest))


def test_a_moved_run_finds_its_best_checkpoint(finished: Any, tmp_path: Path) -> None:
    newest = copied(finished, tmp_path)
    trainer = run_tiny.trainer(str(tmp_path / "run"), max_steps=4)
    trainer.train(resume_from_checkpoint=str(newest))
    same(trainer.model.state_dict(), finished[1].model.state_dict())
    assert Path(str(trainer.state.best_model_checkpoint)).parent == tmp_path / "run"


def test_without_its_best_checkpoint_a_run_says_so(finished: Any, tmp_path: Path) -> None:
    newest = copied(finished, tmp_path)
    rewrite(newest / "progress-0.json", "best", value="/nowhere/checkpoint-1")
    write_manifest(newest)
    trainer = run_tiny.trainer(str(tmp_path / "run"), max_steps=4)
    with pytest.warns(GossamerWarning, match="checkpoint-1, the best checkpoint so far, is gone"):
        trainer.train(resume_from_checkpoint=str(newest))


def test_a_finished_run_takes_no_step_more(finished: Any, tmp_path: Path) -> None:
    newest = copied(finished, tmp_path)
    for _ in range(2):
        trainer = run_tiny.trainer(str(tmp_path / "run"), max_steps=4)
        done = trainer.train(resume_from_checkpoint=True)
        assert done.global_step == 4
        assert last_checkpoint(tmp_path / "run") == str(newest)
        same(trainer.state.log_history, finished[1].state.log_history)


class Stop(TrainerCallback):
    """Stops a run early, once."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 2


def test_a_run_that_was_stopped_early_takes_no_step_more(tmp_path: Path) -> None:
    for _ in range(2):
        trainer = run_tiny.trainer(str(tmp_path), max_steps=6, callbacks=[Stop()])
        trainer.train(resume_from_checkpoint=last_checkpoint(tmp_path))
        assert trainer.state.global_step == 2


def test_every_number_of_the_log_is_that_of_the_uninterrupted_run(tmp_path: Path) -> None:
    options = {"max_steps": 10, "logging_steps": 3, "save_total_limit": None}
    whole = run_tiny.trainer(str(tmp_path / "whole"), **options)
    loss = whole.train().training_loss
    for step in (0, 2, 4, 8, 10):  # in the window of a log, at the end of an epoch, at that of the run
        part = tmp_path / f"part-{step}"
        shutil.copytree(tmp_path / "whole", part)
        trainer = run_tiny.trainer(str(part), **options)
        again = trainer.train(resume_from_checkpoint=str(part / f"checkpoint-{step}"))
        same(trainer.state.log_history, whole.state.log_history, str(step))
        assert again.training_loss == again.metrics["train_loss"] == loss


def test_where_all_are_torn_a_run_says_that_it_begins_again(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    with pytest.warns(GossamerWarning) as told:
        assert last_checkpoint(tmp_path) is None
    assert [str(one.message).partition(": ")[2] for one in told] == ["", "the run begins again"]


def test_no_checkpoint_to_go_on_from_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no whole checkpoint"):
        run_tiny.trainer(str(tmp_path)).train(resume_from_checkpoint=True)


def test_two_trainers_in_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path):
        run = forked.run(command(tmp_path))
    assert run.returncode == 1  # the helper's own
    assert run.stderr.splitlines()[-1].startswith(f"gossamer: another process writes in {tmp_path}")
    assert not list(tmp_path.iterdir())
