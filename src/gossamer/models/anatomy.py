"""Where a layer's heads write into the residual stream: the output projection, found by following the data.

Letters: H heads, E width of a value, M width of the residual stream. A head's output o_h (E) enters the stream
as o_h W_h, with W_h (E, M) the head's slice of the projection's weight; the bias belongs to no head. Names of
modules differ from architecture to architecture, but the linear map whose input is what the attention has just
returned is the output projection in all of them. Norms that some architectures put behind it are not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..errors import UnsupportedModel, refuse
from ..gates.edges import AttentionCall, EdgeGates
from .attach import attention_modules
from .forward import evaluating, first_output, probe_inputs


def in_out(module: nn.Module) -> Tensor:
    """The (in, out) weight of a Linear or of GPT-2's Conv1D."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if isinstance(module, nn.Linear) else weight


def per_head(module: nn.Module, n_heads: int) -> Tensor:
    """(H, E, M): what each head's output is multiplied with."""
    return in_out(module).unflatten(0, (n_heads, -1))


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear | Conv1D]:
    return isinstance(module, nn.Linear | Conv1D)


def output_projections(model: PreTrainedModel, gates: EdgeGates) -> dict[int, nn.Module]:
    """Layer -> its output projection, for the layers where one is found.

    A forward pass on a few tokens; what is looked for is the first linear module that reads what the layer's
    attention returned, heads side by side. A projection inside an adapter is not what the layer writes, and is
    left out: merge the adapter first.
    """
    returned: dict[int, Tensor] = {}
    found: dict[int, nn.Module] = {}
    adapted: set[int] = set()

    def note(call: AttentionCall) -> None:
        returned[call.layer] = call.out.transpose(1, 2).flatten(2)

    def look(module: nn.Module) -> Callable[[nn.Module, tuple], None]:
        def hook(_: nn.Module, given: tuple) -> None:
            for layer, out in returned.items():
                if given and isinstance(given[0], Tensor) and _same(given[0], out):
                    if hasattr(module, "base_layer"):
                        adapted.add(layer)
                    elif _is_linear(module):
                        found.setdefault(layer, module)

        return hook

    with ExitStack() as stack:
        for module in model.modules():
            if _is_linear(module) or hasattr(module, "base_layer"):
                stack.callback(module.register_forward_pre_hook(look(module)).remove)
        # Open gates, for a head that writes nothing could not be recognised.
        open_gates = gates.using(sampling=False, keep=None, bias=math.inf, renormalise=False)
        with evaluating(model), open_gates, gates.observing(note):
            first_output(model, probe_inputs(model))
    return {layer: module for layer, module in found.items() if layer not in adapted}


def _same(given: Tensor, out: Tensor) -> bool:
    return given.shape == out.shape and bool(torch.equal(given, out)) and bool(out.any())


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


def attention_projections(model: nn.Module) -> list[str]:
    """PEFT target names of every linear layer inside the attention modules, e.g. `attn.c_attn`.

    Raises: `UnsupportedModel` where attention has no linear layer of its own (projections made elsewhere).
    """
    inside = {id(module) for module in attention_modules(model)}
    found: set[str] = set()
    for path, module in model.named_modules():
        if id(module) in inside:
            own = [n for n, m in module.named_modules() if isinstance(m, nn.Linear | Conv1D)]
            found |= {f"{path.rsplit('.', 1)[-1]}.{name}" for name in own}
    if not found:
        raise refuse(
            f"{type(model).__name__} has no linear layers inside its attention modules",
            "possible: full finetuning",
            "leave out --lora",
            UnsupportedModel,
        )
    return sorted(found)
