"""The protocol of gate sets: two implementations on one model, several together, units inside closed parents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch

from gossamer import attach, gates_of, trace
from gossamer.errors import GossamerError
from gossamer.gates.gate_set import GateSet
from gossamer.gates.gate_sets import GateSets
from gossamer.gates.host import Host
from gossamer.gates.openness import Count, Openness, Slopes
from gossamer.gates.top_k import TopKGates
from gossamer.training.metrics import Tally, counting
from helpers.zoo import prompts, tiny, tiny_gated

ROWS = 6  # of `prompts`


class Outer(GateSet):
    """One logit per unit, (L, G), on no model: what the penalty and the counting need of a static kind."""

    kind: ClassVar[str] = "outer"
    block: ClassVar[str] = "outer_gates"

    def __init__(self, logits: torch.Tensor, price: float) -> None:
        self.logits, self.price = torch.nn.Parameter(logits), price
        self.bias, self.sampling, self.seed, self.step = 0.0, True, 0, 0

    def attach(self, host: Host) -> None: ...

    def detach(self, host: Host) -> None: ...

    @contextmanager
    def recording(self) -> Iterator[Openness]:
        layers = list(range(len(self.logits)))
        expected = [p.expand(ROWS, -1) for p in torch.sigmoid(self.logits + self.bias)]
        yield Openness(layers, expected, [torch.ones_like(x, dtype=torch.int64) for x in expected])

    @contextmanager
    def counting(self, add: Any) -> Iterator[None]:
        yield
        for layer, logits in enumerate(self.logits.detach() + self.bias):
            ones = torch.ones(ROWS, len(logits), dtype=torch.int64)
            hard, expected = (logits > 0).long() * ones, torch.sigmoid(logits) * ones
            add(Count(self.kind, self.price, layer, ones, expected, hard))


class Inner(Outer):
    """Units that live in those."""

    kind: ClassVar[str] = "inner"
    block: ClassVar[str] = "inner_gates"
    parent: ClassVar[str | None] = "outer"


def test_one_set_is_priced_by_its_expected_share() -> None:
    model = tiny_gated()
    sets = GateSets((gates_of(model),))
    with torch.no_grad(), sets.recording() as seen:
        model(input_ids=prompts())
    total = sum(x.sum() for x in seen[0].expected) / sum(int(x.sum()) for x in seen[0].visible)
    assert sets.penalty(seen).item() == pytest.approx(float(total))
    steep = sum((1 + 2 * i) * x.sum() for i, x in enumerate(seen[0].expected))
    assert sets.penalty(seen, Slopes(layer=2.0)).item() == pytest.approx(
        float(steep / seen[0].total_visible())
    )
    heads = 1 + 0.5 * torch.arange(seen[0].expected[0].shape[1])
    steep = sum((1 + 2 * i) * (x * heads).sum() for i, x in enumerate(seen[0].expected))
    assert sets.penalty(seen, Slopes(2.0, 0.5)).item() == pytest.approx(
        float(steep / seen[0].total_visible())
    )


def test_a_price_by_layer_is_for_edges_and_for_no_unit_that_is_the_same_for_every_input() -> None:
    sets = GateSets((Outer(torch.zeros(3, 2), 1.0),))
    with sets.recording() as seen:
        pass
    assert sets.penalty(seen, Slopes(2.0, 1.0)).item() == sets.penalty(seen).item() == 0.5


def test_nothing_is_open_in_a_closed_parent() -> None:
    outer, inner = (
        Outer(torch.tensor([[2.0, -1.0]]), price=5.0),
        Inner(torch.tensor([[0.5, 0.3]]), price=2.0),
    )
    sets = GateSets((outer, inner))
    with sets.recording() as seen:
        pass
    p, q = torch.sigmoid(outer.logits), torch.sigmoid(inner.logits)
    expected = (5 * p.sum() + 2 * (p * q).sum()) / (5 * 2 + 2 * 2)
    assert sets.penalty(seen).item() == pytest.approx(expected.item())
    sets.penalty(seen).backward()
    assert outer.logits.grad.abs().min() > 0  # a unit also pays for what it holds
    assert GateSets((inner,)).penalty(seen[1:]).item() == pytest.approx((q.sum() / 2).item())


def test_kinds_are_counted_apart_and_priced_together() -> None:
    model, tally = tiny_gated(), Tally()
    outer = Outer(torch.tensor([[1.0, -1.0], [1.0, 1.0], [1.0, 1.0]]), price=100.0)
    sets = GateSets((gates_of(model), outer))
    with torch.no_grad(), counting(sets.of_kind("edges"), alone := Tally()):
        model(input_ids=prompts())
    with torch.no_grad(), counting(sets, tally):
        model(input_ids=prompts())
    found = tally.summary()
    assert tally.kinds() == ["edges", "outer"]
    assert tally.per_group("outer") == [[6.0, 0.0], [6.0, 6.0], [6.0, 6.0]]
    assert found["density_outer"] == 5 / 6
    edges, visible = alone.sums["edges/hard"], alone.sums["edges/visible"]
    assert found["density"] == pytest.approx((edges + 100 * 5 * ROWS) / (visible + 100 * 6 * ROWS))
    assert found["keys_per_query"] == alone.summary()["keys_per_query"]


def test_sets_move_together() -> None:
    sets = GateSets((gates_of(tiny_gated()), Outer(torch.zeros(1, 2), 1.0)))
    sets.bias, sets.sampling = 1.5, False
    sets.name_noise(seed=3, step=7)
    assert {(x.bias, x.sampling, x.seed, x.step) for x in sets} == {(1.5, False, 3, 7)}
    with pytest.raises(GossamerError, match="no gates on neurons: expected edges, outer"):
        sets.of_kind("neurons")


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_top_k_gates_keep_k_keys_and_everything_counts_them(kind: str) -> None:
    model = tiny(kind)
    gates, tally = attach(model, gates=TopKGates(k=2)), Tally()
    assert gates_of(model) is gates
    with torch.no_grad(), counting(gates, tally):
        model(input_ids=prompts(length=7))
    per_query = 2.0 if kind == "bert" else (1 + 2 * 6) / 7  # the first query of a causal model sees one key
    assert tally.mean("keys_per_query")[0] == pytest.approx(per_query)
    circuit = trace(model, prompts(length=7))
    assert len(circuit) == int(tally.sums["edges/hard"])


def test_top_k_of_everything_is_the_base_model() -> None:
    base, model = tiny(), tiny()
    base.set_attn_implementation("eager")
    gates = attach(model, gates=TopKGates(k=1), impl="eager")
    with torch.no_grad():
        few = model(input_ids=prompts()).logits
        with gates.opened():
            every = model(input_ids=prompts()).logits
        assert torch.equal(every, base(input_ids=prompts()).logits)
    assert not torch.equal(few, every)
    assert (gates.k, gates.bias) == (1, math.inf)
