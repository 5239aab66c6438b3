"""How much of a task a circuit of n components explains, for every n; CPR and CMD as in MIB.

    F(C) = (m(C) - m(none)) / (m(all) - m(none))         m(none): every edge ablated
    CPR  = area under F,  CMD = area under |1 - F|       trapezoids over the share of edges retained, 0.001 to 1

m(all) - m(none) may be so near zero that F means nothing: the model does not do the task, and the curve is
refused. A circuit of n edges is the n best by |score| without their dead ends; a circuit of n heads keeps
those heads with all their edges, the input and all MLPs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.pairs import Batch
from ...errors import refuse
from ...models.forward import evaluating
from ...training.counted import counted, under_way
from .component_model import ComponentModel
from .effect import Effect, sizes_around_first
from .graph import ComponentGraph
from .run import AblatedRun, ablated_outputs, writer_outputs
from .scores import Scores

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges, MIB's grid


class Ablator:
    """A model and a task under one ablation, ready to measure circuits.

    Args:
        batches: clean and corrupt prompts.
        ablation: resample, mean or zero.
    """

    def __init__(self, components: ComponentModel, batches: Sequence[Batch], ablation: str) -> None:
        if not batches:
            raise refuse("no prompts", "one batch or more", "pass more")
        self.components, self.batches, self.ablation = components, batches, ablation
        self.instead: list[Tensor] = []
        with evaluating(components.model):
            for batch in batches:
                clean, corrupt = (writer_outputs(components, ids)[0] for ids in (batch.clean, batch.corrupt))
                self.instead.append(ablated_outputs(components, clean, corrupt, ablation))
        self.all = self.values(components.graph.exists)
        self.none = self.values(torch.zeros_like(components.graph.exists))
        self.whole = Effect(batches, ablation, self.all, self.none)

    @property
    def n(self) -> int:
        """Prompts."""
        return sum(map(len, self.batches))

    def values(self, edge_mask: Tensor) -> Tensor:
        """(n,) the metric of every prompt with only the edges in `edge_mask`, (W, R) bool.

        Raises: `GossamerError` for a mask that does not fit, or an edge that the model does not have.
        """
        self.components.graph.require_mask(edge_mask)
        found = []
        with evaluating(self.components.model):
            for batch, instead in zip(self.batches, self.instead, strict=True):
                logits = AblatedRun(self.components, edge_mask, instead).run(batch.clean)
                found.append(batch.measure(logits).double().cpu())
        return torch.cat(found)

    @property
    def effect(self) -> float:
        """m(all) - m(none), the mean over prompts."""
        return self.whole.size

    def require_effect(self) -> None:
        """Raise unless the effect is certainly above zero."""
        self.whole.require()

    def faithfulness(self, edge_mask: Tensor) -> float:
        """F of a circuit; 1 is the whole effect."""
        return self.whole.share(self.values(edge_mask))

    def interval(self, edge_mask: Tensor, *, seed: int = 0, draws: int = 1000) -> tuple[float, float]:
        """The 95 % bootstrap interval of F: prompts are drawn again, the same for both means of the ratio."""
        self.require_effect()
        gain, whole = (self.values(edge_mask) - self.none).numpy(), (self.all - self.none).numpy()
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, self.n, (draws, self.n))
        shares = gain[drawn].mean(1) / whole[drawn].mean(1)
        return float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))


@dataclass(frozen=True)
class Point:
    """One circuit of a curve: components retained, edges left after dead ends are pruned, and F."""

    retained: int
    edges: int
    faithfulness: float


@dataclass(frozen=True)
class Curve:
    """F for circuits of growing size, with the settings that it depends on.

    Attributes:
        kind: "edges" or "heads".
        of: how many there are in the model.
        ablation, ranking, task, n: the settings.
        points: by size.
        gradient: which one passed gates where components were ranked by attribution; none elsewhere.
    """

    kind: str
    of: int
    ablation: str
    ranking: str
    task: str
    n: int
    points: tuple[Point, ...]
    gradient: str = "none"

    def needed(self, share: float = 0.9) -> Point | None:
        """The smallest circuit of the curve with F of at least `share`; None if there is none."""
        return next((point for point in self.points if point.faithfulness >= share), None)

    def areas(self) -> tuple[float, float]:
        """(CPR, CMD) over the curve's own points, by share of components retained."""
        x = np.array([point.retained / self.of for point in self.points])
        f = np.array([point.faithfulness for point in self.points])
        return float(np.trapezoid(f, x)), float(np.trapezoid(np.abs(1 - f), x))

    def as_record(self) -> dict[str, Any]:
        """Plain numbers, with CPR, CMD and what 90 % takes."""
        cpr, cmd = self.areas()
        best = self.needed()
        points = [[p.retained, p.edges, p.faithfulness] for p in self.points]
        names = ("kind", "of", "ablation", "ranking", "gradient", "task", "n")
        settings = {name: getattr(self, name) for name in names}
        needed = None if best is None else {"retained": best.retained, "edges": best.edges}
        return {**settings, "cpr": cpr, "cmd": cmd, "needed_for_90": needed, "points": points}


