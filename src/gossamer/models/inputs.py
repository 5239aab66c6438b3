"""What a model can be asked: token ids that it has, no more of them than it has positions, in the memory there is."""

from __future__ import annotations

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.prompts import positions_of
from ..errors import refuse

GIB = 2**30
SCORE_BYTES = (
    16  # of one query and key where attention is a matrix: logit, weight, mask and gate, float32 each
)
EDGE_BYTES = 64  # of one edge that is listed: eight columns of 8 bytes until they are stored


def require_inputs(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None) -> None:
    """Raise one clear line unless token ids are in the vocabulary of a model, and fit its positions.

    Args:
        input_ids: (N, T) integers.
        attention_mask: (N, T), or None.
    """
    if input_ids.dim() != 2 or not input_ids.numel():
        raise refuse(f"input_ids {tuple(input_ids.shape)}", "(N, T) with N and T >= 1", "stack the prompts")
    if input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype is torch.bool:
        raise refuse(f"input_ids of {input_ids.dtype}", "token ids, whole numbers", "pass int64")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        shapes = f"an attention_mask {tuple(attention_mask.shape)} of input_ids {tuple(input_ids.shape)}"
        raise refuse(shapes, "one shape", "pad both alike")
    vocabulary = model.config.get_text_config().vocab_size
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= vocabulary:
        raise refuse(
            f"token id {low if low < 0 else high} on a model of {vocabulary:,} tokens",
            f"0 to {vocabulary - 1:,}",
            "use the tokenizer that belongs to the model",
        )
    positions, length = positions_of(model), input_ids.shape[1]
    if positions is not None and length > positions:
        raise refuse(f"a prompt of {length:,} tokens", f"at most {positions:,}", "shorten it")


def require_memory(matrices: int, edges: int, numbers: int, what: str) -> None:
    """Raise one clear line, before anything is allocated, where a forward pass that lists edges does not fit.

    Args:
        matrices: pairs of query and key, over rows and heads, that are held at once; 0 where attention goes by blocks.
        edges: edges that are listed, at most.
        numbers: of the output, in float32.
    """
    needed, free = SCORE_BYTES * matrices + EDGE_BYTES * edges + 4 * numbers, available()
    if needed > free:
        raise refuse(
            f"{what} needs about {needed / GIB:,.1f} GiB of memory", f"at most the {free / GIB:,.1f} GiB that are free",
            "shorten the prompt, or trace fewer at a time",
        )  # fmt: skip


def available() -> float:
    """Bytes of memory that this process may still take: the GPU's where there is one, else the machine's."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    return float(psutil.virtual_memory().available)
