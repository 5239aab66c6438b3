"""A run begins inside its ceiling: the untrained model is kept before it trains, and may be what comes back."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import GossamerError
from gossamer.gates.reads import READS
from gossamer.models.attach import attach, gates_of
from gossamer.recipes.addition.task import Addition
from gossamer.training.config import SparsityConfig
from gossamer.training.recipe import Recipe
from gossamer.training.resume import is_whole, read_state
from gossamer.training.sparsify import Outcome, sparsify
from gossamer.training.trainer import SparsityTrainer
from helpers.zoo import adder

pytestmark = pytest.mark.integration  # whole runs

TASK = Addition(1)


def rows(n: int = 64) -> TensorRows:
    inputs, labels = TASK.encode(torch.arange(n))
    return TensorRows(input_ids=inputs, labels=labels)


def run(folder: Path, model: Any = None, *, base: Any = None, steps: int = 4, **given: Any) -> Outcome:
    recipe = {name.replace("__", "."): given.pop(name) for name in list(given) if "__" in name}
    settings = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "eval_steps": 2,
        "save_steps": 2,
        "ceiling": "kl=0.05",
        "recipe": Recipe().with_settings(recipe),
        "learning_rate": 1e-3,
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
    return sparsify(
        adder() if model is None else model,
        rows(),
        rows(),
        SparsityConfig(**(settings | given)),
        base=base,
        data_collator=collate_rows,
        callbacks=[TrainerCallback()],
    )


def test_the_untrained_model_is_kept_first_and_holds_a_share_of_the_ceiling(tmp_path: Path) -> None:
    result = run(tmp_path, save_total_limit=None)
    assert is_whole(tmp_path / "checkpoint-0")
    first = next(entry for entry in result.history if "eval_divergence" in entry)
    assert first["step"] == 0
    assert first["eval_divergence"] <= 0.05
    state = read_state(tmp_path / "checkpoint-0")
    assert math.isfinite(state["bias"])
    assert state["controller"]["bias"] == state["bias"]  # training starts where it was measured


def test_a_run_that_breaks_its_model_gives_back_the_untrained_one_inside_the_ceiling(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = adder()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    result = run(tmp_path, base, learning_rate=3.0, gate__bias=-20.0)
    assert result.feasible
    assert result.step == 0
    assert result.metrics["divergence"] <= 0.05
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Training started at the recipe's bias; the model that is kept has its own.
    assert gates_of(result.model).bias == read_state(tmp_path / "checkpoint-0")["bias"] > -20.0


@pytest.mark.parametrize("bias", [None, -4.0])
def test_keeping_the_first_model_changes_nothing_of_what_is_trained(
    tmp_path: Path, bias: float | None
) -> None:
    fixed = {"gate__bias": 2.0 if bias is None else bias, "control__initial_lambda": 1.0}
    kept, not_kept = (
        run(tmp_path / name, **fixed, save_strategy="steps" if name == "kept" else "no")
        for name in ("kept", "not")
    )
    losses = [[x["loss"] for x in r.history if "loss" in x] for r in (kept, not_kept)]
    assert losses[0] == losses[1]


def test_gates_read_what_leaves_fewer_units_open_at_the_start(tmp_path: Path) -> None:
    result = run(tmp_path, save_total_limit=None)
    assert set(result.starts) == set(READS)
    first, second = result.starts.values()
    assert first.density <= second.density
    reads = next(iter(result.starts))
    assert gates_of(result.model).reads == reads
    state = read_state(tmp_path / "checkpoint-2")
    assert state["reads"] == reads
    assert set(state["starts"]) == set(READS)
    assert state["controller"]["price"] == first.multiplier


@pytest.mark.parametrize(
    ("given", "reads"), [({"gate__bias": 4.0}, "logit"), ({"gate__reads": "weight"}, "weight")]
)
def test_a_reading_or_a_bias_that_is_given_leaves_no_choice(
    tmp_path: Path, given: dict[str, Any], reads: str
) -> None:
    result = run(tmp_path, **given)
    assert list(result.starts) == [reads]
    assert gates_of(result.model).reads == reads


def test_a_resumed_run_reads_what_it_started_with(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", steps=4, save_total_limit=None)
    again = adder()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "part" / "checkpoint-2")
    trainer = SparsityTrainer(
        again,
        replace(whole.trainer.args, output_dir=str(tmp_path / "part")),
        train_dataset=rows(),
        eval_dataset=rows(),
        data_collator=collate_rows,
    )
    trainer.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-2"))
    assert trainer.gates.reads == whole.trainer.gates.reads
    assert trainer.controller.state_dict() == whole.trainer.controller.state_dict()
    assert trainer.controller.recipe == whole.trainer.controller.recipe


def test_a_gated_model_starts_at_its_own_bias(tmp_path: Path) -> None:
    model = adder()
    base = adder()
    base.load_state_dict(model.state_dict())
    attach(model, bias=3.0)
    result = run(tmp_path, model, base=base, steps=2, ceiling="kl=5", save_total_limit=None)
    assert read_state(tmp_path / "checkpoint-0")["bias"] == 3.0
    assert result.feasible


def test_another_model_as_base_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    torch.manual_seed(1)
    with pytest.raises(
        GossamerError, match=r"loses .* with every gate open: expected a ceiling that the base"
    ):
        run(tmp_path, base=adder(seed=1), steps=2, ceiling="kl=1e-6")
    assert not list(tmp_path.glob("checkpoint-*"))
