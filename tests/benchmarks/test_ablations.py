"""Arms of the ablations are settings that a recipe has, and the table pairs them by seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.experiments.ablations import report
from benchmarks.experiments.ablations.run import SUBJECTS, arms_of
from gossamer.training.presets import PRESETS

RECIPES = {"addition": "addition", "language": "default"}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_arm_but_the_whole_recipe_changes_it(subject: str) -> None:
    whole = PRESETS[RECIPES[subject]].recipe
    arms = arms_of(subject)
    assert next(iter(arms)) == report.WHOLE
    same = [arm for arm, changes in arms.items() if whole.with_settings(changes) == whole]
    assert same == [report.WHOLE]


def row(arm: str, seed: int, edges: float, *, step: int = 9) -> dict[str, object]:
    proof = {"sparse_exact": 10_000, "same_row": 10_000, "precision": 1.0, "recall": 1.0}
    return {
        "arm": arm,
        "seed": seed,
        "edges_mean": edges,
        "best_step": step,
        "steps": 10,
        "seconds": 1.0,
        **proof,
    }


def test_differences_are_paired_by_seed_and_an_untrained_model_is_in_none(tmp_path: Path) -> None:
    rows = [row("whole", 1, 5.0), row("whole", 2, 7.0), row("a part", 2, 9.0), row("a part", 1, 6.0)]
    rows += [row("another", 1, 8.0), row("another", 2, 1936.0, step=0)]
    lines = report.as_lines("addition", rows)
    assert "| a part | 6.00, 9.00 | +1.50 (-4.85 to +7.85) | 2 of 2; 2 | 10 | 1 |" in lines
    assert "| another | 8.00, all | +3.00 | 2 of 2; 2 | 10 | 1 |" in lines
    report.draw("addition", rows, tmp_path / "a.svg")
    assert "without another" in (tmp_path / "a.svg").read_text()
