"""Finding the parts of one layer: the names of `architectures.py` looked up on its modules, and sizes checked.

Letters: H query heads, G key-value heads, D width of a query and of a key, E width of a value. Names and sizes have
to explain the whole part: what they leave over is refused, for a wrong guess would give wrong numbers without an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from torch import nn

from ..errors import GossamerError, UnsupportedModel, refuse
from .architectures import FUSED, MLPS, NAMES, OTHERS, OUTSIDE, SLOTS, Fused, MlpNames
from .projections import Projection, is_linear, sizes_of

ADAPTER = ".base_layer"  # what PEFT calls the layer that it wraps an adapter around


class Mlp(NamedTuple):
    """The neurons of one layer: neuron i is row i of `into`, row i of `gate` and column i of `out`.

    `out` reads act(into x), or, where there is a gate, act(gate x) * (into x).
    """

    into: Projection
    gate: Projection | None
    out: Projection

    @property
    def width(self) -> int:
        """Neurons."""
        return self.out.count

    @property
    def gated(self) -> bool:
        """Whether a second projection of x multiplies the first."""
        return self.gate is not None


@dataclass(frozen=True)
class Layer:
    """The modules of one layer, as the model has them.

    Attributes:
        number: as gates count layers.
        path, attention: the module that calls the attention function.
        model: the whole.
    """

    number: int
    path: str
    attention: nn.Module = field(repr=False)
    model: nn.Module = field(repr=False)

    @cached_property
    def linears(self) -> dict[str, nn.Module]:
        """Every linear layer inside the attention module, known or not, by its path from there."""
        return {name: module for name, module in self.attention.named_modules() if is_linear(module)}

    @property
    def block_path(self) -> str:
        """The path of the layer in the model's list of them: the attention's, up to the last number."""
        parts = self.path.split(".")
        numbers = [i for i, part in enumerate(parts) if part.isdigit()]
        if not numbers:
            raise self.unknown("it is in no list of layers", "a path such as layers.0.self_attn")
        return ".".join(parts[: numbers[-1] + 1])

    @property
    def block(self) -> nn.Module:
        """The layer as the model lists it: attention, MLP and norms."""
        return self.model.get_submodule(self.block_path)

    def unknown(self, got: str, expected: str) -> GossamerError:
        """The error for a part that is not known."""
        where = f"{type(self.attention).__name__} at {self.path}"
        return refuse(
            f"layer {self.number} of {named(self.model)}, {where}: {got}",
            expected,
            "add what it has to gossamer/models/architectures.py, or choose another model",
            UnsupportedModel,
        )

    def require_plain(self, names: Iterable[str]) -> None:
        """Raise if a linear layer is wrapped in an adapter, for then its weight is not what is computed with."""
        wrapped = sorted({name.split(ADAPTER)[0] for name in names if ADAPTER in name})
        if wrapped:
            raise refuse(
                f"layer {self.number} of {named(self.model)} has an adapter on {', '.join(wrapped)}",
                "linear layers without one",
                "merge the adapter first (merge_and_unload)",
                UnsupportedModel,
            )


def named(model: nn.Module) -> str:
    """A model in an error: its class and its architecture."""
    kind = getattr(getattr(model, "config", None), "model_type", "of no known architecture")
    return f"{type(model).__name__} ({kind})"


def find_o(layer: Layer) -> Projection:
    """o: the linear layer that reads the heads side by side, H units of E columns."""
    layer.require_plain(layer.linears)
    _require_explained(layer)
    name = next((name for name in NAMES["o"] if name in layer.linears), None)
    around = layer.path.rpartition(".")[0]
    path = f"{layer.path}.{name}" if name else f"{around}.{OUTSIDE}".removeprefix(".")
    module = dict(layer.model.named_modules(remove_duplicate=False)).get(path)  # two layers may share it
    if module is None or not is_linear(module):
        raise layer.unknown(f"no output projection beside {_listed(layer)}", _heads_known())
    width = int(getattr(layer.attention, "v_head_dim", None) or head_dim(layer))
    if sizes_of(module)[1] % width:
        raise layer.unknown(f"{path} reads {sizes_of(module)[1]} features", f"heads of {width} features")
    return Projection.whole(path, module, "in", width)


def _require_explained(layer: Layer) -> None:
    """Raise if the attention module has weights that may stand between what it returns and o: a gate, a norm."""
    owners = {name.split(".")[0] for name, _ in layer.attention.named_parameters()}
    known = OTHERS.union(*NAMES.values(), (fused.name for fused in FUSED.values()))
    if owners - known:
        raise layer.unknown(
            f"its {', '.join(sorted(owners - known))} may change what its heads write",
            f"q, k, v and o, and beside them {', '.join(sorted(OTHERS))}",
        )


def find_qkv(layer: Layer, o: Projection) -> tuple[Projection, Projection, Projection]:
    """q (H units of D rows), k (G of D) and v (G of E), each in a linear layer of its own or all in one."""
    fused = fused_of(layer)
    found = _separate(layer, o) if fused is None else _fused(layer, o, fused)
    q, k, v = found
    made = sum({id(x.module): x.features for x in found}.values())
    used = sum(x.count * x.width for x in found)
    if made != used or q.count != o.count or k.count != v.count or not k.count or q.count % k.count:
        raise layer.unknown(
            f"q, k and v have {made} features and o reads {o.features}",
            f"{o.count} query heads of {q.width} and key-value heads that divide them",
        )
    return found


def _separate(layer: Layer, o: Projection) -> tuple[Projection, Projection, Projection]:
    width, found = head_dim(layer), []
    for slot, wide in zip(SLOTS, (width, width, o.width), strict=True):
        name = next((name for name in NAMES[slot] if name in layer.linears), None)
        if name is None:
            raise layer.unknown(f"no {slot} among its linear layers {_listed(layer)}", _heads_known())
        found.append(Projection.whole(f"{layer.path}.{name}", layer.linears[name], "out", wide))
    q, k, v = found
    return q, k, v


def _fused(layer: Layer, o: Projection, fused: Fused) -> tuple[Projection, Projection, Projection]:
    module, heads, width = layer.linears[fused.name], o.count, head_dim(layer)
    shared = (sizes_of(module)[0] // width - heads) // 2
    if fused.order == "heads":
        starts, counts, step = (0, width, 2 * width), (heads, heads, heads), 3 * width
    else:
        starts, counts, step = (0, heads * width, (heads + shared) * width), (heads, shared, shared), width
    path = f"{layer.path}.{fused.name}"
    q, k, v = (
        Projection(path, module, "out", count, width, start, step)
        for start, count in zip(starts, counts, strict=True)
    )
    return q, k, v


def fused_of(layer: Layer) -> Fused | None:
    """The one linear layer that makes q, k and v, if the attention is of a class that has one."""
    known = (FUSED.get(one.__name__) for one in type(layer.attention).__mro__)
    return next((fused for fused in known if fused is not None and fused.name in layer.linears), None)


def head_dim(layer: Layer) -> int:
    """D, as the attention module says it, or its config."""
    config = getattr(layer.attention, "config", layer.model.config)
    names = "head_dim", "head_size", "attention_head_size"
    found = (getattr(owner, name, None) for owner in (layer.attention, config) for name in names)
    width = next((int(size) for size in found if size), None)
    if width is None:
        raise layer.unknown("it does not say how wide its heads are", f"an attribute {', '.join(names)}")
    return width


def _listed(layer: Layer) -> str:
    return ", ".join(layer.linears) or "none"


def _heads_known() -> str:
    separate = "; ".join(f"{slot} as {', '.join(names)}" for slot, names in NAMES.items())
    return f"{separate}; or all in one in {', '.join(FUSED)}"


def find_mlp(layer: Layer) -> Mlp:
    """The MLP: its linear layers have to be all the matrices that the block has beside its attention."""
    branch = layer.path.removeprefix(f"{layer.block_path}.").split(".")[0]
    beside = {
        name: module
        for name, module in layer.block.named_modules()
        if any(weight.dim() > 1 for weight in module.parameters(recurse=False))
        and name.split(".")[0] != branch
    }
    layer.require_plain(beside)
    for names in MLPS:
        if (paths := _matched(names, beside)) is not None:
            return _mlp(layer, paths)
    what = ", ".join(f"{name or 'the block'} ({type(module).__name__})" for name, module in beside.items())
    known = ", ".join(" + ".join(dict.fromkeys(name for name in names if name)) for names in MLPS)
    raise layer.unknown(f"no MLP among the weights beside the attention, {what or 'none'}", known)


def _matched(names: MlpNames, beside: dict[str, nn.Module]) -> MlpNames | None:
    """The paths of an MLP's linear layers; None unless they are all that there is."""
    ends = {
        name: [path for path in beside if f".{path}".endswith(f".{name}") and is_linear(beside[path])]
        for name in names
        if name
    }
    if len(ends) != len(beside) or any(len(paths) != 1 for paths in ends.values()):
        return None
    return MlpNames(ends[names.into][0], ends[names.out][0], ends[names.gate][0] if names.gate else None)


def _mlp(layer: Layer, paths: MlpNames) -> Mlp:
    modules = {path: layer.block.get_submodule(path) for path in paths if path}
    made = {path: sizes_of(module)[0] for path, module in modules.items() if path != paths.out}
    width, fused = sizes_of(modules[paths.out])[1], paths.gate == paths.into
    if any(size != (2 * width if fused else width) for size in made.values()):
        raise layer.unknown(f"{paths.out} reads {width} features, and {made} are made", "as many")

    def rows(path: str, start: int) -> Projection:
        return Projection(f"{layer.block_path}.{path}", modules[path], "out", width, 1, start, 1)

    return Mlp(
        rows(paths.into, width if fused else 0),
        None if paths.gate is None else rows(paths.gate, 0),
        Projection.whole(f"{layer.block_path}.{paths.out}", modules[paths.out], "in", 1),
    )
