"""A batch of made-up prompts for the component circuits' tests, and a model with an effect on it."""

from __future__ import annotations

import torch
from torch import nn

from gossamer.circuits.components.component_model import components_of
from gossamer.data.pairs import Batch
from gossamer.models.forward import evaluating, first_output
from helpers.zoo import GROUPED, prompts, tiny

KINDS = ("gpt2", "gpt_neox", "llama", *GROUPED)


def batch(n: int = 3, length: int = 5, metric: str = "logit_difference") -> Batch:
    right, wrong = (torch.zeros(n, 13, dtype=torch.bool) for _ in range(2))
    right[:, 3] = True
    wrong[:, [4, 7]] = True
    ids = prompts(n, length, 1), prompts(n, length, 2)
    return Batch(*ids, right, wrong, metric, "made up", torch.zeros(n, dtype=torch.int64))


def favourable() -> tuple:
    """A batch whose right answers are what the model says on the clean prompts: there is an effect."""
    model = tiny(scale=8.0)
    components, task = components_of(model), batch(n=8)
    with evaluating(model):
        logits = first_output(model, {"input_ids": task.clean})[:, -1]
        other = first_output(model, {"input_ids": task.corrupt})[:, -1]
    right = nn.functional.one_hot((logits - other).argmax(-1), 13).bool()
    wrong = nn.functional.one_hot((other - logits).argmax(-1), 13).bool()
    return components, Batch(task.clean, task.corrupt, right, wrong, task.metric, "made up", task.template)
