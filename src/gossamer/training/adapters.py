"""Low-rank adapters on the projections that gates need, whatever an architecture calls them.

A gate reads the logit q k, so an adapter that leaves the key projection out, as PEFT's defaults do, cannot
move half of what it should. The names are found in the model at hand: the linear layers inside its attention
modules, with the modules' path where a name also occurs outside (GPT-2 has a `c_proj` in its MLP as well).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UnsupportedModel, refuse, require_range
from ..gates.gate_sets import GateSets
from ..gates.learned import LearnedGates
from ..models.anatomy import Anatomy
from ..models.attach import gate_sets_of


def add_adapters(model: PreTrainedModel, *, rank: int, alpha: float | None = None) -> Any:
    """Wrap a gated model in LoRA adapters on its attention projections; its own weights are frozen, its gates not.

    A projection whose matrix has gates, as the output projection has with gates on heads, gets none: an adapter would
    pass closed units by.

    Args:
        rank: of the adapters, from 1.
        alpha: LoRA's scale; twice the rank by default (assumed, a common choice).
    Raises: `GossamerError` where peft is not installed, `UnsupportedModel` where attention has no linear layers.
    """
    require_range("LoRA rank", rank, 1, 4096)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise refuse(
            "peft is not installed", "the extra gossamer[lora]", "run pip install 'gossamer[lora]'"
        ) from error
    sets = gate_sets_of(model)
    anatomy = Anatomy.of(model)
    transposed = any(isinstance(module, Conv1D) for layer in anatomy for module in layer.linears.values())
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,  # type: ignore[arg-type]  # a float will do
        target_modules=targets(anatomy, gated_matrices(sets)),
        fan_in_fan_out=transposed,  # GPT-2 stores weights as (in, out)
    )
    adapted = get_peft_model(model, config)  # which freezes everything else
    for _, parameter in sets.named_parameters():
        parameter.requires_grad_(True)
    return adapted


def gated_matrices(sets: GateSets) -> set[nn.Module]:
    """The linear layers whose weight has gates."""
    learned = (one for one in sets if isinstance(one, LearnedGates))
    return {mask.module for one in learned for masks in one.places.values() for mask in masks}


def targets(anatomy: Anatomy, gated: Collection[nn.Module] = ()) -> list[str]:
    """PEFT target names of every linear layer inside the attention modules that is not gated, e.g. `attn.c_attn`.

    Raises: `UnsupportedModel` where attention has none (projections made elsewhere, or gates on all of them).
    """
    found = {
        f"{layer.path.rpartition('.')[2]}.{name}"
        for layer in anatomy
        for name, module in layer.linears.items()
        if module not in gated
    }
    if not found:
        raise refuse(
            f"{type(anatomy.model).__name__} has no linear layers{' without gates' if gated else ''} inside its "
            "attention modules",
            "a model with some",
            "leave out --lora",
            UnsupportedModel,
        )
    return sorted(found)
