"""The frontier's table and figure, from made-up results; and the parts of a step, which add up to the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments.frontier.report import FAMILIES, family, is_first, write_table
from benchmarks.speed.training_parts import PARTS, split
from gossamer.files import write_json


def measured(keys: float, delta_ce: float) -> dict[str, Any]:
    held_out = {
        "keys_per_query": keys,
        "delta_ce": delta_ce,
        "delta_ce_se": 0.001,
        "kl": abs(delta_ce),
        "agreement": 0.9,
    }
    return {"held_out": held_out, "steps": 10, "cpu_seconds": 1.0}


@pytest.mark.parametrize(("name", "kind", "first"), [
    ("delta_ce=0.03 seed 0", "delta_ce", True),
    ("delta_ce=0.03 seed 2", "delta_ce", False),
    ("loss+0.03 seed 0", "loss", True),
    ("topk-8", "topk", True),
    ("topk-renormalised-16", "topk-renormalised", True),
    ("random-1", "random", True),
    ("finetuned", "finetuned", True),
])  # fmt: skip
def test_every_run_belongs_to_a_line_of_the_figure(name: str, kind: str, first: bool) -> None:
    assert (family(name), is_first(name)) == (kind, first)
    assert kind in FAMILIES


@pytest.mark.parametrize("runs", [
    {"topk-4": measured(4, 0.1), "random-4": measured(4, 3.0)},
    {"delta_ce=0.03 seed 0": measured(5, 0.02), "delta_ce=0.03 seed 1": measured(6, -0.02), "topk-4": measured(4, 0.1)},
])  # fmt: skip
def test_what_is_measured_so_far_is_drawn(runs: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "frontier.json", {"environment": {"steps": 10}, "runs": runs})
    write_table(tmp_path / "frontier.json")
    page = (tmp_path / "frontier.md").read_text()
    assert all(f"| {name} |" in page for name in runs)
    assert (tmp_path / "frontier.svg").stat().st_size > 1000


def test_the_parts_of_a_step_add_up_to_it() -> None:
    dense = dict(zip(PARTS, (0.0, 10.0, 2.0, 20.0, 3.0), strict=True))
    sparse = dict(zip(PARTS, (9.0, 16.0, 5.0, 31.0, 3.0), strict=True))
    found = split(dense, sparse)
    assert sum(found.values()) == pytest.approx(sum(sparse.values()))
    assert found["gates in forward"] == pytest.approx(6.0)
