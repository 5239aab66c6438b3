"""What architectures of transformers call the parts of a layer: names and layouts, no search.

What is in these tables is known; `anatomy.py` looks it up on the model and refuses the rest by name. A new
architecture is a name in one of the tables, and a case in tests/models/test_anatomy.py that proves it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

SLOTS = ("q", "k", "v")
Slot = Literal["q", "k", "v", "o"]

# Linear layers of an attention module by what they make; heads lie one after another in them.
NAMES: dict[Slot, tuple[str, ...]] = {
    "q": ("q_proj", "query", "q_lin"),
    "k": ("k_proj", "key", "k_lin"),
    "v": ("v_proj", "value", "v_lin"),
    "o": ("o_proj", "out_proj", "out_lin", "c_proj", "dense", "Wo"),
}
OUTSIDE = "output.dense"  # of the module around it: where BERT and its relatives have o


class Fused(NamedTuple):
    """One linear layer that makes q, k and v.

    `order` is what its rows are sorted by first: slots (all heads of q, then of k, then of v) or heads (q, k and v
    of the first head, then of the second).
    """

    name: str
    order: Literal["slots", "heads"]


# By the class of the attention module, for the same name stands for both orders.
FUSED: dict[str, Fused] = {
    "GPT2Attention": Fused("c_attn", "slots"),
    "GPTNeoXAttention": Fused("query_key_value", "heads"),
    "PersimmonAttention": Fused("query_key_value", "heads"),
    "Phi3Attention": Fused("qkv_proj", "slots"),
    "ModernBertAttention": Fused("Wqkv", "slots"),
}

# What else an attention module may own while o still reads what the attention returned: norms of q, k and v behind
# their projections, the low-rank factors of multi-head latent attention, what picks visible keys, sinks, and the norm
# behind ALBERT's o.
OTHERS = {
    "q_norm", "k_norm", "v_norm", "qk_norm", "q_layernorm", "k_layernorm", "q_layer_norm", "k_layer_norm",
    "query_layernorm", "key_layernorm", "rotary_emb", "sinks", "LayerNorm",
    "q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj",
    "indexer",
}  # fmt: skip


class MlpNames(NamedTuple):
    """The linear layers of an MLP; where `gate` is `into`, one layer makes both, and the gate's rows come first."""

    into: str
    out: str
    gate: str | None = None


MLPS = (
    MlpNames("up_proj", "down_proj", "gate_proj"),
    MlpNames("gate_up_proj", "down_proj", "gate_up_proj"),
    MlpNames("Wi", "Wo", "Wi"),
    MlpNames("up_proj", "down_proj"),
    MlpNames("c_fc", "c_proj"),
    MlpNames("dense_h_to_4h", "dense_4h_to_h"),
    MlpNames("fc1", "fc2"),
    MlpNames("lin1", "lin2"),
    MlpNames("ffn", "ffn_output"),
    MlpNames("w3", "w2", "w1"),
    MlpNames("intermediate.dense", "output.dense"),
)


class PreNorm(NamedTuple):
    """A block whose attention and MLP read the residual stream through a norm each and write straight into it.

    `final` is the norm behind the last block, beside the list of blocks.
    """

    norm: str
    mlp_norm: str
    mlp: str
    final: str


_LIKE_LLAMA = PreNorm("input_layernorm", "post_attention_layernorm", "mlp", "norm")

# By model_type: the names alone do not say it (Gemma 2's post_attention_layernorm is behind the attention).
PRE_NORM: dict[str, PreNorm] = {
    "gpt2": PreNorm("ln_1", "ln_2", "mlp", "ln_f"),
    "gpt_neox": PreNorm("input_layernorm", "post_attention_layernorm", "mlp", "final_layer_norm"),
    "llama": _LIKE_LLAMA,
    "mistral": _LIKE_LLAMA,
    "qwen2": _LIKE_LLAMA,
    "qwen3": _LIKE_LLAMA,
}
