"""The checkpoints that the authors of arXiv 2512.05865 shared: `final.pth`, in the names of TransformerLens.

    embed.W_E (V, E)            blocks.i.attn.W_Q, W_K, W_V (H, E, D), b_Q, b_K, b_V (H, D)
    pos_embed.W_pos (T, E)      blocks.i.attn.W_O (H, D, E), b_O (E)
    unembed.W_U (E, V)          blocks.i.mlp.W_in (E, M), b_in, W_out (M, E), b_out
    ln_final.w, b               blocks.i.ln1.w, b, ln2.w, b      absent where they were folded away

Read as GPT-2. The vocabulary 50,304 is GPT-2's 50,257 padded to a multiple of 64; the padded rows are cut
off. The gate bias is not in such a file and was not published, so the caller gives one.
Not verified against a real file, which needs the network: this is the layout that TransformerLens documents.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from ..errors import CheckpointError, refuse
from .attach import attach

GPT2_VOCABULARY = 50257
BUFFERS = ("attn.mask", "attn.IGNORE")  # what TransformerLens saves besides weights


def load_transformer_lens(
    path: Path | str, *, bias: float, vocabulary: int | None = None, **options: Any
) -> GPT2LMHeadModel:
    """Load a `final.pth` as a gated GPT-2.

    Args:
        path: the file.
        bias: the gate bias c in nats, which the file does not hold.
        vocabulary: rows of the embedding to keep; by default 50,257 of a padded 50,304, else all.
        options: passed to `gossamer.attach`.
    Raises: `CheckpointError` naming the tensor that is missing, left over, or of an unexpected shape.
    """
    state = read(Path(path))
    model = GPT2LMHeadModel(config_of(state, vocabulary)).eval()
    converted = convert(state, model.config)
    wanted = model.state_dict()
    for name, weight in converted.items():
        if wanted[name].shape != weight.shape:
            raise _unlike(f"{name} has shape {tuple(weight.shape)}", f"{tuple(wanted[name].shape)}")
    model.load_state_dict(converted, strict=False)
    attach(model, bias=bias, **options)
    return model


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of the file, by name; nothing in it is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise _unlike(
            f"{path} cannot be read ({(str(error) or type(error).__name__).splitlines()[0]})",
            "a final.pth",
        ) from error
    if not isinstance(state, dict) or "embed.W_E" not in state:
        raise _unlike(f"{path} has no tensor embed.W_E", "a state dict in TransformerLens names")
    return {name: weight for name, weight in state.items() if not name.endswith(BUFFERS)}


def config_of(state: dict[str, Tensor], vocabulary: int | None) -> GPT2Config:
    """Every size of the model, read off its tensors."""
    rows, width = state["embed.W_E"].shape
    if vocabulary is None:
        vocabulary = GPT2_VOCABULARY if rows == 50304 else rows
    layers = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    if layers < 1 or vocabulary > rows:
        raise _unlike(f"{layers} layers and {rows} tokens", f"1 layer and {vocabulary} tokens or more")
    tied = torch.equal(state["embed.W_E"], _need(state, "unembed.W_U").T)
    return GPT2Config(
        vocab_size=vocabulary, n_positions=len(_need(state, "pos_embed.W_pos")), n_embd=width, n_layer=layers,
        n_head=len(_need(state, "blocks.0.attn.W_Q")), n_inner=_need(state, "blocks.0.mlp.W_in").shape[1],
        tie_word_embeddings=tied, bos_token_id=vocabulary - 1, eos_token_id=vocabulary - 1,
    )  # fmt: skip


def convert(state: dict[str, Tensor], config: GPT2Config) -> dict[str, Tensor]:
    """The same weights under the names and shapes of transformers' GPT-2."""
    left = dict(state)

    def norm(source: str, target: str) -> None:
        found[f"{target}.weight"] = left.pop(f"{source}.w", torch.ones(config.n_embd))
        found[f"{target}.bias"] = left.pop(f"{source}.b", torch.zeros(config.n_embd))

    found: dict[str, Tensor] = {
        "transformer.wte.weight": left.pop("embed.W_E")[: config.vocab_size],
        "transformer.wpe.weight": left.pop("pos_embed.W_pos"),
        "lm_head.weight": left.pop("unembed.W_U").T[: config.vocab_size],
    }
    shift = left.pop("unembed.b_U", None)
    if shift is not None and float((shift - shift.mean()).abs().max()) > 0:
        raise _unlike("unembed.b_U is not constant", "no bias on the logits, as GPT-2")
    norm("ln_final", "transformer.ln_f")
    for i in range(config.n_layer):
        norm(f"blocks.{i}.ln1", f"transformer.h.{i}.ln_1")
        norm(f"blocks.{i}.ln2", f"transformer.h.{i}.ln_2")
        found |= _block(left, i, config.n_embd)
    if left:
        raise _unlike(f"tensors left over: {', '.join(sorted(left)[:5])}", "those of a GPT-2")
    return found


def _block(left: dict[str, Tensor], i: int, width: int) -> dict[str, Tensor]:
    """Attention and MLP of one block, taken out of `left`."""
    source, target = f"blocks.{i}", f"transformer.h.{i}"

    def pop(name: str) -> Tensor:
        weight = _need(left, f"{source}.{name}")
        del left[f"{source}.{name}"]
        return weight

    heads = [pop(f"attn.W_{x}").permute(1, 0, 2).reshape(width, -1) for x in "QKV"]  # (E, H * D) each
    return {
        f"{target}.attn.c_attn.weight": torch.cat(heads, dim=1),
        f"{target}.attn.c_attn.bias": torch.cat([pop(f"attn.b_{x}").flatten() for x in "QKV"]),
        f"{target}.attn.c_proj.weight": pop("attn.W_O").flatten(0, 1),
        f"{target}.attn.c_proj.bias": pop("attn.b_O"),
        f"{target}.mlp.c_fc.weight": pop("mlp.W_in"),
        f"{target}.mlp.c_fc.bias": pop("mlp.b_in"),
        f"{target}.mlp.c_proj.weight": pop("mlp.W_out"),
        f"{target}.mlp.c_proj.bias": pop("mlp.b_out"),
    }


def _need(state: dict[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise _unlike(f"tensor {name} is missing", "a whole GPT-2 in TransformerLens names")
    return state[name]


def _unlike(got: str, expected: str) -> Exception:
    return refuse(got, expected, "check which file this is", CheckpointError)
