"""Every random model that tests use.

build    2 layers of 4 heads, width 32, of each architecture: what holds for all of them
tiny     3 layers of 2 heads, width 16, 13 tokens: small enough to try every edge
adder    a BERT of the addition task that does not add
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from transformers import BertForMaskedLM, PreTrainedModel

from gossamer.models.attach import attach
from gossamer.recipes.addition.task import Addition

VOCABULARY, TINY_VOCABULARY = 96, 13
LIKE_LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEAD = {"head_dim": 8}
ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 66,
    "pad_token_id": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
NEOX = {**LIKE_LLAMA, "hidden_dropout": 0.0, "attention_dropout": 0.0}
OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 32,
    "dropout": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
    "num_labels": 5,
}
MOE = {"num_local_experts": 2, "num_experts_per_tok": 1}
MODERN = {
    "cls_token_id": 1,
    "sep_token_id": 2,
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
    "reference_compile": False,
}

# family -> (model class, config class, config)
DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", NEOX),
    "opt": ("OPTForCausalLM", "OPTConfig", OPT),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LIKE_LLAMA),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**LIKE_LLAMA, "sliding_window": 5}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", LIKE_LLAMA),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**LIKE_LLAMA, **HEAD}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**LIKE_LLAMA, **HEAD, "sliding_window": 5}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**LIKE_LLAMA, **HEAD, "sliding_window": 5}),
    "olmo": ("OlmoForCausalLM", "OlmoConfig", LIKE_LLAMA),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", LIKE_LLAMA),
    "olmo3": ("Olmo3ForCausalLM", "Olmo3Config", {**LIKE_LLAMA, "sliding_window": 5}),
    "phi": ("PhiForCausalLM", "PhiConfig", LIKE_LLAMA),
    "gpt_oss": ("GptOssForCausalLM", "GptOssConfig", {**LIKE_LLAMA, **HEAD, **MOE, "sliding_window": 5}),
}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", "BertConfig", {**ENCODER, "pad_token_id": 0}),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", {**ENCODER, **MODERN, "pad_token_id": 0}),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", ENCODER),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {
            "vocab_size": VOCABULARY,
            "dim": 32,
            "hidden_dim": 48,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 64,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
    ),
}
VISION: dict[str, tuple[str, str, dict[str, Any]]] = {"vit": ("ViTForImageClassification", "ViTConfig", VIT)}
ALL = {**DECODERS, **ENCODERS, **VISION}
# More names and layouts that the anatomy knows; what works on ALL is not run on these again.
FURTHER: dict[str, tuple[str, str, dict[str, Any]]] = {
    "phi3": ("Phi3ForCausalLM", "Phi3Config", LIKE_LLAMA),
    "persimmon": ("PersimmonForCausalLM", "PersimmonConfig", LIKE_LLAMA),
    "arcee": ("ArceeForCausalLM", "ArceeConfig", LIKE_LLAMA),
    "lfm2": ("Lfm2ForCausalLM", "Lfm2Config", {**LIKE_LLAMA, "layer_types": ["full_attention"] * 2}),
    "albert": ("AlbertForMaskedLM", "AlbertConfig", {**ENCODER, "pad_token_id": 0, "embedding_size": 16}),
}

# Three layers of which only the second attends.
MIXER = {"num_hidden_layers": 3, "mamba_d_state": 4}
WIDE_MIXER = {**MIXER, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}
HYBRID: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        {
            **LIKE_LLAMA,
            **MIXER,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "num_experts": 1,
            "mamba_expand": 1,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "bamba": ("BambaForCausalLM", "BambaConfig", {**LIKE_LLAMA, **WIDE_MIXER, "attn_layer_indices": [1]}),
    "granite_hybrid": (
        "GraniteMoeHybridForCausalLM",
        "GraniteMoeHybridConfig",
        {
            **LIKE_LLAMA,
            **WIDE_MIXER,
            "layer_types": ["mamba", "attention", "mamba"],
            "num_local_experts": 0,
            "shared_intermediate_size": 16,
        },
    ),
    "qwen3_next": (
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            **LIKE_LLAMA,
            **HEAD,
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "lfm2_hybrid": (
        "Lfm2ForCausalLM",
        "Lfm2Config",
        {**LIKE_LLAMA, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    ),
}

REFUSED: dict[str, Callable[[], PreTrainedModel]] = {
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    ),
    "mpt": lambda: hf.MptForCausalLM(hf.MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4)),
    "falcon": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    ),
    "gptj": lambda: hf.GPTJForCausalLM(
        hf.GPTJConfig(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, rotary_dim=8)
    ),
}


# The sizes of `tiny`, over the defaults of a config.
TINY = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
TINY_GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
TINY_GPT2 |= {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
SHARED = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
GROUPED = ("llama-gqa", "mistral-gqa", "qwen2-gqa", "qwen3-gqa")


def make(family: str, settings: dict[str, Any], seed: int) -> PreTrainedModel:
    """A model of a family with the weights that transformers gives it."""
    model_name, config_name, _ = {**ALL, **FURTHER, **HYBRID}[family]
    torch.manual_seed(seed)
    return getattr(hf, model_name)(getattr(hf, config_name)(**settings)).eval()


def build(family: str, seed: int = 0) -> PreTrainedModel:
    """A small model with spread-out weights (of the default size, logits would hardly leave zero)."""
    return spread_out(make(family, {**ALL, **FURTHER, **HYBRID}[family][2], seed))


# Head -> the class of transformers that puts it on a family.
HEADS = {
    "hidden states": hf.AutoModel,
    "sequence": hf.AutoModelForSequenceClassification,
    "tokens": hf.AutoModelForTokenClassification,
    "answers": hf.AutoModelForQuestionAnswering,
}


def has_head(family: str, head: str) -> bool:
    """Whether transformers has this head for a family."""
    return getattr(hf, ALL[family][1]) in HEADS[head]._model_mapping


def headed(family: str, head: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A small model of a family with one of `HEADS`."""
    _, config, given = ALL[family]
    torch.manual_seed(seed)
    return spread_out(HEADS[head].from_config(getattr(hf, config)(**{**given, **settings})).eval())


