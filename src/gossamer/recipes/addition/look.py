"""A look at tries that have begun: their base models, and how many edges grow back while the ceiling tightens.

What a web comes to shows after a third of a run: the open edges just before `LOOK` and those at the end have a rank
correlation of 0.75 over 35 runs, and of 0.80 over the nine of them that chose no recipe (LOG.md, 2026-11-29). So the
better half goes on from the checkpoint that a look leaves, and the others end there. While edges only fall they tell
nothing: at step 280 the same correlations are 0.40 and -0.17.

    TRY/work/look.json      base_wrong and open_edges
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from ...files import read_json, write_json
from ...models.forward import evaluating, first_output
from ...training.resume import newest_whole
from .task import Addition

LOOK = 1 / 7  # of a run's steps; most runs have settled before half of them (chosen on addition)
WINDOW = 0.25  # of the steps before it: what one line of the log says is noise by half an edge
RECORD = "work/look.json"
BATCH = 1024


class Paused(Exception):
    """A run has left a checkpoint, and goes on when it is resumed."""


class PauseAt(TrainerCallback):
    """Save a checkpoint at a step and stop there, as an interruption would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = control.should_save or state.global_step >= self.step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.step:
            raise Paused


def look(task: Addition, base: PreTrainedModel, sums: Tensor, run: Path, step: int) -> dict[str, float]:
    """What tells a good try from another one: wrong answers of its base model, and open edges of its run.

    Args:
        sums: those that the base model is asked.
        run: the folder of the run's checkpoints.
        step: where it paused.
    """
    logged = read_json(Path(newest_whole(run)) / TRAINER_STATE_NAME, finite=False)["log_history"]
    edges = [
        float(line["expected_open_edges"])
        for line in logged
        if (1 - WINDOW) * step < line["step"] <= step and "expected_open_edges" in line
    ]
    return {"base_wrong": _wrong(task, base, sums), "open_edges": statistics.mean(edges)}


def worth(seen: dict[str, float]) -> tuple[float, float]:
    """Fewer wrong answers of the base model go first, then fewer open edges."""
    return seen["base_wrong"], seen["open_edges"]


def read_look(folder: Path) -> dict[str, float] | None:
    """What was seen of the try in a folder; None where nobody has looked."""
    path = folder / RECORD
    return read_json(path, dict[str, float]) if path.is_file() else None


def write_look(folder: Path, seen: dict[str, float]) -> None:
    """Keep what was seen of a try."""
    write_json(folder / RECORD, seen)


def _wrong(task: Addition, base: PreTrainedModel, sums: Tensor) -> int:
    inputs, labels = task.encode(sums)
    with evaluating(base), torch.no_grad():
        parts = zip(inputs.split(BATCH), labels.split(BATCH), strict=True)
        right = [((first_output(base, {"input_ids": x}).argmax(-1) == y) | (y < 0)).all(1) for x, y in parts]
    return int((~torch.cat(right)).sum())
