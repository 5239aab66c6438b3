"""The trainer: what it penalises, what it refuses, what it keeps."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertForMaskedLM

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import DivergedTraining, GossamerError, GossamerWarning, UnsupportedModel
from gossamer.models.attach import attach, detach, gates_of
from gossamer.recipes.addition.task import Addition
from gossamer.training.arguments import bfloat16_is_native
from gossamer.training.config import SparsityConfig
from gossamer.training.metrics import Tally, counting
from gossamer.training.recipe import Recipe
from gossamer.training.sparsify import sparsify
from gossamer.training.trainer import SparsityTrainer
from helpers.zoo import adder

TASK = Addition(1)


def model() -> BertForMaskedLM:
    return adder()


def rows(n: int = 32) -> TensorRows:
    inputs, labels = TASK.encode(torch.arange(n))
    return TensorRows(input_ids=inputs, labels=labels)


def config(folder: Path, **given: Any) -> SparsityConfig:
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
    }
    recipe = {name.replace("__", "."): given.pop(name) for name in list(given) if "__" in name}
    settings |= {
        "recipe": Recipe().with_settings(recipe),
        "learning_rate": 1e-3,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "ceiling": "kl=0.5",
    }
    return SparsityConfig(output_dir=str(folder), **(settings | given))


def trainer(folder: Path, **given: Any) -> SparsityTrainer:
    made = SparsityTrainer(
        model(),
        config(folder, **given),
        train_dataset=rows(),
        eval_dataset=rows(),
        data_collator=collate_rows,
    )
    made.callback_handler.callbacks = [
        c for c in made.callback_handler.callbacks if type(c).__name__ != "PrinterCallback"
    ]
    return made


@pytest.mark.parametrize(("weight", "slope"), [(0.0, 0.0), (0.5, 0.0), (0.0, 2.0)])
def test_the_loss_is_the_lagrangian(tmp_path: Path, weight: float, slope: float) -> None:
    made = trainer(tmp_path, logits__limit=1.0, logits__weight=weight, gate__layer_price_slope=slope)
    with torch.no_grad():  # logits beyond their limit, so that the third term is there
        for name, value in made.model.named_parameters():
            if ".query." in name or ".key." in name:
                value.mul_(20.0)
    made.gates.bias, made.gates.sampling = 0.3, False
    batch = rows(8).columns
    made.model.train()
    loss = made.compute_loss(made.model, dict(batch))
    gates = gates_of(made.model)
    with gates.using(logit_weight=1.0), gates.recording() as record, torch.no_grad():
        ours = made.model(input_ids=batch["input_ids"]).logits
        theirs = made.base(input_ids=batch["input_ids"]).logits
    p, q = theirs.softmax(-1), ours.softmax(-1)
    divergence = (p * (p / q).log()).sum(-1).mean()
    excess = record.mean_excess()
    assert excess > 0
    first, second = (opened.sum() / record.total_visible() for opened in record.expected)
    objective = first + (1 + slope) * second + weight * excess
    expected = (objective + made.controller.multiplier * divergence) / (1 + made.controller.multiplier)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gates_far_from_opening_are_reached_while_they_learn_and_not_in_evaluation(tmp_path: Path) -> None:
    made = trainer(tmp_path, gate__least_slope=0.2, gate__bias=-60.0)
    made.use_controller()
    slopes = []
    for training in (True, False):
        made.model.train(training).zero_grad()
        made.model(input_ids=rows(8).columns["input_ids"]).logits.square().sum().backward()
        gradient = made.model.bert.encoder.layer[0].attention.self.query.weight.grad
        slopes.append(0.0 if gradient is None else float(gradient.abs().sum()))
    assert slopes[0] > 0
    assert slopes[1] == 0


def test_the_penalty_reaches_queries_and_keys_only(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.gates.bias = 0.0
    made.model.train()
    with made.gates.recording() as (record,):
        made.model(input_ids=rows(8).columns["input_ids"])
    record.expected[0].sum().backward()
    attention = made.model.bert.encoder.layer[0].attention.self
    assert attention.query.weight.grad.abs().sum() > 0
    assert attention.key.weight.grad.abs().sum() > 0
    value = attention.value.weight.grad
    assert value is None or not value.any()


def test_lambda_lies_between_the_clamps_that_a_tight_ceiling_has(tmp_path: Path) -> None:
    bounds: dict[str, Any] = {
        "control__lambda_bounds": (0.5, 1e4),
        "control__final_lambda_bounds": (8.0, 50.0),
    }
    tight: dict[str, Any] = {"ceiling__tighten_from": 0.0, "ceiling__tighten_until": 0.5, "max_steps": 4}
    start: dict[str, Any] = {"ceiling__initial_factor": 2.0, "control__initial_lambda": 0.5}
    made = trainer(tmp_path, ceiling="kl=1e3", **bounds, **tight, **start)
    made.train()  # nothing violates this ceiling, so lambda lies on its floor
    assert made.controller.multiplier == pytest.approx(8.0)


@pytest.mark.parametrize("bounds", [(1e-3, 1e-4), (2e4, 1e4)])
def test_clamps_that_cross_are_refused(tmp_path: Path, bounds: tuple[float, float]) -> None:
    with pytest.raises(GossamerError, match=r"the upper of control.final_lambda_bounds"):
        config(tmp_path, control__final_lambda_bounds=bounds)


def test_nan_is_told_with_its_step(tmp_path: Path) -> None:
    made = trainer(tmp_path, learning_rate=1e3, max_grad_norm=0.0)
    with pytest.raises(
        DivergedTraining, match=r"divergence became .* at step \d: expected finite numbers only. Lower"
    ):
        made.train()


@pytest.mark.parametrize("field", ["activation_checkpointing", "gradient_checkpointing"])
def test_reentrant_checkpointing_is_refused(tmp_path: Path, field: str) -> None:
    if field not in SparsityConfig.__dataclass_fields__:
        pytest.skip(f"this transformers has no {field}; comes back with one that does")
    with pytest.raises(
        GossamerError, match="reentrant gradient checkpointing, which drops the penalty's gradient"
    ):
        config(tmp_path, **{field: True, f"{field}_kwargs": {"use_reentrant": True}})


def test_frozen_queries_and_keys_are_refused(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    for name, parameter in made.model.named_parameters():
        if not name.startswith("cls.predictions.transform"):
            parameter.requires_grad_(False)
    with pytest.raises(GossamerError, match="the penalty has no gradient"):
        made.train()


def test_a_ceiling_that_the_base_itself_misses_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        GossamerError, match=r"ceiling kl=1e-12 on a model that loses .* with every gate open"
    ):
        sparsify(model(), rows(), rows(), config(tmp_path, ceiling="kl=1e-12"), data_collator=collate_rows)


def test_an_unreachable_loss_is_told_and_the_closest_model_kept(tmp_path: Path) -> None:
    result = sparsify(
        model(),
        rows(),
        rows(),
        config(tmp_path, ceiling="loss=1e-6", gate__bias=0.0),
        data_collator=collate_rows,
        callbacks=[type("Silent", (__import__("transformers").TrainerCallback,), {})()],
    )
    assert not result.feasible
    assert "the ceiling loss=1e-06 is missed by" in result.missed
    scores = [entry["eval_score"] for entry in result.history if "eval_score" in entry]
    assert min(scores) > 1
    assert result.metrics["score"] == pytest.approx(min(scores), rel=1e-6)


def test_the_score_prefers_any_feasible_model(tmp_path: Path) -> None:
    made = trainer(tmp_path, min_agreement=0.9)
    dense = made.score({"density": 1.0, "divergence": 0.5, "divergence_se": 0.0, "agreement": 0.9})
    over = made.score({"density": 0.0, "divergence": 0.6, "divergence_se": 0.0, "agreement": 1.0})
    wrong = made.score({"density": 0.0, "divergence": 0.1, "divergence_se": 0.0, "agreement": 0.8})
    assert dense == 1.0 < min(over, wrong)


def test_a_model_that_would_run_dense_is_refused(tmp_path: Path) -> None:
    gated = model()
    attach(gated, bias=0.5)
    stripped = BertForMaskedLM(copy.deepcopy(gated.config))
    with pytest.raises(UnsupportedModel, match="saved with gates but loaded without them"):
        SparsityTrainer(stripped, config(tmp_path), train_dataset=rows(), eval_dataset=rows())


def test_a_gated_model_is_measured_and_saved_as_it_is(tmp_path: Path) -> None:
    gated = model()
    attach(gated, bias=0.25, impl="eager")
    made = SparsityTrainer(
        gated, config(tmp_path), base=model(), eval_dataset=rows(), data_collator=collate_rows
    )
    found = made.evaluate()
    tally = Tally()
    with torch.no_grad(), counting(gates_of(gated), tally):
        gated(input_ids=rows().columns["input_ids"])
    assert found["eval_density"] == pytest.approx(tally.mean("density")[0])
    made.save_model(str(tmp_path / "saved"))
    assert gated.config.edge_gates["bias"] == 0.25


@pytest.mark.parametrize(
    ("own", "asked", "start"), [(math.inf, None, 4.0), (0.25, None, 0.25), (0.25, 3.0, 3.0)]
)
def test_training_starts_from_the_bias_asked_for_or_from_the_models_own(
    tmp_path: Path, own: float, asked: float | None, start: float
) -> None:
    seen: list[float] = []
    gated = model()
    attach(gated, bias=own, impl="eager")
    made = SparsityTrainer(
        gated,
        config(tmp_path, gate__bias=asked, eval_strategy="no"),
        base=model(),
        train_dataset=rows(),
        data_collator=collate_rows,
    )
    with gates_of(gated).observing(lambda call: seen.append(made.gates.bias)):
        made.train()
    assert seen[0] == start


class Waits(TorchDispatchMode):
    """Counts the reads of a number from its device, each of which waits for everything before it."""

    n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_micro_batch_waits_for_its_device_as_often_whatever_the_number_of_layers(tmp_path: Path) -> None:
    found = []
    for layers in (1, 4):
        deep = adder(layers=layers)
        made = SparsityTrainer(
            deep, config(tmp_path, eval_strategy="no"), train_dataset=rows(), data_collator=collate_rows
        )
        deep.train()
        with Waits() as waits:
            made.compute_loss(deep, dict(rows(8).columns)).backward()
        found.append(waits.n)
    assert found[0] == found[1]


def test_open_gates_are_the_base_model_bit_for_bit() -> None:
    dense, gated = model().eval(), model().eval()
    dense.set_attn_implementation("eager")
    attach(gated, bias=math.inf, impl="eager")
    inputs = rows(8).columns["input_ids"]
    with torch.no_grad():
        assert torch.equal(dense(input_ids=inputs).logits, gated(input_ids=inputs).logits)
    detach(gated, implementation="eager")
    with torch.no_grad():
        assert torch.equal(dense(input_ids=inputs).logits, gated(input_ids=inputs).logits)
    with pytest.raises(UnsupportedModel, match="has no gates"):
        gates_of(gated)


def test_bfloat16_without_instructions_for_it_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = "gossamer.training.arguments.bfloat16_is_native"
    monkeypatch.setattr(native, lambda: False)
    with pytest.warns(GossamerWarning, match="bfloat16 on this CPU.*pass --precision fp32"):
        trainer(tmp_path / "slow", bf16=True, use_cpu=True)
    trainer(tmp_path / "plain", use_cpu=True)
    monkeypatch.setattr(native, lambda: True)
    trainer(tmp_path / "fast", bf16=True, use_cpu=True)


def test_a_torch_without_onednn_has_no_native_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not bfloat16_is_native()
