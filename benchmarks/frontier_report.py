"""The frontier as a table and a picture, from results/frontier.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gossamer.files import read_json, write_text

FAMILIES = {
    "kl": "KL ceiling",
    "gap": "gap ceiling",
    "loss": "loss ceiling (paper)",
    "topk": "top-k of the base",
    "topk-renormalised": "top-k, renormalised",
    "random": "random gates",
    "finetuned": "no penalty",
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#333333", "#999999", "#CC79A7", "#E69F00")  # Okabe and Ito 2008


def family(name: str) -> str:
    """Which line of the figure a run belongs to."""
    stem = name.split(" seed ")[0].split("=")[0].split("+")[0]
    head, _, tail = stem.rpartition("-")
    return head if tail.isdigit() else stem


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
    rise, error = found["gap"], found["gap_se"]
    cells = (f"{found['keys_per_query']:.2f}", f"{rise:+.4f} +- {error:.4f}", f"{found['kl']:.4f}",
             f"{found['agreement']:.4f}", str(run.get("steps", "")), f"{run.get('cpu_seconds', '')}")  # fmt: skip
    return f"| {name} | " + " | ".join(cells) + " |"


def _figure(runs: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (kind, label), colour in zip(FAMILIES.items(), COLOURS, strict=True):
        points = sorted((r["held_out"]["keys_per_query"], r["held_out"]["gap"], r["held_out"]["gap_se"])
                        for name, r in runs.items() if family(name) == kind)  # fmt: skip
        if points:
            keys, rises, errors = zip(*points, strict=True)
            axes.errorbar(
                keys, rises, yerr=errors, fmt="o-", color=colour, label=label, markersize=4, linewidth=1
            )
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.axhline(0.03, color="#bbbbbb", linewidth=0.8, linestyle="--")
    axes.set_xlabel("open keys per query per head (of 64.5)")
    axes.set_ylabel("rise in held-out cross-entropy, nats")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
