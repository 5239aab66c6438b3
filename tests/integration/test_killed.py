"""Whole commands that are killed, interrupted or out of disk at any moment, and then go on as if nothing had been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gossamer import save
from gossamer.cli import main
from gossamer.training.resume import checkpoints
from helpers import forked, zoo
from helpers.closed_units import closing
from helpers.letters import LETTERS, save_tokenizer
from helpers.processes import another_writer, environment

TIMES = ("runtime", "per_second", "seconds")


def happens(place: Path, how: str, *when: str, more: tuple[str, ...] = ("--resume",)) -> str:
    """Let it happen; returns what the commands said."""
    done = forked.run(["-m", "helpers.run_killed", str(place), how, json.dumps(more), *when])
    done.check_returncode()
    return done.stderr


def ended(place: Path, when: str) -> list[int]:
    """With what the commands ended."""
    return json.loads((place / when.replace("/", "_") / "ended.json").read_text())


def untimed(found: Any) -> Any:
    """Without what differs between two equal runs: times, and the name of the folder."""
    if isinstance(found, dict):
        return {k: untimed(x) for k, x in found.items() if not any(t in k for t in TIMES) and k != "out"}
    return [untimed(x) for x in found] if isinstance(found, list) else found


def left(out: Path, model: str) -> dict[str, Any]:
    """What a run leaves: weights, config, report, log."""
    log = out / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return {
        "weights": (out / model / "model.safetensors").read_bytes(),
        "config": json.loads((out / model / "config.json").read_text()),
        "report": untimed(json.loads((out / "report.json").read_text())),
        "log": [untimed(json.loads(line)) for line in lines],
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs at a constant rate that ends in the middle of one, and of a window of the log."""
    place = tmp_path_factory.mktemp("killed")
    zoo.build("gpt2").save_pretrained(place / "gpt2")
    save_tokenizer(place / "gpt2")
    letters = torch.randint(2, len(LETTERS), (7, 42), generator=torch.Generator().manual_seed(0)).tolist()
    (place / "text.txt").write_text("\n\n".join("".join(LETTERS[i] for i in row) for row in letters))
    options = {"data": place / "text.txt", "ceiling": "kl=9", "steps": 11, "length": 16, "batch": 4}
    options |= {"held-out": 2, "held-out-share": 0.2, "learning-rate": 0.002}
    settings = {
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "eval_steps": 4,
        "save_steps": 4,
        "logging_steps": 3,
    }
    command = ["sparsify", str(place / "gpt2"), *(str(x) for k, v in options.items() for x in (f"--{k}", v))]
    command += [x for name, value in settings.items() for x in ("--set", f"{name}={value}")]
    (place / "command.json").write_text(json.dumps(command))
    happens(place, "kill", "0")
    return place


def events(place: Path) -> list[str]:
    return json.loads((place / "events.json").read_text())


def test_the_run_has_three_epochs_and_ends_between_checkpoints(place: Path) -> None:
    found = left(place / "0" / "here" / "out", "model")
    assert found["log"][-1]["epoch"] == 2.75
    assert next(path.name for path in checkpoints(place / "0" / "here" / "out")) == "checkpoint-11"


def test_the_model_has_its_name_when_it_is_whole(place: Path) -> None:
    names = [event.split()[1] for event in events(place)]
    assert not [name for name in names if name.startswith("model/")]
    beside = [Path(name).name for name in names if name.startswith(".model.")]
    assert {"config.json", "tokenizer_config.json", "README.md"} <= set(beside)
    assert (place / "0" / "here" / "out" / "model" / "README.md").is_file()


def test_killed_at_any_file_event_and_resumed_from_elsewhere(place: Path) -> None:
    n = len(events(place))
    last = next(i for i, event in enumerate(events(place)) if "/model/" in event)  # after the last checkpoint
    moments = [str(1 + i) for i in sorted({*range(2, n, 73), last})]  # all of them take ten minutes
    happens(place, "kill", *moments)
    whole = left(place / "0" / "here" / "out", "model")
    for moment in moments:
        assert ended(place, moment) == [-9, 0], events(place)[int(moment) - 1]
        out = place / moment / "here" / "out"
        again = left(out, "model")
        for part, value in whole.items():
            assert again[part] == value, (part, moment, events(place)[int(moment) - 1])
        assert not (out / "checkpoint-12").exists()
        assert not (out / ".lock").exists()


FIRST = ".saving/checkpoint-0/edge_gates_state.json"
LATER = ".saving/checkpoint-8/edge_gates_state.json"


@pytest.mark.parametrize(("how", "code"), [("interrupt", 130), ("full", 2)])
def test_interrupted_or_out_of_disk_inside_a_checkpoint(
    how: str, code: int, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "command.json").write_text((place / "command.json").read_text())
    said = happens(tmp_path, how, FIRST, LATER)
    interrupted = "interrupted; run the same command again with --resume to continue"
    require_a_line_each(said, interrupted if how == "interrupt" else "cannot be written (File too large)")
    for when in (FIRST, LATER):
        assert ended(tmp_path, when) == [code, 0]
        out = tmp_path / when.replace("/", "_") / "here" / "out"
        assert left(out, "model") == left(place / "0" / "here" / "out", "model")


