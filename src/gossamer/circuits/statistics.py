"""How sure a share or a mean is: Wilson's interval for counts, the bootstrap for the rest. numpy only."""

from __future__ import annotations

import math

import numpy as np

from ..errors import refuse

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share, hits / n: (low, high), 95 % by default; (0, 1) for n = 0.

    Source: Wilson 1927; unlike p +- z sqrt(p (1 - p) / n) it stays inside [0, 1] and is not empty at 0 or n
        hits.
    """
    if not 0 <= hits <= n:
        raise refuse(f"{hits} hits of {n}", "0 <= hits <= n", "count again")
    if n == 0:
        return 0.0, 1.0
    share, scale = hits / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # At 0 and n hits the exact ends are 0 and 1; rounding must not exclude them.
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == n else min(1.0, centre + half))


def bootstrap(values: np.ndarray, *, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """The 95 % percentile interval of a mean by resampling prompts: (low, high).

    Args:
        values: (N,) one number per prompt.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise refuse(f"values {values.shape}", "(N,) with N >= 1", "pass one number per prompt")
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)])
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
