"""Attention edges needed by a task: replacing none or all of them, attribution against patching, refusals."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gossamer.circuits.components.attention_edges import (
    EdgePatcher,
    best_of_each,
    edge_scores,
    needed_attention_edges,
    replacements,
)
from gossamer.circuits.components.component_model import components_of
from gossamer.circuits.components.effect import sizes_around_first
from gossamer.circuits.trace import trace
from gossamer.errors import GossamerError
from gossamer.models.attach import gated, gates_of
from gossamer.models.forward import evaluating, first_output
from helpers.component_cases import batch, favourable
from helpers.zoo import tiny, tiny_gated

KINDS = ("gpt2", "llama", "llama-gqa")


def bench_of(kind: str) -> EdgePatcher:
    model = tiny_gated(kind).double()
    return EdgePatcher(components_of(model), gates_of(model))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_keeping_all_edges_is_the_model_itself(kind, ablation):
    patcher, task = bench_of(kind), batch()
    with evaluating(patcher.components.model):
        own = first_output(patcher.components.model, {"input_ids": task.clean})[:, -1]
        instead = replacements(patcher, task, ablation)
        _, reads, _ = patcher.run(task.clean)
        edge_mask = [torch.ones_like(read.weight) for read in reads]
        logits, _, _ = patcher.run(task.clean, edge_mask=edge_mask, instead=instead)
    torch.testing.assert_close(logits, own)


def test_without_any_edge_each_head_brings_what_it_brings_on_the_corrupt_prompt():
    patcher, task = bench_of("gpt2"), batch()
    with evaluating(patcher.components.model):
        instead = replacements(patcher, task, "resample")
        _, reads, entered = patcher.run(task.corrupt)
        none = [torch.zeros_like(read.weight) for read in reads]
        _, _, replaced = patcher.run(task.clean, edge_mask=none, instead=instead)
    torch.testing.assert_close(replaced, entered)


def test_zero_ablation_of_all_but_some_edges_is_what_closing_their_gates_does():
    patcher, task = bench_of("gpt2"), batch()
    model = patcher.components.model
    with evaluating(model):
        instead = replacements(patcher, task, "zero")
        edge_mask = best_of_each(edge_scores(patcher, task, instead), 9)
        logits, _, _ = patcher.run(task.clean, edge_mask=edge_mask, instead=instead)
        with patcher.gates.using(keep=dict(enumerate(edge_mask))):
            closed = first_output(model, {"input_ids": task.clean})[:, -1]
    torch.testing.assert_close(logits, closed)


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_a_score_is_the_effect_of_a_small_step_towards_the_ablated_edge(ablation):
    # A dense model: gates pass their gradient straight through, which no finite step sees.
    model, task = tiny().double(), batch(n=2)
    with gated(model) as gates, evaluating(model):
        patcher = EdgePatcher(components_of(model), gates)
        instead = replacements(patcher, task, ablation)
        same = dataclasses.replace(task, corrupt=task.clean)  # the path of the gradient is then one point
        scores = edge_scores(patcher, same, instead, steps=1)
        own = task.measure(patcher.run(task.clean)[0])
        for layer in range(3):
            strongest = int(scores[0, layer].abs().argmax())
            edge_mask = [torch.ones_like(scores[:, 0]) for _ in range(3)]
            edge_mask[layer][0].view(-1)[strongest] -= 1e-6
            moved = task.measure(patcher.run(task.clean, edge_mask=edge_mask, instead=instead)[0])
            expected = scores[0, layer].flatten()[strongest]
            torch.testing.assert_close((moved[0] - own[0]) / 1e-6, expected, rtol=1e-4, atol=1e-8)


def test_a_gated_model_whose_other_edges_are_closed_needs_no_more_than_its_open_edges():
    model = tiny_gated(seed=3)
    components, task = components_of(model), batch(n=4)
    with gated(model) as gates, evaluating(model):
        patcher = EdgePatcher(components, gates)
        instead = replacements(patcher, task, "zero")
        scores = edge_scores(patcher, task, instead)
    opened = trace(model, task.clean)
    assert (scores != 0).flatten(1).sum(1).max() <= max(
        int((opened.prompt == i).sum()) for i in range(len(task))
    )


def test_a_dense_model_is_measured_and_left_dense():
    components, task = favourable()
    before = components.model.config._attn_implementation
    curve = needed_attention_edges(components, [task])
    assert components.model.config._attn_implementation == before
    assert curve.of == 3 * 2 * 5 * 6 // 2
    best = curve.needed()
    assert best is not None
    assert best.retained <= curve.of


def test_a_model_that_does_not_know_the_task_is_refused():
    task = batch(n=8)
    same = dataclasses.replace(task, corrupt=task.clean)
    with pytest.raises(GossamerError, match="does not know this task"):
        needed_attention_edges(components_of(tiny()), [same])


@pytest.mark.parametrize("first", [1, 2, 7, 40, 99, 100])
def test_the_first_size_that_reaches_is_found_exactly_where_larger_ones_reach_too(first):
    sizes = sizes_around_first(lambda n: n >= first, 100)
    assert first in sizes
    assert sizes == list(range(sizes[0], sizes[-1] + 1))


@pytest.mark.parametrize("first", [1, 7, 99, 1_000, 4_321])
def test_sizes_may_lie_apart_by_a_share_of_them(first):
    tried: list[int] = []
    sizes = sizes_around_first(lambda n: tried.append(n) or n >= first, 10_000, within=0.01)
    found = next(n for n in sizes if n >= first)
    assert found - first <= 0.01 * found
    assert len(sizes) + len(tried) < 70
    assert sizes_around_first(lambda n: False, 10_000, within=0.01)[-1] == 10_000


def test_a_search_that_never_reaches_ends_at_the_largest_size():
    assert sizes_around_first(lambda n: False, 100)[-1] == 100
