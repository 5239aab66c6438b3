"""Low-rank adapters on the projections that gates need, whatever an architecture calls them.

A gate reads the logit q k, so an adapter that leaves the key projection out, as PEFT's defaults do, cannot
move half of what it should. The names are found in the model at hand: the linear layers inside its attention
modules, with the modules' path where a name also occurs outside (GPT-2 has a `c_proj` in its MLP as well).
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UnsupportedModel, refuse, require_range
from ..models.anatomy import Anatomy
from ..models.attach import gate_sets_of


def add_adapters(model: PreTrainedModel, *, rank: int, alpha: float | None = None) -> Any:
    """Wrap a gated model in LoRA adapters on all attention projections; its own weights are frozen, its gates not.

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
        target_modules=targets(anatomy),
        fan_in_fan_out=transposed,  # GPT-2 stores weights as (in, out)
    )
    adapted = get_peft_model(model, config)  # which freezes everything else
    for _, parameter in sets.named_parameters():
        parameter.requires_grad_(True)
    return adapted


def targets(anatomy: Anatomy) -> list[str]:
    """PEFT target names of every linear layer inside the attention modules, e.g. `attn.c_attn`.

    Raises: `UnsupportedModel` where attention has none (projections made elsewhere).
    """
    found = {f"{layer.path.rpartition('.')[2]}.{name}" for layer in anatomy for name in layer.linears}
    if not found:
        raise refuse(
            f"{type(anatomy.model).__name__} has no linear layers inside its attention modules",
            "a model with some",
            "leave out --lora",
            UnsupportedModel,
        )
    return sorted(found)
