"""The interval of a mean over few seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# The 97.5 % quantile of Student's t by degrees of freedom, 1 to 19; as tabled, for example, by NIST.
T95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
T95 += (2.120, 2.110, 2.101, 2.093)


class Interval(NamedTuple):
    """A mean with the ends of its 95 % t interval; both infinite for one value."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float]) -> Interval:
    """mean +- t s / sqrt(n), for 1 to 20 values."""
    n = len(values)
    if not 1 <= n <= len(T95) + 1:
        raise ValueError(f"{n} values: expected 1 to {len(T95) + 1}")
    mean = statistics.fmean(values)
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = T95[n - 2] * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)
