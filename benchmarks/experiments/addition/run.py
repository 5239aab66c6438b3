"""The main job over seeds: `gossamer demo` for each, and the table that README.md quotes.

    python -m benchmarks.experiments.addition.run --folder runs/addition [--seeds 160 161 ...] [--digits 3] [--tries 1]

Each seed has its own folder and is continued or reused like any demo folder, so the table can be made again from
finished runs, which may have been made side by side. Written to results/addition_seeds_<first>-<last>.{json,md}, or
addition_3_digits_seeds_..., addition_4_tries_seeds_...: every report's numbers, and their median and range.

A recipe is chosen on some seeds and judged once on others; the record of a judgement stays when a later one is made.
Chosen on: 0 to 9. Judged on: 40 to 59 (2026-11-27); with two whole tries on 80 to 99, with four and a look at step 280
on 130 to 132, and with one at step 1,000 on 160 to 167 (2026-11-29); the recipe before it on 20 to 39 (2026-11-26).
168 to 179 belong to the last of these judgements, unless something changes first. Three digits have the settings of
two, but for the base's steps; judged once on 120 to 122 (2026-11-27), after seed 0, with one try. addition_cpu_2026-11
is the record of an earlier recipe still, on seeds that it was chosen on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.experiments.addition.report import as_markdown, row
from gossamer.recipes.addition.run import run_demo
from gossamer.recipes.addition.settings import DemoSettings

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/addition"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(160, 180)))
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--tries", type=int)
    arguments = parser.parse_args()
    wanted = DemoSettings(digits=arguments.digits, tries=arguments.tries)
    reports = {s: run_demo(arguments.folder / f"seed{s}", replace(wanted, seed=s)) for s in arguments.seeds}
    rows = [row(seed, report) for seed, report in reports.items()]
    first = next(iter(reports.values()))
    settings = {name: value for name, value in first.settings.items() if name != "seed"}
    settings |= {"look_step": wanted.look_step} if wanted.tries != 1 else {}
    record = {"date": time.strftime("%Y-%m-%d"), "settings": settings, **first.versions, "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    size = "" if arguments.digits == 2 else f"_{arguments.digits}_digits"
    size += "" if wanted.tries == 1 else f"_{wanted.tries}_tries"
    stem = RESULTS / f"addition{size}_seeds_{min(reports)}-{max(reports)}"
    stem.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    stem.with_suffix(".md").write_text(as_markdown(rows, record))
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
