"""Masks on a model's units: found by gates, shuffled, random, or the largest; and how a model is trained under one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gossamer.gates.host import Options
from gossamer.gates.learned import LearnedGates
from gossamer.models.anatomy import Anatomy
from gossamer.models.attach import attach_missing, find_gate_sets
from gossamer.models.cut import Kept, cut
from gossamer.models.remaining import remaining

Mask = dict[str, dict[int, Tensor]]  # kind -> layer -> (units,) {0, 1}


def mask_of(model: Any) -> Mask:
    """The open units of every static kind of gate on a model; gates on edges depend on the input and are none."""
    sets = [one for one in find_gate_sets(model) if isinstance(one, LearnedGates)]
    return {one.kind: {layer: one.hard(layer).clone() for layer in one.places} for one in sets}


def hold(model: Any, mask: Mask) -> Any:
    """Close the units that a mask closes, for training and evaluation alike; nothing learns which are open."""
    attach_missing(model, mask, Options("eager", "logit"))
    for one in find_gate_sets(model):
        one.bias, one.keep = math.inf, mask[one.kind]
        for parameter in one.parameters():
            parameter.requires_grad_(False)
    return model


def close(model: Any, mask: Mask) -> Any:
    """As `hold`, with closed heads and neurons cut out where one is left in the layer: the same function, cheaper."""
    if not {"heads", "neurons"} >= set(mask):
        return hold(model, mask)
    kept = {
        kind: {layer: z.bool() if z.any() else torch.arange(len(z)) == 0 for layer, z in layers.items()}
        for kind, layers in mask.items()
    }
    parts = {layer: [kept[kind][layer] for kind in ("heads", "heads", "neurons")] for layer in mask["heads"]}
    cut(model, {layer: Kept(*units) for layer, units in parts.items()})
    rest = {
        kind: {layer: z[kept[kind][layer]] for layer, z in layers.items()} for kind, layers in mask.items()
    }
    shut = {kind: layers for kind, layers in rest.items() if any(not z.all() for z in layers.values())}
    return hold(model, shut) if shut else model


def sizes(mask: Mask) -> dict[str, list[int]]:
    """Open units of each kind, layer by layer."""
    return {kind: [int(z.sum()) for z in layers.values()] for kind, layers in mask.items()}


def parameters_left(model: Any) -> int:
    """Parameters that the mask on a model leaves."""
    return remaining(model).left.parameters


def shuffled(model: Any, mask: Mask, seed: int) -> Mask:
    """The same number of open units in every matrix, others of them; `model` has gates of the mask's kinds."""
    draw = torch.Generator().manual_seed(seed)
    return _in_each(model, mask, lambda z, _: z[torch.randperm(len(z), generator=draw)], by_matrix=True)


def random(model: Any, mask: Mask, seed: int) -> Mask:
    """The same number of open units of every kind in every layer, in whatever matrix of it.

    Heads and neurons of a layer lie on one matrix each, so there this is a second shuffled mask.
    """
    draw = torch.Generator().manual_seed(seed)
    return _in_each(model, mask, lambda z, _: z[torch.randperm(len(z), generator=draw)], by_matrix=False)


def largest(model: Any, mask: Mask) -> Mask:
    """As many units of every matrix, those of the largest norm in `model`, which has gates of the mask's kinds."""

    def best(z: Tensor, norms: Tensor) -> Tensor:
        return torch.zeros_like(z).index_fill_(0, norms.topk(int(z.sum())).indices, 1.0)

    return _in_each(model, mask, best, by_matrix=True)


def _in_each(model: Any, mask: Mask, change: Callable[[Tensor, Tensor], Tensor], *, by_matrix: bool) -> Mask:
    found: Mask = {}
    norms = unit_norms(model, tuple(mask))
    for one in find_gate_sets(model):
        found[one.kind] = {}
        for layer, places in one.places.items():
            z, norm = mask[one.kind][layer], norms[one.kind][layer]
            cuts = [place.units for place in places] if by_matrix else [slice(0, len(z))]
            found[one.kind][layer] = torch.cat([change(z[cut], norm[cut]) for cut in cuts])
    return found


@torch.no_grad()
def unit_norms(model: Any, kinds: tuple[str, ...]) -> dict[str, dict[int, Tensor]]:
    """(units,) for each kind and layer: the norm of all weights that a unit owns, |w| of a single weight."""
    found: dict[str, dict[int, Tensor]] = {kind: {} for kind in kinds}
    for layer in Anatomy.of(model):
        if "heads" in kinds:
            parts = (layer.q, layer.k, layer.v, layer.o)
            found["heads"][layer.number] = _norm([x.weights() for x in parts], layer.n_heads)
        if "neurons" in kinds:
            parts = [x for x in (layer.mlp.into, layer.mlp.gate, layer.mlp.out) if x is not None]
            found["neurons"][layer.number] = _norm([x.weights() for x in parts], parts[0].count)
    for one in find_gate_sets(model):
        if one.kind == "weights" and "weights" in kinds:
            found["weights"] = {
                layer: torch.cat([place.module.weight.detach().abs().flatten() for place in places])
                for layer, places in one.places.items()
            }
    return found


def _norm(parts: list[Tensor], units: int) -> Tensor:
    squares = [part.detach().float().pow(2).sum((1, 2)) for part in parts]
    return sum(x.repeat_interleave(units // len(x)) for x in squares).sqrt()  # type: ignore[union-attr]


def signed(start: dict[str, Tensor], fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """The signs of one state with the magnitudes of another, entry by entry."""
    return {name: x.sign() * fresh[name].abs() if x.is_floating_point() else x for name, x in start.items()}
