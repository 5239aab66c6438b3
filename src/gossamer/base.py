"""The frozen base model that a sparse one is compared with: a copy, or its own weights without adapters."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .errors import GossamerWarning, refuse
from .modeling import Gates


def frozen_base(
    model: PreTrainedModel, base: nn.Module | None, gates: Gates | None, *, needed: bool
) -> nn.Module | None:
    """The model to compare with: `base` if given, else a copy of `model`; None where none is needed."""
    if not needed:
        return None
    if base is None and gates is not None:
        warnings.warn(
            "a gated model without base=...: batches must carry base_output", GossamerWarning, stacklevel=3
        )
        return None
    if base is model:
        raise refuse(
            "base is the model itself", "possible: a separate dense model", "pass a copy, or leave it out"
        )
    frozen = copy.deepcopy(model) if base is None else base
    return frozen.eval().requires_grad_(False)


class OpenBase(nn.Module):
    """The base model inside a model with adapters: adapters off, gates open, nothing drawn; no second copy.

    Args:
        model: a PEFT model whose own weights are frozen.
        gates: its gates.
    """

    def __init__(self, model: Any, gates: Gates) -> None:
        super().__init__()
        self._seen = (model, gates)  # in a tuple, so that the model is not registered as a part of this one

    @torch.no_grad()
    def forward(self, **inputs: Any) -> Any:
        """The base model's output."""
        model, gates = self._seen
        training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            with gates.using(bias=math.inf, sampling=False), model.disable_adapter():
                return model(**inputs)
        finally:
            for module in training:
                module.training = True
