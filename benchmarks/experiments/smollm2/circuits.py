"""Circuits of a model that nobody here trained: what five tasks need in SmolLM2, and in its sparse version.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.smollm2.circuits [--work DIR] [--sparse RUN ...] [--prompts 8]

    accuracy     on 24 prompts of every task of tasks.py, and how many of their attention edges are open
    attention    attention edges a prompt needs for 90 % of the effect, the best n by EAP-IG
    heads        heads for 90 % of the effect, whole, by attribution
    components   edges between components, q, k and v apart, scored on other prompts; beside them what share of the
                 effect as many random edges keep

RUN is a folder of run.py: of `gossamer sparsify`, by default that of default-t128, or of the finetuned control. The
searches are those of `benchmarks/experiments/circuits`; each result is a row of results/circuits.json, and what is
there is not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.experiments.circuits.measure import attention_edges, component_edges, describe_prompts
from benchmarks.experiments.smollm2.prepare import WORK, prepared
from benchmarks.experiments.smollm2.report import folder_of, write_circuits
from benchmarks.experiments.smollm2.tasks import TASKS, prompts
from benchmarks.lib.record import Row, Rows
from gossamer.circuits.components.component_model import components_of
from gossamer.circuits.components.curve import Ablator, head_attributions, needed_heads
from gossamer.circuits.components.scores import score_edges
from gossamer.data.prompts import open_tokenizer
from gossamer.errors import GossamerError
from gossamer.models.checkpoint import load_dense, load_merged

RESULTS = Path(__file__).parent / "results" / "circuits.json"
CIRCUITS = ("ioi", "greater_than", "induction", "successor", "pronoun")
ABLE, SCORED, MEASURED = 7000, 5000, 6000  # added to the seed, so that no prompt serves twice
FACTOR = 1.5  # by which the sizes of component circuits grow: a pretrained model has 130,000 edges
WITHIN = 0.01  # of its size, how close to the smallest a component circuit is; some need tens of thousands of edges


def components(model: Any, task: str, ablation: str, n: int, tokenizer: Any) -> Row:
    """Edges between components for 90 % of the effect, or why there is no answer."""
    parts = components_of(model)
    scored, fresh = (prompts(task, n, offset, tokenizer) for offset in (SCORED, MEASURED))
    ablator = Ablator(parts, fresh, ablation)
    found: Row = {"effect": ablator.effect}
    try:
        ablator.require_effect()
        scores = score_edges(parts, scored, ablation=ablation)
        found |= component_edges(ablator, scores, factor=FACTOR, within=WITHIN)
    except GossamerError as error:
        return found | {"refused": str(error)}
    if found["edges_with_dead_ends"]:
        found["random_keeps"] = ablator.faithfulness(
            _random(parts.graph.exists, found["edges_with_dead_ends"])
        )
    return found


def _random(exists: torch.Tensor, n: int) -> torch.Tensor:
    """A mask of n of the edges that exist."""
    flat = exists.flatten().nonzero().squeeze(1)
    kept = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:n]]
    return torch.zeros(exists.numel(), dtype=torch.bool).index_fill_(0, kept, True).view_as(exists)


def heads(model: Any, task: str, ablation: str, n: int, tokenizer: Any) -> Row:
    """Heads for 90 % of the effect, or why there is no answer; ranked on other prompts."""
    parts = components_of(model)
    scored, fresh = (prompts(task, n, offset, tokenizer) for offset in (SCORED, MEASURED))
    ablator = Ablator(parts, fresh, ablation)
    try:
        ablator.require_effect()
        scores = score_edges(parts, scored, ablation=ablation)
        curve = needed_heads(ablator, head_attributions(parts.graph, scores))
    except GossamerError as error:
        return {"refused": str(error)}
    best = curve.needed()
    return {"heads": best.retained if best else None, "heads_of": curve.of}


def attention(model: Any, task: str, ablation: str, n: int, tokenizer: Any) -> Row:
    """Attention edges a prompt needs."""
    return attention_edges(components_of(model), prompts(task, n, MEASURED, tokenizer), ablation)


def able(model: Any, base: Any, task: str, tokenizer: Any) -> Row:
    """Accuracy, divergence from the base at the answer, and open edges."""
    return describe_prompts(model, base, prompts(task, 24, ABLE, tokenizer))


def opened(folder: Path, *, gated: bool) -> PreTrainedModel:
    """A run's model, with its gates if it has any."""
    return load_merged(folder, impl="eager") if gated else load_dense(folder)


def plan(variants: dict[str, Any], tokenizer: Any, n: int) -> Iterator[tuple[Row, Any]]:
    """Every row's key and what looks for it, in the order of their worth."""
    base = variants["base"]
    for variant, model in variants.items():
        for task in TASKS:
            yield (
                {"kind": "accuracy", "variant": variant, "task": task},
                partial(able, model, base, task, tokenizer),
            )
    for kind, look, ablations in (
        ("attention", attention, ("resample", "mean")),
        ("heads", heads, ("resample", "mean")),
        ("components", components, ("resample", "mean")),
    ):
        for ablation in ablations:
            for task in (*CIRCUITS, "nonsense"):
                for variant, model in variants.items():
                    key = {"kind": kind, "ablation": ablation, "task": task, "variant": variant, "prompts": n}
                    yield key, partial(look, model, task, ablation, n, tokenizer)


def main() -> None:
    """Run what is not in the results yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--sparse", type=Path, nargs="+", default=[], help="folders of runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", default=["accuracy", "attention", "heads", "components"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder, _ = prepared(given.work)
    variants = {"base": load_dense(folder)}
    for run in given.sparse or [given.work / "runs" / "default-t128"]:
        variants[run.name] = opened(folder_of(run), gated=not run.name.startswith("finetuned"))
    rows = Rows(given.results)
    for key, look in plan(variants, open_tokenizer(folder), given.prompts):
        if key["kind"] in given.kinds and key["task"] in given.tasks and rows.lacks(key):
            found = rows.measure(key, look)
            write_circuits(given.results)
            print({**key, **{k: v for k, v in found.items() if k != "edge_names"}}, flush=True)


if __name__ == "__main__":
    main()
