"""Fair timing: interleaved runs, of which only ratios mean anything.

Runs are interleaved, one of each contestant per round, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def timed(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every call, in interleaved rounds after one that does not count.

    On a CPU it is processor time over all threads, which other people's work hardly disturbs; on
    CUDA it is the time on the clock.
    """
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda else time.process_time
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, call in contestants.items():
            if cuda:
                torch.cuda.synchronize()
            start = clock()
            call()
            if cuda:
                torch.cuda.synchronize()
            if turn:
                times[name].append(1e3 * (clock() - start))
    return times


def medians(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds per call, the median of `timed`."""
    return {name: statistics.median(taken) for name, taken in timed(contestants, rounds).items()}


def ratio(times: dict[str, list[float]], name: str, to: str) -> float:
    """The median over rounds of one contestant's time by another's in the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))
