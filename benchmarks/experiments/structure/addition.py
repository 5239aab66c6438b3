"""Addition with gates on edges, heads and neurons, over seeds: what is left of each kind, and whether every sum holds.

    python -m benchmarks.experiments.structure.addition --folder runs/structure --seeds 60 61 62 63 64

Each seed is `gossamer demo --gates edges,heads,neurons --seed S` in its own folder, continued or reused like any demo
folder. Written to results/addition.{json,md}. The recipe was chosen on seed 0 alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from gossamer.files import write_json, write_text
from gossamer.models.attach import gate_sets_of
from gossamer.models.checkpoint import load
from gossamer.models.remaining import remaining
from gossamer.models.run_report import RunReport
from gossamer.recipes.addition.run import run_demo
from gossamer.recipes.addition.settings import DemoSettings
from gossamer.training.presets import PRESETS

RESULTS = Path(__file__).parent / "results"
KINDS = ("heads", "neurons")


def main() -> None:
    """Make, continue or reuse the run of each seed, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/structure"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(60, 65)))
    given = parser.parse_args()
    recipe = PRESETS["addition_structure"].recipe
    rows = []
    for seed in given.seeds:
        folder = given.folder / f"seed{seed}"
        report = run_demo(folder, DemoSettings(seed=seed, gates="edges,heads,neurons", recipe=recipe))
        rows.append(row(seed, folder, report))
    RESULTS.mkdir(exist_ok=True)
    record = {"date": time.strftime("%Y-%m-%d"), "recipe": recipe.as_dict(), **report.versions, "rows": rows}
    write_json(RESULTS / "addition.json", record)
    write_text(RESULTS / "addition.md", as_markdown(rows, record))


def row(seed: int, folder: Path, report: RunReport) -> dict[str, Any]:
    """What a run left: open heads and neurons, and their share of the multiply-adds of all heads and neurons."""
    found, prices = remaining(model := load(folder / "sparse", impl="eager")), _prices(model)
    opened = {kind: int(sum(map(sum, found.units[kind].per_group))) for kind in KINDS}
    whole = {kind: sum(found.units[kind].of_layer) for kind in KINDS}
    cost, all_cost = (sum(prices[kind] * n[kind] for kind in KINDS) for n in (opened, whole))
    proof = report.proof
    return {
        "seed": seed,
        "exact": proof["sparse_exact"],
        "edges": proof["edges_mean"],
        "precision": proof["precision"],
        **opened,
        "heads_of": whole["heads"],
        "neurons_of": whole["neurons"],
        "multiply_adds": cost / all_cost,
    }


def _prices(model: Any) -> dict[str, float]:
    return {one.kind: one.price for one in gate_sets_of(model)}


def as_markdown(rows: list[dict[str, Any]], record: dict[str, Any]) -> str:
    """The table."""
    lines = ["# Addition with gates on edges, heads and neurons", ""]
    lines += [
        f"`python -m benchmarks.experiments.structure.addition`, torch {record['torch']}, CPU, one thread a run.",
        "",
    ]
    lines += [
        "| seed | exact of 10,000 | edges, mean | heads | neurons | multiply-adds of the blocks left |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {x['seed']} | {x['exact']:,} | {x['edges']:.2f} | {x['heads']} of {x['heads_of']} "
        f"| {x['neurons']} of {x['neurons_of']} ({x['neurons'] / x['neurons_of']:.1%}) | {x['multiply_adds']:.1%} |"
        for x in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
