"""Fewer heads and neurons: the rows and columns of units that go are cut out of the matrices of a layer.

    q, k, v     the rows of a head, with their biases; of a key-value head, when no query head that stays reads it
    o           the columns of a query head
    MLP         a row of the first matrix, one of its gate where there is one, a column of the second

A cut layer computes what it did if what went was multiplied by zero. Grouped heads stay regular: each key-value head
that stays is read by as many query heads as any other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .anatomy import Anatomy, LayerAnatomy
from .projections import Projection

# What attention modules call their sizes, of those that they compute with.
SIZES = {
    "heads": ("num_heads", "num_attention_heads", "n_heads"),
    "groups": ("num_key_value_heads", "num_kv_heads"),
    "sharing": ("num_key_value_groups",),
    "width": ("split_size", "all_head_size"),
}


class Kept(NamedTuple):
    """Which units of a layer stay, bool: heads (H,), key-value heads (G,), neurons (F,); None for all."""

    heads: Tensor | None = None
    groups: Tensor | None = None
    neurons: Tensor | None = None

    def counts(self) -> dict[str, int]:
        """How many stay, in the words that a config of transformers has for them."""
        names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
        return {name: int(x.sum()) for name, x in zip(names, self, strict=True) if x is not None}


def cut(model: PreTrainedModel, kept: Mapping[int, Kept]) -> None:
    """Cut every layer down to what stays of it, in place; layers by number.

    Raises: `UnsupportedModel` where a layer has parameters over all of its heads that are no projection.
    """
    for layer in Anatomy.of(model):
        if layer.number in kept:
            _cut_layer(layer, kept[layer.number])


def _cut_layer(layer: LayerAnatomy, kept: Kept) -> None:
    sides: dict[tuple[int, str], tuple[nn.Module, Tensor]] = {}
    for part, stay in _parts(layer, kept):
        module, mask = sides.setdefault(
            (id(part.module), part.side),
            (part.module, torch.ones(part.features, dtype=torch.bool, device="cpu")),
        )
        part.split(mask).copy_(stay.cpu()[:, None].expand(-1, part.width))
    if kept.heads is not None:
        _cut_attention(layer, kept)
    for (_, side), (module, mask) in sides.items():
        _narrow(module, side, mask)


def _parts(layer: LayerAnatomy, kept: Kept) -> Iterator[tuple[Projection, Tensor]]:
    if kept.heads is not None and kept.groups is not None:
        yield from ((layer.q, kept.heads), (layer.k, kept.groups), (layer.v, kept.groups))
        yield layer.o, kept.heads
    if kept.neurons is not None:
        for part in layer.mlp:
            if part is not None:
                yield part, kept.neurons


def _narrow(module: nn.Module, side: str, stay: Tensor) -> None:
    """Leave the features of one side of a linear layer that stay."""
    at, of_bias = int(side == "in"), side == "out" and module.bias is not None
    stored = 1 - at if isinstance(module, Conv1D) else at
    index = stay.nonzero()[:, 0].to(module.weight.device)  # type: ignore[arg-type]
    for name, axis in (("weight", stored), *([("bias", 0)] if of_bias else [])):
        _replace(module, name, getattr(module, name).detach().index_select(axis, index))
    names = ("nf", "nx") if isinstance(module, Conv1D) else ("out_features", "in_features")
    setattr(module, names[at], len(index))


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    trained = getattr(module, name).requires_grad
    setattr(module, name, nn.Parameter(value.contiguous(), requires_grad=trained))


def _cut_attention(layer: LayerAnatomy, kept: Kept) -> None:
    """Cut what an attention module has of each head beside its projections, and say how many are left."""
    assert kept.heads is not None
    module, before, counts = layer.attention, (layer.n_heads, layer.n_kv_heads), kept.counts()
    _require_no_norm_over_heads(layer)
    index = kept.heads.nonzero()[:, 0]
    for name, x in list(module.named_parameters(recurse=False)):
        if tuple(x.shape) == (before[0],):  # a sink a head
            _replace(module, name, x.detach().index_select(0, index.to(x.device)))
    heads, groups = counts["num_attention_heads"], counts["num_key_value_heads"]
    old = {"heads": before[0], "groups": before[1], "sharing": before[0] // before[1]}
    new = {"heads": heads, "groups": groups, "sharing": heads // groups}
    old["width"], new["width"] = before[0] * layer.o.width, heads * layer.o.width
    for size, names in SIZES.items():
        for name in names:
            if getattr(module, name, None) == old[size]:
                setattr(module, name, new[size])


def _require_no_norm_over_heads(layer: LayerAnatomy) -> None:
    """Raise if a norm reads all heads together: without some, it would scale the others otherwise."""
    known = {id(x.module) for x in (layer.q, layer.k, layer.v, layer.o)}
    wide = {x.count * x.width for x in (layer.q, layer.k, layer.v) if x.count > 1}
    for name, module in layer.attention.named_modules():
        sizes = {x.numel() for x in module.parameters(recurse=False)}
        if id(module) not in known and module is not layer.attention and sizes & wide:
            raise layer.unknown(f"{name} reads all of its heads together", "heads that no norm ties together")


def require_own_sizes(model: PreTrainedModel, kept: Mapping[int, Kept]) -> None:
    """Raise if attention that is to have heads of its own number asks the config, which has one for all layers."""
    for layer in Anatomy.of(model):
        if layer.number in kept and kept[layer.number].heads is not None:
            source = inspect.getsource(type(layer.attention).forward)
            if "config.num_attention_heads" in source or "config.num_key_value_heads" in source:
                raise layer.unknown("its forward asks the config how many heads it has", "its own count")


# ---- sizes that differ from layer to layer, in a folder ----


def sized(cls: type[PreTrainedModel], sizes: Mapping[str, Mapping[str, int]]) -> Any:
    """The architecture `cls` with layers of their own sizes, to be built or loaded; its models become `cls` again.

    Args:
        sizes: number of the layer, as text -> what `Kept.counts` says of it.
    """

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        cls.__init__(self, *args, **options)
        cut(self, {int(number): _first(self, int(number), counts) for number, counts in sizes.items()})

    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__})


def _first(model: PreTrainedModel, number: int, counts: Mapping[str, int]) -> Kept:
    """As many units as counts say: at loading, which ones does not matter."""
    layer = Anatomy.of(model)[number]

    def some(name: str, of: str) -> Tensor | None:
        if name not in counts:
            return None
        whole = layer.mlp.width if of == "mlp" else getattr(layer, of)
        return torch.arange(whole, device="cpu") < counts[name]

    return Kept(
        some("num_attention_heads", "n_heads"),
        some("num_key_value_heads", "n_kv_heads"),
        some("intermediate_size", "mlp"),
    )
