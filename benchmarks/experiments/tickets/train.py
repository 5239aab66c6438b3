"""Training one arm: plain steps on the same batches with the same optimizer, and the curve of what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments, get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

State = dict[str, Tensor]


@dataclass
class Trained:
    """What training left.

    Attributes:
        curve: [step, loss, exact] on unseen data, at every evaluation.
        states: by step, the weights that were asked for.
    """

    curve: list[list[float]]
    states: dict[int, State] = field(default_factory=dict)


def state_of(model: Any) -> State:
    """A copy of a model's weights, without those of gates."""
    return {name: x.detach().clone() for name, x in model.state_dict().items() if "_gates." not in name}


def optimizer_of(model: Any, arguments: TrainingArguments) -> torch.optim.Optimizer:
    """AdamW as the Trainer makes it: biases and norms get no decay."""
    names = set(get_parameter_names(model, [torch.nn.LayerNorm], ["bias", "layernorm", "_gates"]))
    named = [(name, x) for name, x in model.named_parameters() if x.requires_grad]
    groups = [
        {"params": [x for name, x in named if name in names], "weight_decay": arguments.weight_decay},
        {"params": [x for name, x in named if name not in names], "weight_decay": 0.0},
    ]
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    return torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=betas, eps=arguments.adam_epsilon)


def train(
    model: Any,
    arguments: TrainingArguments,
    batch: Callable[[int], dict[str, Tensor]],
    evaluate: Callable[[Any], tuple[float, float]],
    *,
    first: int = 0,
    every: int,
    keep: tuple[int, ...] = (),
) -> Trained:
    """Train to `arguments.max_steps` from step `first`, whose place in the schedule and the data is kept.

    Args:
        batch: the batch of a step, the same for every arm.
        evaluate: (loss, exact) on unseen data.
        every: steps between evaluations.
        keep: steps after which the weights are returned.
    """
    torch.manual_seed(arguments.seed)  # dropout draws from here
    steps, found = arguments.max_steps, Trained([])
    optimizer = optimizer_of(model, arguments)
    options = arguments.lr_scheduler_kwargs if isinstance(arguments.lr_scheduler_kwargs, dict) else None
    warmup = int(arguments.warmup_steps)
    schedule = get_scheduler(arguments.lr_scheduler_type, optimizer, warmup, steps, options)
    for step in range(steps + 1):
        if step >= first and (step % every == 0 or step == steps):
            found.curve.append([step, *(float(f"{x:.5g}") for x in evaluate(model.eval()))])
        if step in keep:
            found.states[step] = state_of(model)
        if step == steps:
            return found
        if step >= first:
            model.train()(**batch(step)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
        optimizer.step()  # nothing, before there is a gradient
        optimizer.zero_grad()
        schedule.step()
    raise AssertionError("the last step returns")
