"""The arms: which mask, which start, from which step. All share steps, batches and optimizer of their seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.experiments.tickets import masks
from benchmarks.experiments.tickets.masks import Mask
from benchmarks.experiments.tickets.train import State

REWINDS = (0.05, 0.2, 0.5)  # of all steps


@dataclass(frozen=True)
class Start:
    """One arm: the weights that it begins with, its mask (None: dense), the step that it begins at, and its width.

    Attributes:
        small: the parameters of a smaller dense model that is trained instead, or None.
    """

    state: State | None
    mask: Mask | None
    first: int = 0
    small: int | None = None


@dataclass(frozen=True)
class Found:
    """What the arms of a seed are made from.

    Attributes:
        mask: found by gossamer, on the trained dense model of this seed.
        states: of the dense arm, by step: 0, the rewinding points, the last.
        fresh: an initialisation of another seed.
        probe: the trained dense model, with gates of the mask's kinds.
        parameters: what the mask leaves.
    """

    mask: Mask
    states: dict[int, State]
    fresh: State
    probe: Any
    parameters: int
    seed: int


def points(steps: int) -> tuple[int, ...]:
    """The steps that rewinding goes back to."""
    return tuple(round(share * steps) for share in REWINDS)


def arms(steps: int) -> dict[str, Callable[[Found], Start]]:
    """Every arm but the dense one, by name, in the order in which they are run."""
    middle = points(steps)[1]
    late: dict[str, Callable[[Found], Start]] = {
        f"rewound_{point}": lambda x, point=point: Start(x.states[point], x.mask, point)
        for point in points(steps)
    }
    return {
        "found": lambda x: Start(x.states[0], x.mask),
        "fresh": lambda x: Start(x.fresh, x.mask),
        "shuffled": lambda x: Start(x.states[0], masks.shuffled(x.probe, x.mask, 100 + x.seed)),
        "random": lambda x: Start(x.states[0], masks.random(x.probe, x.mask, 200 + x.seed)),
        "magnitude": lambda x: Start(x.states[0], masks.largest(x.probe, x.mask)),
        "signs": lambda x: Start(masks.signed(x.states[0], x.fresh), x.mask),
        **late,
        "small_dense": lambda x: Start(None, None, small=x.parameters),
        # Added after the arms above were read: what rewinding gives to a mask that was not found.
        f"shuffled_{middle}": lambda x: Start(
            x.states[middle], masks.shuffled(x.probe, x.mask, 100 + x.seed), middle
        ),
    }
