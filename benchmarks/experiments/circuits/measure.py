"""What is measured on one model of the deciding experiment: circuits of a task, the nonsense task, what it can do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gossamer.circuits.components.attention_edges import needed_attention_edges
from gossamer.circuits.components.component_model import components_of
from gossamer.circuits.components.curve import Ablator, best_edges, edge_curve, head_curve, needed_edges
from gossamer.circuits.components.graph import ComponentGraph
from gossamer.circuits.components.scores import Scores, score_edges
from gossamer.circuits.trace import trace
from gossamer.data.pairs import Batch
from gossamer.data.registry import batches
from gossamer.errors import GossamerError
from gossamer.models.forward import evaluating, first_output
from gossamer.training.divergence import kl_per_item

SCORED, MEASURED, ABLE = (
    5000,
    6000,
    7000,
)  # added to the seed, so that no prompt serves twice or was trained on


def touching_heads(graph: ComponentGraph, edge_mask: Tensor) -> int:
    """How many of the retained edges leave a head, or enter one's q, k or v; the others join input, MLPs and logits."""
    touching = torch.zeros_like(edge_mask)
    touching[graph.head_writers.flatten()] = True
    for layer in range(graph.n_layers):
        touching[:, graph.into_attention(layer)] = True
    return int((edge_mask & touching).sum())


def measure(model: Any, task: str, ablation: str, n: int, seed: int) -> dict[str, Any]:
    """Heads and edges for 90 % of the effect, or the line that says why there is no answer.

    Component edges are scored on other prompts than they are measured on, and counted without dead ends; attention
    edges are chosen prompt by prompt.
    """
    components = components_of(model)
    scored, fresh = (batches(task, n, seed=seed + offset) for offset in (SCORED, MEASURED))
    ablator = Ablator(components, fresh, ablation)
    record: dict[str, Any] = {"effect": ablator.effect, "metric": float(ablator.all.mean())}
    try:
        heads = head_curve(ablator)
        scores = score_edges(components, scored, ablation=ablation)
        record |= component_edges(ablator, scores)
    except GossamerError as error:
        return record | {"refused": str(error)}
    best = heads.needed()
    return record | attention_edges(components, fresh, ablation) | {
        "heads": best.retained if best else None,
        "heads_of": heads.of,
        "heads_cpr_cmd": heads.areas(),
        "edge_curve": [[p.retained, p.edges, round(p.faithfulness, 4)] for p in edge_curve(ablator, scores).points],
    }  # fmt: skip


def component_edges(
    ablator: Ablator, scores: Scores, factor: float = 1.25, within: float = 0.0
) -> dict[str, Any]:
    """Edges between components for 90 % of the effect.

    Args:
        factor: by which the sizes that are tried grow.
        within: the share of its size by which the answer may be too large.
    Raises: `GossamerError` where there is no effect to explain.
    """
    components = ablator.components
    edges = needed_edges(ablator, scores, factor=factor, within=within)
    best = edges.needed()
    edge_mask = None if best is None else best_edges(components, scores, best.retained)
    return {
        "edges": best.edges if best else None,
        "edges_with_dead_ends": best.retained if best else None,
        "edges_of": edges.of,
        "head_edges": None if edge_mask is None else touching_heads(components.graph, edge_mask),
        "edge_names": [] if edge_mask is None or best.edges > 60 else components.graph.edge_names(edge_mask),  # type: ignore[union-attr]
    }  # fmt: skip


def attention_edges(components: Any, prompts: Any, ablation: str) -> dict[str, Any]:
    """Attention edges a prompt needs; their effect is that of attention alone, so it may be refused on its own."""
    try:
        curve = needed_attention_edges(components, prompts, ablation=ablation)
    except GossamerError as error:
        return {"attention_edges": None, "attention_refused": str(error)}
    best = curve.needed()
    return {"attention_edges": best.retained if best else None, "attention_edges_of": curve.of}


def nonsense(model: Any, ablation: str, n: int, seed: int) -> dict[str, Any]:
    """The largest metric of any circuit for random labels, where it was scored and on fresh prompts."""
    components = components_of(model)
    scored, fresh = (batches("nonsense", n, seed=seed + offset) for offset in (SCORED, MEASURED))
    scores = score_edges(components, scored, ablation=ablation)
    ablators = [Ablator(components, prompts, ablation) for prompts in (scored, fresh)]
    found = []
    for share in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
        edge_mask = best_edges(
            components, scores, max(1, round(share * components.graph.n_edges)), signed=True
        )
        found.append(
            [int(edge_mask.sum()), *(float(ablator.values(edge_mask).mean()) for ablator in ablators)]
        )
    record = {
        "curve": found,
        "best_scored": max(row[1] for row in found),
        "best_fresh": max(row[2] for row in found),
        "effect": ablators[1].effect,
    }
    try:
        ablators[1].require_effect()
    except GossamerError as error:
        record["refused"] = str(error)
    return record


def describe(model: Any, base: Any, tasks: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Accuracy, divergence from the base at the answer, and open edges of every task, on fresh prompts."""
    found: dict[str, Any] = {"accuracy": {}, "divergence": {}, "open_edges": {}, "visible_edges": {}}
    for task in tasks:
        for name, value in describe_prompts(model, base, batches(task, 400, seed=seed + ABLE)).items():
            found[name][task] = value
    return found


def describe_prompts(model: Any, base: Any, prompts: list[Batch]) -> dict[str, float]:
    """Accuracy, divergence from the base at the answer, open and visible edges, in the mean over prompts."""
    sums = torch.zeros(5, dtype=torch.float64)
    for batch in prompts:
        with evaluating(model), evaluating(base):
            ours, theirs = (first_output(m, {"input_ids": batch.clean})[:, -1] for m in (model, base))
        circuit = trace(model, batch.clean, outputs=[-1])
        far = float(kl_per_item(theirs, ours).sum())
        sums += torch.tensor(
            [len(batch), batch.accuracy(ours) * len(batch), far, len(circuit), sum(circuit.visible)]
        )
    names = ("accuracy", "divergence", "open_edges", "visible_edges")
    return dict(zip(names, (sums[1:] / sums[0]).tolist(), strict=True))
