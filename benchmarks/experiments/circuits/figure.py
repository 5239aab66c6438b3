"""The deciding experiment as a picture: how much of each task the best n component edges explain; from records alone.

    python -m benchmarks.experiments.circuits.figure RECORDS.json

A column for each task, a row for each ablation; a thin line for each seed and model. Circuits of the same n are the
best n by EAP-IG on other prompts than F is measured on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.experiments.circuits.report import VARIANTS, circuits_of
from benchmarks.lib.plot import COLOURS
from gossamer.files import read_json

NAMES = {"ioi": "IOI", "greater_than": "Greater-Than", "quotes": "quotes", "brackets": "brackets"}
TINT = dict(zip((*VARIANTS, "logit", "weight"), (COLOURS[x] for x in (4, 0, 1, 2, 5)), strict=True))
LEGEND = {"logit": "sparse, default on the logit", "weight": "sparse, default on the weight"}
NEEDED = 0.9


def draw(records: list[dict[str, Any]], path: Path) -> Path:
    """Write the picture of one setting's records; records that were refused have no line."""
    from matplotlib.figure import Figure

    rows = circuits_of(records)
    tasks = list(dict.fromkeys(task for keys in rows.values() for task, _ in keys))
    figure = Figure(figsize=(1.9 * len(tasks), 1.75 * len(rows) + 0.45), layout="constrained")
    table = figure.subplots(len(rows), len(tasks), sharex=True, sharey=True, squeeze=False)
    for axes_row, ablation in zip(table, rows, strict=True):
        for axes, task in zip(axes_row, tasks, strict=True):
            _panel(axes, [r for r in records if (r["task"], r["ablation"]) == (task, ablation)])
            if axes is table[0, tasks.index(task)]:
                axes.set_title(NAMES.get(task, task), fontsize=9)
        axes_row[0].set_ylabel(f"share of the effect\n({ablation})", fontsize=8)
    figure.supxlabel("best edges between components that are kept, dead ends included", fontsize=8)
    handles, labels = table[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    return path


def _panel(axes: Any, records: list[dict[str, Any]]) -> None:
    axes.axhline(NEEDED, color="#bbbbbb", linewidth=0.6, linestyle=":")
    for variant, tint in TINT.items():
        curves = [r["edge_curve"] for r in records if r["variant"] == variant and "edge_curve" in r]
        for number, curve in enumerate(curves):
            sizes, shares = zip(*((retained, share) for retained, _, share in curve), strict=True)
            label = {} if number else {"label": LEGEND.get(variant, variant)}
            axes.plot(sizes, shares, color=tint, linewidth=1, **label)
    axes.set_xscale("log")
    axes.set_ylim(-0.1, 1.25)
    axes.set_yticks((0, 0.5, 1))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw finished, or half finished, records of one setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=Path, help="the JSON that run.py wrote")
    path = parser.parse_args().records
    print(draw(read_json(path, list[dict[str, Any]]), path.with_suffix(".svg")))


if __name__ == "__main__":
    main()
