"""The proof that gates are on: a few tokens through the model, before anything is trained.

The probe input is drawn from a generator of its own, so that attaching gates changes nobody's random numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.prompts import first_position

PROBE_TOKENS = 8  # assumed: long enough for a causal mask to have a past and a future


def probe_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """A small batch of two that the model accepts: token ids, or pixels for a vision model."""
    generator = torch.Generator().manual_seed(0)
    device = device_of(model)
    if model.main_input_name == "pixel_values":
        config = model.config
        shape = (2, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(shape, generator=generator).to(device, model.dtype)}
    config = model.config.get_text_config()
    length = min(PROBE_TOKENS, getattr(config, "max_position_embeddings", PROBE_TOKENS) or PROBE_TOKENS)
    ids = torch.randint(0, config.vocab_size, (2, length), generator=generator)
    pad = getattr(config, "pad_token_id", None)
    if pad is not None:  # RoBERTa counts positions by the pad id, so a random pad token would move them
        ids[ids == pad] = (pad + 1) % config.vocab_size
    return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids, device=device)}


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes; weights that accelerate keeps on the disk are on no device until they are used."""
    device = next(model.parameters()).device
    hooks = (getattr(module, "_hf_hook", None) for module in model.modules() if device.type == "meta")
    places = (
        getattr(one, "execution_device", None) for hook in hooks for one in getattr(hook, "hooks", (hook,))
    )
    place = next((x for x in places if x is not None), device)
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the `with` block; the mode is put back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def prompt_inputs(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Prompts as a model takes them, (B, T); positions count tokens and no padding, as `generate` has them.

    Without positions of their own, learned ones would count the padding on the left of a prompt.
    """
    inputs = {"input_ids": ids.to(device_of(model))}
    if mask is None:
        return inputs
    inputs["attention_mask"] = mask = mask.to(device_of(model))
    seen = mask.long()
    inner = next(x for x in model.modules() if isinstance(x, PreTrainedModel))
    pads_left = bool((seen.diff(dim=1) > 0).any())
    if pads_left and "position_ids" in inspect.signature(inner.forward).parameters:
        first = first_position(inner)
        positions = seen.cumsum(1) - 1 + first
        inputs["position_ids"] = positions.masked_fill(seen == 0, max(0, first - 1))
    return inputs


def first_output(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """The model's first output tensor (logits, or the last hidden state)."""
    return model(**inputs, return_dict=True)[0]
