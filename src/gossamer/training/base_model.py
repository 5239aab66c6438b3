"""The frozen base model that a sparse one is compared with, and what makes the two comparable.

The base is a copy, or the model's own weights without adapters. Dropout in the sparse model alone would be a
divergence that no gate causes and no multiplier can bring down: 0.1 in MiniLM costs a cosine of 0.04 with every gate
open (LOG.md).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedModel

from ..errors import GossamerWarning, UnsupportedModel, refuse
from ..gates.gate_sets import GateSets
from ..models.checkpoint import require_whole
from ..models.gate_block import blocks_of

# Rates that models apply through torch.nn.functional, and the chance of leaving out a whole layer.
RATES = ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "layerdrop")


def frozen_base(
    model: PreTrainedModel, base: nn.Module | None, *, gated: bool, needed: bool, use_cache: bool = False
) -> nn.Module | None:
    """The model to compare with: `base` if given, else a copy of `model`; None where none is needed.

    Args:
        use_cache: as the Trainer sets it in the model; with a cache, packed rows are not told apart.
    """
    if not needed:
        return None
    if base is None and gated:
        warnings.warn(
            "a gated model without base=...: batches must carry base_output", GossamerWarning, stacklevel=3
        )
        return None
    if base is model:
        raise refuse("base is the model itself", "a separate dense model", "pass a copy, or leave it out")
    frozen = copy.deepcopy(model) if base is None else base
    for part in frozen.modules():
        if isinstance(part, PreTrainedModel):
            part.config.use_cache = use_cache
    return frozen.eval().requires_grad_(False)


def make_comparable(model: PreTrainedModel, *, gated: bool) -> None:
    """Turn off the dropout of a model that is about to be made sparse, and say so.

    The ceiling is on the model as it is used, and dropout alone may miss it.

    Raises: `UnsupportedModel` for a gated checkpoint that was loaded dense: its base is another model.
    """
    if not gated and blocks_of(model.config.__dict__, type(model).__name__):
        raise refuse(
            "a model saved with gates but loaded without them would be taken for a dense base",
            "a dense model, or a gated one",
            "load it with gossamer.load(path)",
            UnsupportedModel,
        )
    require_whole(model)
    rate = without_dropout(model)
    if rate:
        message = f"dropout {rate:g} is off in this run, for it would count as divergence from the base model"
        warnings.warn(message, GossamerWarning, stacklevel=3)


def without_dropout(model: nn.Module) -> float:
    """Turn off every dropout in `model`, in place and for this process; its config keeps what it says.

    Reads `nn.Dropout` and its kin, and the rates that transformers keeps as numbers on its modules.
    Returns: the largest rate there was.
    """
    largest = 0.0
    for module in model.modules():
        names = ["p"] if isinstance(module, _DropoutNd) else [n for n in RATES if n in module.__dict__]
        for name in names:
            rate = getattr(module, name)
            if isinstance(rate, int | float) and not isinstance(rate, bool):
                largest = max(largest, float(rate))
                setattr(module, name, 0.0)
    return largest


class OpenBase(nn.Module):
    """The base model inside a model with adapters: adapters off, gates open, nothing drawn; no second copy.

    Args:
        model: a PEFT model whose own weights are frozen.
        gates: its gates.
    """

    def __init__(self, model: Any, gates: GateSets) -> None:
        super().__init__()
        self._seen = (model, gates)  # in a tuple, so that the model is not registered as a part of this one

    @torch.no_grad()
    def forward(self, **inputs: Any) -> Any:
        """The base model's output."""
        model, gates = self._seen
        training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            with gates.opened(), model.disable_adapter():
                return model(**inputs)
        finally:
            for module in training:
                module.training = True
