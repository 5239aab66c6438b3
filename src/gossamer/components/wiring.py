"""Where the components of a Hugging Face model are: its norms, projections and MLPs, by architecture.

Letters: B row, T position, M width of the residual stream, H heads, D width of a head, S slots (q, k, v).
Pre-norm decoders whose heads have keys and values of their own: GPT-2, GPT-NeoX (Pythia), Llama. Nothing is
copied or rewritten; what is told here is only where to hang hooks and how a projection's output is laid out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModel, refuse
from .graph import ComponentGraph


@dataclass(frozen=True)
class Projection:
    """A module that makes some of q, k, v: (B, T, S * H * D), laid out heads first or slots first."""

    module: nn.Module
    slots: tuple[int, ...]  # of q, k, v
    heads_first: bool

    def split(self, output: Tensor, n_heads: int) -> Tensor:
        """(B, T, S * H * D) -> (B, T, S, H, D), a view."""
        if self.heads_first:
            return output.unflatten(-1, (n_heads, len(self.slots), -1)).transpose(-3, -2)
        return output.unflatten(-1, (len(self.slots), n_heads, -1))

    def weights(self, n_heads: int) -> tuple[Tensor, Tensor | None]:
        """(M, S, H, D) and (S, H, D)."""
        weight, bias = in_out(self.module), self.module.bias
        split = self.split(weight, n_heads)
        return split, None if bias is None else self.split(bias, n_heads)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Block:
    """One layer: two norms, the projections into attention and out of it, and the MLP."""

    norm: nn.Module
    projections: tuple[Projection, ...]
    out: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module


@dataclass(frozen=True)
class Wiring:
    """A model's components."""

    model: PreTrainedModel
    graph: ComponentGraph
    blocks: tuple[Block, ...]
    final_norm: nn.Module

    def out_weight(self, layer: int) -> Tensor:
        """(H, D, M): what each head's output is multiplied with."""
        return in_out(self.blocks[layer].out).unflatten(0, (self.graph.n_heads, -1))


def in_out(module: nn.Module) -> Tensor:
    """The (in, out) weight of a Linear or of GPT-2's Conv1D."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if isinstance(module, nn.Linear) else weight


def _gpt2(model: PreTrainedModel) -> tuple[list[Block], nn.Module]:
    inner = model.transformer
    blocks = [
        Block(b.ln_1, (Projection(b.attn.c_attn, (0, 1, 2), False),), b.attn.c_proj, b.ln_2, b.mlp)
        for b in inner.h
    ]
    return blocks, inner.ln_f


def _gpt_neox(model: PreTrainedModel) -> tuple[list[Block], nn.Module]:
    blocks = []
    for b in model.gpt_neox.layers:
        into = (Projection(b.attention.query_key_value, (0, 1, 2), True),)
        blocks.append(Block(b.input_layernorm, into, b.attention.dense, b.post_attention_layernorm, b.mlp))
    return blocks, model.gpt_neox.final_layer_norm


def _llama(model: PreTrainedModel) -> tuple[list[Block], nn.Module]:
    blocks = []
    for b in model.model.layers:
        modules = b.self_attn.q_proj, b.self_attn.k_proj, b.self_attn.v_proj
        into = tuple(Projection(module, (slot,), False) for slot, module in enumerate(modules))
        blocks.append(Block(b.input_layernorm, into, b.self_attn.o_proj, b.post_attention_layernorm, b.mlp))
    return blocks, model.model.norm


ARCHITECTURES: dict[str, Callable[[PreTrainedModel], tuple[list[Block], nn.Module]]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
}


def wiring(model: PreTrainedModel) -> Wiring:
    """Find the components of a model.

    Raises: `UnsupportedModel` naming an architecture that is not told here, or grouped keys and values.
    """
    config = model.config
    kind = config.model_type
    if kind not in ARCHITECTURES or getattr(config, "add_cross_attention", False):
        raise refuse(
            f"component circuits of {type(model).__name__} ({kind})",
            f"possible: {', '.join(ARCHITECTURES)}",
            "choose one, or trace its attention edges, which works on any gated model",
            UnsupportedModel,
        )
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", heads) or heads
    if shared != heads:
        raise refuse(
            f"{type(model).__name__} shares {shared} keys and values among {heads} heads",
            "possible: one key and value per head",
            "repeat the key and value weights per head first",
            UnsupportedModel,
        )
    blocks, final = ARCHITECTURES[kind](model)
    parallel = bool(getattr(config, "use_parallel_residual", False))
    return Wiring(model, ComponentGraph(len(blocks), heads, parallel), tuple(blocks), final)