def spread_out(model: PreTrainedModel) -> PreTrainedModel:
    """The same with larger weights."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "norm" not in name.lower():
                weight.mul_(5.0)
            elif "sinks" in name:
                weight.normal_()
    return model


def tiny(kind: str = "gpt2", *, seed: int = 0, scale: float = 6.0, **extra: Any) -> PreTrainedModel:
    """A dense model of a family, or one of `GROUPED`; `scale` makes logits so large that gates differ."""
    family, _, grouped = kind.partition("-")
    sizes = {"vocab_size": TINY_VOCABULARY, "max_position_embeddings": 32}
    sizes |= {"n_positions": 32, **TINY_GPT2} if family == "gpt2" else {**TINY, **(SHARED if grouped else {})}
    model = make(family, {**sizes, **extra}, seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "emb" not in name and "wte" not in name and "wpe" not in name:
                weight.mul_(scale)
    return model


def tiny_gated(kind: str = "gpt2", *, seed: int = 0, **extra: Any) -> PreTrainedModel:
    """The same with gates at bias 0."""
    model = tiny(kind, seed=seed, **extra)
    attach(model, bias=0.0, impl="eager")
    return model


def adder(digits: int = 1, *, layers: int = 2, seed: int = 0) -> BertForMaskedLM:
    """A model in the tokens of the addition task, untrained."""
    torch.manual_seed(seed)
    return BertForMaskedLM(Addition(digits).model_config(width=16, layers=layers, heads=2)).eval()


def prompts(n: int = 6, length: int = 7, seed: int = 0) -> torch.Tensor:
    """(n, length) random token ids for `tiny`."""
    return torch.randint(0, TINY_VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed))


def pad_of(model: PreTrainedModel) -> int:
    """The token that fills padded places."""
    return int(model.config.pad_token_id or 0)
