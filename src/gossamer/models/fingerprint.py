"""A short name of a model's weights, so that what was found or trained is never taken for another model's."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

ADAPTER = "lora_"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over every parameter in float32, in the model's order, without adapters; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if ADAPTER not in name:
            digest.update(str(tuple(weight.shape)).encode())
            digest.update(weight.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
