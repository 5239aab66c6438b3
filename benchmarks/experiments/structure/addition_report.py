"""The page of addition with gates on heads and neurons: what the runs left, and the arms beside them."""

from __future__ import annotations

from benchmarks.lib.record import Row
from benchmarks.lib.tables import head, line

ARMS = (
    "gates",
    "edges alone",
    "magnitude",
    "random",
    "small dense",
    "found, untrained",
    "magnitude, untrained",
)
HEADS, NEURONS = 16, 1024  # of the base


def as_lines(rows: list[Row]) -> list[str]:
    """Two tables: what a run left of each kind; sums and edges of every arm, by seed."""
    seeds = sorted({row["seed"] for row in rows})
    lines = ["# Addition with gates on edges, heads and neurons", ""]
    command = f"python -m benchmarks.experiments.structure.addition --seeds {' '.join(map(str, seeds))}"
    about = f"`{command}` (its docstring has the rest), torch {rows[0]['torch']}, CPU, one thread a run."
    lines += [about, "", "## What the gates leave", ""]
    lines += head("seed", "exact of 10,000", "edges", "precision, recall", "heads", "neurons", "multiply-adds left",
                   "step of the best model")  # fmt: skip
    lines += [
        line(x["seed"], f"{x['sparse_exact']:,}", f"{x['edges_mean']:.2f}", f"{x['precision']:.2f}, {x['recall']:.2f}",
              f"{sum(x['heads'])} of {HEADS}", _share(sum(x["neurons"])),
              f"{x['multiply_adds']:.1%}", f"{x['best_step']:,} of {x['steps']:,}{', missed' if x['missed'] else ''}")
        for x in rows
        if x["arm"] == "gates"
    ]  # fmt: skip
    lines += ["", "## As many heads and neurons otherwise", "",
              "Exact of 10,000 sums; and edges a sum, where they have gates.", ""]  # fmt: skip
    lines += head("arm", *(f"seed {x}" for x in seeds))
    for arm in ARMS:
        own = {x["seed"]: x for x in rows if x["arm"] == arm}
        if own:
            lines.append(line(arm, *(_cell(own[x]) if x in own else "" for x in seeds)))
    return lines


def _cell(row: Row) -> str:
    parts = [f"{row['sparse_exact']:,}"]
    if "edges_mean" in row:
        parts.append(f"{row['edges_mean']:.2f} edges")
    return ", ".join(parts)


def _share(neurons: int) -> str:
    return f"{neurons} of {NEURONS:,} ({neurons / NEURONS:.1%})"
