"""Where the parts of a model's layers are: q, k, v and o of every head, the MLP's neurons, the residual stream.

    layer = Anatomy.of(model)[3]          # by the number that gates give it
    layer.o.of(2)                         # the columns of o's weight that head 2 is multiplied with
    layer.k.of(layer.kv_head(2))          # the rows of k's weight that make the keys which head 2 reads
    layer.mlp.out.weights()               # (neurons, 1, M)

A part is looked for (`parts.py`) when it is asked for, so an unknown MLP does not refuse the heads. A map is of the
modules that the model has when it is asked: make a new one after wrapping, merging or cutting them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from torch import nn

from ..errors import UnsupportedModel, refuse
from .architectures import PRE_NORM, PreNorm
from .layers import layers_of
from .parts import Layer, Mlp, find_mlp, find_o, find_qkv, named
from .projections import Projection


class Stream(NamedTuple):
    """How a pre-norm block reads the residual stream: the attention through `norm`, `mlp` through `mlp_norm`."""

    norm: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module


@dataclass(frozen=True)
class LayerAnatomy(Layer):
    """One layer of a model; a part that is not known raises `UnsupportedModel`."""

    @cached_property
    def o(self) -> Projection:
        """The output projection, without a norm behind it: one unit a query head, slices of columns."""
        return find_o(self)

    @property
    def q(self) -> Projection:
        """Queries: one unit a query head, slices of rows."""
        return self._inputs[0]

    @property
    def k(self) -> Projection:
        """Keys: one unit a key-value head, slices of rows."""
        return self._inputs[1]

    @property
    def v(self) -> Projection:
        """Values: one unit a key-value head, slices of rows."""
        return self._inputs[2]

    @cached_property
    def _inputs(self) -> tuple[Projection, Projection, Projection]:
        return find_qkv(self, self.o)

    @property
    def n_heads(self) -> int:
        """H: query heads."""
        return self.o.count

    @property
    def n_kv_heads(self) -> int:
        """G: key-value heads."""
        return self.k.count

    @property
    def head_dim(self) -> int:
        """D: the width of a query and of a key."""
        return self.q.width

    def kv_head(self, head: int) -> int:
        """The key-value head that a query head reads: neighbours share one."""
        return range(self.n_heads)[head] // (self.n_heads // self.n_kv_heads)

    @cached_property
    def mlp(self) -> Mlp:
        """The MLP; a block with other weights, such as experts, is refused."""
        return find_mlp(self)

    @property
    def stream(self) -> Stream:
        """How the block reads the residual stream, in a pre-norm decoder that is known."""
        norm, mlp_norm, mlp, _ = pre_norm(self.model)
        return Stream(*(self.block.get_submodule(name) for name in (norm, mlp_norm, mlp)))


@dataclass(frozen=True)
class Anatomy:
    """A model's layers that attend, in the order of execution; they are numbered as gates number them."""

    model: nn.Module = field(repr=False)
    layers: tuple[LayerAnatomy, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Anatomy:
        """The map of a model.

        Raises: `UnsupportedModel` for a decoder that reads an encoder, and for a model whose attention does not go
            through the attention interface of transformers.
        """
        config = getattr(model, "config", None)
        if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
            raise refuse(
                f"the decoder of {named(model)} reads an encoder",
                "encoders and decoders",
                "choose one",
                UnsupportedModel,
            )
        found, paths = (
            layers_of(model).attention,
            {id(module): path for path, module in model.named_modules()},
        )
        if not found:
            raise refuse(
                f"no module of {named(model)} calls the attention interface of transformers",
                "architectures that do, such as bert, gpt2, gpt_neox, llama, qwen3, gemma2",
                "choose one of those",
                UnsupportedModel,
            )
        return cls(model, tuple(LayerAnatomy(n, paths[id(x)], x, model) for n, x in found.items()))

    def __getitem__(self, number: int) -> LayerAnatomy:
        found = [layer for layer in self.layers if layer.number == number]
        if not found:
            numbers = ", ".join(str(layer.number) for layer in self.layers)
            raise refuse(f"layer {number} of {named(self.model)}", numbers, "choose one that attends")
        return found[0]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerAnatomy]:
        return iter(self.layers)

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last block of a pre-norm decoder that is known."""
        around = (
            self.layers[0].block_path.rpartition(".")[0].rpartition(".")[0]
        )  # transformer of transformer.h.0
        return self.model.get_submodule(f"{around}.{pre_norm(self.model).final}".removeprefix("."))

    @property
    def parallel(self) -> bool:
        """Whether, in a pre-norm decoder that is known, an MLP reads the stream without what its own attention adds."""
        pre_norm(self.model)
        return bool(getattr(self.model.config, "use_parallel_residual", False))


def pre_norm(model: nn.Module) -> PreNorm:
    """The names in a pre-norm decoder; an error for an architecture that is not known to be one."""
    kind = str(getattr(model.config, "model_type", ""))
    if kind not in PRE_NORM:
        raise refuse(
            f"the residual stream of {named(model)}",
            f"{', '.join(PRE_NORM)}",
            "choose one, or trace attention edges, which works on any gated model",
            UnsupportedModel,
        )
    return PRE_NORM[kind]
