"""Are component circuits the same on other prompts of a task? Samples and templates, dense models beside the sparse one.

    OMP_NUM_THREADS=1 python benchmarks/circuits_overlap.py --out /tmp/circuits --seeds 0 1

A circuit is the best n edges by EAP-IG for 90 % of the effect, chosen and measured on one set of prompts. Told is the
Jaccard overlap |A and B| / |A or B| of the circuits of two samples of all templates, and of every two templates, n
prompts each. How alike circuits of different seeds are `gossamer verify --task T --other DIR` says.

The models are those that circuits.py left under --out. Records go to benchmarks/results/ and go on where they stopped.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from circuits import MEASURED, RESULTS
from circuits_models import VARIANTS, model_of
from circuits_report import geometric_mean

from gossamer.components.curve import Ablator, best_edges, needed_edges
from gossamer.components.scores import score_edges
from gossamer.components.wiring import Wiring, wiring
from gossamer.errors import GossamerError
from gossamer.files import read_json, write_json
from gossamer.stability import jaccard
from gossamer.tasks.pairs import Batch
from gossamer.tasks.registry import batches

FIRST, SECOND, EACH = 8000, 9000, 10_000  # added to the seed: two samples, and prompts to pick templates from


def by_template(task: str, n: int, seed: int) -> list[list[Batch]]:
    """At most `n` prompts of each template of a task."""
    found: dict[int, list[Batch]] = defaultdict(list)
    for batch in batches(task, 8 * n, seed=seed):
        for template in batch.template.unique().tolist():
            found[template].append(batch[(batch.template == template).nonzero()[:n, 0]])
    return [found[template] for template in sorted(found)]


def circuit(wires: Wiring, prompts: list[Batch], ablation: str) -> set[tuple[int, ...]]:
    """(writer, reader) of the edges that 90 % of the effect on these prompts takes."""
    scores = score_edges(wires, prompts, ablation=ablation)
    best = needed_edges(Ablator(wires, prompts, ablation), scores).points[-1]
    return {tuple(edge) for edge in best_edges(wires, scores, best.kept).nonzero().tolist()}


def overlaps(wires: Wiring, task: str, ablation: str, n: int, seed: int) -> dict[str, Any]:
    """Jaccard between two samples and, in the mean, between templates; with the sizes of all these circuits."""
    samples = [circuit(wires, batches(task, n, seed=seed + offset), ablation) for offset in (FIRST, SECOND)]
    templates = [circuit(wires, prompts, ablation) for prompts in by_template(task, n, seed + EACH)]
    pairs = list(combinations(templates, 2))
    return {
        "samples": jaccard(*samples), "sample_edges": [len(one) for one in samples],
        "templates": fmean(jaccard(a, b) for a, b in pairs) if pairs else None,
        "template_edges": [len(one) for one in templates],
    }  # fmt: skip


def tell(done: list[dict[str, Any]]) -> None:
    """Means over tasks and seeds, by model."""
    for variant in VARIANTS:
        rows = [r for r in done if r["variant"] == variant and "samples" in r]
        if rows:
            samples = fmean(r["samples"] for r in rows)
            templates = [r["templates"] for r in rows if r["templates"] is not None]
            size = geometric_mean([max(1, edges) for r in rows for edges in r["sample_edges"]])
            told = f"two samples share {samples:.3f} of their edges, two templates {fmean(templates):.3f}"
            print(f"{variant}: {told} (mean over {len(rows)}; {size:.0f} edges, geometric mean)")


def main() -> None:
    """Measure what is not in the record yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where circuits.py left its models")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ablation", default="resample")
    parser.add_argument("--prompts", type=int, default=48)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = read_json(given.out / "settings.json")
    size = "x".join(str(settings[name]) for name in ("layers", "heads", "width"))
    path = given.results / f"circuits-overlap_{platform.machine()}_{size}.json"
    done = read_json(path) if path.is_file() else []
    for seed, task, variant in [(s, t, v) for s in given.seeds for t in MEASURED for v in VARIANTS]:
        key = {
            "seed": seed,
            "task": task,
            "ablation": given.ablation,
            "variant": variant,
            "prompts": given.prompts,
        }
        if any(all(record[name] == value for name, value in key.items()) for record in done):
            continue
        wires = wiring(model_of(variant, argparse.Namespace(out=given.out, **settings), seed))
        started = time.process_time()
        try:
            found = overlaps(wires, task, given.ablation, given.prompts, seed)
        except GossamerError as error:
            found = {"refused": str(error)}
        seconds = round(time.process_time() - started, 2)
        done.append({**key, "settings": settings, **found, "cpu_seconds": seconds})
        write_json(path, done)
        print(done[-1], flush=True)
    tell(done)


if __name__ == "__main__":
    main()
