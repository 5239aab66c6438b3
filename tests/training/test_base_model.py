"""What makes a sparse model comparable with its base: the same weights, and no dropout in one of the two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import GossamerWarning
from gossamer.models.attach import attach
from gossamer.training.base_model import without_dropout
from gossamer.training.config import SparsityConfig
from gossamer.training.sparsify import sparsify
from gossamer.training.trainer import SparsityTrainer
from helpers import zoo


def with_dropout(family: str, rate: float) -> transformers.PreTrainedModel:
    """A tiny model of this family with every dropout that its config knows."""
    model_name, config_name, settings = zoo.ALL[family]
    rates = {name: rate for name in settings if "drop" in name} | {"attention_dropout": rate}
    torch.manual_seed(0)
    return getattr(transformers, model_name)(getattr(transformers, config_name)(**{**settings, **rates}))


def tokens(rows: int) -> torch.Tensor:
    return torch.randint(4, 60, (rows, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "family", ["gpt2", "gpt_neox", "opt", "llama", "bert", "modernbert", "phi", "gemma2"]
)
def test_a_model_without_dropout_trains_as_the_function_it_is(family: str) -> None:
    model, ids = with_dropout(family, 0.5), tokens(4)
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        assert not torch.equal(model.train()(input_ids=ids).logits, expected)
        assert without_dropout(model) == 0.5
        assert torch.equal(model.train()(input_ids=ids).logits, expected)
    assert without_dropout(model) == 0.0
    assert any(value == 0.5 for name, value in model.config.to_dict().items() if "drop" in name)


def test_a_trainer_alone_turns_dropout_off_too(tmp_path: Path) -> None:
    model, rows = with_dropout("gpt2", 0.1), TensorRows(input_ids=tokens(8), labels=tokens(8))
    config = SparsityConfig(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True)
    with pytest.warns(GossamerWarning, match="dropout 0.1 is off in this run") as message:
        SparsityTrainer(model, config, train_dataset=rows, eval_dataset=rows, data_collator=collate_rows)
    assert message[0].filename == __file__, "the warning names the caller's line"
    assert without_dropout(model) == 0.0


def test_a_run_starts_with_no_divergence_and_says_what_it_turned_off(tmp_path: Path) -> None:
    model, rows = with_dropout("gpt2", 0.1), TensorRows(input_ids=tokens(8), labels=tokens(8))
    # Gates still open: whatever the first step measures would be something else than sparsity.
    attach(model)
    base = with_dropout("gpt2", 0.1)
    config = SparsityConfig(
        output_dir=str(tmp_path), ceiling="kl=0.01", max_steps=1, recipe={"gate": {"bias": 100.0}}, eval_strategy="no",
        save_strategy="no", logging_steps=1, learning_rate=0.0, remove_unused_columns=False, use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    with pytest.warns(GossamerWarning, match="dropout 0.1 is off in this run"):
        found = sparsify(model, rows, rows, config, base=base, data_collator=collate_rows)
    first = next(entry for entry in found.history if "divergence" in entry)
    assert first["divergence"] == pytest.approx(0.0, abs=1e-6)
