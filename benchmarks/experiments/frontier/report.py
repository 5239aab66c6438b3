"""The frontier as a table and a picture, from results/frontier.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.lib.plot import COLOURS
from gossamer.files import read_json, write_text

FAMILIES = {
    "kl": "KL ceiling",
    "delta_ce": "gap ceiling",
    "loss": "loss ceiling (paper)",
    "topk": "top-k of the base",
    "topk-renormalised": "top-k, renormalised",
    "random": "random gates",
    "finetuned": "no penalty",
}
TRAINED = ("kl", "delta_ce", "loss", "finetuned")
VISIBLE = 64.5  # keys that a query sees, in the mean over a row of 128
GOAL_KEYS, GOAL_RISE = 4.0, 0.03
TICKS = (0.5, 1, 2, 4, 8, 16, 32, 64)
RISES = (0, 0.03, 0.1, 0.3, 1, 3)
MARKS = ("o", "s", "^", "v", "D", "x", "P")


def family(name: str) -> str:
    """Which line of the figure a run belongs to."""
    stem = name.split(" seed ")[0].split("=")[0].split("+")[0]
    head, _, tail = stem.rpartition("-")
    return head if tail.isdigit() else stem


def is_first(name: str) -> bool:
    """Whether a run is of the seed that every method was run with."""
    return " seed " not in name or name.endswith(" seed 0")


def write_table(results: Path) -> None:
    """Write frontier.md and frontier.svg beside the results."""
    content = read_json(results)
    runs: dict[str, Any] = content["runs"]
    about = ", ".join(f"{name} {value}" for name, value in content["environment"].items())
    lines = ["# The frontier", "", about, "", "| run | open keys per query | rise in held-out CE, nats "
             "| KL | top-1 agreement | steps | CPU seconds |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [_row(name, run) for name, run in runs.items()]
    write_text(results.with_suffix(".md"), "\n".join(lines) + "\n")
    _figure(runs, results.with_suffix(".svg"))


def _row(name: str, run: dict[str, Any]) -> str:
    found = run["held_out"]
    rise, error = found["delta_ce"], found["delta_ce_se"]
    cells = (f"{found['keys_per_query']:.2f}", f"{rise:+.4f} +- {error:.4f}", f"{found['kl']:.4f}",
             f"{found['agreement']:.4f}", str(run.get("steps", "")), f"{run.get('cpu_seconds', '')}")  # fmt: skip
    return f"| {name} | " + " | ".join(cells) + " |"


def _figure(runs: dict[str, Any], path: Path) -> None:
    """Everything on logarithmic axes at the left; at the right the corner that the goal is in, on a linear one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.7), layout="constrained")
    wide, near = figure.subplots(1, 2)
    for axes in (wide, near):
        _lines(axes, runs)
        axes.axhline(0.0, color="#cccccc", linewidth=0.6, zorder=0)
        axes.fill_between((0.4, GOAL_KEYS), -0.3, GOAL_RISE, color="#e8f0e4", linewidth=0, zorder=-1)
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{keys:g}" for keys in TICKS])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(f"open keys per query per head (of {VISIBLE})")
    wide.set_yscale("symlog", linthresh=0.1, linscale=0.6)
    wide.set_yticks(RISES, [f"{rise:g}" for rise in RISES])
    wide.minorticks_off()
    wide.set_ylabel("rise in held-out cross-entropy, nats")
    trained = [r["held_out"]["delta_ce"] for name, r in runs.items() if family(name) in TRAINED]
    lowest = min([-0.02, *(rise - 0.02 for rise in trained)])
    wide.set_ylim(bottom=lowest)
    near.set_ylim(lowest, 0.25)
    handles, labels = wide.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def _lines(axes: Any, runs: dict[str, Any]) -> None:
    """One line per family through its runs of seed 0; further seeds are hollow points beside it."""
    for (kind, label), colour, mark in zip(FAMILIES.items(), COLOURS, MARKS, strict=True):
        own = {name: r["held_out"] for name, r in runs.items() if family(name) == kind}
        for first in (True, False):
            points = sorted((r["keys_per_query"], r["delta_ce"], r["delta_ce_se"])
                            for name, r in own.items() if is_first(name) == first)  # fmt: skip
            if points:
                keys, rises, errors = zip(*points, strict=True)
                shown = {"label": label, "linestyle": "-"} if first else {"linestyle": "", "mfc": "white"}
                axes.errorbar(
                    keys, rises, yerr=errors, marker=mark, color=colour, markersize=4, linewidth=1, **shown
                )
