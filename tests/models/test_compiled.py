"""A compiled model is the model: in training, in evaluation, and in a run that compiles it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.models.attach import attach, gates_of
from gossamer.training.config import SparsityConfig
from gossamer.training.sparsify import sparsify
from helpers import zoo

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore"),
]  # compiles models; the compiler's own, on torch's internals


def tokens(rows: int) -> torch.Tensor:
    return torch.randint(4, 90, (rows, 10), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_it_computes_the_same_with_the_same_gradients_whatever_the_bias(family: str, training: bool) -> None:
    model, ids = zoo.build(family).train(training), tokens(3)
    gates = attach(model, bias=1.0)
    compiled = torch.compile(model, backend="eager")
    for bias in (1.0, 0.0):
        gates.bias, found = bias, []
        for run in (model, compiled):
            model.zero_grad()
            with gates.recording() as seen:
                output = run(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            (output.square().mean() + seen.density()).backward()
            found.append(
                (output.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None])
            )
        torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("family", ["bert"])
def test_a_run_that_compiles_its_model_ends_as_one_that_does_not(tmp_path: Path, family: str) -> None:
    found, rows = [], TensorRows(input_ids=tokens(16), labels=tokens(16))
    for compiled in (False, True):
        args = SparsityConfig(
            output_dir=str(tmp_path / str(compiled)), torch_compile=compiled,
            torch_compile_backend="eager" if compiled else None,
            max_steps=3, eval_steps=1, save_steps=1, logging_steps=1, per_device_train_batch_size=4,
            remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        outcome = sparsify(zoo.build(family), rows, rows, args, data_collator=collate_rows)
        assert gates_of(outcome.model).n_layers == 2
        found.append([entry["divergence"] for entry in outcome.history if "divergence" in entry])
        found[-1] += [outcome.metrics[name] for name in ("density", "divergence")]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
