"""What the same steps give without the method: top-k that was trained, and finetuning without gates."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from benchmarks.lib.training import Loss, imitation, train_on_rows
from gossamer.gates.top_k import TopKGates
from gossamer.models.attach import attach
from gossamer.training.arguments import bfloat16_is_native


def trained(model: Any, loss: Loss, rows: Tensor, *, steps: int, batch: int, rate: float, seed: int) -> Any:
    """AdamW without weight decay on a loss of token ids, with ten warm-up steps, as the runs have.

    In bfloat16 where the CPU has it.
    """
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate, weight_decay=0.0)
    train_on_rows(
        model, loss, rows, optimizer,
        steps=steps, batch=batch, warmup=10, seed=seed, say_every=10, bfloat16=bfloat16_is_native(),
    )  # fmt: skip
    return model.eval()


def recovered(base: Any, rows: Tensor, *, k: int, **how: Any) -> Any:
    """A copy of the base that reads its k largest keys a query and head, finetuned to the base's outputs."""
    model = copy.deepcopy(base).requires_grad_(True)
    attach(model, gates=TopKGates(k=k), check=False, impl="eager")
    return trained(model, imitation(model, base), rows, **how)


def finetuned(base: Any, rows: Tensor, **how: Any) -> Any:
    """A copy of the base, finetuned on the text without gates and without a penalty."""
    model = copy.deepcopy(base).requires_grad_(True)
    return trained(model, lambda ids: model(input_ids=ids, labels=ids).loss, rows, **how)
