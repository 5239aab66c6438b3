"""The MiniLM runs as a table and a picture, from results/minilm.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gossamer.files import read_json, write_text

FAMILIES = {"cosine": "trained under a ceiling", "untrained": "gates on the base model", "top": "its top-k keys",
            "random": "random keys"}  # fmt: skip
COLOURS = ("#0072B2", "#D55E00", "#333333", "#999999")  # Okabe and Ito 2008
HEAD = ("run", "open keys per query", "share of edges", "mean cosine", "lowest", "same nearest sentence",
        "steps over the ceiling", "evaluations over", "CPU seconds")  # fmt: skip


def family(name: str) -> str:
    """Which line of the figure a run belongs to; none for the runs that look for a cause."""
    return name.replace("=", " ").replace("-", " ").split()[0]


def write_table(results: Path) -> None:
    """Write minilm.md and minilm.svg beside the results."""
    content = read_json(results)
    runs: dict[str, Any] = content["runs"]
    about = ", ".join(f"{name} {value}" for name, value in content["environment"].items())
    lines = ["# all-MiniLM-L6-v2 under a ceiling on its cosine", "", about, ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    lines += [_row(name, run) for name, run in runs.items()]
    write_text(results.with_suffix(".md"), "\n".join(lines) + "\n")
    _figure(runs, results.with_suffix(".svg"))


def _row(name: str, run: dict[str, Any]) -> str:
    found = run["held_out"]
    cells = [f"{found['keys_per_query']:.2f}", f"{found['density']:.3f}" if "density" in found else "",
             f"{found['cosine']:.4f} +- {found['cosine_se']:.4f}", f"{found['cosine_lowest']:.3f}",
             f"{found['same_nearest']:.3f} +- {found['same_nearest_se']:.3f}"]  # fmt: skip
    if "curve" in run:
        worst = run["worst_average_over_ceiling"]
        cells += [f"{100 * run['share_of_steps_over']:.1f} %, at most {worst:.2f} x", str(run["evaluations_over"]),
                  str(run["cpu_seconds"])]  # fmt: skip
    return f"| {name} | " + " | ".join([*cells, *[""] * (len(HEAD) - 1 - len(cells))]) + " |"


def _figure(runs: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (kind, label), colour in zip(FAMILIES.items(), COLOURS, strict=True):
        points = sorted((r["held_out"]["keys_per_query"], 1 - r["held_out"]["cosine"])
                        for name, r in runs.items() if family(name) == kind)  # fmt: skip
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label, markersize=4, linewidth=1)
    axes.set_xlabel("open keys per query per head")
    axes.set_ylabel("one minus the mean cosine on held-out sentences")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
