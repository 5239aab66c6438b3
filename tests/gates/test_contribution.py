"""Gates that read what a unit adds to the residual stream: the measure by hand, the moving mean, files, runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gossamer.errors import CheckpointError, GossamerError
from gossamer.gates.contribution import MARGIN, NEWEST, UNMEASURED, ContributionGates
from gossamer.gates.gate_sets import GateSets
from gossamer.gates.heads import HeadGates
from gossamer.gates.host import Options
from gossamer.gates.reads import CONTRIBUTION
from gossamer.models.anatomy import Anatomy
from gossamer.models.attach import attach_missing, find_gate_sets
from gossamer.models.checkpoint import load, save
from gossamer.models.forward import evaluating, first_output, probe_inputs
from gossamer.training.config import configured
from helpers.run_tiny import config, trainer
from helpers.zoo import build

KINDS = ("heads", "neurons")


def measured(name: str, *wanted: str) -> tuple[Any, GateSets]:
    """A model whose gates have read the probe rows."""
    model = build(name)
    attach_missing(model, wanted, Options("eager", CONTRIBUTION))
    sets = find_gate_sets(model)
    look(model, sets)
    return model, sets


def look(model: Any, sets: GateSets) -> None:
    with evaluating(model), sets.measuring():
        first_output(model, probe_inputs(model))
    sets.settle(lambda sums: sums)


def of(sets: GateSets, kind: str) -> ContributionGates:
    one = sets.of_kind(kind)
    assert isinstance(one, ContributionGates)
    return one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "bert", "modernbert", "qwen3"])
def test_a_unit_is_measured_by_what_closing_it_takes_from_its_matrix(name: str, kind: str) -> None:
    model, sets = measured(name, kind)
    one, layer = of(sets, kind), 1
    anatomy = next(x for x in Anatomy.of(build(name)) if x.number == layer)
    module, block = (model.get_submodule(x) for x in (one.places[layer][0].path, named(model, layer)))
    seen: dict[str, Tensor] = {}
    hooks = [module.register_forward_hook(lambda m, a, out: seen.__setitem__("out", out.detach()))]
    hooks += [
        block.register_forward_pre_hook(
            lambda m, a, k: seen.__setitem__("h", (a[0] if a else k["hidden_states"]).detach()),
            with_kwargs=True,
        )
    ]
    count = len(one.logits[str(layer)])

    def output(closed: int | None) -> Tensor:
        keep = torch.ones(count)
        if closed is not None:
            keep[closed] = 0
        with evaluating(model), one.using(keep={layer: keep}):
            first_output(model, probe_inputs(model))
        return seen["out"]

    whole = output(None)
    stream = seen["h"].square().sum()
    cost = one.multiply_adds(anatomy) / one.reader(anatomy).across
    for unit in (0, count - 1):
        share = (whole - output(unit)).square().sum() / stream
        assert one.logits[str(layer)][unit].exp() * cost == pytest.approx(float(share), rel=1e-3)
    for hook in hooks:
        hook.remove()


def named(model: Any, number: int) -> str:
    """The path of a block."""
    block = next(x for x in Anatomy.of(model) if x.number == number).block
    return next(path for path, module in model.named_modules() if module is block)


def test_gates_are_open_until_they_are_measured_and_then_a_mean_forgets() -> None:
    model = build("gpt2")
    attach_missing(model, KINDS, Options("eager", CONTRIBUTION))
    sets = find_gate_sets(model)
    sets.bias = 0.0
    one = of(sets, "neurons")
    assert bool((one.logits["0"] == UNMEASURED).all())
    assert bool(one.hard(0).all())
    look(model, sets)
    sets.bias = math.inf
    first = one.logits["0"].clone()
    look(model, sets)
    torch.testing.assert_close(one.logits["0"], first)
    with torch.no_grad():
        one.readers[0].module.weight.mul_(2.0)
    look(model, sets)
    torch.testing.assert_close((one.logits["0"] - first).exp(), torch.full_like(first, 1 + 3 * NEWEST))
    assert not any(one.measuring for one in sets)


def test_the_sum_over_processes_counts_and_not_their_number() -> None:
    alone = measured("llama", *KINDS)[1]
    model = build("llama")
    attach_missing(model, KINDS, Options("eager", CONTRIBUTION))
    twice = find_gate_sets(model)
    with evaluating(model), twice.measuring():
        first_output(model, probe_inputs(model))
    twice.settle(lambda sums: 2 * sums)
    for kind in KINDS:
        for layer, logits in of(alone, kind).logits.items():
            torch.testing.assert_close(of(twice, kind).logits[layer], logits)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bias_opens_units_by_what_they_add_and_a_closed_one_is_measured_too(kind: str) -> None:
    model, sets = measured("gpt2", kind)
    one = of(sets, kind)
    before = one.logits["0"].clone()
    sets.bias = -float(before.median()) + 1e-6
    assert torch.equal(one.hard(0), (before >= before.median()).float())
    opened = one.hard(0)
    look(model, sets)
    assert torch.equal(one.hard(0), opened)
    changed = (one.logits["0"] - before).exp()  # of layer 0, whose input no gate has changed
    expected = torch.where(opened > 0, 1.0, 1 - NEWEST * (1 - math.exp(-MARGIN)))
    torch.testing.assert_close(changed, expected, rtol=1e-4, atol=0)
    assert not one.learns
    assert not any(logits.requires_grad for logits in one.logits.values())


def test_the_scale_is_what_closing_the_cheapest_loses_for_what_they_add() -> None:
    _, sets = measured("gpt2", "heads")
    one = of(sets, "heads")
    before = {layer: logits.clone() for layer, logits in one.logits.items()}
    seen = []

    def lost() -> float:
        assert one.keep is not None
        ((layer, keep),) = one.keep.items()
        seen.append((layer, keep.tolist()))
        return 0.25

    sets.scale(lost)
    assert one.keep is None
    for layer, keep in seen:
        logits = before[str(layer)]
        assert keep == [float(x > logits.min()) for x in logits]  # a quarter of four heads
        assert one.logits[str(layer)].min().exp() * one._costs[layer] == pytest.approx(0.25)
        torch.testing.assert_close(
            one.logits[str(layer)] - logits, torch.full_like(logits, math.log(one.scales[layer]))
        )
    assert [layer for layer, _ in seen] == list(one.layer_numbers)


@pytest.mark.parametrize("uniform", [False, True])
def test_what_is_saved_comes_back(tmp_path: Path, uniform: bool) -> None:
    model = build("gpt2")
    attach_missing(model, KINDS, Options("eager", CONTRIBUTION, uniform=uniform))
    sets = find_gate_sets(model)
    look(model, sets)
    for kind in KINDS:
        of(sets, kind).scales = {0: 0.5, 1: 0.5}
    sets.bias = -float(of(sets, "neurons").logits["0"].median())
    left = [int(of(sets, "neurons").hard(layer).sum()) for layer in of(sets, "neurons").layer_numbers]
    assert 0 < left[0] < len(of(sets, "neurons").logits["0"])
    assert not uniform or len(set(left)) == 1
    with evaluating(model):
        expected = first_output(model, probe_inputs(model))
    save(model, tmp_path)
    again = load(tmp_path, impl="eager")
    with evaluating(again):
        assert torch.equal(first_output(again, probe_inputs(again)), expected)
    assert {one.reads for one in find_gate_sets(again)} == {CONTRIBUTION}
    assert of(find_gate_sets(again), "heads").scales == {0: 0.5, 1: 0.5}


@pytest.mark.parametrize("scales", ["0.5", [0.5], {"first": 0.5}, {"0": None}])
def test_scales_that_are_none_are_refused(scales: object) -> None:
    state = {"version": 1, "bias": 0.0, "reads": CONTRIBUTION, "scales": scales}
    with pytest.raises(CheckpointError, match="here: gates on heads with scales"):
        HeadGates.from_state(state, "here", Options())


@pytest.mark.parametrize(
    ("gates", "recipe", "reads"),
    [
        ("heads,neurons", {}, CONTRIBUTION),
        ("neurons", {}, CONTRIBUTION),
        ("heads,neurons", {"reads": "logit"}, "logit"),
        ("heads,neurons", {"bias": 4.0}, "logit"),
        ("edges,heads", {}, CONTRIBUTION),
        ("edges,heads", {"reads": "weight"}, CONTRIBUTION),
        ("edges,heads", {"reads": CONTRIBUTION}, CONTRIBUTION),
    ],
)
def test_a_run_goes_by_contributions_where_its_kinds_can(
    tmp_path: Path, gates: str, recipe: dict[str, Any], reads: str
) -> None:
    made = trainer(str(tmp_path), gates=gates, recipe={"gate": recipe})
    units = [one for one in made.gates if isinstance(one, ContributionGates)]
    assert {one.reads for one in units} == {reads}
    assert {p.requires_grad for one in units for p in one.logits.values()} == {reads == "logit"}


@pytest.mark.integration
def test_a_run_starts_by_measuring_and_a_resumed_one_is_the_uninterrupted(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "gates": "heads,neurons",
        "recipe": {"gate": {"pace": "proportional", "anneal": 0.5}},
    }
    whole = trainer(str(tmp_path / "a"), **asked)
    whole.train()
    assert math.isfinite(whole.starts[CONTRIBUTION].bias)
    assert whole.controller.start == whole.starts[CONTRIBUTION].bias
    second = trainer(str(tmp_path / "b"), **asked)
    second.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-8"))
    models: list[Any] = [whole.model, second.model]
    ours, theirs = (model.state_dict() for model in models)
    assert any("_gates" in name for name in ours)
    for name, weight in ours.items():
        assert torch.equal(theirs[name], weight), name


def test_a_reading_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GossamerError, match="contribution"):
        config(str(tmp_path), gates="heads", recipe={"gate": {"reads": "contributions"}})


@pytest.mark.parametrize("gates", ["edges", "heads,neurons"])
def test_a_rate_for_logits_that_nobody_learns_is_refused(tmp_path: Path, gates: str) -> None:
    given = {"output_dir": str(tmp_path), "gates": gates}
    with pytest.raises(GossamerError, match=r"gate.learning_rate with gates=.*gate.reads=logit"):
        configured(given, {"gate.learning_rate": 0.3})
    assert configured(given | {"gates": "heads"}, {"gate.learning_rate": 0.3, "gate.reads": "logit"})
    assert configured(given, {"gate.learning_rate": 0.03})  # as it is; a run that is repeated says so


@pytest.mark.integration
@pytest.mark.parametrize("reads", [None, "logit", "weight"])
def test_edges_keep_their_choice_beside_units_that_have_none(tmp_path: Path, reads: str | None) -> None:
    given: dict[str, Any] = {"gates": "edges,heads,neurons", "max_steps": 2}
    made = trainer(str(tmp_path), **given, recipe={"gate": {"reads": reads}})
    made.train()
    chosen = {"logit", "weight"} if reads is None else {reads}
    assert set(made.starts) == chosen
    assert made.gates.of_kind("edges").reads == made.gates.reads in chosen
    assert of(made.gates, "heads").reads == ("logit" if reads == "logit" else CONTRIBUTION)
