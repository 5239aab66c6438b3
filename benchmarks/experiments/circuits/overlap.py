"""Are component circuits the same on other prompts of a task? By samples and by templates, dense beside sparse.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.circuits.overlap --out /tmp/circuits --seeds 0 1

A circuit is the best n edges by EAP-IG for 90 % of the effect, chosen and measured on one set of prompts. Told is the
Jaccard overlap |A and B| / |A or B| of the circuits of two samples of all templates, and of every two templates, n
prompts each. How alike circuits of different seeds are `gossamer verify --task T --other DIR` says.

The models are those that run.py left under --out. Records go to benchmarks/experiments/circuits/results/ and go on
where they stopped.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from itertools import combinations
from statistics import fmean

from benchmarks.experiments.circuits.again import Row, arguments, go_on
from benchmarks.experiments.circuits.models import VARIANTS
from benchmarks.experiments.circuits.report import geometric_mean
from benchmarks.experiments.circuits.run import MEASURED
from gossamer.circuits.components.component_model import ComponentModel
from gossamer.circuits.components.curve import Ablator, best_edges, needed_edges
from gossamer.circuits.components.scores import score_edges
from gossamer.circuits.stability import jaccard
from gossamer.data.pairs import Batch
from gossamer.data.registry import batches

FIRST, SECOND, EACH = 8000, 9000, 10_000  # added to the seed: two samples, and prompts to pick templates from


def by_template(task: str, n: int, seed: int) -> list[list[Batch]]:
    """At most `n` prompts of each template of a task."""
    found: dict[int, list[Batch]] = defaultdict(list)
    for batch in batches(task, 8 * n, seed=seed):
        for template in batch.template.unique().tolist():
            found[template].append(batch[(batch.template == template).nonzero()[:n, 0]])
    return [found[template] for template in sorted(found)]


def circuit(components: ComponentModel, prompts: list[Batch], ablation: str) -> set[tuple[int, ...]]:
    """(writer, reader) of the edges that 90 % of the effect on these prompts takes."""
    scores = score_edges(components, prompts, ablation=ablation)
    best = needed_edges(Ablator(components, prompts, ablation), scores).points[-1]
    return {tuple(edge) for edge in best_edges(components, scores, best.retained).nonzero().tolist()}


def overlaps(components: ComponentModel, key: Row, n: int) -> Row:
    """Jaccard between two samples and, in the mean, between templates; with the sizes of all these circuits."""
    seed, task, ablation = key["seed"], key["task"], key["ablation"]
    samples = [
        circuit(components, batches(task, n, seed=seed + offset), ablation) for offset in (FIRST, SECOND)
    ]
    templates = [circuit(components, prompts, ablation) for prompts in by_template(task, n, seed + EACH)]
    pairs = list(combinations(templates, 2))
    return {
        "samples": jaccard(*samples), "sample_edges": [len(one) for one in samples],
        "templates": fmean(jaccard(a, b) for a, b in pairs) if pairs else None,
        "template_edges": [len(one) for one in templates],
    }  # fmt: skip


def tell(done: list[Row]) -> None:
    """Means over tasks and seeds, by model."""
    for variant in VARIANTS:
        rows = [r for r in done if r["variant"] == variant and "samples" in r]
        if rows:
            samples = fmean(r["samples"] for r in rows)
            templates = [r["templates"] for r in rows if r["templates"] is not None]
            size = geometric_mean([max(1, edges) for r in rows for edges in r["sample_edges"]])
            message = f"two samples share {samples:.3f} of their edges, two templates {fmean(templates):.3f}"
            print(f"{variant}: {message} (mean over {len(rows)}; {size:.0f} edges, geometric mean)")


def main() -> None:
    """Measure what is not in the record yet."""
    parser = arguments(__doc__, prompts=48)
    parser.add_argument("--ablation", default="resample")
    given = parser.parse_args()
    keys = [{"seed": seed, "task": task, "ablation": given.ablation, "variant": variant}
            for seed in given.seeds for task in MEASURED for variant in VARIANTS]  # fmt: skip
    tell(go_on(given, "circuits-overlap", keys, partial(overlaps, n=given.prompts)))


if __name__ == "__main__":
    main()
