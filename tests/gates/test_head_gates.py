"""Gates on heads: edges inside a closed head, shared keys and values, and a layer without heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gates.test_learned import output, some
from gossamer import gates_of, trace
from gossamer.circuits.circuit import UnitsLeft
from gossamer.gates.gate_sets import GateSets
from gossamer.models.attach import find_gate_sets, take_off
from gossamer.models.forward import evaluating, first_output, probe_inputs
from gossamer.training.metrics import Tally, counting
from gossamer.training.trainer import SparsityTrainer
from helpers.closed_units import gated
from helpers.run_tiny import config, rows
from helpers.zoo import build


def test_an_edge_in_a_closed_head_is_not_open_and_is_not_counted() -> None:
    model, sets = gated("gpt2", "edges", "heads")
    before = trace(model, probe_inputs(model)["input_ids"][:1])
    heads = some(sets, "heads")  # closes heads 1 of both layers
    expected = output(model)
    after = trace(model, probe_inputs(model)["input_ids"][:1])
    assert len(before) > len(after) > 0
    assert {edge[1] for edge in after.edges()} <= {0, 2, 3}
    assert {edge[1] for edge in before.edges()} == {0, 1, 2, 3}
    assert (before.left, after.left) == (UnitsLeft(), UnitsLeft(((0, 1), (1, 1))))
    assert after.units_in_words() == "2 of 8 heads closed"
    tally = Tally()
    with torch.no_grad(), counting(sets, tally):
        model.eval()(**rows(4, 1).columns)
    tally.sums["rows"] = 4
    counted = tally.per_group("edges")
    assert all(layer[1] == 0 for layer in counted)
    assert all(layer[0] > 0 for layer in counted)
    with heads.opened():
        assert trace(model, probe_inputs(model)["input_ids"][:1]).left == UnitsLeft()
        assert len(trace(model, probe_inputs(model)["input_ids"][:1])) == len(before)
    take_off(model, GateSets((heads,)), "eager")
    assert gates_of(model).holder is None
    assert not torch.equal(output(model), expected)


def test_an_edge_is_paid_for_with_the_probability_that_its_head_is_open() -> None:
    model, sets = gated("gpt2", "edges", "heads")
    heads = some(sets, "heads")
    with evaluating(model), sets.recording() as seen:
        first_output(model, rows(4, 1).columns)
    edges, units = (dict(zip(sets.kinds, seen, strict=True))[kind] for kind in ("edges", "heads"))
    p = torch.stack([torch.sigmoid(x) for x in heads.logits.values()])
    paid = sum((x.sum(0) * p[layer]).sum() for layer, x in zip(edges.layers, edges.expected, strict=True))
    tokens = rows(4, 1).columns["input_ids"].shape[1]
    price = {one.kind: one.price for one in sets}
    whole = price["edges"] * edges.total_visible() + price["heads"] * tokens * units.total_visible()
    opened = price["edges"] * paid + price["heads"] * tokens * p.sum() * 4
    assert sets.penalty(seen).item() == pytest.approx((opened / whole).item(), rel=1e-6)


def test_an_edge_in_a_head_that_stays_closed_costs_nothing() -> None:
    model, sets = gated("gpt2", "edges", "heads")
    heads = some(sets, "heads")
    edges = sets.only(("edges",))
    assert edges.kinds == ("edges",)
    with evaluating(model), edges.recording() as seen:
        first_output(model, rows(4, 1).columns)
    opened = [x[:, heads.hard(layer) > 0] for layer, x in zip(seen[0].layers, seen[0].expected, strict=True)]
    expected = sum(x.sum() for x in opened) / seen[0].total_visible()
    assert edges.penalty(seen).item() == pytest.approx(expected.item(), rel=1e-6)
    assert edges.penalty(seen).item() < seen[0].density().item()


def test_gates_that_a_run_does_not_name_stay_as_they_are(tmp_path: Path) -> None:
    model, sets = gated("gpt2", "heads")
    heads = some(sets, "heads")
    before = {name: x.detach().clone() for name, x in sets.named_parameters()}
    given = {"max_steps": 3, "eval_strategy": "no", "save_strategy": "no", "ceiling": "kl=9"}
    data = rows(8, 1)
    trainer = SparsityTrainer(
        model, config(str(tmp_path), **given), base=build("gpt2"), train_dataset=data, eval_dataset=data
    )
    assert trainer.gates.kinds == ("edges",)
    closed = {layer: heads.hard(layer).clone() for layer in heads.layer_numbers}
    trainer.train()
    assert all(torch.equal(x, before[name]) for name, x in sets.named_parameters())
    assert all(torch.equal(heads.hard(layer), z) for layer, z in closed.items())
    assert not heads.sampling
    frozen = {id(x) for x in heads.parameters()}
    assert not any(id(x) in frozen for group in trainer.optimizer.param_groups for x in group["params"])
    assert find_gate_sets(model).kinds == ("edges", "heads")
    again = SparsityTrainer(model, config(str(tmp_path), gates="heads", **given), base=build("gpt2"))
    assert again.gates.kinds == ("heads",)
    assert again.gates[0].learns
    assert all(x.requires_grad for x in heads.parameters())


def test_heads_wait_until_the_recipe_lets_them_learn_whether_edges_are_there_or_not() -> None:
    for kinds in (("heads", "neurons"), ("edges", "heads")):
        _, sets = gated("gpt2", *kinds)
        sets.let_parents_learn(False)
        assert [one.kind for one in sets if one.waits] == ["heads"]
        sets.let_parents_learn(True)
        assert not any(one.waits for one in sets)


def test_query_heads_that_share_keys_are_closed_one_by_one() -> None:
    model, sets = gated("llama", "heads")
    heads = sets.of_kind("heads")
    assert [len(x) for x in heads.logits.values()] == [4, 4]  # type: ignore[attr-defined]  # which share two key-value heads
    width = model.config.hidden_size
    shared = 2 * 2 * 8 * width  # rows of k and v
    assert heads.price == (2 * 4 * 8 * width + shared) / 4


def test_a_layer_without_heads_is_carried_by_the_residual_stream() -> None:
    model, sets = gated("llama", "heads", "edges")
    with torch.no_grad():
        sets.of_kind("heads").logits["0"].fill_(-1.0)  # type: ignore[attr-defined]
    assert bool(torch.isfinite(output(model)).all())
    assert not [e for e in trace(model, probe_inputs(model)["input_ids"][:1]).edges() if e[0] == 0]
