"""What became of the demo's two trainings, which the folders of their models do not say: OUT/work/outcome.json.

It is written before a model has its name, for a stage whose folder is there is not done again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, refuse
from ...files import read_json, write_json
from ...training.sparsify import Outcome

OUTCOME = "work/outcome.json"


def note(out: Path, stage: str, started: float, result: Outcome | None = None) -> None:
    """Write down what a stage took, and what came out of it.

    Args:
        started: when, on the monotonic clock.
        result: of a run under a ceiling; but for the last one's it is kept apart, under the stage's name.
    """
    path = _path(out)
    known = read_json(path) if path.is_file() else {"seconds": {}}
    known["seconds"][stage] = round(time.monotonic() - started, 1)
    run = {} if result is None else _as_run(result)
    write_json(path, known | (run if stage == "sparse" or not run else {stage: run}))


def read_outcome(out: Path) -> dict[str, Any]:
    """What came out of the run that made `out`/sparse.

    Raises: `CheckpointError` where nothing says so; then nobody knows whether that model holds its ceiling.
    """
    path = _path(out)
    found = read_json(path) if path.is_file() else {}
    if "feasible" not in found:
        raise refuse(
            f"{out / 'sparse'} without the outcome of its run in {path}",
            "both, as the demo leaves them",
            f"delete {out / 'sparse'} to make it again",
            CheckpointError,
        )
    return found


def least_step(run: dict[str, Any]) -> int:
    """The best step of a run; of several in a row the least of those before the last, which may rest on theirs."""
    return min(one["best_step"] for one in (run.get("edges", run), run.get("units", run)))


def _path(out: Path) -> Path:
    return out / OUTCOME


def _as_run(result: Outcome) -> dict[str, Any]:
    return {
        "feasible": result.feasible,
        "missed": result.missed,
        "best_step": result.step,
        "steps": result.steps,
        "ended": result.ended,
        "chosen_on": result.metrics,
    }
