"""One arm on addition: the demo from a shared base model, proved on all sums, without its pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.lib.record import Row
from gossamer.models.checkpoint import load_dense
from gossamer.recipes.addition.outcome import read_outcome
from gossamer.recipes.addition.run import prove
from gossamer.recipes.addition.settings import DemoSettings
from gossamer.recipes.addition.stages import make_sparse, train_base
from gossamer.recipes.addition.task import Addition
from gossamer.training.presets import PRESETS

PROVED = ("sparse_exact", "same_row", "unseen_exact", "edges_mean", "precision", "recall")


def measured(work: Path, seed: int, changes: dict[str, Any]) -> Row:
    """Sparsify the base model of this seed under the changed recipe; say what is left and what it proves.

    Args:
        changes: of the recipe, as `{"control.kp": 0.0}`.
    """
    settings = DemoSettings(
        seed=seed, base_steps=700, tries=1, recipe=PRESETS["addition"].recipe.with_settings(changes)
    )
    task, folder, console = Addition(settings.digits), work / str(seed), Console(stderr=True, quiet=True)
    if not (folder / "base" / "config.json").is_file():
        train_base(task, settings, folder, console)
    base = load_dense(folder / "base")
    shutil.rmtree(folder / "work" / "sparse", ignore_errors=True)  # of an arm that was stopped
    sparse = make_sparse(task, settings, base, folder, console)
    run = read_outcome(folder)
    proof = prove(task, settings, base, sparse, run).proof
    return {
        **{name: proof[name] for name in PROVED},
        **{name: run[name] for name in ("feasible", "missed", "best_step", "steps", "ended")},
        "seconds": run["seconds"]["sparse"],
    }
