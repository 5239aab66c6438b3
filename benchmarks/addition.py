"""The main job over seeds: `gossamer demo` for seeds 0 to 4, and the table that README.md quotes.

    python benchmarks/addition.py --folder runs/addition [--seeds 0 1 2 3 4]

Each seed has its own folder and is continued or reused like any demo folder, so the table can be made again from
finished runs. Written to benchmarks/results/addition_cpu_<year-month>.{json,md}: every report's numbers, and their
median and range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from gossamer.recipes.addition.run import run_demo
from gossamer.recipes.addition.settings import DemoSettings

RESULTS = Path(__file__).parent / "results"
NAMES = (
    "base_exact",
    "sparse_exact",
    "same_row",
    "unseen_exact",
    "edges_mean",
    "edges_max",
    "live_edges_mean",
)
NAMES += ("precision", "precision_relays", "recall", "leaks")


def row(seed: int, report: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of one report."""
    run = report["run"]
    return {
        "seed": seed,
        **{name: report["proof"][name] for name in NAMES},
        "edges_per_layer": [round(n, 2) for n in report["proof"]["edges_per_layer"]],
        "feasible": run.get("feasible"),
        "kept_step": run.get("kept_step"),
        "steps": run.get("steps"),
        "seconds": report["seconds"],
        "threads": report["versions"]["threads"],
    }


def as_markdown(rows: list[dict[str, Any]], record: dict[str, Any]) -> str:
    """The table, with its command and versions."""
    edges = [r["edges_mean"] for r in rows]
    head = "| seed | base exact | sparse exact | same row | unseen exact | edges, mean | most "
    head += "| precision | with relays | recall | leaks |"
    lines = [
        "# Addition over seeds",
        "",
        f"`python benchmarks/addition.py`, {record['settings']}, torch {record['torch']}, transformers "
        f"{record['transformers']}, CPU.",
        "",
        head,
        "|" + "---|" * 11,
    ]
    for r in rows:
        lines.append(
            f"| {r['seed']} | {r['base_exact']:,} | {r['sparse_exact']:,} | {r['same_row']:,} | "
            f"{r['unseen_exact']:,} | "
            f"{r['edges_mean']:.2f} | {r['edges_max']} | {r['precision']:.3f} | {r['precision_relays']:.3f} | "
            f"{r['recall']:.2f} | {r['leaks']} |"
        )
    lines += [
        "",
        f"Edges: median {statistics.median(edges):.2f}, range {min(edges):.2f} to {max(edges):.2f}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/addition"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    reports = {s: run_demo(arguments.folder / f"seed{s}", DemoSettings(seed=s)) for s in arguments.seeds}
    rows = [row(seed, report) for seed, report in reports.items()]
    first = next(iter(reports.values()))
    settings = {name: value for name, value in first["settings"].items() if name != "seed"}
    record = {"settings": settings, **first["versions"], "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"addition_cpu_{time.strftime('%Y-%m')}"
    stem.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    stem.with_suffix(".md").write_text(as_markdown(rows, record))
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
