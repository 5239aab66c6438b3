"""What the folder of a run remembers: what it was started with, and everything that was logged.

A resumed run is the uninterrupted one only if it is the same run. The trainer compares ceiling, seed and base with
the checkpoint; what it cannot know, such as the text, is compared here, before anything is trained.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from ..errors import CheckpointError, GossamerWarning, refuse
from ..files import explain_failed_write, read_json, write_json, write_text
from .resume import checkpoints

STARTED = "started.json"
LOG = "metrics.jsonl"


def begin(
    folder: Path, fixed: dict[str, Any], movable: dict[str, Any], *, resume: bool, first: bool = True
) -> None:
    """Refuse a folder that holds another run, and write down what this one is started with.

    Args:
        fixed: what a resumed run must share, as name: value (JSON).
        movable: what may differ, with a warning, since the run then no longer ends bit for bit where it would have.
        resume: go on with the checkpoints in `folder`; without it there must be none.
        first: whether this process writes.
    Raises: `CheckpointError` naming the first fact that differs.
    """
    if not checkpoints(folder):
        if first:
            write_json(folder / STARTED, {"fixed": fixed, "movable": movable})
        return
    if not resume:
        raise refuse(
            f"{folder} holds the checkpoints of an earlier run",
            "--resume, or a folder without checkpoints",
            "pass --resume, or another --out",
            CheckpointError,
        )
    if (folder / STARTED).is_file():  # earlier versions wrote none
        compare(
            read_json(folder / STARTED, dict[Literal["fixed", "movable"], dict[str, Any]]), fixed, movable
        )


def compare(before: dict[str, Any], fixed: dict[str, Any], movable: dict[str, Any]) -> None:
    """Raise for what must not differ from the start of the run, warn of what may."""
    for name, then, now in _changes(before.get("fixed", {}), fixed):
        raise refuse(
            f"{name} {now} on a run that was started with {then}",
            "the same value",
            "resume with what the run was started with, or start another in a new --out",
            CheckpointError,
        )
    message = [
        f"{name} {now} where it was {then}"
        for name, then, now in _changes(before.get("movable", {}), movable)
    ]
    if message:
        line = f"the resumed run goes on with {', '.join(message)}: it is not, bit for bit, the run that was started"
        warnings.warn(line, GossamerWarning, stacklevel=3)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, then, now) of every fact that differs, `none` for one that is missing."""
    plain = json.loads(json.dumps(now))
    pairs = [(name, before.get(name, "none"), plain.get(name, "none")) for name in {**before, **plain}]
    return [pair for pair in pairs if pair[1] != pair[2]]


class Metrics(TrainerCallback):
    """Append everything that is logged to a file, one JSON object per line, on the first process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            # A resumed run repeats what came after its checkpoint, which holds the log up to there.
            write_text(self.path, "".join(map(_line, state.log_history)))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.path.parent.is_dir():
            with explain_failed_write(self.path), open(self.path, "a", encoding="utf-8") as file:
                file.write(_line({"step": state.global_step, **(logs or {})}))


def _line(logged: dict[str, Any]) -> str:
    return json.dumps({"step": logged["step"], **dict(sorted(logged.items()))}) + "\n"
