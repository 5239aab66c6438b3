"""A model of transformers as gates see it: what `gossamer.gates.host.Host` asks of it.

Transformers is met here and in `interface.py`; a kind of gate asks for attention or for a map of the parts, and gets it
or one clear line that says what the model is.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModel, refuse
from .anatomy import Anatomy
from .forward import device_of
from .interface import KEY, attention_modules
from .layers import Layers, layers_of


class ModelHost:
    """A model on which gates are put, or from which they are taken.

    Args:
        model: of transformers, or one that wraps it, as PEFT does.
        attention: the implementation that runs when attention is given back.
    """

    def __init__(self, model: nn.Module, attention: str | None = None) -> None:
        self.model: PreTrainedModel = next(x for x in model.modules() if isinstance(x, PreTrainedModel))
        self.attention = attention

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Where heads and neurons are; a part that is not known is refused when it is asked for."""
        return Anatomy.of(self.model)

    @property
    def n_heads(self) -> int:
        """Query heads of a layer, by the config."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "num_attention_heads", None) or getattr(config, "n_head", 0))

    def require_gateable(self) -> None:
        """Raise `UnsupportedModel` for a model that can have no gates of any kind."""
        name = type(self.model).__name__
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise refuse(
                f"{name} is an encoder-decoder", "encoders and decoders", "choose one", UnsupportedModel
            )
        if not attention_modules(self.model) or not self.model._can_set_attn_implementation():
            raise refuse(
                f"{name} does not send its attention through the attention interface of transformers",
                "architectures that do, such as bert, gpt2, gpt_neox, llama, qwen3, gemma2",
                "choose one of those",
                UnsupportedModel,
            )

    def take_attention(self) -> Layers:
        """Send attention through the gates on each attention module; returns these by the number of their layer."""
        if getattr(self.model.config, "output_attentions", False):
            raise refuse(
                f"{type(self.model).__name__} has output_attentions=True in its config",
                "False, as gossamer.trace lists the open edges with their weights",
                "set it to False",
                UnsupportedModel,
            )
        self.model.set_attn_implementation(KEY)
        return layers_of(self.model)

    def give_attention_back(self) -> None:
        """Let the model attend by `attention` again."""
        self.model.set_attn_implementation(self.attention)  # type: ignore[arg-type]
