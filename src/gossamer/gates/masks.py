"""Where learned gates lie on weight matrices, and which matrices cannot have any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..errors import UnsupportedModel, refuse
from .quantised import is_quantised


class Mask(NamedTuple):
    """Where some units of a layer lie on one matrix.

    Attributes:
        path, module: the linear layer.
        units: which of the layer's units these are.
        spread: (units,) -> what the module's weight, as it is stored, is multiplied with.
    """

    path: str
    module: nn.Module
    units: slice
    spread: Callable[[Tensor], Tensor]


Places = Mapping[int, Sequence[Mask]]  # by the number of the layer


def require_float(kind: str, places: Places) -> None:
    """Raise for a matrix in integers, which cannot be multiplied."""
    for mask in (mask for masks in places.values() for mask in masks):
        if is_quantised(mask.module.weight):
            raise refuse(
                f"gates on {kind} of {mask.path}, whose weight is quantised",
                "weights in floating point",
                "load the model without quantisation",
                UnsupportedModel,
            )


def require_own(kind: str, places: Places) -> None:
    """Raise for a module that two layers share: one pass through it would close what the other keeps."""
    first: dict[int, int] = {}
    for layer, masks in places.items():
        for mask in masks:
            other = first.setdefault(id(mask.module), layer)
            if other != layer:
                raise refuse(
                    f"gates on {kind} of {mask.path}, a module that layers {other} and {layer} share",
                    "a module of its own in each layer",
                    "gate edges alone, or choose another model",
                    UnsupportedModel,
                )
