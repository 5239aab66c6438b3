"""Multiply-adds of a model's blocks, without its vocabulary: what gates on heads and neurons can save."""

from __future__ import annotations

from transformers import PreTrainedModel

from gossamer.models.anatomy import Anatomy
from gossamer.models.remaining import remaining


def of_blocks(model: PreTrainedModel) -> float:
    """Multiply-adds a token of the linear layers inside the blocks, zeros counted."""
    found = 0
    for layer in Anatomy.of(model):
        parts = (layer.q, layer.k, layer.v, layer.o, layer.mlp.into, layer.mlp.gate, layer.mlp.out)
        found += sum(part.weights().numel() for part in parts if part is not None)
    return found


def left_of_blocks(gated: PreTrainedModel, base: PreTrainedModel) -> float:
    """The share of a base's multiply-adds in its blocks that the open heads and neurons have."""
    found = remaining(gated)
    return 1 - (found.base.multiply_adds - found.left.multiply_adds) / of_blocks(base)
