"""Tiny gated models with random weights, whose gates are neither all open nor all closed."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from gossamer.models.attach import attach

VOCABULARY = 13
GROUPED = ("llama-gqa", "mistral-gqa", "qwen2-gqa", "qwen3-gqa")
SHARED = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}  # over what SMALL says
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def tiny(kind: str = "gpt2", *, seed: int = 0, scale: float = 6.0, **extra: Any) -> PreTrainedModel:
    """A dense model with three layers of two heads; `scale` makes logits so large that gates differ."""
    torch.manual_seed(seed)
    rest = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, **extra}
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, "vocab_size": VOCABULARY}
        off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
        model: PreTrainedModel = GPT2LMHeadModel(GPT2Config(**{**sizes, **off, **extra}))
    elif kind == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, **rest))
    elif kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SMALL, **rest))
    elif kind in GROUPED:
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind.split("-")[0], **{**SMALL, **SHARED, **rest})
        )
    else:
        model = BertForMaskedLM(BertConfig(**SMALL, **rest))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "emb" not in name and "wte" not in name and "wpe" not in name:
                weight.mul_(scale)
    return model.eval()


def tiny_gated(kind: str = "gpt2", *, seed: int = 0, **extra: Any) -> PreTrainedModel:
    """The same with gates at bias 0."""
    model = tiny(kind, seed=seed, **extra)
    attach(model, bias=0.0, impl="eager")
    return model


def prompts(n: int = 6, length: int = 7, seed: int = 0) -> torch.Tensor:
    """(n, length) random token ids."""
    return torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed))
