"""Whether the open units of a run still fall: one that has stopped falling need not take all of its steps.

`transformers.EarlyStoppingCallback` looks at held-out scores instead. Here a score is a density only while the ceiling
holds with a margin, and a run that closes units lies now on one side of it, now on the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAY = 0.95  # of the moving average: gates are sampled, and what one batch opens says little
LEAST = 0.98  # of its lowest: a number that is not below has not fallen (assumed)


@dataclass
class Falling:
    """Follow a positive number, and count the steps since it last fell.

        average   <- decay average + (1 - decay) log x
        steps     <- 0 where average < lowest + log LEAST, which then is the lowest; else steps + 1

    Attributes:
        average, lowest: in nats; None before the first step.
        steps: steps since the average last fell.
    """

    average: float | None = None
    lowest: float | None = None
    steps: int = 0

    def see(self, value: float) -> None:
        """Take in the number of one step; 0 counts as as little as can be told."""
        now = math.log(max(value, 1e-12))
        self.average = now if self.average is None else DECAY * self.average + (1 - DECAY) * now
        self.steps += 1
        if self.lowest is None or self.average < self.lowest + math.log(LEAST):
            self.lowest, self.steps = self.average, 0
