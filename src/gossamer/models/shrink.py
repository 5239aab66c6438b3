"""From gates to a smaller model: closed units become zeros (`fold`), then what is zero goes (`shrunk`).

    uniform      the same count in every layer, closed units filling up those that have fewer open: plain transformers
    per-layer    each layer its own count: `gossamer.load`, which reads the sizes from the block `shrink` of the config
    masked       zeros, same shapes: plain transformers

`levels.py` chooses. Edges have no place in a plain model: where any can close, the level is per-layer and the model
keeps its gates on edges.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UnsupportedModel, refuse, require_choice
from ..gates.edges import EdgeGates
from ..gates.gate_sets import GateSets
from ..gates.learned import LearnedGates
from .attach import find_gate_sets, put_on, take_off
from .cut import cut
from .declared import BLOCK, layer_sizes
from .gate_block import sets_of
from .levels import LEVELS, PER_LAYER, UNIFORM, Opened, Plan, choose, rebuilt


def shrunk(gated: PreTrainedModel, level: str | None = None) -> tuple[PreTrainedModel, Plan]:
    """A smaller model of the same function, and what became of its parts; the gated one is left as it is.

    Args:
        level: uniform, per-layer or masked; by default the strongest that the architecture allows.
    Raises: `GossamerError` for a level that it does not allow, and for a model in which nothing is closed.
    """
    if level is not None:
        require_choice("level", level, LEVELS)
    require_shrinkable(gated)
    small = copy.deepcopy(gated)
    opened, edges = fold(small)
    plan = choose(small, opened, level, edges=edges is not None)
    if plan.level == UNIFORM:
        cut(small, plan.kept)
        small = rebuilt(small, plan.settings)
    elif plan.level == PER_LAYER:
        cut(small, plan.kept)
    if edges is not None:
        put_on(small, sets_of({EdgeGates.kind: edges.state()}, "the gated model"))
    setattr(small.config, BLOCK, plan.block())
    return small.eval(), plan


def require_shrinkable(model: PreTrainedModel) -> None:
    """Raise for a dense model, one without gates on units, and one whose gated weights are not its own."""
    sets = find_gate_sets(model)
    learned = [one for one in sets if isinstance(one, LearnedGates)]
    if not learned:
        what = "gates on edges alone" if sets else "no gates: it is a dense model"
        raise refuse(
            f"{type(model).__name__} has {what}",
            "gates on heads, neurons or weights",
            "make it sparse with --gates heads,neurons first",
        )
    if getattr(model.config, "quantization_config", None) is not None:
        raise refuse(
            f"{type(model).__name__} is quantised",
            "weights in floating point",
            "load it without quantisation",
            UnsupportedModel,
        )
    if layer_sizes(model.config, type(model).__name__):
        raise refuse(
            f"{type(model).__name__} has layers of sizes of their own already",
            "a model that was shrunk to no level per-layer",
            "shrink once, after all training",
            UnsupportedModel,
        )
    names: dict[int, list[str]] = {}
    for name, x in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(x), []).append(name)
    for mask in (mask for one in learned for masks in one.places.values() for mask in masks):
        shared = names[id(mask.module._parameters["weight"])]
        if len(shared) > 1:
            raise refuse(
                f"{' and '.join(shared)} are one weight, which has gates",
                "weights that one place reads",
                "untie them",
                UnsupportedModel,
            )


def fold(model: PreTrainedModel) -> tuple[Opened, EdgeGates | None]:
    """Multiply closed units into the weights and take all gates off, in place.

    Returns: the units that are open, and the gates on edges where any can close.
    """
    sets = find_gate_sets(model)
    opened: Opened = {}
    with torch.no_grad():
        for one in (one for one in sets if isinstance(one, LearnedGates)):
            hard = {layer: one.hard(layer) for layer in one.layer_numbers}
            opened[one.kind] = {layer: z.bool().cpu() for layer, z in hard.items()}
            for layer, masks in one.places.items():
                for mask in masks:
                    weight: Tensor = mask.module.weight  # type: ignore[assignment]
                    weight.mul_(mask.spread(hard[layer][mask.units].to(weight.dtype)))
    edges = EdgeGates.on(model)
    closes = edges is not None and not math.isinf(edges.bias)
    supports = getattr(model, "_supports_sdpa", False)
    take_off(model, GateSets(sets), "sdpa" if supports else "eager")
    return opened, edges if closes else None
