"""Does a sparse model generalise, or does it specialise? Four questions, each with controls.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.generality.run addition --seeds 81 82 83 84 85
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.generality.run tasks --seeds 0 1 2 3 4
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.generality.run language --seeds 0

addition    within the task: sums that the finetuning left out (addition.py)
tasks       between tasks, under shift, and by ceiling, on a small GPT-2 that knows four tasks (tasks.py)
language    under shift and by ceiling, on a small GPT-2 of source code (language.py)

What counts as a difference is in configs/criterion.yaml, and in the record before the first run. Finished rows are in
results/<part>.json and are not repeated; --work holds the models, and may be that of the tickets, whose dense models
addition starts from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.generality import addition, language, tasks
from benchmarks.experiments.generality.report import write_page
from benchmarks.lib.record import open_record
from gossamer.models.quiet import quiet

HERE = Path(__file__).parent
CRITERION = HERE / "configs" / "criterion.yaml"
STEPS = 1200  # of every finetuning on tasks


def looks(part: str, work: Path, seed: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """What measures each row of one seed, by the name of its model."""
    if part == "addition":
        return {arm: lambda arm=arm: addition.measured(work / "addition", seed, arm) for arm in addition.ARMS}
    if part == "language":
        (work / "language").mkdir(parents=True, exist_ok=True)
        return {
            name: lambda name=name: language.measured(work / "language", seed, name)
            for name in language.variants()
        }
    return {name: lambda name=name: of_tasks(work / "tasks", seed, name) for name in tasks.variants()}


def of_tasks(out: Path, seed: int, variant: str) -> dict[str, Any]:
    """One model of the tasks."""
    model, base = (tasks.model_of(name, out, STEPS, seed) for name in (variant, "base"))
    return {"tasks": tasks.measure(model, base, seed), "own": tasks.promise(variant, out, seed)}


def main() -> None:
    """Run what is not in the record yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("addition", "tasks", "language"))
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/tickets"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.results / f"{given.part}.json"
    of = len(given.seeds) * len(looks(given.part, given.work, 0))
    rows, progress = open_record(path, CRITERION, of=of, seeds=given.seeds)
    for seed in given.seeds:
        for name, look in looks(given.part, given.work, seed).items():
            key = {"seed": seed, "arm": name, "torch": torch.__version__}
            if rows.lacks(key):
                with quiet():
                    rows.measure(key, look)
                progress.say(f"seed {seed} {name}", {"cpu_seconds": rows.rows[-1]["cpu_seconds"]})
        write_page(path)


if __name__ == "__main__":
    main()