def require_a_line_each(said: str, message: str) -> None:
    """Two commands were stopped, and each said so in one line."""
    assert "Traceback" not in said
    told = [line for line in said.splitlines() if line.startswith("gossamer: ")]
    assert len(told) == 2
    assert all(message in line for line in told)


@pytest.mark.parametrize(("how", "code"), [("interrupt", 130), ("full", 2)])
def test_shrinking_that_is_interrupted_or_out_of_disk_leaves_nothing(
    how: str, code: int, tmp_path: Path
) -> None:
    """One line, and the same command works afterwards: a folder that was half-written would be in its way."""
    model, _ = closing("llama", "heads", "neurons")
    save(model, tmp_path / "sparse")
    (tmp_path / "command.json").write_text(json.dumps(["shrink", str(tmp_path / "sparse")]))
    moments = ("out/config.json", "out/shrink.json")
    said = happens(tmp_path, how, *moments, more=())
    require_a_line_each(said, "interrupted" if how == "interrupt" else "cannot be written (File too large)")
    for when in moments:
        assert ended(tmp_path, when) == [code, 0]
        assert [x.name for x in (tmp_path / when.replace("/", "_") / "here").iterdir()] == ["out"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of sums of two digits that misses its ceiling."""
    place = tmp_path_factory.mktemp("demo")
    command = ["demo", "--digits", "1", "--base-steps", "8", "--steps", "12", "--ceiling", "loss=0.0001"]
    command += ["--tries", "1", "--restarts", "0"]
    (place / "command.json").write_text(json.dumps(command))
    happens(place, "kill", "0")
    return place


def test_a_demo_that_misses_its_ceiling_says_so_whenever_it_was_killed(demo: Path) -> None:
    assert ended(demo, "0") == [1]
    named = [
        i
        for i, event in enumerate(events(demo))
        if event.startswith("os.rename") and event.endswith("/sparse")
    ]
    base = next(
        i for i, event in enumerate(events(demo)) if ".saving/checkpoint-4/trainer_state.json" in event
    )
    moments = [str(1 + i) for i in (base, named[-1], named[-1] + 1)]
    happens(demo, "kill", *moments, more=())
    whole = left(demo / "0" / "here" / "out", "sparse")
    for moment in moments:
        assert ended(demo, moment) == [-9, 1], events(demo)[int(moment) - 1]
        out = demo / moment / "here" / "out"
        assert left(out, "sparse") == whole, events(demo)[int(moment) - 1]
        assert [path.name for path in (out / "work").iterdir()] == ["outcome.json"]


def test_a_sparse_model_without_its_outcome_is_refused(demo: Path, capsys: Any) -> None:
    out = demo / "0" / "here" / "out"
    (out / "work" / "outcome.json").rename(out / "outcome.json")
    command = json.loads((demo / "command.json").read_text())
    assert main([*command, "--out", str(out)]) == 2
    assert "without the outcome of its run" in capsys.readouterr().err.replace("\n", " ")
    (out / "outcome.json").rename(out / "work" / "outcome.json")


@pytest.mark.parametrize("name", ["place", "demo"])
def test_two_commands_in_one_folder(name: str, request: Any, tmp_path: Path, capsys: Any) -> None:
    command = json.loads((request.getfixturevalue(name) / "command.json").read_text())
    with another_writer(tmp_path):
        assert main([*command, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"gossamer: another process writes in {tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # of a process that was killed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full; it runs where there is one")
@pytest.mark.parametrize("other", [None, "err"])
def test_a_full_standard_output_is_one_line(other: str | None) -> None:
    with open("/dev/full", "w") as full:
        error = full if other else subprocess.PIPE
        arguments = [sys.executable, "-m", "gossamer", "recipes"]
        done = subprocess.run(arguments, check=False, stdout=full, stderr=error, text=True, env=environment())
    assert done.returncode == 2
    if other is None:
        line = "gossamer: standard output cannot be written (No space left on device): expected a place with space. "
        assert done.stderr == line + "Free some space, or write to another place.\n"


def test_a_record_that_cannot_be_written_is_told_before_anything_is_computed(
    tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    verbs = [
        ["verify", "no", "no"],
        ["compare", "no", "no", "--task", "ioi"],
        ["trace", "no", "--sum", "1+1"],
    ]
    for out, message in (("link", "is a link"), ("real/x", "Not a directory"), (".", "Is a directory")):
        for verb in (*verbs, ["export", "no"], ["view", "no"]):
            assert main([*verb, "--out", str(tmp_path / out)]) == 2
            assert message in capsys.readouterr().err
