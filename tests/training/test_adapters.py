"""Adapters sit on the projections of attention, whatever an architecture calls them, and nowhere else."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig, LlamaForCausalLM

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.models.attach import attach, gate_sets_of
from gossamer.models.interface import attention_modules
from gossamer.training.adapters import add_adapters
from gossamer.training.base_model import OpenBase
from gossamer.training.config import SparsityConfig
from gossamer.training.trainer import SparsityTrainer
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [4, 8])
def test_adapters_on_a_quantised_base_are_trained(bits: int, tmp_path: Path) -> None:
    """QLoRA: the base stays in integers, and is the adapters' own base with the adapters off."""
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes: pip install bitsandbytes")
    wide = {**zoo.LIKE_LLAMA, "hidden_size": 64, "intermediate_size": 128}  # a block of 4 bits has 64 weights
    zoo.spread_out(zoo.make("llama", wide, 0)).save_pretrained(tmp_path / "base")
    form = BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=torch.float32
    )
    model: Any = LlamaForCausalLM.from_pretrained(tmp_path / "base", quantization_config=form)
    attach(model, impl="eager")
    model = add_adapters(model, rank=2)
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    ids = torch.randint(4, zoo.VOCABULARY, (12, 10), generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {
        "max_steps": 2,
        "eval_steps": 2,
        "save_steps": 2,
        "learning_rate": 1e-2,
        "ceiling": "kl=9",
    }
    given |= {
        "impl": "eager",
        "per_device_train_batch_size": 4,
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }
    config = SparsityConfig(str(tmp_path / "run"), load_best_model_at_end=False, **given)
    rows, base = TensorRows(input_ids=ids, labels=ids.clone()), OpenBase(model, gate_sets_of(model))
    SparsityTrainer(
        model, config, train_dataset=rows, eval_dataset=rows, base=base, data_collator=collate_rows
    ).train()
    moved = {name for name, x in model.named_parameters() if not torch.equal(x, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
