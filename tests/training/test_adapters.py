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
from gossamer.training.config import configured
from gossamer.training.sparsify import sparsify
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
@pytest.mark.parametrize("form", [{"load_in_8bit": True}, {"load_in_4bit": True}], ids=["8 bits", "4 bits"])
def test_adapters_on_a_base_of_few_bits_are_trained(form: dict[str, bool], tmp_path: Path) -> None:
    """The base stays in integers, and with the adapters off it is what they are compared with."""
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes: pip install bitsandbytes")
    # Four bits are packed in blocks of 64 weights of a row.
    sizes = {**zoo.LIKE_LLAMA, "hidden_size": 64, "intermediate_size": 64}
    zoo.spread_out(zoo.make("llama", sizes, 0)).save_pretrained(tmp_path / "base")
    dense: Any = LlamaForCausalLM.from_pretrained(
        tmp_path / "base", quantization_config=BitsAndBytesConfig(**form), dtype=torch.float32
    )
    attach(dense, impl="eager")
    model = add_adapters(dense, rank=2)
    ids = torch.randint(4, zoo.VOCABULARY, (12, 10), generator=torch.Generator().manual_seed(0))
    rows = TensorRows(input_ids=ids, labels=ids.clone())
    given = {
        "output_dir": str(tmp_path / "run"),
        "ceiling": "kl=9",
        "max_steps": 2,
        "eval_steps": 1,
        "save_steps": 1,
    }
    given |= {"per_device_train_batch_size": 2, "use_cpu": True, "report_to": "none", "impl": "eager"}
    config = configured({**given, "remove_unused_columns": False, "disable_tqdm": True}, {})
    base = OpenBase(model, gate_sets_of(model))
    outcome = sparsify(model, rows, rows, config, base=base, data_collator=collate_rows)
    assert outcome.missed == ""
    assert 0 <= outcome.metrics["keys_per_query"] <= 10
