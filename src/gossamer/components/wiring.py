"""Where the components of a Hugging Face model are: its norms, projections and MLPs, by architecture.

Letters: B row, T position, M width of the residual stream, H heads, D width of a head, S slots (q, k, v).
Pre-norm decoders: GPT-2, GPT-NeoX (Pythia), Llama, Mistral, Qwen2, Qwen3. Nothing is copied or rewritten; what is
told here is only where to hang hooks and how a projection's output is laid out.

Where several query heads share one key and value (GQA), each head still reads a k and a v of its own, as EAP-IG
and MIB count them: while hooks run, `Wiring.ungrouped` repeats the projections' outputs per query head, so that one
head's copy can be patched and the others' not. That leaves the model's function as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModel, refuse
from ..projection import in_out, per_head
from .graph import ComponentGraph


@dataclass(frozen=True)
class Projection:
    """A module that makes some of q, k, v: (B, T, S * H * D), laid out heads first or slots first."""

    module: nn.Module
    slots: tuple[int, ...]  # of q, k, v
    heads_first: bool
    shared_by: int = 1  # query heads per key-value head; above 1 for k and v under GQA

    def split(self, output: Tensor, n_heads: int) -> Tensor:
        """(B, T, S * H * D) -> (B, T, S, H, D), a view; under GQA of what is already repeated per query head."""
        if self.heads_first:
            return output.unflatten(-1, (n_heads, len(self.slots), -1)).transpose(-3, -2)
        return output.unflatten(-1, (len(self.slots), n_heads, -1))

    def weights(self, n_heads: int) -> tuple[Tensor, Tensor | None]:
        """(M, S, H, D) and (S, H, D)."""
        weight, bias = in_out(self.module), self.module.bias
        return self._of_all_heads(weight, n_heads), None if bias is None else self._of_all_heads(
            bias, n_heads
        )

    def _of_all_heads(self, parameter: Any, n_heads: int) -> Tensor:
        split = self.split(parameter, n_heads // self.shared_by)
        return split.repeat_interleave(self.shared_by, -2) if self.shared_by > 1 else split

    def repeat(self, output: Tensor, n_heads: int) -> Tensor:
        """(B, T, S * G * D) -> (B, T, S * H * D): every query head's own copy, the heads of a group in a row."""
        split = output.unflatten(-1, (len(self.slots), n_heads // self.shared_by, -1))
        return split.repeat_interleave(self.shared_by, -2).flatten(-3)


@dataclass(frozen=True)
class Block:
    """One layer: its attention, two norms, the projections into attention and out of it, and the MLP."""

    attention: nn.Module
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
        return per_head(self.blocks[layer].out, self.graph.n_heads)

    def ungrouped(self) -> list[Any]:
        """Handles, to be removed: until then every query head has its own copy of its key and value.

        They must be registered before any hook that reads a projection's output per head.
        """
        found: list[Any] = []
        for block in self.blocks:
            for projection in block.projections:
                if projection.shared_by > 1:
                    found.append(projection.module.register_forward_hook(self._repeating(projection)))
            if any(projection.shared_by > 1 for projection in block.projections):
                found.append(_OneToOne(block.attention))
        return found

    def _repeating(self, projection: Projection) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        return lambda module, given, output: projection.repeat(output, self.graph.n_heads)


class _OneToOne:
    """Tells an attention module that keys and values are already one per query head, until removed."""

    def __init__(self, attention: Any) -> None:
        self.attention, self.before = attention, attention.num_key_value_groups
        attention.num_key_value_groups = 1

    def remove(self) -> None:
        """Put the number back."""
        self.attention.num_key_value_groups = self.before


def _gpt2(model: PreTrainedModel) -> tuple[list[Block], nn.Module]:
    inner: Any = model.transformer
    blocks = [
        Block(b.attn, b.ln_1, (Projection(b.attn.c_attn, (0, 1, 2), False),), b.attn.c_proj, b.ln_2, b.mlp)
        for b in inner.h
    ]
    return blocks, inner.ln_f


def _gpt_neox(model: PreTrainedModel) -> tuple[list[Block], nn.Module]:
    inner: Any = model.gpt_neox
    blocks = []
    for b in inner.layers:
        into = (Projection(b.attention.query_key_value, (0, 1, 2), True),)
        rest = b.attention.dense, b.post_attention_layernorm, b.mlp
        blocks.append(Block(b.attention, b.input_layernorm, into, *rest))
    return blocks, inner.final_layer_norm


def _llama(model: PreTrainedModel) -> tuple[list[Block], nn.Module]:
    inner: Any = model.model
    shared_by = model.config.num_attention_heads // model.config.num_key_value_heads
    blocks = []
    for b in inner.layers:
        modules = b.self_attn.q_proj, b.self_attn.k_proj, b.self_attn.v_proj
        into = tuple(
            Projection(module, (slot,), False, shared_by if slot else 1)
            for slot, module in enumerate(modules)
        )
        rest = b.self_attn.o_proj, b.post_attention_layernorm, b.mlp
        blocks.append(Block(b.self_attn, b.input_layernorm, into, *rest))
    return blocks, inner.norm


ARCHITECTURES: dict[str, Callable[[PreTrainedModel], tuple[list[Block], nn.Module]]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
}


def wiring(model: PreTrainedModel) -> Wiring:
    """Find the components of a model.

    Raises: `UnsupportedModel` naming an architecture that is not told here.
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
    blocks, final = ARCHITECTURES[kind](model)
    parallel = bool(getattr(config, "use_parallel_residual", False))
    return Wiring(model, ComponentGraph(len(blocks), heads, parallel), tuple(blocks), final)
