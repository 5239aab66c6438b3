"""The deciding experiment: how many heads and edges a task needs, in a base, a finetuned and a sparse model.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.circuits.run --seeds 0 1 2 --out /tmp/circuits

For each seed: a small GPT-2 is trained from scratch on text that contains the tasks; then it is finetuned once without
a penalty (the control) and once under sparsity, from the same start, for the same number of steps
(models.py). For each task and ablation (measure.py) the smallest circuit with 90 % of the effect is
looked for, in three currencies:

    heads               the best n, exactly ranked; the input and all MLPs stay
    edges               between components, q, k and v apart, the best n by EAP-IG without dead ends; how many of them
                        touch a head is told beside it, for edges between input, MLPs and logits have no gate
    attention edges     (layer, head, query, key) of each prompt, the best n by EAP-IG: what the gates close

The nonsense task has random labels. Its circuits are refused, as there is no effect to explain; to show that
none hides, the same search is run anyway and the largest metric of any n is reported, on the prompts that
were scored (where fitting is possible) and on fresh ones.

Everything is seeded. Models are kept under --out and finished records in benchmarks/experiments/circuits/results/, so
that the same command continues where it was stopped, seed by seed; --out belongs to one set of settings.

After each seed the records become a page beside them, with the goals' rows (report.py), and a picture
(figure.py). shrink.py asks whether a better search would change the answer,
overlap.py whether other prompts would.

The table's other rows: `gossamer verify BASE SPARSE` (addition: sufficient, necessary, leak-free, precision and
recall) and `python -m benchmarks.speed.patching` (speed).
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.circuits.figure import draw
from benchmarks.experiments.circuits.measure import describe, measure, nonsense
from benchmarks.experiments.circuits.models import SPARSE, TEXT, VARIANTS, model_of
from benchmarks.experiments.circuits.report import write_page
from benchmarks.lib.record import Row, Rows
from gossamer.errors import refuse
from gossamer.files import read_json, write_json

MEASURED = tuple(task for task in TEXT if task != "nonsense")
ABLATIONS = ("resample", "mean")
RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """The command line; every number of it goes into the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", default="circuits", help="what the record is called")
    parser.add_argument(
        "--variants", nargs="+", choices=dict.fromkeys((*VARIANTS, *SPARSE)), default=VARIANTS
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--base-steps", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--ceiling", default="kl=0.02")
    parser.add_argument("--loose", type=float, default=2.5, help="times the ceiling at first")
    parser.add_argument("--most", type=float, default=10.0, help="where lambda is clamped")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--prompts", type=int, default=64)
    return parser.parse_args()


def require_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raise unless the models kept in `folder`, if any, were made with these very settings."""
    path = folder / "settings.json"
    if not path.is_file():
        write_json(path, settings)
    elif (kept := read_json(path)) != settings:
        other = {name: value for name, value in kept.items() if settings.get(name) != value}
        raise refuse(f"{folder} holds models made with {other}", "the same settings", "choose another --out")


def found_for(
    task: str, ablation: str, model: Any, base: Any, given: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One record's numbers."""
    if task == "about":
        return describe(model, base, TEXT, seed)
    if task == "nonsense":
        return nonsense(model, ablation, given.prompts, seed)
    return measure(model, task, ablation, given.prompts, seed)


def fill(rows: Rows, key: Row, variant: str, given: argparse.Namespace) -> None:
    """Add one model's missing records."""
    seed = key["seed"]
    model, base = (model_of(name, given, seed) for name in (variant, "base"))
    message = key | {"variant": variant}
    if variant in SPARSE:
        message["promise"] = read_json(given.out / f"seed{seed}" / f"{variant}.json")
    for task in (*MEASURED, "nonsense", "about"):
        for ablation in ABLATIONS if task != "about" else ("none",):
            mine = message | {"task": task, "ablation": ablation}
            if not rows.lacks(mine):
                continue
            found = rows.measure(mine, partial(found_for, task, ablation, model, base, given, seed))
            said = {"seed": seed, "variant": variant, "task": task, "ablation": ablation, **found}
            print(json.dumps(said), flush=True)


def main() -> None:
    """Run what is not in the results yet."""
    given = arguments()
    torch.set_num_threads(1)
    apart = ("out", "results", "seeds", "name", "variants")
    settings = {name: value for name, value in vars(given).items() if name not in apart}
    given.out.mkdir(parents=True, exist_ok=True)
    require_settings(given.out, settings)
    path = (
        given.results / f"{given.name}_{platform.machine()}_{given.layers}x{given.heads}x{given.width}.json"
    )
    rows = Rows(path)
    for seed in given.seeds:
        for variant in given.variants:
            key = {"seed": seed, "settings": settings, "torch": torch.__version__}
            fill(rows, key, variant, given)
        write_page(path)
        draw([record for record in rows.rows if record["settings"] == settings], path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
