"""The authors' checkpoint layout loads as the GPT-2 it is; on synthetic files, for theirs need the network."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from gossamer.errors import CheckpointError
from gossamer.models.transformer_lens import GPT2_VOCABULARY, load_transformer_lens
from helpers.zoo import tiny

WIDTH, HEADS, LAYERS, POSITIONS = 16, 2, 2, 12


def small(vocabulary: int, *, tied: bool = True) -> GPT2LMHeadModel:
    sizes = {"n_positions": POSITIONS, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    model = tiny(vocab_size=vocabulary, tie_word_embeddings=tied, **sizes)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model


def in_their_names(model: GPT2LMHeadModel, padded: int) -> dict[str, Tensor]:
    """The weights as TransformerLens names and shapes them, the vocabulary padded."""
    w = model.state_dict()
    extra = torch.randn(padded - model.config.vocab_size, WIDTH)
    embedding = torch.cat([w["transformer.wte.weight"], extra])
    out = embedding if model.config.tie_word_embeddings else torch.cat([w["lm_head.weight"], extra])
    state = {"embed.W_E": embedding, "unembed.W_U": out.T.clone(),
             "unembed.b_U": torch.zeros(padded),
             "pos_embed.W_pos": w["transformer.wpe.weight"],
             "ln_final.w": w["transformer.ln_f.weight"], "ln_final.b": w["transformer.ln_f.bias"]}  # fmt: skip
    for i in range(LAYERS):
        h, b = f"transformer.h.{i}", f"blocks.{i}"
        for j in (1, 2):
            state |= {f"{b}.ln{j}.w": w[f"{h}.ln_{j}.weight"], f"{b}.ln{j}.b": w[f"{h}.ln_{j}.bias"]}
        weights, biases = (w[f"{h}.attn.c_attn.{part}"].chunk(3, dim=-1) for part in ("weight", "bias"))
        for name, weight, bias in zip("QKV", weights, biases, strict=True):
            state[f"{b}.attn.W_{name}"] = weight.view(WIDTH, HEADS, -1).permute(1, 0, 2).clone()
            state[f"{b}.attn.b_{name}"] = bias.view(HEADS, -1)
        state |= {f"{b}.attn.W_O": w[f"{h}.attn.c_proj.weight"].view(HEADS, -1, WIDTH),
                  f"{b}.attn.b_O": w[f"{h}.attn.c_proj.bias"], f"{b}.attn.mask": torch.ones(3, 3),
                  f"{b}.attn.IGNORE": torch.tensor(-1e5)}  # fmt: skip
        for side, layer in (("in", "c_fc"), ("out", "c_proj")):
            state[f"{b}.mlp.W_{side}"] = w[f"{h}.mlp.{layer}.weight"]
            state[f"{b}.mlp.b_{side}"] = w[f"{h}.mlp.{layer}.bias"]
    return state


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("vocabulary", "padded"), [(GPT2_VOCABULARY, 50304), (40, 40)])
def test_open_gates_give_the_dense_model(tied: bool, vocabulary: int, padded: int, tmp_path: Path) -> None:
    model = small(vocabulary, tied=tied)
    torch.save(in_their_names(model, padded), tmp_path / "final.pth")
    loaded = load_transformer_lens(tmp_path / "final.pth", bias=math.inf)
    ids = torch.arange(20).view(2, 10)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert loaded.config.vocab_size == vocabulary


@pytest.mark.parametrize(("damage", "message"), [
    ("missing", r"blocks\.1\.attn\.W_K is missing"),
    ("left over", "left over: blocks.0.attn.W_X"),
    ("shape", r"wpe.*shape|c_fc.bias has shape"),
    ("bias", "b_U is not constant"),
])  # fmt: skip
def test_another_layout_is_told(damage: str, message: str, tmp_path: Path) -> None:
    state = in_their_names(small(40), 40)
    if damage == "missing":
        del state["blocks.1.attn.W_K"]
    elif damage == "left over":
        state["blocks.0.attn.W_X"] = torch.zeros(1)
    elif damage == "shape":
        state["blocks.0.mlp.b_in"] = torch.zeros(3)
    else:
        state["unembed.b_U"] = torch.randn(40)
    torch.save(state, tmp_path / "final.pth")
    with pytest.raises(CheckpointError, match=message):
        load_transformer_lens(tmp_path / "final.pth", bias=0.0)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_what_is_no_checkpoint_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "final.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_transformer_lens(tmp_path / "final.pth", bias=0.0)
