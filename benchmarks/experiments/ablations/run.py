"""What each part of the controller brings: a recipe whole, and with one part taken out, over seeds.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.ablations.run addition --seeds 110 111 112 113 114
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.ablations.run language --seeds 110 111 112 113 114

`addition` is the demo's task and recipe: a base model for each seed, shared by all arms of that seed. `language` is the
frontier's GPT-2 under the default recipe, one base model, 300 steps at kl=0.05, and the seed is that of the finetuning.
The arms are in configs/<subject>.yaml. No seed here was used to choose a recipe. Written to
results/<subject>.{json,md,svg}, row by row and seed by seed; finished rows are not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.ablations import addition, language, report
from benchmarks.lib.record import Progress, Row, Rows
from gossamer.files import read_yaml, write_text
from gossamer.models.quiet import quiet

HERE = Path(__file__).parent
SUBJECTS: dict[str, Callable[[Path, int, dict[str, Any]], Row]] = {
    "addition": addition.measured,
    "language": language.measured,
}


def main() -> None:
    """Make what the record lacks, then write the table and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(110, 115)))
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)  # rounding depends on the number of threads, and a run on its rounding
    given.results.mkdir(exist_ok=True)
    arms = arms_of(given.subject)
    rows = Rows(given.results / f"{given.subject}.json")
    progress = Progress(len(arms) * len(given.seeds), given.seeds, rows)
    for seed in given.seeds:
        for arm, settings in arms.items():
            key = {"arm": arm, "seed": seed}
            if rows.lacks(key):
                with quiet():
                    work = given.work / given.subject
                    found = rows.measure(
                        key, lambda: SUBJECTS[given.subject](work, seed, settings)  # noqa: B023
                    )  # fmt: skip
                progress.say(f"{arm}, seed {seed}", found)
    lines = report.as_lines(given.subject, rows.rows)
    write_text(given.results / f"{given.subject}.md", "\n".join(lines) + "\n")
    report.draw(given.subject, rows.rows, given.results / f"{given.subject}.svg")


def arms_of(subject: str) -> dict[str, dict[str, Any]]:
    """What each arm changes of the recipe, the whole one first."""
    return read_yaml(HERE / "configs" / f"{subject}.yaml")


if __name__ == "__main__":
    main()
