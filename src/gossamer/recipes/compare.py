"""What two models need for a task: what `gossamer compare` and `export --format mib` run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..circuits.components.attention_edges import needed_attention_edges
from ..circuits.components.component_model import ComponentModel, components_of
from ..circuits.components.curve import Ablator, Curve, best_edges, head_curve, needed_edges
from ..circuits.components.scores import score_edges
from ..circuits.export.mib import to_mib
from ..data.pairs import Batch
from ..errors import GossamerError, refuse
from ..training.counted import counted
from .folders import open_model, task_prompts

STEPS = 10  # of EAP-IG, twice its own: a gate is a step along the path, which five points may miss (LOG.md)


@dataclass(frozen=True)
class Comparison:
    """What two models need for 90 % of a task's effect, under one ablation.

    Attributes:
        task, ablation, n: the settings.
        effects: m(all) - m(none) of each model.
        heads, edges, attention_edges: a curve for each model; for attention edges the reason, where attention alone
            has no effect to explain.
    """

    task: str
    ablation: str
    n: int
    effects: tuple[float, float]
    heads: tuple[Curve, Curve]
    edges: tuple[Curve, Curve]
    attention_edges: tuple[Curve | str, Curve | str]

    def as_record(self) -> dict[str, Any]:
        """Counts of both models, edges without dead ends, and their ratios where both reached 90 %."""
        found: dict[str, Any] = {
            "task": self.task,
            "ablation": self.ablation,
            "n": self.n,
            "effects": self.effects,
            "gradient": self.edges[0].gradient,
        }
        for kind, count in (("heads", "retained"), ("edges", "edges"), ("attention_edges", "retained")):
            curves = getattr(self, kind)
            points = [None if isinstance(curve, str) else curve.needed() for curve in curves]
            counts = [None if point is None else getattr(point, count) for point in points]
            of = [None if isinstance(curve, str) else curve.of for curve in curves]
            found[kind] = {"base": counts[0], "sparse": counts[1], "of": of[0] or of[1]}
            found[f"{kind}_ratio"] = counts[0] / counts[1] if counts[0] and counts[1] else None
        refused = [curve for curve in self.attention_edges if isinstance(curve, str)]
        return found | ({"attention_edges_refused": refused[0]} if refused else {})


def compare(
    base: Path | str, sparse: Path | str, task: str, *, ablation: str = "resample", n: int = 64, seed: int = 0
) -> Comparison:
    """What two models need for 90 % of the effect of one task: heads, edges between components, attention edges.

    Edges between components are ranked by EAP-IG on `n` prompts and measured on `n` others; heads are ranked by exact
    ablation; attention edges by EAP-IG, prompt by prompt.
    Raises: `GossamerError` for an unknown task, a model that does not know it, or another architecture.
    """
    effects, heads, edges, attention = [], [], [], []
    for folder in counted((base, sparse), "models compared"):
        model = open_model(folder)
        components = components_of(model)
        scored, fresh = (task_prompts(model, folder, task, n, seed + offset) for offset in (0, 1))
        ablator = Ablator(components, fresh, ablation)
        heads.append(head_curve(ablator))
        edges.append(needed_edges(ablator, score_edges(components, scored, ablation=ablation, steps=STEPS)))
        attention.append(_attention_edges(components, fresh, ablation))
        effects.append(ablator.effect)
    both = [(found[0], found[1]) for found in (effects, heads, edges, attention)]
    return Comparison(task, ablation, n, *both)


def _attention_edges(components: ComponentModel, prompts: list[Batch], ablation: str) -> Curve | str:
    """The curve, or the line that says why there is none: a task may be done by what no attention edge carries."""
    try:
        return needed_attention_edges(components, prompts, ablation=ablation)
    except GossamerError as error:
        return str(error)


def component_circuit(
    folder: Path | str,
    task: str,
    *,
    edges: int | None = None,
    ablation: str = "resample",
    n: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """A model's component circuit for one task, as EAP-IG and MIB read it.

    Args:
        edges: the best so many by EAP-IG, dead ends left out; by default as many as give 90 % of the effect.
        n, seed: prompts to score on, and as many others to measure on.
    Raises: `GossamerError` as for `compare`, for `edges` below 1, and where no size reaches 90 %.
    """
    if edges is not None and edges < 1:
        raise refuse(f"edges={edges}", "1 and above, or None", "pass one of them")
    model = open_model(folder)
    components = components_of(model)
    scored, fresh = (task_prompts(model, folder, task, n, seed + offset) for offset in (0, 1))
    scores = score_edges(components, scored, ablation=ablation, steps=STEPS)
    if edges is None:
        best = needed_edges(Ablator(components, fresh, ablation), scores).needed()
        if best is None:
            raise refuse(
                f"no circuit of {task} has 90 % of its effect", "a size that is given", "pass --edges"
            )
        edges = best.retained
    edge_mask = best_edges(components, scores, edges)
    return to_mib(
        components.graph, scores.edges, edge_mask, d_model=components.anatomy[0].o.weights().shape[-1]
    )
