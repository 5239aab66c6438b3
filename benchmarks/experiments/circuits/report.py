"""The deciding experiment as a page of Markdown, from its records alone.

    python -m benchmarks.experiments.circuits.report RECORDS.json

A pair is one task under one seed. It enters a row of the goals if both models have a number; every other pair is
named with its reason, and a goal stays open while a pair is missing for any reason but one: both models were
refused, as neither has an effect to explain.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.errors import refuse
from gossamer.files import read_json, write_text

VARIANTS = ("base", "finetuned", "sparse")
# Sparse models by what their gates read, where a record has more than the one of its own recipe.
GATES = {
    "sparse": "logit, recipe circuits",
    "logit": "logit, the default recipe",
    "weight": "weight, the default recipe",
}
ASIDE = ("nonsense", "about")  # records that are no circuits
FEWER = 10.0  # times fewer edges than the finetuned control: the goal
NEITHER = "refused in both: no effect to explain"
EDGES = {
    "edges": "edges between components, dead ends pruned",
    "head_edges": "those of them that touch a head",
    "attention_edges": "attention edges a prompt (layer, head, query, key)",
}

Record = dict[str, Any]


class Pairs(NamedTuple):
    """Two models side by side, task by task and seed by seed.

    Attributes:
        entered: (task, seed) -> both numbers.
        left_out: (task, seed) -> why it has none.
    """

    entered: dict[tuple[str, int], tuple[int, int]]
    left_out: dict[tuple[str, int], str]

    @property
    def fair(self) -> bool:
        """Whether nothing is missing that could have decided otherwise."""
        return bool(self.entered) and all(why == NEITHER for why in self.left_out.values())

    def count(self) -> str:
        """How many entered, of how many."""
        return f"{len(self.entered)} of {len(self.entered) + len(self.left_out)}"


def index(records: list[Record]) -> dict[tuple[str, int, str, str], Record]:
    """Records of one setting by (task, seed, ablation, variant). Raises if two settings are mixed."""
    found: dict[tuple[str, int, str, str], Record] = {}
    for record in records:
        key = (record["task"], record["seed"], record["ablation"], record["variant"])
        if key in found:
            raise refuse(f"two records of {key}", "one record of each", "summarise one setting at a time")
        found[key] = record
    return found


def circuits_of(records: list[Record]) -> dict[str, list[tuple[str, int]]]:
    """ablation -> the (task, seed) pairs that any model was measured on; every pair for every ablation."""
    rows = [record for record in records if record["task"] not in ASIDE]
    tasks = list(dict.fromkeys(record["task"] for record in rows))
    seeds = sorted({record["seed"] for record in records})
    return {name: [(task, seed) for task in tasks for seed in seeds]
            for name in dict.fromkeys(record["ablation"] for record in rows)}  # fmt: skip


def number(record: Record | None, what: str) -> int | str:
    """The record's count of `what`, or why there is none."""
    if record is None:
        return "not measured"
    if "refused" in record:
        return "refused"
    found = record.get(what)
    if found is None:
        return (
            "refused: attention alone has no effect"
            if f"{what.split('_')[0]}_refused" in record
            else "never 90 %"
        )
    return found if found or what == "heads" else "none needed"


def pairs(records: list[Record], ablation: str, what: str, one: str, other: str) -> Pairs:
    """The counts of `what` in two variants under one ablation, and what has none."""
    found, entered, left_out = index(records), {}, {}
    for task, seed in circuits_of(records)[ablation]:
        a, b = (number(found.get((task, seed, ablation, variant)), what) for variant in (one, other))
        if isinstance(a, int) and isinstance(b, int):
            entered[task, seed] = a, b
        elif a == b == "refused":
            left_out[task, seed] = NEITHER
        else:
            left_out[task, seed] = f"{one}: {a}, {other}: {b}"
    return Pairs(entered, left_out)


def geometric_mean(values: list[float]) -> float:
    """exp(mean(log x)), x > 0."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def kinds_in(records: list[Record]) -> list[str]:
    """The kinds of edges that these records count; the first is always asked for."""
    return [what for what in EDGES if what == "edges" or any(what in record for record in records)]


def ratio_row(records: list[Record], ablation: str, what: str) -> Record:
    """The row of one kind of edges: finetuned over sparse, and base over sparse beside it."""
    found = pairs(records, ablation, what, "finetuned", "sparse")
    per_task = ratios_by_task(found)
    value = geometric_mean(list(per_task.values())) if per_task else None
    reached = "open" if value is None or not found.fair else "yes" if value >= FEWER else "no"
    beside = ratios_by_task(pairs(records, ablation, what, "base", "sparse"))
    return {"goal": f"{what}, finetuned / sparse", "ablation": ablation, "value": value, "per_task": per_task,
            "base": geometric_mean(list(beside.values())) if beside else None,
            "pairs": found.count(), "reached": reached, "left_out": found.left_out}  # fmt: skip


def ratios_by_task(found: Pairs) -> dict[str, float]:
    """task -> the geometric mean over seeds of one count over the other."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for (task, _), (one, other) in found.entered.items():
        ratios[task].append(one / other)
    return {task: geometric_mean(values) for task, values in ratios.items()}


