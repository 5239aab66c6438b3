"""What a user asks of the Trainer is done or refused by name: metrics, predictions, evaluation sets, adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gossamer
from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.models.attach import attach, gates_of
from gossamer.training.config import SparsityConfig
from gossamer.training.resume import last_checkpoint
from gossamer.training.sparsify import sparsify
from gossamer.training.trainer import SparsityTrainer
from helpers import zoo

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def rows(n: int = 8, seed: int = 0) -> TensorRows:
    generator = torch.Generator().manual_seed(seed)
    return TensorRows(
        input_ids=torch.randint(4, 90, (n, 6), generator=generator),
        labels=torch.randint(0, 3, (n,), generator=generator),
    )


def config(folder: Path, **given: Any) -> SparsityConfig:
    settings: dict[str, Any] = {
        "ceiling": "kl=0.05",
        "max_steps": 2,
        "eval_steps": 1,
        "save_steps": 1,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "remove_unused_columns": False,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return SparsityConfig(output_dir=str(folder), **{**settings, **given})


def classifier() -> Any:
    return zoo.headed("bert", "sequence", num_labels=3)


def trainer(folder: Path, *, settings: dict[str, Any] | None = None, **given: Any) -> SparsityTrainer:
    data = {"train_dataset": rows(), "eval_dataset": rows(seed=1), "data_collator": collate_rows}
    return SparsityTrainer(classifier(), config(folder, **(settings or {})), **{**data, **given})


def test_predict_returns_what_the_model_says_and_the_labels(tmp_path: Path) -> None:
    made, data = trainer(tmp_path), rows(7, seed=2)
    made.gates.bias = 0.0
    found = made.predict(data)
    with torch.no_grad():
        expected = made.model.eval()(input_ids=data.columns["input_ids"]).logits
    np.testing.assert_allclose(found.predictions, expected.numpy(), atol=1e-5)
    assert found.label_ids.tolist() == data.columns["labels"].tolist()
    assert found.metrics["test_divergence"] > 0


def test_an_answers_head_predicts_both_ends(tmp_path: Path) -> None:
    model, ids = zoo.headed("bert", "answers"), rows().columns["input_ids"]
    data = {"train_dataset": rows(), "eval_dataset": TensorRows(input_ids=ids)}
    made = SparsityTrainer(model, config(tmp_path), data_collator=collate_rows, **data)
    start, end = made.predict(TensorRows(input_ids=ids)).predictions
    assert start.shape == end.shape == (8, 6)


def test_metrics_of_the_user_are_reported(tmp_path: Path) -> None:
    seen = []

    def accuracy(prediction: Any) -> dict[str, float]:
        seen.append(prediction)
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    made = trainer(tmp_path, compute_metrics=accuracy)
    data = rows(seed=1).columns
    with torch.no_grad():
        expected = (
            (made.model.eval()(input_ids=data["input_ids"]).logits.argmax(-1) == data["labels"])
            .float()
            .mean()
        )
    found = made.evaluate()
    assert found["eval_accuracy"] == pytest.approx(float(expected))
    assert seen[0].predictions.shape == (8, 3)
    assert "eval_divergence" in found


@pytest.mark.parametrize("name", ["compute_loss_func", "model_init"])
def test_what_would_replace_the_loss_or_the_model_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(GossamerError, match=f"{name}=classifier: expected"):
        trainer(tmp_path, **{name: classifier})


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_smoothing_factor", 0.1), ("neftune_noise_alpha", 5.0)],
)
def test_settings_that_would_change_what_is_compared_are_refused(
    tmp_path: Path, name: str, value: float
) -> None:
    with pytest.raises(GossamerError, match=f"{name}={value}: expected"):
        trainer(tmp_path, settings={name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("metric_for_best_model", "accuracy"), ("greater_is_better", True)]
)
def test_another_metric_for_the_best_model_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(GossamerError, match=f"{name}={value!r}: expected the score"):
        config(tmp_path, **{name: value})


def test_the_best_model_is_the_scores_and_can_be_left_out(tmp_path: Path) -> None:
    assert config(tmp_path).load_best_model_at_end
    assert config(tmp_path, metric_for_best_model="eval_score").metric_for_best_model == "score"
    assert not config(tmp_path, load_best_model_at_end=False).load_best_model_at_end
    assert not config(tmp_path, save_strategy="no").load_best_model_at_end


def test_several_evaluation_sets_choose_by_all_their_rows(tmp_path: Path) -> None:
    sets = {"one": rows(8, seed=1), "two": rows(4, seed=2)}
    found = sparsify(classifier(), rows(), sets, config(tmp_path), data_collator=collate_rows)
    metrics = found.metrics
    assert found.feasible
    for name in ("divergence", "density", "agreement"):
        together = (8 * metrics[f"one_{name}"] + 4 * metrics[f"two_{name}"]) / 12
        assert metrics[name] == pytest.approx(together, rel=1e-4, abs=1e-9)
    assert found.trainer.state.best_metric == pytest.approx(metrics["score"], rel=1e-5)
    assert sum("eval_two_divergence" in entry for entry in found.history) == sum(
        "eval_divergence" in entry for entry in found.history
    )


def test_a_peft_models_checkpoint_can_be_loaded_again(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = zoo.build("llama")
    base.save_pretrained(tmp_path / "base")
    dense = type(base).from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(dense, peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"]))
    data = TensorRows(input_ids=rows().columns["input_ids"])
    settings = config(tmp_path / "out", learning_rate=1e-2)
    found = sparsify(adapted, data, data, settings, data_collator=collate_rows)
    assert found.feasible
    folder = last_checkpoint(tmp_path / "out")
    assert folder is not None
    again, ids = gossamer.load(folder), data.columns["input_ids"]
    assert gates_of(again).n_layers == 2
    found.trainer._load_from_checkpoint(folder)
    gates_of(found.model).bias = gates_of(again).bias
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, found.model.eval()(input_ids=ids).logits)


def test_adapters_of_add_adapter_are_refused_with_the_reason(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = zoo.build("llama")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"]))
    data = TensorRows(input_ids=rows().columns["input_ids"])
    with pytest.raises(UnsupportedModel, match=r"adapters of model.add_adapter, .*: expected a PeftModel"):
        SparsityTrainer(model, config(tmp_path), train_dataset=data, eval_dataset=data)
    attach(model)
    with pytest.raises(UnsupportedModel, match=r"adapters of model.add_adapter"):
        gossamer.save(model, tmp_path / "saved")
