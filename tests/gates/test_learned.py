"""Gates that do not depend on the input: what holds for heads, neurons and weights alike, on every architecture."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gossamer import detach, load, save
from gossamer.data.sequences import collate_rows
from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.gates.gate_sets import GateSets
from gossamer.gates.heads import HeadGates
from gossamer.gates.host import Options
from gossamer.gates.learned import OPEN, LearnedGates
from gossamer.models.attach import attach_missing, find_gate_sets
from gossamer.models.checkpoint import load_dense, save_adapter, save_folder
from gossamer.models.forward import evaluating, first_output, probe_inputs
from gossamer.models.host import ModelHost
from gossamer.training.adapters import add_adapters
from gossamer.training.metrics import Tally, counting
from gossamer.training.trainer import SparsityTrainer
from helpers.closed_units import gated
from helpers.run_tiny import config, rows, trainer
from helpers.zoo import DECODERS, ENCODERS, build

KINDS = ("heads", "neurons", "weights")
ALL = ("edges", *KINDS)
EXPERTS = {"gpt_oss"}  # whose MLP is no two matrices


def output(model: Any) -> Tensor:
    with evaluating(model):
        return first_output(model, probe_inputs(model))


def some(sets: GateSets, kind: str) -> LearnedGates:
    """The set of one kind, with a third of its units closed."""
    one = sets.of_kind(kind)
    assert isinstance(one, LearnedGates)
    with torch.no_grad():
        for logits in one.logits.values():
            logits[1::3] = -OPEN
    return one


def by_hand(name: str, one: LearnedGates) -> Tensor:
    """The output of a base whose closed units are zeros in its matrices."""
    base = build(name)
    with torch.no_grad():
        for layer, masks in one.places.items():
            for mask in masks:
                weight = base.get_submodule(mask.path).weight
                weight.mul_(mask.spread((one.logits[str(layer)][mask.units] > 0).float()))
    return output(base)


def test_the_least_slope_reaches_a_closed_weight_and_no_closed_head_or_neuron() -> None:
    for kind in KINDS:
        model, sets = gated("llama", kind)
        one = some(sets, kind)
        with torch.no_grad():
            for logits in one.logits.values():
                logits.copy_(logits.sign() * 40)  # sigma' is 4e-18
        sets.slope_at_least(0.1)
        model.train()
        first_output(model, probe_inputs(model)).square().sum().backward()
        gradient = sum(float(g.abs().sum()) for x in one.logits.values() if (g := x.grad) is not None)
        assert (gradient > 1e-3) == (kind == "weights"), kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", sorted({*DECODERS, *ENCODERS}))
def test_closed_units_are_zeros_in_the_matrices_of_every_architecture(family: str, kind: str) -> None:
    if family in EXPERTS and kind != "heads":
        with pytest.raises(UnsupportedModel, match="no MLP among the weights"):
            gated(family, kind)
        return
    before = output(build(family))
    model, sets = gated(family, kind)
    one = some(sets, kind)
    closed = output(model)
    assert torch.equal(closed, by_hand(family, one))
    assert not torch.equal(closed, before)
    with sets.opened():
        torch.testing.assert_close(output(model), before, rtol=0, atol=1e-5)
    detach(model)
    torch.testing.assert_close(output(model), before, rtol=0, atol=1e-5)
    assert {n for n, _ in model.named_parameters()} == {n for n, _ in build(family).named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_units_are_counted_as_they_are_and_priced_by_their_multiply_adds(kind: str) -> None:
    model, sets = gated("llama", kind)
    one = some(sets, kind)
    tally = Tally()
    with torch.no_grad(), counting(sets, tally):
        model(**rows(4, 1).columns)
    tally.sums["rows"] = 4
    units, closed = (sum(f(x) for x in one.logits.values()) for f in (len, lambda x: int((x <= 0).sum())))
    assert tally.summary()[f"open_{kind}"] == units - closed
    assert tally.summary()["density"] == pytest.approx((units - closed) / units)
    matrices = sum(w.numel() for n, w in model.named_parameters() if ".layers." in n and w.dim() == 2)
    parts = {"heads": ("self_attn",), "neurons": ("mlp",), "weights": ("self_attn", "mlp")}[kind]
    held = sum(w.numel() for n, w in model.named_parameters() if any(p in n for p in parts) and w.dim() == 2)
    assert one.price * units == pytest.approx(held)
    assert held <= matrices


@pytest.mark.parametrize("kind", KINDS)
def test_penalty_and_divergence_both_reach_the_logits(kind: str, tmp_path: Path) -> None:
    made = trainer(str(tmp_path), gates=kind, recipe={"gate": {"reads": "logit"}})
    made.gates.bias = 0.0
    made.model.train()
    one = some(made.gates, kind)
    made.gates.name_noise(step=made.forwards)
    with made.gates.recording() as seen:
        made.model(**rows(4, 1).columns)
    (pull,) = torch.autograd.grad(made.gates.penalty(seen), [one.logits["0"]])
    assert bool((pull > 0).all())
    loss = made.compute_loss(made.model, dict(rows(4, 1).columns))
    (through,) = torch.autograd.grad(loss, [one.logits["0"]])
    assert not torch.allclose(through * (1 + made.controller.multiplier), pull, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_gates_are_repeated_by_the_name_of_their_noise(kind: str) -> None:
    model, sets = gated("gpt2", kind)
    with torch.no_grad():
        for logits in sets.of_kind(kind).logits.values():  # type: ignore[attr-defined]
            logits.zero_()
    model.train()

    def drawn(step: int) -> Tensor:
        sets.name_noise(seed=1, step=step)
        return first_output(model, probe_inputs(model))

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_comes_back_and_a_copy_has_gates_of_its_own(kind: str, tmp_path: Path) -> None:
    model, sets = gated("gpt2", kind, "edges")
    some(sets, kind)
    expected = output(model)
    save(model, tmp_path)
    assert torch.equal(output(load(tmp_path, impl="eager")), expected)
    other = copy.deepcopy(model)
    with torch.no_grad():
        find_gate_sets(other).of_kind(kind).logits["0"].fill_(-9.0)  # type: ignore[attr-defined]
    assert torch.equal(output(model), expected)
    assert not torch.equal(output(other), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_that_an_intervention_closes_is_closed(kind: str) -> None:
    model, sets = gated("gpt2", kind)
    one = sets.of_kind(kind)
    assert isinstance(one, LearnedGates)
    kept = (torch.arange(len(one.logits["1"])) % 3 != 1).float()
    with one.using(keep={1: kept}):
        closed = output(model)
        assert torch.equal(one.hard(1), kept)
    with torch.no_grad():
        one.logits["1"][1::3] = -OPEN
    assert torch.equal(output(model), closed)


@pytest.mark.parametrize("reads", ["logit", None])
def test_gates_train_at_a_rate_of_their_own_without_decay(reads: str | None, tmp_path: Path) -> None:
    recipe = {"gate": {"reads": reads}}
    made = trainer(str(tmp_path), gates="edges,heads,neurons", weight_decay=0.1, recipe=recipe)
    optimizer = made.create_optimizer()
    own = {id(p) for one in made.gates if isinstance(one, LearnedGates) for p in one.parameters()}
    rates = {
        (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
        if id(weight) in own
    }
    assert rates == ({(made.args.recipe.gate.learning_rate, 0.0)} if reads else set())
    together = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(together) == sorted(id(p) for p in made.model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("kinds", "gate"),
    [(ALL, {}), (("heads", "neurons"), {"uniform": True}), (("edges", "weights"), {"reads": "magnitude"})],
    ids=["all", "uniform", "magnitude"],
)
def test_a_run_on_every_kind_resumes_to_the_uninterrupted_one(
    kinds: tuple[str, ...], gate: dict[str, Any], tmp_path: Path
) -> None:
    def run(name: str) -> Any:
        given = {"gates": list(kinds), "ceiling": "kl=9", "max_steps": 8, "save_total_limit": None}
        return trainer(str(tmp_path / name), **given, recipe={"gate": {"anneal": 0.3, **gate}})

    whole, part = run("whole"), run("part")
    whole.train()
    part.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    for (name, ours), (_, theirs) in zip(
        part.model.named_parameters(), whole.model.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_an_adapter_around_a_gated_matrix_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra gossamer[lora]")
    model, _ = gated("gpt2", "neurons")
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["mlp.c_proj"], fan_in_fan_out=True))
    with pytest.raises(GossamerError, match=r"an adapter on .*mlp.c_proj, which has gates on neurons"):
        SparsityTrainer(adapted, config(str(tmp_path), gates="neurons"), base=build("gpt2"))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_adapters_leave_gated_matrices_out_and_train_beside_them(name: str, tmp_path: Path) -> None:
    """Gates and adapters move, the base's weights do not, and the folder of the adapter computes the same."""
    save_folder(build(name), tmp_path / "base")
    model = load_dense(tmp_path / "base")
    attach_missing(model, ("edges", "heads", "neurons"), Options("eager"))
    before = {key: x.clone() for key, x in model.named_parameters()}
    adapted = add_adapters(model, rank=2)
    wrapped = {key.rpartition(".")[2] for key, x in adapted.named_modules() if hasattr(x, "lora_A")}
    assert wrapped == ({"c_attn"} if name == "gpt2" else {"q_proj", "k_proj", "v_proj"})
    given = {"gates": "edges,heads,neurons", "ceiling": "kl=9", "max_steps": 4}
    made = SparsityTrainer(
        adapted, config(str(tmp_path / "run"), **given), base=build(name),
        train_dataset=rows(64, 1), eval_dataset=rows(8, 2), data_collator=collate_rows,
    )  # fmt: skip
    made.train()
    made._load_from_checkpoint(str(tmp_path / "run" / "checkpoint-4"))
    after = {key.replace(".base_layer", ""): x for key, x in model.named_parameters()}
    for key, old in before.items():
        assert torch.equal(old, after[key]) != ("_gates.logits" in key), key
    assert all(bool((x != 0).any()) for key, x in adapted.named_parameters() if "lora_B" in key)
    save_adapter(adapted, tmp_path / "adapter")
    again = load(tmp_path / "adapter", impl="eager")
    assert find_gate_sets(again).kinds == ("edges", "heads", "neurons")
    torch.testing.assert_close(output(again), output(adapted.eval()))


def test_adapters_beside_gates_on_every_matrix_are_refused() -> None:
    pytest.importorskip("peft", reason="needs the extra gossamer[lora]")
    model, _ = gated("llama", "weights")
    with pytest.raises(
        UnsupportedModel, match="has no linear layers without gates inside its attention modules"
    ):
        add_adapters(model, rank=2)


def test_layers_that_run_many_times_are_refused_by_name() -> None:
    for kind in KINDS:
        with pytest.raises(UnsupportedModel, match="AlbertForMaskedLM"):
            attach_missing(build("albert"), (kind,), Options("eager"))


def test_quantised_weights_are_refused_by_name() -> None:
    model = build("llama")
    for layer in model.model.layers:
        held = layer.self_attn.o_proj
        held.weight = torch.nn.Parameter(held.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModel, match=r"gates on heads of .*o_proj, whose weight is quantised"):
        HeadGates().attach(ModelHost(model))