def summarise(records: list[Record]) -> list[Record]:
    """The goals' rows from the records of one setting: one per kind of edges and one of heads, for each ablation.

    Edges: the geometric mean over tasks of (the geometric mean over seeds of finetuned / sparse), so that a task that
    fewer seeds know counts as much; None if no pair entered. Heads: the pair with the largest sparse - base.

    Returns: rows of goal, ablation, value, per_task or worst, pairs (entered of all), reached ("yes", "no", or "open"
        while a pair is missing that could decide otherwise; more heads in one pair is a "no" whatever is missing)
        and left_out.
    """
    rows = []
    for ablation in circuits_of(records):
        rows += [ratio_row(records, ablation, what) for what in kinds_in(records)]
        heads = pairs(records, ablation, "heads", "base", "sparse")
        more = {key: sparse - base for key, (base, sparse) in heads.entered.items()}
        worst = max(more, key=lambda key: more[key]) if more else None
        value = None if worst is None else more[worst]
        reached = "no" if value is not None and value > 0 else "yes" if heads.fair else "open"
        rows.append({"goal": "heads, sparse - base, worst", "ablation": ablation, "value": value, "worst": worst,
                     "pairs": heads.count(), "reached": reached, "left_out": heads.left_out})  # fmt: skip
    return rows


def message(row: Record) -> str:
    """What a goal's row says beside its value."""
    if "per_task" in row:
        beside = "" if row["base"] is None else f"; base / sparse {row['base']:.3g}"
        return ", ".join(f"{task} {value:.2f}" for task, value in row["per_task"].items()) + beside
    return "" if row["worst"] is None else "{} of seed {}".format(*row["worst"])


def goals(records: list[Record]) -> list[str]:
    """The goals and, below them, each pair that did not enter."""
    rows = summarise(records)
    lines = [f"Goals: edges >= {FEWER:g}, geometric mean over tasks; heads <= 0. Kinds of edges:", ""]
    lines += [*(f"- {name}: {message}" for name, message in EDGES.items()), ""]
    lines += ["| goal | ablation | value | pairs that entered | reached | of it |", "|---" * 6 + "|"]
    for row in rows:
        value = "none" if row["value"] is None else f"{row['value']:.3g}"
        lines.append(
            f"| {row['goal']} | {row['ablation']} | {value} | {row['pairs']} | {row['reached']} | {message(row)} |"
        )
    left_out = [
        f"- {row['goal']}, {row['ablation']}: {task}, seed {seed}: {why}"
        for row in rows
        for (task, seed), why in row["left_out"].items()
    ]
    return [*lines, "", "Pairs that did not enter:", "", *(left_out or ["- none"])]


def counts(records: list[Record]) -> list[str]:
    """Absolute numbers of every pair."""
    found = index(records)
    kinds = [*kinds_in(records), "heads"]
    effects = any("effect" in record for record in records)
    lines = [
        "Each cell: " + ", ".join(VARIANTS) + ". Each model explains its own effect, m(all) - m(none).",
        "",
    ]
    columns = ["task", "seed", "ablation", *kinds, *(["effect"] if effects else [])]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for ablation, keys in circuits_of(records).items():
        for task, seed in keys:
            cells = [", ".join(str(number(found.get((task, seed, ablation, variant)), what)) for variant in VARIANTS)
                     for what in kinds]  # fmt: skip
            if effects:
                three = (found.get((task, seed, ablation, variant), {}) for variant in VARIANTS)
                cells.append(
                    ", ".join(f"{record['effect']:.2f}" if "effect" in record else "-" for record in three)
                )
            lines.append(f"| {task} | {seed} | {ablation} | " + " | ".join(cells) + " |")
    return lines


def aside(records: list[Record]) -> list[str]:
    """The nonsense task, and what each model can do."""
    lines = [
        "The nonsense task: the largest metric of any circuit, where it was scored and on fresh prompts, and the whole",
        "effect on fresh prompts, which `refused` says cannot be told from zero.",
        "",
    ]
    lines += ["| seed | model | ablation | scored | fresh | effect |", "|---" * 6 + "|"]
    for r in records:
        if r["task"] == "nonsense":
            cells = f"{r['best_scored']:.4f} | {r['best_fresh']:.4f} | {r.get('effect', math.nan):.4f}"
            message = ", refused" if "refused" in r else ", NOT refused"
            lines.append(f"| {r['seed']} | {r['variant']} | {r['ablation']} | {cells}{message} |")
    return [*lines, *abilities([r for r in records if r["task"] == "about"]), *ceilings(records)]


