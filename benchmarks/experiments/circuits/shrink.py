"""Does a better search change the deciding experiment? Its circuits again, each shrunk until no edge can go.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.circuits.shrink --out /tmp/circuits --seeds 0 1 2

The experiment counts the best n edges by attribution (run.py), as the field does. Attribution may flatter either
side: what is left of a dense model's many edges may hide a small circuit that ranks badly. Here the best n for 95 % of
the effect are the start, and exact elimination (`gossamer.components.shrink`) goes down to 90 % from there, on the
prompts that were scored; F on fresh prompts is told beside it. A start of more than --most edges is not shrunk, and the
pair is told as missing: a round costs one forward pass an edge.

The models are those that run.py left under --out. Records go to benchmarks/experiments/circuits/results/ and go on
where they stopped.
"""

from __future__ import annotations

from functools import partial

from benchmarks.experiments.circuits.again import Row, arguments, go_on
from benchmarks.experiments.circuits.measure import MEASURED as FRESH
from benchmarks.experiments.circuits.measure import SCORED, touching_heads
from benchmarks.experiments.circuits.report import geometric_mean
from benchmarks.experiments.circuits.run import MEASURED
from gossamer.circuits.components.component_model import ComponentModel
from gossamer.circuits.components.curve import Ablator, best_edges, needed_edges
from gossamer.circuits.components.scores import score_edges
from gossamer.circuits.components.shrink import shrink
from gossamer.data.registry import batches

START = 0.95  # share of the effect that the circuit to be shrunk explains


def smallest(components: ComponentModel, key: Row, n: int, most: int) -> Row:
    """Edges by attribution alone and after elimination, both on the scored prompts, and F on fresh ones."""
    seed, task, ablation = key["seed"], key["task"], key["ablation"]
    scored, fresh = (
        Ablator(components, batches(task, n, seed=seed + offset), ablation) for offset in (SCORED, FRESH)
    )
    scores = score_edges(components, scored.batches, ablation=ablation)
    by_attribution, start = (needed_edges(scored, scores, share).needed(share) for share in (0.9, START))
    if by_attribution is None or start is None:
        return {"refused": f"no best n explains {START:g}"}
    if start.edges > most:
        return {"by_attribution": by_attribution.edges, "refused": f"{start.edges} edges to start from"}
    edge_mask = shrink(scored, best_edges(components, scores, start.retained))
    return {
        "by_attribution": by_attribution.edges, "start": start.edges, "edges": int(edge_mask.sum()),
        "head_edges": touching_heads(components.graph, edge_mask), "fresh": round(fresh.faithfulness(edge_mask), 4),
        "names": components.graph.edge_names(edge_mask) if edge_mask.sum() <= 20 else [],
    }  # fmt: skip


def tell(done: list[Row]) -> None:
    """The ratio finetuned over sparse by both searches, over the pairs that both searches have."""
    found = {(r["seed"], r["task"], r["ablation"], r["variant"]): r for r in done if "edges" in r}
    pairs = [(found[key], found[*key[:3], "sparse"]) for key in found
             if key[3] == "finetuned" and (*key[:3], "sparse") in found]  # fmt: skip
    print(f"{len(pairs)} pairs, {sum('refused' in r for r in done)} circuits not shrunk")
    for what in ("by_attribution", "edges", "head_edges") if pairs else ():
        value = geometric_mean([one[what] / other[what] for one, other in pairs])
        print(f"{what}: finetuned / sparse {value:.2f}, geometric mean over pairs")


def main() -> None:
    """Shrink what is not in the record yet."""
    parser = arguments(__doc__, prompts=64)
    parser.add_argument("--ablations", nargs="+", default=["resample"])
    parser.add_argument("--most", type=int, default=1600, help="edges of the largest start that is shrunk")
    given = parser.parse_args()
    keys = [{"seed": seed, "task": task, "ablation": ablation, "variant": variant}
            for seed in given.seeds for task in MEASURED for ablation in given.ablations
            for variant in ("finetuned", "sparse")]  # fmt: skip
    tell(go_on(given, "circuits-shrunk", keys, partial(smallest, n=given.prompts, most=given.most)))


if __name__ == "__main__":
    main()
