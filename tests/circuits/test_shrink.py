"""Exact elimination inside a component circuit: what it promises of its answer, and when it refuses."""

from __future__ import annotations

import pytest
import torch

from gossamer.circuits.components.curve import Ablator, best_edges, needed_edges
from gossamer.circuits.components.scores import score_edges
from gossamer.circuits.components.shrink import shrink, without
from gossamer.errors import GossamerError
from helpers.component_cases import favourable


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_no_edge_of_a_shrunk_circuit_can_go(ablation):
    components, task = favourable()
    ablator, scores = (
        Ablator(components, [task], ablation),
        score_edges(components, [task], ablation=ablation),
    )
    start = needed_edges(ablator, scores, 0.95).points[-1]
    found = shrink(ablator, best_edges(components, scores, start.retained))
    assert 0 < int(found.sum()) < start.edges
    assert ablator.faithfulness(found) >= 0.9
    assert torch.equal(found, components.graph.prune(found))
    for edge in found.nonzero():
        assert ablator.faithfulness(without(ablator, found, edge[None])) < 0.9


def test_a_shrunk_circuit_is_no_larger_than_the_best_by_attribution():
    components, task = favourable()
    ablator, scores = Ablator(components, [task], "resample"), score_edges(components, [task])
    best = needed_edges(ablator, scores).needed()
    assert best is not None
    assert int(shrink(ablator, best_edges(components, scores, best.retained)).sum()) <= best.edges


def test_a_circuit_that_explains_too_little_is_refused():
    components, task = favourable()
    ablator = Ablator(components, [task], "resample")
    with pytest.raises(GossamerError, match=r"a circuit with F = 0\.000: expected 0\.9 or more"):
        shrink(ablator, torch.zeros_like(components.graph.exists))
