"""A budget in minutes: how many optimizer steps fit, told again after every step.

    steps = taken + left / pace        left: seconds until the budget is spent; pace: seconds of a step, so far

The recipe's shares, and the Trainer's learning rate, then run over so many steps. A run with such a budget depends on
the machine, and cannot be repeated bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WARM = 3  # steps before a pace is believed (assumed); the first ones compile, allocate and fill caches


class Budget:
    """The minutes of one run.

    Args:
        minutes: for all of training, evaluations and checkpoints among them.
        clock: seconds, monotonic.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock = 60 * minutes, clock
        self.began, self.first, self.before = clock(), 0, 0.0

    def begin(self, taken: int, before: float = 0.0) -> None:
        """Start the clock; `taken` steps and `before` seconds were there before, of a run that is resumed."""
        self.began, self.first, self.before = self.clock(), taken, before

    def prepared(self) -> None:
        """Steps begin now: what was measured before them took of the minutes, and is no part of their pace."""
        self.begin(0, self.gone)

    @property
    def gone(self) -> float:
        """Seconds of the run so far."""
        return self.before + self.clock() - self.began

    @property
    def is_spent(self) -> bool:
        """Whether the minutes are over."""
        return self.gone >= self.seconds

    def steps(self, taken: int, most: int) -> int:
        """How many steps the run will have, `most` at most."""
        done = taken - self.first
        if done < WARM:
            return most
        gone = self.gone
        return min(most, taken + max(0, int((self.seconds - gone) * done / (gone - self.before))))
