"""The page and the picture of a record of tickets: arms beside each other, and what the criterion makes of them."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lib.intervals import Interval, t_interval
from benchmarks.lib.plot import COLOURS
from gossamer.files import read_json, write_text

Row = dict[str, Any]
WORSE = ("fresh", "shuffled", "random")  # what a ticket has to beat
SHOWN = ("dense", "found", "fresh", "shuffled", "magnitude", "signs", "small_dense")


class Difference(NamedTuple):
    """One arm less another, over the seeds that have both; positive is better for both measures."""

    exact: Interval
    steps: Interval
    counts: dict[str, int]  # 1 better, -1 worse, 0 no difference that counts


def steps_to(row: Row, threshold: float, every: int) -> int:
    """The first evaluation that reaches the threshold, one evaluation after the last if none does."""
    return next((int(step) for step, _, exact in row["curve"] if exact >= threshold), row["steps"] + every)


class Record:
    """The rows of one subject."""

    def __init__(self, path: Path) -> None:
        rows = read_json(path, list[dict[str, Any]])
        self.subject = path.stem
        self.criterion, self.written = rows[0]["criterion"], rows[0]["written"]
        self.margin = self.criterion["margin"][self.subject]
        self.threshold = self.criterion["threshold"][self.subject]
        self.masks = {row["seed"]: row for row in rows[1:] if row["arm"] == "mask"}
        self.kinds = list(dict.fromkeys(kind for row in self.masks.values() for kind in row["open"]))
        self.rows = [row for row in rows[1:] if row["arm"] != "mask"]
        self.arms = list(dict.fromkeys(row["arm"] for row in self.rows))

    @property
    def adds(self) -> bool:
        """Whether the measure is exact sums, and not a loss."""
        return self.subject.startswith("addition")

    def of(self, arm: str) -> dict[int, Row]:
        """The rows of an arm by seed."""
        return {row["seed"]: row for row in self.rows if row["arm"] == arm}

    def to_threshold(self, row: Row) -> int:
        """`steps_to`, with the row's own distance between evaluations."""
        return steps_to(row, self.threshold, int(row["curve"][-1][0] - row["curve"][-2][0]))

    def difference(self, arm: str, other: str) -> Difference | None:
        """What the criterion makes of two arms."""
        ours, theirs = self.of(arm), self.of(other)
        seeds = sorted(set(ours) & set(theirs))
        if not seeds:
            return None
        exact = t_interval([ours[s]["exact"] - theirs[s]["exact"] for s in seeds])
        steps = t_interval([self.to_threshold(theirs[s]) - self.to_threshold(ours[s]) for s in seeds])
        least = {"exact": self.margin["exact"], "steps_to": self.margin["steps_to"] * ours[seeds[0]]["steps"]}
        found = {"exact": exact, "steps_to": steps}
        return Difference(exact, steps, {name: _counts(x, least[name]) for name, x in found.items()})

    def ticket(self, arm: str) -> tuple[bool, list[str]]:
        """Whether the found mask from this start is a ticket, and why not."""
        reasons = []
        for other in WORSE:
            found = self.difference(arm, other)
            if found is None:
                return False, [f"{other}: not measured"]
            if -1 in found.counts.values() or 1 not in found.counts.values():
                reasons.append(
                    f"{other}: {'worse' if -1 in found.counts.values() else 'no difference that counts'}"
                )
        return not reasons, reasons


def _counts(interval: Interval, least: float) -> int:
    if not interval.excludes_zero or abs(interval.mean) < least:
        return 0
    return 1 if interval.mean > 0 else -1


def write_page(path: Path) -> Path:
    """Write the page beside a record, and the picture of its curves."""
    record = Record(path)
    page = path.with_suffix(".md")
    write_text(page, "\n".join(as_lines(record)) + "\n")
    draw(record, path.with_suffix(".svg"))
    return page


