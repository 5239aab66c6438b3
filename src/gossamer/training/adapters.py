"""Low-rank adapters on the projections that gates need, whatever an architecture calls them.

A gate reads the logit q k, so an adapter that leaves the key projection out, as PEFT's defaults do, cannot
move half of what it should. The names are found in the model at hand: the linear layers inside its attention
modules, with the modules' path where a name also occurs outside (GPT-2 has a `c_proj` in its MLP as well).
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import refuse, require_range
from ..models.anatomy import attention_projections
from ..models.attach import gates_of


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
