"""Low-rank adapters on the projections that gates need, whatever an architecture calls them.

A gate reads the logit q k, so an adapter that leaves the key projection out, as PEFT's defaults do, cannot
move half of what it should. The names are found in the model at hand: the linear layers inside its attention
modules, with the modules' path where a name also occurs outside (GPT-2 has a `c_proj` in its MLP as well).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .errors import UnsupportedModel, refuse, require_range
from .modeling import attention_modules, gates_of


def attention_projections(model: nn.Module) -> list[str]:
    """PEFT target names of every linear layer inside the attention modules, e.g. `attn.c_attn`.

    Raises: `UnsupportedModel` where attention has no linear layer of its own (projections made elsewhere).
    """
    inside = {id(module) for module in attention_modules(model)}
    found: set[str] = set()
    for path, module in model.named_modules():
        if id(module) in inside:
            own = [n for n, m in module.named_modules() if isinstance(m, nn.Linear | Conv1D)]
            found |= {f"{path.rsplit('.', 1)[-1]}.{name}" for name in own}
    if not found:
        raise refuse(
            f"{type(model).__name__} has no linear layers inside its attention modules",
            "possible: full finetuning",
            "leave out --lora",
            UnsupportedModel,
        )
    return sorted(found)


def add_adapters(model: PreTrainedModel, *, rank: int, alpha: float | None = None) -> Any:
    """Wrap a gated model in LoRA adapters on all attention projections; its own weights are frozen.

    Args:
        rank: of the adapters, from 1.
        alpha: LoRA's scale; twice the rank by default (assumed, a common choice).
    Raises: `GossamerError` where peft is not installed.
    """
    require_range("LoRA rank", rank, 1, 4096)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise refuse(
            "peft is not installed", "possible: full finetuning", "pip install gossamer[lora]"
        ) from error
    gates_of(model)
    targets = attention_projections(model)
    transposed = any(isinstance(m, Conv1D) for m in model.modules())  # GPT-2 stores weights as (in, out)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,  # type: ignore[arg-type]  # a float will do
        target_modules=targets,
        fan_in_fan_out=transposed,
    )
    return get_peft_model(model, config)