def best_edges(components: ComponentModel, scores: Scores, n: int, *, signed: bool = False) -> Tensor:
    """(W, R) bool: the `n` best edges, dead ends pruned; by |score|, or by how much ablating them hurts."""
    exists = components.graph.exists
    value = (-scores.edges if signed else scores.edges.abs()).masked_fill(~exists, -torch.inf)
    edge_mask = torch.zeros_like(exists)
    edge_mask.view(-1)[value.flatten().topk(min(n, components.graph.n_edges)).indices] = True
    return components.graph.prune(edge_mask & exists)


def edge_curve(
    ablator: Ablator, scores: Scores, *, sizes: Sequence[int] | None = None, signed: bool = False
) -> Curve:
    """F for the best n edges; by default on MIB's grid of shares."""
    components, points = ablator.components, []
    ablator.require_effect()
    sizes = sizes or sorted({max(1, round(share * components.graph.n_edges)) for share in SHARES})
    for size in counted(sizes, "sizes"):
        edge_mask = best_edges(components, scores, size, signed=signed)
        points.append(Point(size, int(edge_mask.sum()), ablator.faithfulness(edge_mask)))
    ranking = f"{scores.method}, {'signed' if signed else 'absolute'}"
    settings = (ablator.ablation, ranking, ablator.batches[0].task, ablator.n)
    return Curve("edges", components.graph.n_edges, *settings, tuple(points), scores.gradient)


def needed_edges(
    ablator: Ablator, scores: Scores, share: float = 0.9, factor: float = 1.25, within: float = 0.0
) -> Curve:
    """The curve up to the first size whose F reaches `share`; how it is looked for is in `sizes_around_first`."""
    components = ablator.components
    sizes = _sizes(
        ablator, lambda n: best_edges(components, scores, n), components.graph.n_edges, share, factor, within
    )
    return edge_curve(ablator, scores, sizes=sizes)


def _sizes(
    ablator: Ablator, best: Callable[[int], Tensor], of: int, share: float, factor: float, within: float = 0.0
) -> list[int]:
    """`sizes_around_first` of the circuits `best(n)` whose F reaches `share`."""
    ablator.require_effect()

    with under_way("sizes tried") as search:

        def reaches(size: int) -> bool:
            search.done += 1
            return ablator.faithfulness(best(size)) >= share

        return sizes_around_first(reaches, of, factor, within)


def head_scores(ablator: Ablator) -> Tensor:
    """(layers, heads): what ablating all edges out of one head costs, exactly."""
    graph = ablator.components.graph
    found = torch.zeros(graph.n_layers, graph.n_heads, dtype=torch.float64)
    heads = list(product(range(graph.n_layers), range(graph.n_heads)))
    for layer, head in counted(heads, "heads ablated"):
        edge_mask = graph.exists.clone()
        edge_mask[graph.head(layer, head)] = False
        found[layer, head] = (ablator.all - ablator.values(edge_mask)).mean()
    return found


def head_attributions(graph: ComponentGraph, scores: Scores) -> Tensor:
    """(layers, heads): what ablating one head costs to first order, minus the sum of the scores of edges out of it."""
    return -scores.edges.sum(dim=1)[graph.head_writers]


def best_heads(graph: ComponentGraph, ranking: Tensor, n: int) -> Tensor:
    """(W, R) bool: every edge but those out of other heads than the `n` best; the input and all MLPs stay."""
    others = ranking.flatten().argsort(descending=True)[n:]
    edge_mask = graph.exists.clone()
    edge_mask[graph.head_writers.flatten()[others]] = False
    return edge_mask


def head_curve(
    ablator: Ablator, ranking: Tensor | None = None, *, sizes: Sequence[int] | None = None
) -> Curve:
    """F for the best n heads; the input and all MLPs stay.

    Args:
        ranking: (layers, heads), larger for heads that are kept longer; by default what ablating each costs, exactly.
        sizes: every n to try, by default 0 to all.
    """
    graph, points = ablator.components.graph, []
    ablator.require_effect()
    method = "exact, signed" if ranking is None else "given"
    ranking = head_scores(ablator) if ranking is None else ranking
    for size in counted(range(ranking.numel() + 1) if sizes is None else sizes, "numbers of heads"):
        edge_mask = best_heads(graph, ranking, size)
        points.append(Point(size, int(edge_mask.sum()), ablator.faithfulness(edge_mask)))
    settings = (ablator.ablation, method, ablator.batches[0].task, ablator.n)
    return Curve("heads", ranking.numel(), *settings, tuple(points))


def needed_heads(ablator: Ablator, ranking: Tensor, share: float = 0.9, factor: float = 1.25) -> Curve:
    """The curve up to the first number of heads whose F reaches `share`, looked for as `needed_edges` does."""
    best = partial(best_heads, ablator.components.graph, ranking)
    ablator.require_effect()
    enough = ablator.faithfulness(best(0)) >= share
    sizes = [0] if enough else _sizes(ablator, best, ranking.numel(), share, factor)
    return head_curve(ablator, ranking, sizes=sizes)
