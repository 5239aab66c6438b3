"""Where a run starts: the gate bias and the first lambda, measured on the untrained model instead of assumed.

    c0       the smallest bias at which the untrained model, on hard gates, loses at most share * epsilon
    lambda0  -(dA/dc) / (dD/dc) there: the price at which one edge more and what it costs balance

D falls as c rises and is 0 at c = +inf, so a bisection finds c0. What a gate reads decides where it lies: on a
pretrained language model the scaled logits of keys that matter are far below 0 (LOG.md, 2026-11-25), so no constant
serves two models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LOWEST = 0.0  # nats: where the bias of every recipe ends, so no run needs to start below
HIGHEST = 48.0  # every gate of every model that was looked at is open there
TOLERANCE = 0.125  # nats: a bias that is as near as this is found in nine evaluations


@dataclass(frozen=True)
class Start:
    """A measured start.

    Attributes:
        bias: c0 in nats, +inf where only open gates hold the share.
        density: of open units at c0, and `divergence` what the untrained model loses there.
        multiplier: lambda0; None where the divergence does not move with the bias.
    """

    bias: float
    density: float
    divergence: float
    multiplier: float | None


def calibrate(measure: Callable[[float], tuple[float, float]], allowed: float) -> Start:
    """Find where a run starts.

    Args:
        measure: bias in nats -> (density, divergence) of the untrained model on hard gates.
        allowed: what it may lose there, share * epsilon.
    """
    seen = {HIGHEST: measure(HIGHEST)}
    if seen[HIGHEST][1] > allowed:
        return Start(math.inf, *measure(math.inf), None)
    low, high = LOWEST, HIGHEST
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        seen[middle] = measure(middle)
        low, high = (low, middle) if seen[middle][1] <= allowed else (middle, high)
    below = max((c for c in seen if c < high), default=None)
    found = seen[high]
    return Start(high, *found, None if below is None else _price(found, seen[below]))


def _price(held: tuple[float, float], beyond: tuple[float, float]) -> float | None:
    """Open share given back for each nat lost, between two measurements."""
    shed, lost = held[0] - beyond[0], beyond[1] - held[1]
    return shed / lost if shed > 0 and lost > 0 else None
