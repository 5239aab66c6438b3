"""Adapters sit on the projections of attention, whatever an architecture calls them, and nowhere else."""

from __future__ import annotations

import warnings

import pytest

from gossamer.models.attach import attach
from gossamer.models.interface import attention_modules
from gossamer.training.adapters import add_adapters
from helpers import zoo


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("family", [*zoo.DECODERS, "bert", "modernbert", "roberta", "vit"])
def test_adapters_are_on_queries_and_keys_of_every_layer_and_outside_of_none(family: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = zoo.build(family)
        attach(model, check=False)
        model = add_adapters(model, rank=2)
    layers = attention_modules(model)
    inside = {id(x) for layer in layers for x in layer.modules()}
    adapted = [(name, x) for name, x in model.named_modules() if hasattr(x, "lora_A")]
    assert all(id(x) in inside for _, x in adapted)
    for layer in layers:
        names = {name for name, x in layer.named_modules() if hasattr(x, "lora_A")}
        assert any("q" in name or "attn" in name for name in names), names
        assert any("k" in name or "attn" in name for name in names), names
    assert all("lora_" in name for name, x in model.named_parameters() if x.requires_grad)
