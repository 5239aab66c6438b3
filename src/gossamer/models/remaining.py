"""What is left of a model under its static gates: units of each layer, parameters, multiply-adds a token, bytes.

    multiply-adds left = sum_k price_k open_k + what has no gates,   price_k as in `gates/gate_set.py`

An entry of a matrix that gates of several kinds close counts once. A key-value head that H / G query heads share costs
as many multiply-adds as the share of them that is open, as its price does; its parameters stay until all are closed.
The products of queries with keys, and of weights with values, depend on the length and are not among these: attention
edges are counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..gates.learned import LearnedGates
from .anatomy import Anatomy, LayerAnatomy
from .attach import find_gate_sets
from .projections import Projection, is_linear, sizes_of


@dataclass(frozen=True)
class Size:
    """Parameters, multiply-adds a token of all linear layers, and bytes of the parameters as they are stored dense."""

    parameters: int
    multiply_adds: float
    bytes: int


@dataclass(frozen=True)
class Units:
    """Open units of one kind.

    Attributes:
        per_group: [layer][group]; for heads a group is a head, else a matrix.
        of_layer: how many units each layer has.
    """

    per_group: list[list[float]]
    of_layer: list[int]


@dataclass(frozen=True)
class Remaining:
    """A model whole, and what deterministic gates leave of it."""

    base: Size
    left: Size
    units: dict[str, Units]

    def as_record(self) -> dict[str, dict[str, float]]:
        """Name of a size -> its values of `base` and `left`."""
        whole, left = asdict(self.base), asdict(self.left)
        return {name: {"base": whole[name], "left": left[name]} for name in whole}


class _Cut(NamedTuple):
    """A projection with the share of each of its units that is left, in multiply-adds and in parameters."""

    projection: Projection
    computed: Tensor
    kept: Tensor


def remaining(model: nn.Module) -> Remaining:
    """Count what gates on heads, neurons and weights leave of a model, without running it.

    Raises: `UnsupportedModel` where an adapter hides the matrices; merge it first.
    """
    sets = [one for one in find_gate_sets(model) if isinstance(one, LearnedGates)]
    gates = {id(p) for one in sets for p in one.parameters()}
    own = [p for p in model.parameters() if id(p) not in gates]
    linear = sum(math.prod(sizes_of(m)) for m in model.modules() if is_linear(m))
    base = Size(sum(p.numel() for p in own), float(linear), sum(p.numel() * p.element_size() for p in own))
    lost = Size(0, 0.0, 0)
    for layer in Anatomy.of(model) if sets else ():
        lost = _sum(lost, _closed(layer, {one.kind: one for one in sets}))
    left = Size(*(a - b for a, b in zip(asdict(base).values(), asdict(lost).values(), strict=True)))
    return Remaining(base, left, {one.kind: units(one) for one in sets})


def units(gates: LearnedGates) -> Units:
    """The open units of one kind; none in a layer without gates."""
    groups, totals = [], []
    for layer in range(gates.n_layers):
        masks = gates.places.get(layer, [])
        hard = gates.hard(layer) if masks else torch.zeros(0)
        parts = list(hard) if gates.one_by_one else [hard[mask.units].sum() for mask in masks]
        groups.append([float(x) for x in parts])
        totals.append(len(hard))
    return Units(groups, totals)


def _sum(a: Size, b: Size) -> Size:
    return Size(a.parameters + b.parameters, a.multiply_adds + b.multiply_adds, a.bytes + b.bytes)


def _closed(layer: LayerAnatomy, sets: dict[str, LearnedGates]) -> Size:
    """What closed units of a layer take away."""
    cuts, lost = list(_cuts(layer, sets)), Size(0, 0.0, 0)
    weights = sets.get("weights")
    masks = {} if weights is None else {mask.module: mask for mask in weights.places[layer.number]}
    for module in {*(cut.projection.module for cut in cuts), *masks}:
        one = [cut for cut in cuts if cut.projection.module is module]
        whole = torch.ones_like(module.weight, dtype=torch.float32)  # type: ignore[call-overload]
        if weights is not None and module in masks:
            whole = masks[module].spread(weights.hard(layer.number)[masks[module].units])

        def entries(share: Callable[[_Cut], Tensor], whole: Tensor = whole, one: list[_Cut] = one) -> float:
            left = whole
            for cut in one:
                left = left * cut.projection.over(share(cut))
            return float(left.double().sum())

        size = whole.numel()
        gone = size - round(entries(lambda cut: cut.kept)) + sum(map(_biases, one))
        bytes_each = module.weight.element_size()  # type: ignore[operator]
        lost = _sum(lost, Size(gone, size - entries(lambda cut: cut.computed), gone * bytes_each))
    return lost


def _cuts(layer: LayerAnatomy, sets: dict[str, LearnedGates]) -> Iterator[_Cut]:
    if "heads" in sets:
        z = sets["heads"].hard(layer.number)
        shared = z.view(layer.n_kv_heads, -1)
        yield from (_Cut(part, z, z) for part in (layer.q, layer.o))
        yield from (_Cut(part, shared.mean(1), shared.amax(1)) for part in (layer.k, layer.v))
    if "neurons" in sets:
        z, mlp = sets["neurons"].hard(layer.number), layer.mlp
        yield from (_Cut(part, z, z) for part in (mlp.into, mlp.gate, mlp.out) if part is not None)


def _biases(cut: _Cut) -> int:
    """Biases of closed units."""
    part = cut.projection
    return 0 if part.biases() is None else int((cut.kept == 0).sum()) * part.width
