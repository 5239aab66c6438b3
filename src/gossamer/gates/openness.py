"""What a gate set says of a forward pass: the expected openness that the penalty needs, and the hard counts.

A static kind, whose gates do not depend on the input, says the same of each row: so a price is always per row.

Letters: B batch row, G groups of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Slopes(NamedTuple):
    """How prices rise: a unit of layer l and group h costs (1 + layer l)(1 + head h) times its price."""

    layer: float = 0.0
    head: float = 0.0


FLAT = Slopes()


@dataclass
class Openness:
    """What one forward pass said of one gate set: per layer, in call order, sums over the units of each group.

    Attributes:
        layers: their numbers.
        expected: sum of sigma(g) over visible units, (B, G), with a gradient.
        visible: units that could be open, (B, G) int64.
        excess: where logits are limited, each layer's sum of squared excesses and how many pairs it is over.
        weight: of their mean in the objective.
        tokens: of a row, for a kind whose price is of a token.
    """

    layers: list[int] = field(default_factory=list)
    expected: list[Tensor] = field(default_factory=list)
    visible: list[Tensor] = field(default_factory=list)
    excess: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    weight: float = 0.0
    tokens: int = 1

    def total_expected(self, slopes: Slopes = FLAT, parent: dict[int, Tensor] | None = None) -> Tensor:
        """Expected open units, a scalar with a gradient, each as often as its price says.

        Args:
            parent: layer -> (G,), the probability that a group's parent is open.
        """
        parts = []
        for layer, x in zip(self.layers, self.expected, strict=True):
            x = x if parent is None else x * parent[layer]
            x = x * (1 + slopes.head * torch.arange(x.shape[-1], device=x.device)) if slopes.head else x
            parts.append(x.sum() * (1 + slopes.layer * layer))
        return torch.stack(parts).sum()

    def total_visible(self) -> Tensor:
        """How many units could be open: a scalar, left on the device."""
        return torch.stack([x.sum() for x in self.visible]).sum()

    def density(self) -> Tensor:
        """The expected share of open units, all layers together: a scalar with a gradient."""
        return self.total_expected() / self.total_visible()

    def shares(self) -> dict[int, Tensor]:
        """Layer -> (G,): the expected share of open units in each group, for the sets whose parent this is."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for layer, x, n in zip(self.layers, self.expected, self.visible, strict=True):
            total, before = (x.sum(0), n.sum(0)), found.get(layer)
            found[layer] = total if before is None else (before[0] + total[0], before[1] + total[1])
        return {layer: x / n.clamp_min(1) for layer, (x, n) in found.items()}

    def mean_excess(self) -> Tensor:
        """Mean of max(0, |s| - limit)^2 over the pairs looked at: a scalar with a gradient."""
        sums, pairs = zip(*self.excess, strict=True)
        return torch.stack(sums).sum() / torch.stack(pairs).sum()


class Count(NamedTuple):
    """One layer of one batch, counted on hard gates, (B, G) each.

    `visible`, `expected` and `hard` are units; `queries`, of a kind that has some, are those that see something.
    """

    kind: str
    price: float
    layer: int
    visible: Tensor
    expected: Tensor
    hard: Tensor
    queries: Tensor | None = None