def as_lines(record: Record) -> list[str]:
    """The page."""
    seeds = sorted(record.of("dense"))
    lines = [
        f"# Tickets: {record.subject}",
        "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks.experiments.tickets.run --subject {record.subject} --seeds "
        f"{' '.join(map(str, seeds))}`; torch {record.rows[0]['torch']}, CPU, one thread; criterion written "
        f"{record.written}, before the first run.",
        "",
        f"| mask of seed | {' | '.join(f'open {kind} by layer' for kind in record.kinds)} | parameters left | search |",
        "|---" * (3 + len(record.kinds)) + "|",
    ]
    for seed, row in sorted(record.masks.items()):
        left = next(
            (
                x["parameters"]
                for arm in ("found", "fresh")
                for x in record.of(arm).values()
                if x["seed"] == seed
            ),
            0,
        )
        units = " | ".join(", ".join(f"{n:,}" for n in row["open"][kind]) for kind in record.kinds)
        proof = ", ".join(f"{name} {_shown(value)}" for name, value in row["proof"].items() if value != "")
        lines.append(f"| {seed} | {units} | {left:,} | {proof} |")
    last = "exact after the last step" if record.adds else "minus the held-out loss"
    lines += ["", f"| arm | seeds | parameters | {last}: mean, each seed | steps to {record.threshold:g} | "
              "less `found`: exact | steps saved | counts |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [_arm_line(record, arm) for arm in record.arms]
    lines += ["", *_verdict(record), ""]
    minutes = sum(row["cpu_seconds"] for row in (*record.rows, *record.masks.values())) / 60
    lines.append(f"Processor time of all rows: {minutes:.0f} minutes.")
    return lines


def _arm_line(record: Record, arm: str) -> str:
    rows = list(record.of(arm).values())
    exact = [row["exact"] for row in rows]
    each = ", ".join(f"{x:.3f}" for x in exact)
    steps = ", ".join(
        str(n) if n <= row["steps"] else "never" for row in rows for n in [record.to_threshold(row)]
    )
    sizes = sorted({row["parameters"] for row in rows})
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    cells = [arm, str(len(rows)), size, f"{statistics.fmean(exact):.3f}; {each}", steps]
    found = record.difference(arm, "found") if arm != "found" else None
    if found is None:
        return f"| {' | '.join(cells)} | | | |"
    words = {1: "better", 0: "no", -1: "worse"}
    counts = ", ".join(f"{name} {words[value]}" for name, value in found.counts.items())
    return f"| {' | '.join(cells)} | {_interval(found.exact, 3)} | {_interval(found.steps, 0)} | {counts} |"


def _verdict(record: Record) -> list[str]:
    lines = []
    for arm in ("found", *(arm for arm in record.arms if arm.startswith("rewound"))):
        if arm in record.arms:
            ticket, reasons = record.ticket(arm)
            lines.append(f"- `{arm}`: {'a ticket' if ticket else 'no ticket; ' + '; '.join(reasons)}.")
    for arm in [arm for arm in record.arms if arm.startswith("shuffled_")]:
        point = arm.removeprefix("shuffled_")
        found = record.difference(f"rewound_{point}", arm)
        if found is not None:
            word = {1: "better", 0: "no difference that counts", -1: "worse"}[found.counts["exact"]]
            lines.append(f"- `rewound_{point}` less `{arm}`, exact: {_interval(found.exact, 3)}; {word}.")
    return lines


def _interval(x: Interval, digits: int) -> str:
    if x.n == 1:
        return f"{x.mean:+.{digits}f} (one seed)"
    return f"{x.mean:+.{digits}f} ({x.low:+.{digits}f} to {x.high:+.{digits}f})"


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def draw(record: Record, path: Path) -> None:
    """Mean curves over seeds of loss and exactness; the bands of two arms are from the lowest seed to the highest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    late = [arm for arm in record.arms if arm.startswith("rewound")]
    for number, arm in enumerate([arm for arm in (*SHOWN, *late[1:2]) if arm in record.arms]):
        rows = list(record.of(arm).values())
        steps = [point[0] for point in rows[0]["curve"]]
        colour = (*COLOURS, "#56B4E9")[number]
        for axis, column in zip(axes, (1, 2), strict=True):
            values = [[point[column] for point in row["curve"]] for row in rows]
            columns = list(zip(*values, strict=True))
            axis.plot(steps, [statistics.fmean(x) for x in columns], color=colour, label=arm, linewidth=1.4)
            if arm in ("dense", "found"):
                axis.fill_between(
                    steps, [min(x) for x in columns], [max(x) for x in columns], color=colour, alpha=0.12
                )
    axes[0].set(xlabel="steps", ylabel="held-out loss, nats", yscale="log")
    axes[1].set(xlabel="steps", ylabel="exact" if record.adds else "minus the loss")
    axes[1].legend(fontsize=7)
    for axis in axes:
        axis.grid(color="#dddddd", linewidth=0.5)
    figure.savefig(path)
