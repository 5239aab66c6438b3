"""The deciding experiment's goals, computed from made-up records whose answers are known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments.circuits.report import summarise, write_page
from gossamer.errors import GossamerError


def record(task: str, seed: int, variant: str, edges: int | None, heads: int | None = 1, **more: Any) -> dict:
    about = {"seed": seed, "variant": variant, "settings": {"width": 64}, "torch": "x", "ablation": "mean"}
    return about | {"task": task, "edges": edges, "heads": heads} | more


def refused(task: str, seed: int, variant: str) -> dict:
    about = {"seed": seed, "variant": variant, "settings": {"width": 64}, "torch": "x", "ablation": "mean"}
    return about | {"task": task, "refused": "no effect"}


def three(task: str, seed: int, control: int, sparse: int, heads: tuple[int, int] = (2, 1)) -> list[dict]:
    """Base, finetuned and sparse on one task under one seed."""
    return [
        record(task, seed, "base", control, heads[0]),
        record(task, seed, "finetuned", control),
        record(task, seed, "sparse", sparse, heads[1]),
    ]


def both(records: list[dict]) -> list[dict]:
    return summarise(records)


def test_tasks_count_alike_however_many_seeds_know_them() -> None:
    # Task a: ratios 4 and 16, mean 8; task b: 32, under one seed; neither model knows it under the other.
    records = three("a", 0, 40, 10) + three("a", 1, 160, 10) + three("b", 0, 320, 10)
    records += [refused("b", 1, variant) for variant in ("base", "finetuned", "sparse")]
    edges, heads = both(records)
    assert edges["per_task"] == pytest.approx({"a": 8.0, "b": 32.0})
    assert edges["value"] == pytest.approx(16.0)
    assert (edges["pairs"], edges["reached"]) == ("3 of 4", "yes")
    assert (heads["value"], heads["reached"]) == (-1, "yes")
    assert list(edges["left_out"]) == [("b", 1)]


def test_below_the_goal_is_no_and_one_pair_with_more_heads_is_no() -> None:
    edges, heads = both(three("a", 0, 90, 10) + three("b", 0, 90, 10, heads=(2, 3)))
    assert (edges["value"], edges["reached"]) == (pytest.approx(9.0), "no")
    assert (heads["value"], heads["worst"], heads["reached"]) == (1, ("b", 0), "no")


@pytest.mark.parametrize("lost", [[record("b", 0, "sparse", None, None)], [refused("b", 0, "sparse")], []])
def test_what_the_sparse_model_lost_is_told_and_leaves_the_goal_open(lost: list[dict]) -> None:
    reason = "never 90 %" if lost and "edges" in lost[0] else "refused" if lost else "not measured"
    records = three("a", 0, 500, 10) + three("b", 0, 90, 10)[:2] + lost
    edges, heads = both(records)
    assert edges["value"] == pytest.approx(50.0)
    assert (edges["reached"], heads["reached"]) == ("open", "open")
    assert edges["left_out"] == {("b", 0): f"finetuned: 90, sparse: {reason}"}
    assert heads["left_out"] == {("b", 0): f"base: 2, sparse: {reason}"}


def test_nothing_to_compare_is_open_and_mixed_settings_are_refused() -> None:
    edges, heads = both([refused("a", 0, variant) for variant in ("base", "finetuned", "sparse")])
    assert (edges["value"], edges["reached"], heads["value"], heads["reached"]) == (
        None,
        "open",
        None,
        "open",
    )
    with pytest.raises(GossamerError, match="Summarise one setting at a time"):
        both(three("a", 0, 90, 10) * 2)


def test_the_page_has_a_part_per_setting_and_names_every_missing_pair(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    nonsense = record("nonsense", 0, "base", None, None, best_scored=0.5, best_fresh=0.25)
    nonsense |= {"effect": 0.1, "refused": "no effect"}
    about = record("about", 0, "sparse", None, None, accuracy={"a": 1.0}, open_edges={"a": 3.5})
    about |= {"divergence": {"a": 0.03}, "promise": {"missed": "", "metrics": {"divergence": 0.01}}}
    circuits = three("a", 0, 500, 10)
    circuits[0]["effect"] = 3.0
    first = [*circuits, nonsense, about | {"ablation": "none"}]
    second = [one | {"settings": {"width": 32}} for one in three("a", 0, 500, 10)[:2]]
    path.write_text(json.dumps(first + second))
    page = write_page(path).read_text().splitlines()
    assert [line for line in page if line.startswith("## ")] == [
        "## width 64, torch x",
        "## width 32, torch x",
    ]
    assert "| edges, finetuned / sparse | mean | 50 | 1 of 1 | yes | a 50.00; base / sparse 50 |" in page
    assert "- edges, finetuned / sparse, mean: a, seed 0: finetuned: 500, sparse: not measured" in page
    assert "| 0 | base | mean | 0.5000 | 0.2500 | 0.1000, refused |" in page
    assert "| 0 | sparse | 1.000; 0.0300; 3.5 |" in page
    assert "| a | 0 | mean | 500, 500, 10 | 2, 1, 1 | 3.00, -, - |" in page
    held = "- seed 0: held; 0.0100 over the answers of the prompts that chose the model, 0.0300 in the mean over tasks"
    assert f"{held} on fresh prompts" in page
    assert any(
        "`OMP_NUM_THREADS=1 python -m benchmarks.experiments.circuits.run --out DIR --width 64`" in line
        for line in page
    )


def test_each_kind_of_edges_has_its_row_and_says_why_a_pair_is_missing() -> None:
    kinds = {"head_edges": 80, "attention_edges": 20}
    records = [one | kinds for one in three("a", 0, 80, 10)]
    records[2] |= {"head_edges": 0, "attention_edges": None, "attention_refused": "no effect"}
    edges, heads_only, attention, _ = both(records)
    assert edges["goal"] == "edges, finetuned / sparse"
    assert heads_only["left_out"] == {("a", 0): "finetuned: 80, sparse: none needed"}
    assert attention["left_out"] == {
        ("a", 0): "finetuned: 20, sparse: refused: attention alone has no effect"
    }
