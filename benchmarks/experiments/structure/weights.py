"""Addition with gates on single weights: what is left of a model, and learned gates against the largest weights.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.structure.weights --seeds 100 101 --name addition_weights_100-101
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.structure.weights --masks 81 82 83 84 85

Two parts. (1) For each of `--seeds`, `gossamer demo --gates edges,weights --recipe addition_weights --base-steps 700
--seed S` in a folder of its own, continued or reused like any demo folder; the recipe was chosen on seeds 66 and 90,
and the ones before it judged on seeds 90 and 91 (addition_weights_90-91) and 65 and 66 (addition_weights). (2) For each
of `--masks`, gates on weights alone on the dense model of the tickets' study, found by learned logits or by magnitude,
a cut-off that the controller moves: the same steps, ceiling and held-out sums; both were chosen on seed 80. Written to
results/addition_weights.{json,md}, row by row; finished rows are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.tickets.addition import RECIPE, AdditionWeightsSubject
from benchmarks.experiments.tickets.masks import Mask, mask_of, sizes
from benchmarks.experiments.tickets.run import dense_states
from benchmarks.lib.record import Row, Rows
from gossamer.files import write_text
from gossamer.models.checkpoint import load
from gossamer.models.quiet import quiet
from gossamer.recipes.addition.run import run_demo
from gossamer.recipes.addition.settings import DemoSettings
from gossamer.training.presets import PRESETS

RESULTS = Path(__file__).parent / "results"
GATES, RECIPE_OF_DEMO = "edges,weights", "addition_weights"


class MagnitudeSubject(AdditionWeightsSubject):
    """The same search, with gates that keep the largest weights of each matrix."""

    name = "addition_magnitude"
    recipe = RECIPE.with_settings(
        {
            "gate.reads": "magnitude",
            "gate.bias": 6.9,
            "gate.anneal": 0.6,
            "gate.pace": "proportional",
            "gate.regrow_bias": 0.0,
        }
    )


def main() -> None:
    """Make what the record lacks, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/structure"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", default="addition_weights")
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--masks", type=int, nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.results.mkdir(exist_ok=True)
    rows = Rows(given.results / f"{given.name}.json")
    about = {"torch": torch.__version__}
    for seed in given.seeds:
        key = about | {"part": "demo", "seed": seed}
        if rows.lacks(key):
            rows.measure(key, lambda seed=seed: demo(given.work / f"weights-{seed}", seed))
    for seed in given.masks:
        dense = AdditionWeightsSubject(given.work / "dense", seed)
        state = dense_states(dense)[dense.arguments().max_steps]
        for arm, kind in (("learned", AdditionWeightsSubject), ("magnitude", MagnitudeSubject)):
            key, subject = about | {"part": "masks", "arm": arm, "seed": seed}, kind(given.work / arm, seed)
            if rows.lacks(key):
                rows.measure(key, lambda subject=subject, state=state: mask(subject, state))
    write_text(given.results / f"{given.name}.md", "\n".join(as_lines(rows.rows)) + "\n")


def demo(folder: Path, seed: int) -> Row:
    """What the demo leaves of edges and weights, and whether every sum holds."""
    settings = DemoSettings(
        seed=seed, base_steps=700, restarts=0, gates=GATES, recipe=PRESETS[RECIPE_OF_DEMO].recipe
    )
    proof = run_demo(folder, settings).proof
    return {
        "exact": proof["sparse_exact"],
        "same_row": proof["same_row"],
        "edges": proof["edges_mean"],
        "precision": proof["precision"],
        "recall": proof["recall"],
        **counted(mask_of(load(folder / "sparse", impl="eager"))),
    }


def mask(subject: AdditionWeightsSubject, state: dict[str, Any]) -> Row:
    """The weights that a search leaves of a trained dense model, and what they still add."""
    model = subject.fresh(subject.seed)
    model.load_state_dict(state)
    with quiet():
        found, proof = subject.mask(model)
    return proof | counted(found)


def counted(found: Mask) -> Row:
    """The weights that a mask leaves, by layer, and how many there were."""
    return {"weights": sizes(found)["weights"], "weights_of": sum(map(len, found["weights"].values()))}


def as_lines(rows: list[Row]) -> list[str]:
    """Both tables."""
    demos = [row for row in rows if row["part"] == "demo"]
    masks = [row for row in rows if row["part"] == "masks"]
    lines = ["# Addition with gates on single weights", ""]
    lines += [f"`OMP_NUM_THREADS=1 python -m benchmarks.experiments.structure.weights {_asked(demos, masks)}`, torch "
              f"{rows[0]['torch']}, CPU. Weights are those of the matrices of attention and MLP.", ""]  # fmt: skip
    if demos:
        lines += _demo_lines(demos)
    if masks:
        lines += _mask_lines(masks)
    return lines


def _demo_lines(demos: list[Row]) -> list[str]:
    head = ["## `gossamer demo --gates edges,weights --recipe addition_weights`", "",
            "| seed | exact of 10,000 | same row as the base | edges, mean | precision, recall | weights left "
            "| by layer | processor seconds |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    return head + [
        f"| {x['seed']} | {x['exact']:,} | {x['same_row']:,} | {x['edges']:.2f} | {x['precision']:.2f}, "
        f"{x['recall']:.2f} | {_left(x)} | {_by_layer(x)} | {x['cpu_seconds']:.0f} |"
        for x in demos
    ]


def _mask_lines(masks: list[Row]) -> list[str]:
    head = ["", "## Learned gates and the largest weights", "",
            "Gates on weights alone; the same dense model, ceiling and most steps for both. Exact: of 1,000 sums "
            "that neither training nor the search has seen.", "",
            "| seed | gates | exact | weights left | by layer | step of the best model |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    return head + [
        f"| {x['seed']} | {x['arm']} | {x['exact']:.3f} | {_left(x)} | {_by_layer(x)} | {x['step']}"
        f"{', missed' if x['missed'] else ''} |"
        for x in masks
    ]


def _asked(demos: list[Row], masks: list[Row]) -> str:
    seeds = {"--seeds": [x["seed"] for x in demos], "--masks": sorted({x["seed"] for x in masks})}
    return " ".join(f"{name} {' '.join(map(str, of))}" for name, of in seeds.items() if of)


def _left(row: dict[str, Any]) -> str:
    return f"{sum(row['weights']):,} of {row['weights_of']:,} ({sum(row['weights']) / row['weights_of']:.2%})"


def _by_layer(row: dict[str, Any]) -> str:
    return ", ".join(f"{n:,}" for n in row["weights"])


if __name__ == "__main__":
    main()
