"""Plain training on rows of tokens, for bases and controls: AdamW, warm-up, a linear fall to 0, gradients clipped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from gossamer.training.divergence import kl_per_item

Loss = Callable[[Tensor], Tensor]


def imitation(model: Any, base: Any) -> Loss:
    """The mean KL of a language model from the base on the same tokens, in nats; controls are finetuned on it."""

    def loss(ids: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = base(input_ids=ids).logits
        return kl_per_item(theirs.flatten(0, 1), model(input_ids=ids).logits.flatten(0, 1)).mean()

    return loss


def train_on_rows(
    model: Any,
    loss: Loss,
    rows: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    batch: int,
    warmup: int,
    seed: int,
    say_every: int,
    bfloat16: bool = False,
) -> None:
    """Train a model in place, in the mode that it is in.

    Args:
        loss: of token ids (batch, length).
        rows: (n, length), shuffled once by `seed`; the same order is repeated when they run out.
        warmup: steps over which the rate rises.
        bfloat16: whether the loss is computed under autocast, on the CPU.
    """
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / warmup, 1 - s / steps))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        pick = order[torch.arange(step * batch, (step + 1) * batch) % len(rows)]
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            value = loss(rows[pick])
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % say_every == 0:
            print(f"step {step} of {steps}, loss {value.item():.4f}", flush=True)
