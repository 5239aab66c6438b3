"""The pages and pictures of the records of generality, one for each part."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.lib.intervals import Interval, t_interval
from benchmarks.lib.plot import COLOURS
from gossamer.files import read_json, write_text

Row = dict[str, Any]


def write_page(path: Path) -> Path:
    """Write the page beside a record, and its picture."""
    rows = read_json(path, list[dict[str, Any]])
    criterion, rows = rows[0], rows[1:]
    part = path.stem
    lines = [
        f"# Generality: {part}",
        "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks.experiments.generality.run {part} --seeds "
        f"{' '.join(map(str, seeds_of(rows)))}`; torch {rows[0]['torch']}, CPU, one thread; criterion written "
        f"{criterion['written']}, before the first run.",
        "",
        *{"addition": addition_lines, "tasks": tasks_lines, "language": language_lines}[part](rows),
        "",
        f"Processor time of all rows: {sum(row['cpu_seconds'] for row in rows) / 60:.0f} minutes.",
    ]
    write_text(page := path.with_suffix(".md"), "\n".join(lines) + "\n")
    pictures = {"tasks": draw_tasks, "addition": draw_addition}
    if part in pictures:
        pictures[part](rows, path.with_suffix(".svg"))
    return page


def seeds_of(rows: list[Row]) -> list[int]:
    """The seeds of a record."""
    return sorted({row["seed"] for row in rows})


def arms_of(rows: list[Row]) -> list[str]:
    """The arms of a record, in their order."""
    return list(dict.fromkeys(row["arm"] for row in rows))


def shown(x: Interval, digits: int = 3) -> str:
    """A mean with its interval."""
    if x.n == 1:
        return f"{x.mean:.{digits}f} (one seed)"
    return f"{x.mean:.{digits}f} ({x.low:.{digits}f} to {x.high:.{digits}f})"


def addition_lines(rows: list[Row]) -> list[str]:
    """Exact sums of each arm on the sums that were left out, and on unseen sums of the kind that was seen."""
    lines = ["| arm | seeds | exact of the sums left out | exact of unseen sums of the kind seen | difference "
             "| whole rows left out | KL left out / seen | multiply-adds left |",
             "|---" * 8 + "|"]  # fmt: skip
    for arm in arms_of(rows):
        mine = [row for row in rows if row["arm"] == arm]
        shares = [[row[kind]["exact"] / row[kind]["n"] for row in mine] for kind in ("left_out", "seen_kind")]
        gap = t_interval([a - b for a, b in zip(*shares, strict=True)])
        rows_right = t_interval([row["left_out"]["whole_rows"] / row["left_out"]["n"] for row in mine])
        kl = [statistics.fmean(row[kind]["kl"] for row in mine) for kind in ("left_out", "seen_kind")]
        left = [row["multiply_adds"] for row in mine if "multiply_adds" in row]
        size = f"{statistics.fmean(left):.1%}" if left else "100 %"
        cells = [
            arm,
            len(mine),
            *(shown(t_interval(x)) for x in shares),
            shown(gap),
            shown(rows_right),
            f"{kl[0]:.5f} / {kl[1]:.5f}",
            size,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, "", *_within(rows)]


def _within(rows: list[Row]) -> list[str]:
    """Arms against each other on the sums that were left out, and the criterion `within`."""

    def share(arm: str, seed: int, kind: str = "left_out") -> float:
        row = next(x for x in rows if (x["arm"], x["seed"]) == (arm, seed))
        return row[kind]["exact"] / row[kind]["n"]

    arms = ("sevens", "sevens_finetuned", "random")
    seeds = [s for s in seeds_of(rows) if all((a, s) in {(x["arm"], x["seed"]) for x in rows} for a in arms)]
    if not seeds:
        return []
    lines = []
    for other in arms[1:]:
        gap = t_interval([share("sevens", s) - share(other, s) for s in seeds])
        lines.append(f"- On the sums left out, `sevens` less `{other}`: {shown(gap)}.")
    cost = {
        arm: t_interval([share(arm, s) - share(arm, s, "seen_kind") for s in seeds])
        for arm in ("sevens", "random")
    }
    fails = cost["sevens"].excludes_zero and cost["sevens"].mean <= min(-0.01, cost["random"].mean)
    return [
        *lines,
        f"- By the criterion, the sparse model {'fails to generalise' if fails else 'generalises'}.",
    ]


def tasks_lines(rows: list[Row]) -> list[str]:
    """Accuracy and KL of each model by task, KL under shift as a multiple, and edges."""
    names = list(rows[0]["tasks"])
    head = " | ".join(f"{name}: accuracy, KL, edges" for name in names)
    lines = [f"| model | seeds | own ceiling | {head} | KL before the answer | corrupt, shuffled, twice: KL / clean |",
             "|---" * (len(names) + 5) + "|"]  # fmt: skip
    for arm in arms_of(rows):
        mine = [row for row in rows if row["arm"] == arm]
        cells = [arm, str(len(mine)), _own(mine)]
        for name in names:
            values = [
                statistics.fmean(row["tasks"][name][key] for row in mine)
                for key in ("accuracy", "kl_clean", "edges")
            ]
            cells.append(f"{values[0]:.3f}, {values[1]:.4f}, {values[2]:.1f}")
        cells.append(f"{statistics.fmean(_trained(mine, 'kl_before')):.4f}")
        clean = statistics.fmean(_trained(mine, "kl_clean"))
        shifts = [statistics.fmean(_trained(mine, f"kl_{kind}")) for kind in ("corrupt", "shuffled", "twice")]
        cells.append(", ".join(f"{x:.4f} ({x / clean:.1f})" if clean > 0 else f"{x:.4f}" for x in shifts))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *_between(rows)]


def _trained(rows: list[Row], key: str) -> list[float]:
    """A number of the four tasks that the base was trained on, of every seed."""
    return [row["tasks"][task][key] for row in rows for task in ("ioi", "greater_than", "quotes", "brackets")]


def _own(rows: list[Row]) -> str:
    own = [row.get("own") for row in rows if row.get("own")]
    if not own:
        return "none"
    missed = [one["missed"] for one in own if one["missed"]]
    return f"missed on {len(missed)} of {len(own)}" if missed else "held"


def _between(rows: list[Row]) -> list[str]:
    """The criterion `between`, for each task that the narrow runs were not finetuned on."""
    lines = []
    for arm in [arm for arm in arms_of(rows) if arm.startswith("one@")]:
        for task in ("greater_than", "quotes", "brackets"):
            ours, theirs = (
                {row["seed"]: row["tasks"][task]["accuracy"] for row in rows if row["arm"] == name}
                for name in (arm, "finetuned_one")
            )
            both = sorted(set(ours) & set(theirs))
            if both:
                gap = t_interval([ours[seed] - theirs[seed] for seed in both])
                counts = gap.excludes_zero and gap.mean <= -0.05
                lines.append(f"- `{arm}` less `finetuned_one`, accuracy on {task}: {shown(gap)}; "
                             f"{'counts' if counts else 'does not count'}.")  # fmt: skip
    return lines


def language_lines(rows: list[Row]) -> list[str]:
    """KL and loss of each model on every text."""
    names = list(rows[0]["texts"])
    lines = [f"| model | keys a query | {' | '.join(f'{name}: KL, delta_ce' for name in names)} |",
             "|---" * (len(names) + 2) + "|"]  # fmt: skip
    for arm in arms_of(rows):
        mine = [row for row in rows if row["arm"] == arm]
        keys = [row["keys_per_query"] for row in mine if row["keys_per_query"]]
        cells = [arm, f"{statistics.fmean(keys):.2f}" if keys else "all"]
        for name in names:
            kl, rise = (
                statistics.fmean(row["texts"][name][key] for row in mine) for key in ("kl", "delta_ce")
            )
            cells.append(f"{kl:.4f}, {rise:+.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw_tasks(rows: list[Row], path: Path) -> None:
    """Open edges a prompt against KL: on the tasks of the finetuning, under shift, and on tasks never seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    parts = {
        "answers under the ceiling": "kl_clean",
        "tokens before the answer": "kl_before",
        "shuffled prompts": "kl_shuffled",
    }
    marks = {"general": ("o", COLOURS[0]), "topk": ("s", COLOURS[4]), "one": ("^", COLOURS[1])}
    for axis, (title, key) in zip(figure.subplots(1, len(parts)), parts.items(), strict=True):
        for kind, (mark, colour) in marks.items():
            points = []
            for arm in [arm for arm in arms_of(rows) if arm.startswith(f"{kind}@")]:
                mine = [row for row in rows if row["arm"] == arm]
                points.append(
                    (statistics.fmean(_trained(mine, "edges")), statistics.fmean(_trained(mine, key)))
                )
            if points:
                axis.plot(*zip(*sorted(points), strict=True), marker=mark, color=colour, label=kind)
        control = [row for row in rows if row["arm"] == "finetuned"]
        if control:
            axis.axhline(
                statistics.fmean(_trained(control, key)), color="#333333", linestyle=":", label="finetuned"
            )
        axis.set(xscale="log", yscale="log", xlabel="open edges a prompt", title=title)
        axis.grid(color="#dddddd", linewidth=0.5)
    figure.axes[0].set_ylabel("KL to the base, nats")
    figure.axes[-1].legend(fontsize=7)
    figure.savefig(path)


def draw_addition(rows: list[Row], path: Path) -> None:
    """Exact sums of every arm and seed: of those left out, and of unseen ones of the kind that was seen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis, arms = figure.subplots(), arms_of(rows)
    kinds = {
        "seen_kind": ("kind that was seen", COLOURS[0], "o", -0.12),
        "left_out": ("left out", COLOURS[1], "^", 0.12),
    }
    for kind, (label, colour, mark, shift) in kinds.items():
        points = [(arms.index(row["arm"]) + shift, row[kind]["exact"] / row[kind]["n"]) for row in rows]
        axis.plot(*zip(*points, strict=True), mark, color=colour, label=label, alpha=0.7, linestyle="none")
    axis.set_xticks(range(len(arms)), arms)
    axis.set(ylabel="exact sums, one mark a seed", ylim=(-0.03, 1.03))
    axis.grid(color="#dddddd", linewidth=0.5, axis="y")
    axis.legend(loc="lower right", fontsize=8)
    figure.savefig(path)
