"""The table of an ablation: each arm's rows by seed, and its difference from the whole recipe, paired by seed."""

from __future__ import annotations

import statistics
from typing import Any

import torch
import transformers

from benchmarks.lib.intervals import t_interval
from benchmarks.lib.record import Row

WHOLE = "whole"
UNITS = {"addition": ("edges_mean", "edges a sum"), "language": ("keys_per_query", "open keys per query")}


def as_lines(subject: str, rows: list[Row]) -> list[str]:
    """The page of one subject."""
    unit, said = UNITS[subject]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        f"# What each part brings: {subject}", "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks.experiments.ablations.run {subject} --seeds "
        f"{' '.join(map(str, seeds))}`, torch {torch.__version__}, transformers {transformers.__version__}, CPU.", "",
        f"Each row is the recipe without one part. The {said} by seed; the difference from the whole recipe is paired "
        "by seed, with its 95 % t interval. A run that ended as the untrained model, all units open, is told as such "
        "and is in no difference.", "",
        f"| without | {said} | more than the whole recipe | {_judged_head(subject)} | steps, median "
        "| processor seconds, median |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    whole = {row["seed"]: row[unit] for row in rows if row["arm"] == WHOLE}
    for arm in arms:
        own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
        lines.append(
            f"| {'nothing: the whole recipe' if arm == WHOLE else arm} | {', '.join(_value(row, unit) for row in own)} "
            f"| {_difference(own, whole, unit) if arm != WHOLE else ''} | {_judged(subject, own)} "
            f"| {_median(own, 'steps')} | {_median(own, 'cpu_seconds')} |"
        )
    return lines


def _trained(row: Row) -> bool:
    return row["best_step"] > 0


def _value(row: Row, unit: str) -> str:
    return f"{row[unit]:.2f}" if _trained(row) else "all"


def _difference(own: list[Row], whole: dict[int, float], unit: str) -> str:
    """The mean difference from the whole recipe over the seeds that both trained on."""
    paired = [row[unit] - whole[row["seed"]] for row in own if _trained(row) and row["seed"] in whole]
    if not paired:
        return ""
    if len(paired) == 1:
        return f"{paired[0]:+.2f}"
    found = t_interval(paired)
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _judged_head(subject: str) -> str:
    return {
        "addition": "10,000 sums exact; precision at least 0.99 and recall 1",
        "language": "KL on rows that report, nats, by seed; inside the ceiling",
    }[subject]


def _judged(subject: str, own: list[Row]) -> str:
    """What the model of each seed proves, or loses."""
    inside = sum(row["feasible"] for row in own)
    if subject == "language":
        lost = ", ".join(f"{row['kl']:.4f}" for row in own)
        return f"{lost}; {inside} of {len(own)}"
    exact = sum(row["sparse_exact"] == row["same_row"] == 10_000 for row in own)
    clean = sum(row["precision"] >= 0.99 and row["recall"] == 1 for row in own)
    return f"{exact} of {len(own)}; {clean}"


def _median(own: list[Row], name: str) -> str:
    values: list[Any] = [row[name] for row in own]
    return f"{statistics.median(values):.0f}"
