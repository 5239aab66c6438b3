"""An ablation as a table and a picture: each arm by seed, and its difference from the whole recipe, paired by seed."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path

import torch
import transformers

from benchmarks.lib.intervals import t_interval
from benchmarks.lib.record import Row

WHOLE = "whole"
UNITS = {"addition": ("edges_mean", "edges a sum"), "language": ("keys_per_query", "open keys per query")}
JUDGED = {
    "addition": "10,000 sums exact; precision at least 0.99 and recall 1",
    "language": "KL on rows that report, nats, by seed; inside the ceiling",
}


def as_lines(subject: str, rows: list[Row]) -> list[str]:
    """The page of one subject."""
    unit, said = UNITS[subject]
    seeds = sorted({row["seed"] for row in rows})
    whole = _of_whole(rows, unit)
    lines = [
        f"# What each part of a recipe brings: {subject}", "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks.experiments.ablations.run {subject} --seeds "
        f"{' '.join(map(str, seeds))}`, torch {torch.__version__}, transformers {transformers.__version__}, CPU.", "",
        f"Each row is the recipe without one part: {said} by seed, and the mean difference from the whole recipe, "
        "paired by seed, with its 95 % t interval. A run that ended as the untrained model, all units open, is told as "
        "such and is in no difference. Seconds are of the finetuning, beside another run on the other core.", "",
        f"| without | {said} | more than the whole recipe | {JUDGED[subject]} | steps, median | seconds, median |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for arm, own in _by_arm(rows).items():
        lines.append(
            f"| {'nothing: the whole recipe' if arm == WHOLE else arm} | {', '.join(_value(row, unit) for row in own)} "
            f"| {_difference(own, whole, unit) if arm != WHOLE else ''} | {_judged(subject, own)} "
            f"| {_median(own, 'steps')} | {_median(own, 'seconds')} |"
        )
    return lines


def draw(subject: str, rows: list[Row], path: Path) -> None:
    """A line for each arm, a dot for each seed; the dots of the whole recipe are joined by a band down the picture."""
    from matplotlib.figure import Figure

    unit, said = UNITS[subject]
    arms = _by_arm(rows)
    figure = Figure(figsize=(7, 0.5 * len(arms) + 0.9), layout="constrained")
    axes = figure.subplots()
    whole = list(_of_whole(rows, unit).values())
    axes.axvspan(min(whole), max(whole), color="#dce8f5", linewidth=0)
    for place, (arm, own) in enumerate(arms.items()):
        values = [row[unit] for row in own if _trained(row)]
        axes.plot(
            values, [place] * len(values), "o", color="#08306b" if arm == WHOLE else "#4292c6", alpha=0.8
        )
        axes.plot([statistics.median(values)], [place], "|", color="black", markersize=14) if values else None
    axes.set_yticks(
        range(len(arms)),
        ["the whole recipe", *(textwrap.fill(f"without {arm}", 44) for arm in list(arms)[1:])],
        fontsize=8,
    )
    axes.set(xlabel=f"{said}; a dot is a seed, a bar the median")
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    figure.savefig(path, metadata={"Date": None})


def _by_arm(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each arm in the order of the seeds, the whole recipe first."""
    arms = dict.fromkeys(row["arm"] for row in rows)
    return {
        arm: sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"]) for arm in arms
    }


def _of_whole(rows: list[Row], unit: str) -> dict[int, float]:
    return {row["seed"]: row[unit] for row in rows if row["arm"] == WHOLE}


def _trained(row: Row) -> bool:
    return row["best_step"] > 0


def _value(row: Row, unit: str) -> str:
    return f"{row[unit]:.2f}" if _trained(row) else "all"


def _difference(own: list[Row], whole: dict[int, float], unit: str) -> str:
    """The mean difference from the whole recipe over the seeds that both trained on."""
    paired = [row[unit] - whole[row["seed"]] for row in own if _trained(row) and row["seed"] in whole]
    if not paired:
        return ""
    found = t_interval(paired)
    return (
        f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})" if found.n > 1 else f"{found.mean:+.2f}"
    )


def _judged(subject: str, own: list[Row]) -> str:
    """What the model of each seed proves, or loses."""
    if subject == "language":
        lost = ", ".join(f"{row['kl']:.4f}" for row in own)
        return f"{lost}; {sum(row['feasible'] for row in own)} of {len(own)}"
    exact = sum(row["sparse_exact"] == row["same_row"] == 10_000 for row in own)
    clean = sum(row["precision"] >= 0.99 and row["recall"] == 1 for row in own)
    return f"{exact} of {len(own)}; {clean}"


def _median(own: list[Row], name: str) -> str:
    return f"{statistics.median(row[name] for row in own):.0f}"