def abilities(about: list[Record]) -> list[str]:
    """Accuracy, divergence from the base at the answer, and open edges, task by task."""
    tasks = list(about[0]["accuracy"]) if about else []
    lines = ["", "Accuracy; KL from the base at the answer, nats; open edges a prompt; on fresh prompts:", ""]
    lines += ["| seed | model | " + " | ".join(tasks) + " |", "|---" * (2 + len(tasks)) + "|"]
    for r in about:
        far = r.get("divergence", dict.fromkeys(tasks, math.nan))
        cells = [f"{r['accuracy'][task]:.3f}; {far[task]:.4f}; {r['open_edges'][task]:.1f}" for task in tasks]
        lines.append(f"| {r['seed']} | {r['variant']} | " + " | ".join(cells) + " |")
    return lines


def ceilings(records: list[Record]) -> list[str]:
    """Whether the ceiling was held, on the held-out prompts that chose the model and on those of the table above."""
    lines = ["", "The ceiling:", ""]
    for r in records:
        if r["task"] == "about" and "promise" in r:
            held, far = r["promise"], r["divergence"].values()
            chosen, fresh = held["metrics"]["divergence"], sum(far) / len(far)
            which = f"seed {r['seed']}" + f", {r['variant']}" * (r["variant"] != "sparse")
            message = f"{held['missed'] or 'held'}; {chosen:.4f} over the answers of the prompts that chose the model"
            lines.append(f"- {which}: {message}, {fresh:.4f} in the mean over tasks on fresh prompts")
    return lines


def gates(records: list[Record]) -> list[str]:
    """Sparse models whose gates read something else, side by side; nothing where there is one kind."""
    there = {name: about for name, about in GATES.items() if any(r["variant"] == name for r in records)}
    if len(there) < 2:
        return []
    lines = ["", "What gates read; finetuned over sparse as in the goals, resample and mean ablation:", ""]
    lines += [
        f"| gates | {' | '.join(EDGES)} | open edges a prompt | KL on fresh prompts, by seed |",
        "|---" * 6 + "|",
    ]
    for name, about in there.items():
        cells = [", ".join(f"{_mean_ratio(records, ablation, what, name):.1f}" for ablation in circuits_of(records))
                 for what in EDGES]  # fmt: skip
        seen = [r for r in records if r["variant"] == name and r["task"] == "about"]
        opened = [statistics.fmean(r["open_edges"].values()) for r in seen]
        far = ", ".join(f"{statistics.fmean(r['divergence'].values()):.4f}" for r in seen)
        lines.append(f"| {about} | {' | '.join(cells)} | {statistics.fmean(opened):.1f} | {far} |")
    return lines


def _mean_ratio(records: list[Record], ablation: str, what: str, variant: str) -> float:
    per_task = ratios_by_task(pairs(records, ablation, what, "finetuned", variant))
    return geometric_mean(list(per_task.values())) if per_task else math.nan


def command(records: list[Record], name: str) -> str:
    """What makes these records again; `name` is that of their file."""
    options = [f"--{name.replace('_', '-')} {value}" for name, value in records[0]["settings"].items()]
    made = dict.fromkeys(record["variant"] for record in records)
    more = [f"--name {name.split('_')[0]} --variants {' '.join(made)}"] if set(made) > set(VARIANTS) else []
    return " ".join(
        ["OMP_NUM_THREADS=1 python -m benchmarks.experiments.circuits.run --out DIR", *options, *more]
    )


def write_page(path: Path) -> Path:
    """Write the records at `path` as Markdown beside them, one part per setting; return the page."""
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in read_json(path, list[Record]):
        settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
        parts[f"{settings}, torch {record['torch']}"].append(record)
    lines = ["# Circuits: what a task needs, in a base, a finetuned and a sparse model", ""]
    lines += ["Edges and heads for 90 % of the effect; one thread of a shared CPU."]
    for about, records in parts.items():
        seeds = ", ".join(str(seed) for seed in sorted({record["seed"] for record in records}))
        lines += [
            "",
            f"## {about}",
            "",
            f"Seeds measured: {seeds}. Command: `{command(records, path.stem)}`",
            "",
        ]
        lines += [*goals(records), ""]
        lines += [*counts(records), "", *aside(records), *gates(records)]
    write_text(path.with_suffix(".md"), "\n".join(lines) + "\n")
    return path.with_suffix(".md")


def main() -> None:
    """Write the page of finished, or half finished, records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=Path, help="the JSON that run.py wrote")
    print(write_page(parser.parse_args().records).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
