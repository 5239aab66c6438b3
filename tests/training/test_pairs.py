"""The base and the sparse model see the same pairs of a batch, and packed sequences apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import UnsupportedModel
from gossamer.models.forward import first_output, probe_inputs
from gossamer.training.pairs import SamePairs, most_pairs, visible_pairs
from gossamer.training.trainer import SparsityTrainer
from helpers import zoo
from helpers.run_tiny import config

LONG, SHORT = 7, 5
# What transformers itself does not tell apart by positions: these read a packed row as one sequence.
READ_AS_ONE = ("opt", "gpt_oss")


def ids(rows: int = 4) -> Tensor:
    return torch.randint(4, zoo.VOCABULARY, (rows, LONG + SHORT), generator=torch.Generator().manual_seed(0))


def places(rows: int = 4) -> Tensor:
    return torch.cat([torch.arange(LONG), torch.arange(SHORT)]).expand(rows, -1)


def packed(rows: int = 4) -> TensorRows:
    return TensorRows(input_ids=ids(rows), position_ids=places(rows), labels=ids(rows))


def trainer(family: str, out: Path, data: TensorRows | None = None, **options: Any) -> SparsityTrainer:
    data = packed() if data is None else data
    given = {"train_dataset": data, "eval_dataset": data, "data_collator": collate_rows}
    settings = {
        "max_steps": 1,
        "gradient_accumulation_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
    }
    settings |= {"load_best_model_at_end": False}
    base = options.pop("base", None)
    return SparsityTrainer(zoo.build(family), config(str(out), **settings, **options), base=base, **given)


@pytest.mark.parametrize("family", [name for name in zoo.DECODERS if name not in READ_AS_ONE])
def test_base_and_sparse_model_read_packed_sequences_apart(family: str, tmp_path: Path) -> None:
    """Both, in training and in evaluation, give each sequence the outputs that it has alone."""
    run = trainer(family, tmp_path)
    inputs = {"input_ids": ids(), "position_ids": places()}
    with torch.no_grad():
        apart = [first_output(run.base, {"input_ids": x}) for x in ids().split((LONG, SHORT), dim=1)]
        torch.testing.assert_close(run._base_output(inputs), torch.cat(apart, 1), rtol=1e-4, atol=1e-4)
    assert run.evaluate()["eval_kl"] == pytest.approx(0.0, abs=1e-6)
    seen = visible_pairs(run.model, inputs)
    parts = (visible_pairs(run.model, {"input_ids": x}) for x in ids().split((LONG, SHORT), dim=1))
    assert torch.equal(seen, sum(parts))
    assert torch.equal(seen, visible_pairs(run.base, inputs))


@pytest.mark.parametrize("family", READ_AS_ONE)
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_an_architecture_that_reads_packed_rows_as_one_is_refused(
    family: str, verb: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match="does not read as sequences apart") as error:
        getattr(trainer(family, tmp_path), verb)()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_positions_beside_an_attention_mask_are_not_read_as_packing(family: str, tmp_path: Path) -> None:
    rows = TensorRows(**packed().columns, attention_mask=torch.ones_like(ids()))
    with pytest.raises(UnsupportedModel, match="without attention_mask"):
        trainer(family, tmp_path, rows).evaluate()


def test_left_padding_with_positions_of_its_own_is_not_packing(tmp_path: Path) -> None:
    mask = torch.ones_like(ids())
    mask[1, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    assert most_pairs(zoo.build("llama"), {"position_ids": positions, "attention_mask": mask}) is None
    rows = TensorRows(input_ids=ids(), position_ids=positions, attention_mask=mask, labels=ids())
    assert trainer("llama", tmp_path, rows).evaluate()["eval_kl"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_base_that_sees_other_pairs_is_refused(verb: str, tmp_path: Path) -> None:
    """A base whose window is wider."""
    base = zoo.build("mistral")
    base.config.sliding_window = 9
    with pytest.raises(
        UnsupportedModel, match=r"the base model sees \d+ pairs of a batch and the sparse one \d+"
    ) as error:
        getattr(trainer("mistral", tmp_path, base=base), verb)()
    assert "\n" not in str(error.value)


def test_each_form_of_batch_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr("gossamer.training.pairs.visible_pairs", lambda *_: looked.append(1))
    model, pairs = zoo.build("llama"), SamePairs()
    for given in ({}, {}, {"position_ids": places()}, {"position_ids": places()}):
        pairs.require(model, None, {"input_ids": ids(), **given})
    assert len(looked) == 2


@pytest.mark.parametrize("family", [*zoo.ALL])
def test_looking_leaves_a_base_as_it_was(family: str) -> None:
    model = zoo.build(family)
    before, inputs = str(model.config), probe_inputs(model)
    seen = visible_pairs(model, inputs)
    assert seen.shape == (2, 2, 4)
    assert str(model.config) == before
