"""The last cut of a run: as deep as the ceiling allows, no deeper, and in the precision that a model is loaded in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gossamer import SparsityConfig, sparsify
from gossamer.data.sequences import TensorRows
from gossamer.models.forward import evaluating, first_output
from gossamer.training.last_cut import PARTS
from gossamer.training.trainer import SparsityTrainer
from helpers import zoo

DEEPEST = 2.0  # nats


def run(out: Path, cut: float = DEEPEST, resume: bool = False, **more: Any) -> Any:
    ids = torch.randint(3, zoo.VOCABULARY, (16, 8), generator=torch.Generator().manual_seed(0))
    rows = TensorRows(input_ids=ids, labels=ids.clone())
    settings: dict[str, Any] = {
        "ceiling": "kl=1e-4", "max_steps": 4, "eval_steps": 2, "save_steps": 2, "logging_steps": 1,
        "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True,
        "recipe": {"gate": {"last_cut": cut, "reads": "weight", "noise_until": 0.0}}, **more,
    }  # fmt: skip
    config = SparsityConfig(output_dir=str(out), **settings)
    return sparsify(zoo.build("gpt2"), rows, rows, config, resume=resume)


def score(outcome: Any, lower: float = 0.0) -> tuple[float, float]:
    """Score and density of the model that was kept, with its bias so many nats lower."""
    gates = outcome.trainer.gates
    gates.bias -= lower
    try:
        found = outcome.trainer.evaluate()
    finally:
        gates.bias += lower
    return found["eval_score"], found["eval_density"]


@pytest.mark.integration
def test_a_cut_goes_as_deep_as_the_ceiling_allows_and_no_deeper(tmp_path: Path) -> None:
    whole, cut = run(tmp_path / "whole", cut=0.0), run(tmp_path / "cut")
    depth = cut.trainer.last_cut
    assert 0 < depth <= DEEPEST
    assert cut.trainer.gates.bias == pytest.approx(whole.trainer.gates.bias - depth)
    assert cut.feasible
    assert score(cut)[0] <= 1
    assert score(cut)[1] < score(whole)[1]
    assert depth == DEEPEST or score(cut, lower=DEEPEST / PARTS)[0] > 1
    assert cut.ended == f"{whole.ended}; then the gate bias fell by {depth:.3g} nats more"
    assert [set(entry) for entry in cut.history] == [set(entry) for entry in whole.history]


@pytest.mark.integration
def test_a_run_that_was_killed_in_its_cut_resumes_to_the_same_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = run(tmp_path / "uninterrupted")
    asked: list[str] = []

    def killed(trainer: SparsityTrainer, *args: Any, **given: Any) -> dict[str, float]:
        asked.append(given.get("metric_key_prefix", "eval"))
        if asked.count("cut") == 3:
            raise KeyboardInterrupt
        return evaluate(trainer, *args, **given)

    evaluate = SparsityTrainer.evaluate
    monkeypatch.setattr(SparsityTrainer, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    monkeypatch.undo()
    resumed = run(tmp_path / "killed", resume=True)
    assert resumed.trainer.gates.bias == uninterrupted.trainer.gates.bias
    assert resumed.trainer.last_cut == uninterrupted.trainer.last_cut
    assert resumed.ended == uninterrupted.ended


@pytest.mark.integration
@pytest.mark.parametrize(
    "why",
    [
        {"cut": 0.0},
        {"ceiling": "loss=0.01"},  # which the model misses
        {"gates": "heads"},
        {"max_minutes": 1e-4},
    ],
    ids=["not asked for", "missed", "no gates on edges", "no time"],
)
def test_nothing_is_cut_where_there_is_no_call_for_it(tmp_path: Path, why: dict[str, Any]) -> None:
    found = run(tmp_path, **why)
    assert found.trainer.last_cut == 0
    assert "fell by" not in found.ended


@pytest.mark.integration
def test_what_is_told_of_a_model_trained_in_bfloat16_is_of_its_own_weights(tmp_path: Path) -> None:
    found = run(tmp_path, bf16=True)
    ids = torch.randint(3, zoo.VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(1))
    model = found.model
    with evaluating(model):
        plain = type(model).forward(model, input_ids=ids).logits
        assert torch.equal(first_output(model, {"input_ids": ids}), plain)
    base = found.trainer._base_output({"input_ids": ids})
    assert base is not None
    assert torch.equal(base, found.trainer.base(input_ids=ids).logits)
