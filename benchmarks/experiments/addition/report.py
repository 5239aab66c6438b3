"""The table of addition over seeds, from the reports of its runs."""

from __future__ import annotations

import statistics
from typing import Any

from gossamer import RunReport

NAMES = (
    "base_exact",
    "sparse_exact",
    "same_row",
    "unseen",
    "unseen_exact",
    "edges_mean",
    "edges_max",
    "live_edges_mean",
)
NAMES += ("precision", "precision_relays", "recall", "leaks")


def row(seed: int, report: RunReport) -> dict[str, Any]:
    """What the table shows of one report."""
    return {
        "seed": seed,
        "sums": report.proof["prompts"],
        **{name: report.proof[name] for name in NAMES},
        "edges_per_layer": [round(n, 2) for n in report.proof["edges_per_layer"]],
        "feasible": report.feasible,
        "best_step": report.best_step,
        "steps": report.steps,
        "seconds": report.seconds,
        "threads": report.versions["threads"],
        **({"tries": report.tries} if report.tries else {}),
    }


def as_markdown(rows: list[dict[str, Any]], record: dict[str, Any]) -> str:
    """The table, with its command and versions."""
    edges, sums = [r["edges_mean"] for r in rows], rows[0]["sums"]
    head = "| seed | base exact | sparse exact | same row | unseen exact | edges, mean | most "
    head += "| precision | with relays | recall | leaks |"
    lines = [
        "# Addition over seeds",
        "",
        f"`python -m benchmarks.experiments.addition.run`, {_told(record['settings'])}, torch {record['torch']}, "
        f"transformers {record['transformers']}, CPU.",
        "",
        head,
        "|" + "---|" * 11,
    ]
    for r in rows:
        lines.append(
            f"| {r['seed']} | {r['base_exact']:,} | {r['sparse_exact']:,} | {r['same_row']:,} | "
            f"{r['unseen_exact']:,} of {r['unseen']:,} | "
            f"{r['edges_mean']:.2f} | {r['edges_max']} | {r['precision']:.3f} | {r['precision_relays']:.3f} | "
            f"{r['recall']:.2f} | {r['leaks']} |"
        )
    lines += [
        *_tries_lines(rows),
        "",
        f"Edges: median {statistics.median(edges):.2f}, range {min(edges):.2f} to {max(edges):.2f}. "
        f"Of {len(rows)} seeds {_count(rows, 'sparse_exact', sums)} are exact on all {sums:,} sums that were looked "
        f"at and {_count(rows, 'same_row', sums)} write the base's row on all of them; "
        f"{_count(rows, 'precision', 0.99)} have a precision of at least 0.99, "
        f"{_count(rows, 'recall', 1)} a recall of 1.",
        "",
    ]
    return "\n".join(lines)


def _tries_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Where each row is the best of several runs, how many edges each of them has, on the sums that chose."""
    if "tries" not in rows[0]:
        return []
    head = "| seed | edges of the try that was kept | of the others | left after a look, edges there |"
    lines = ["", head, "|---|---|---|---|"]
    for r in rows:
        ended = [one for one in r["tries"] if "feasible" in one]
        left = [one["look"] for one in r["tries"] if "feasible" not in one]
        kept, *others = [f"{one['open_edges']:.2f}" + _seen(one.get("look")) for one in ended]
        lines.append(f"| {r['seed']} | {kept} | {', '.join(others)} | {', '.join(map(_edges_seen, left))} |")
    return lines


def _seen(look: dict[str, Any] | None) -> str:
    return "" if look is None else f" (at the look {_edges_seen(look)})"


def _edges_seen(look: dict[str, Any]) -> str:
    wrong = f", base wrong on {look['base_wrong']:,.0f}" if look["base_wrong"] else ""
    return f"{look['open_edges']:.1f}{wrong}"


def _count(rows: list[dict[str, Any]], name: str, least: float) -> int:
    """How many rows reach a number."""
    return sum(row[name] >= least for row in rows)


def _told(settings: dict[str, Any]) -> str:
    """Settings as name=value; the recipes are in the record."""
    return ", ".join(f"{name}={value}" for name, value in settings.items() if not isinstance(value, dict))
