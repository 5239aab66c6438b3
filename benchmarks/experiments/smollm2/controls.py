"""What the same steps give without the method: top-k that was trained, and finetuning without gates."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gossamer.gates.top_k import TopKGates
from gossamer.models.attach import attach
from gossamer.training.divergence import kl_per_item

Loss = Callable[[Tensor], Tensor]


def trained(model: Any, loss: Loss, rows: Tensor, *, steps: int, batch: int, rate: float, seed: int) -> Any:
    """AdamW on a loss of token ids, bfloat16 autocast, ten warm-up steps and a linear fall to 0, as the runs have."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 10, 1 - s / steps))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        pick = order[torch.arange(step * batch, (step + 1) * batch) % len(rows)]
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(rows[pick])
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step} of {steps}, loss {value.item():.4f}", flush=True)
    return model.eval()


def recovered(base: Any, rows: Tensor, *, k: int, **how: Any) -> Any:
    """A copy of the base that reads its k largest keys a query and head, finetuned to the base's outputs."""
    model = copy.deepcopy(base).requires_grad_(True)
    attach(model, gates=TopKGates(k=k), check=False, impl="eager")

    def loss(ids: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = base(input_ids=ids).logits
        return kl_per_item(theirs.flatten(0, 1), model(input_ids=ids).logits.flatten(0, 1)).mean()

    return trained(model, loss, rows, **how)


def finetuned(base: Any, rows: Tensor, **how: Any) -> Any:
    """A copy of the base, finetuned on the text without gates and without a penalty."""
    model = copy.deepcopy(base).requires_grad_(True)
    return trained(model, lambda ids: model(input_ids=ids, labels=ids).loss, rows, **how)
