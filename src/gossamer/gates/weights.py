"""Gates on single weights of attention and MLP matrices: a learned logit each, or the largest of each matrix.

    reads = logit        z = 1[ l > 0 ], as in `learned.py`
    reads = magnitude    z = 1[ |w| is among the k largest of its matrix ],   k / n = exp(c) / 1000, at most 1

The second has nothing to learn but the weights themselves: the controller moves k through the gate bias c, from all
weights at c = 7 to one in a thousand at c = 0. A closed weight has no gradient then.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .learned import LearnedGates
from .masks import Mask
from .reads import MAGNITUDE

FEWEST = 1e-3  # the share of weights that gates on magnitude leave open at c = 0


class WeightGates(LearnedGates):
    """g = l for each weight of q, k, v, o and the MLP; a closed weight is zero. Biases and norms have no gates."""

    kind: ClassVar[str] = "weights"
    block: ClassVar[str] = "weight_gates"
    stream: ClassVar[int] = 4
    readings: ClassVar[tuple[str, ...]] = ("logit", MAGNITUDE)
    has_least_slope: ClassVar[bool] = True

    def _decide(self, layer: int, *, training: bool) -> tuple[Tensor, Tensor]:
        if self.reads == "logit" or math.isinf(self.bias):
            return super()._decide(layer, training=training)
        with torch.no_grad():
            share = FEWEST * math.exp(self.bias)
            z = torch.cat([_largest(mask.module, share) for mask in self.places[layer]])
        return z, z

    def masks(self, layer: Any) -> list[Mask]:
        """Every matrix of a layer once, in the order in which a layer reads them."""
        mlp = layer.mlp
        parts = (layer.q, layer.k, layer.v, layer.o, mlp.gate, mlp.into, mlp.out)
        modules = {part.path: part.module for part in parts if part is not None}
        found, first = [], 0
        for path, module in modules.items():
            size = module.weight.numel()
            spread = partial(_shaped, shape=tuple(module.weight.shape))
            found.append(Mask(path, module, slice(first, first + size), spread))
            first += size
        return found

    def multiply_adds(self, layer: Any) -> float:
        """One weight is one multiply-add a token."""
        return 1.0


def _shaped(z: Tensor, shape: tuple[int, ...]) -> Tensor:
    return z.view(shape)


def _largest(module: nn.Module, share: float) -> Tensor:
    """(n,) {0, 1}: the weights of a matrix that are among its largest."""
    size = module.weight.detach().float().abs().flatten()  # type: ignore[operator]
    k = math.ceil(min(1.0, share) * len(size))
    return (size >= size.kthvalue(len(size) - k + 1).values).float() if k else torch.zeros_like(size)
