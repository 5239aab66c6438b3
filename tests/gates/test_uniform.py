"""One count of open units for all layers: the rule alone, in training, in files, and what shrinking makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gossamer.data.sequences import collate_rows
from gossamer.errors import GossamerError
from gossamer.gates.gate_sets import GateSets
from gossamer.gates.host import Options
from gossamer.gates.learned import LearnedGates
from gossamer.gates.uniform import shared_logits
from gossamer.models.attach import attach_missing, find_gate_sets
from gossamer.models.checkpoint import load, save
from gossamer.models.forward import evaluating, first_output, probe_inputs
from gossamer.models.shrink import shrunk
from gossamer.training.config import SparsityConfig
from gossamer.training.sparsify import sparsify
from helpers.run_tiny import config, rows
from helpers.zoo import build

pytestmark = pytest.mark.integration  # whole runs


def uniform(name: str, *kinds: str, spread: float = 3.0) -> tuple[Any, GateSets]:
    """A model with gates that share counts, their logits drawn apart."""
    model = build(name)
    attach_missing(model, kinds, Options("eager", uniform=True))
    sets = find_gate_sets(model)
    sets.bias = 0.0
    torch.manual_seed(0)
    with torch.no_grad():
        for one in sets:
            for logits in one.logits.values() if isinstance(one, LearnedGates) else ():
                logits.copy_(spread * torch.randn_like(logits))
    return model, sets


def counts(one: Any) -> list[int]:
    return [int(one.hard(layer).sum()) for layer in one.layer_numbers]


def output(model: Any) -> Tensor:
    with evaluating(model):
        return first_output(model, probe_inputs(model))


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16))


@given(SHAPES)
@settings(deadline=None, max_examples=100)
def test_every_layer_opens_a_rectangle_of_one_size_and_its_own_best_units(shape: tuple[int, ...]) -> None:
    layers, groups, inside, seed = shape
    own = torch.randn(layers, groups, inside, generator=torch.Generator().manual_seed(seed))
    opened = shared_logits(own) > 0
    by_group = opened.sum(2)
    sizes = {(int((one > 0).sum()), *one[one > 0].unique().tolist()) for one in by_group}
    assert len(sizes) == 1
    assert len(next(iter(sizes))) <= 2  # one number of groups, and at most one number of units in each
    best = own.amax(2)
    for layer in range(layers):
        for group in range(groups):
            kept, gone = own[layer, group][opened[layer, group]], own[layer, group][~opened[layer, group]]
            assert not (len(kept) and len(gone)) or kept.min() >= gone.max()
        there = by_group[layer] > 0
        assert there.all() or not there.any() or best[layer][there].min() >= best[layer][~there].max()


def test_a_rank_is_open_where_the_mean_over_layers_is() -> None:
    """By hand: means 2.5, 0.5, -1 of ranks, so two of three are open, each layer's own two."""
    own = torch.tensor([[[3.0], [-1.0], [1.0]], [[-1.0], [0.0], [2.0]]])
    assert shared_logits(own)[:, :, 0].tolist() == [[2.5, -1.0, 0.5], [-1.0, 0.5, 2.5]]


def test_of_groups_as_many_heads_are_open_as_the_mean_over_open_groups_says() -> None:
    """Two groups of two: both best heads are open in the mean, the second heads at (0.5 - 0.7) / 2 are not."""
    own = torch.tensor([[[2.0, 0.5], [1.0, -0.7]]])
    assert (shared_logits(own) > 0).tolist() == [[[True, False], [True, False]]]
    assert torch.allclose(shared_logits(own), torch.tensor([[[2.0, -0.1], [1.0, -0.1]]]))
    own[0, 1, 0] = -0.1  # now one group is open, and its second head counts alone
    assert (shared_logits(own) > 0).tolist() == [[[True, True], [False, False]]]


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_counts_are_equal_and_the_gradient_is_each_unit_s_own(name: str) -> None:
    model, sets = uniform(name, "heads", "neurons")
    for one in sets:
        assert len(set(counts(one))) == 1
        assert 0 < counts(one)[0] < len(one.hard(one.layer_numbers[0]))
    sets.sampling = False
    model.train()
    first_output(model, rows(2, 1).columns).square().sum().backward()
    for one in sets:
        assert isinstance(one, LearnedGates)
        grads = torch.stack([x.grad for x in one.logits.values() if x.grad is not None])
        assert len(grads) == len(one.logits)
        assert len(grads.unique()) > grads.numel() / 2  # no two units share one


def test_a_saved_model_decides_as_before_and_says_so(tmp_path: Path) -> None:
    model, sets = uniform("llama", "heads", "neurons")
    save(model, tmp_path)
    again = load(tmp_path, impl="eager")
    assert torch.equal(output(again), output(model))
    for one, other in zip(sets, find_gate_sets(again), strict=True):
        assert other.uniform
        assert counts(other) == counts(one)
    attach_missing(again, ("heads",), Options("eager", uniform=True))
    plain = build("llama")
    attach_missing(plain, ("heads",), Options("eager"))
    with pytest.raises(GossamerError, match=r"gate\.uniform for gates on heads with a count of their own"):
        attach_missing(plain, ("heads",), Options("eager", uniform=True))


@pytest.mark.parametrize("value", ["yes", 2, None, [1]])
def test_a_block_that_means_nothing_is_refused(value: Any) -> None:
    _, sets = uniform("gpt2", "neurons")
    one = sets.of_kind("neurons")
    with pytest.raises(GossamerError, match="gates on neurons with uniform"):
        type(one).from_state(one.state() | {"uniform": value}, "here", Options())


def test_it_is_refused_where_nothing_has_a_count(tmp_path: Path) -> None:
    with pytest.raises(
        GossamerError, match=r"gate\.uniform with gates=edges,weights: expected gates on heads or neurons"
    ):
        SparsityConfig(str(tmp_path), gates="edges,weights", recipe={"gate": {"uniform": True}})
    with pytest.raises(GossamerError, match=r"gate\.uniform='yes': expected true or false"):
        SparsityConfig(str(tmp_path), gates="heads", recipe={"gate": {"uniform": "yes"}})


@pytest.mark.parametrize(("name", "part"), [("gpt2", "neurons"), ("llama", "heads,neurons")])
def test_a_trained_model_shrinks_to_the_count_that_is_open(tmp_path: Path, name: str, part: str) -> None:
    """After training each layer has one count; at level uniform nothing closed is left, and outputs are equal."""
    recipe = {"gate": {"uniform": True, "bias": 0.0, "reads": "logit", "learning_rate": 0.5}}
    arguments = config(
        str(tmp_path),
        gates="heads,neurons",
        ceiling="kl=9",
        max_steps=30,
        eval_steps=10,
        save_steps=10,
        recipe=recipe,
    )
    model = sparsify(build(name), rows(64, 1), rows(8, 2), arguments, data_collator=collate_rows).model.eval()
    sets = {one.kind: one for one in find_gate_sets(model)}
    for one in sets.values():
        assert len(set(counts(one))) == 1
    assert counts(sets["neurons"])[0] < len(sets["neurons"].hard(0))  # type: ignore[attr-defined]
    small, plan = shrunk(model)
    assert [plan.parts.get(kind) for kind in part.split(",")] == ["uniform"] * len(part.split(","))
    for layer, kept in plan.kept.items():
        assert int(kept.neurons.sum()) == max(1, counts(sets["neurons"])[layer])  # type: ignore[union-attr]
        if kept.heads is not None:
            assert int(kept.heads.sum()) == max(1, counts(sets["heads"])[layer])
    assert torch.allclose(output(small), output(model), atol=1e-5)
