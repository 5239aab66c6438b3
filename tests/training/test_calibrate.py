"""Where a run starts: the bias at which an untrained model loses a share of its ceiling, and the price there."""

from __future__ import annotations

import math

import pytest

from gossamer.training.calibrate import HIGHEST, LOWEST, TOLERANCE, calibrate


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("middle", [0.5, 7.0, 20.0])
def test_the_smallest_bias_inside_is_found_wherever_the_logits_lie(middle: float) -> None:
    start = calibrate(lambda c: (sigmoid(c - middle), sigmoid(middle - c)), 0.01)
    right = middle + math.log(0.99 / 0.01)
    assert right <= start.bias <= right + TOLERANCE
    assert start.divergence <= 0.01 < sigmoid(middle - start.bias + TOLERANCE)


def test_the_price_is_the_slope_between_the_last_two_measurements() -> None:
    start = calibrate(lambda c: (c / HIGHEST, 3 * (HIGHEST - c) / HIGHEST), 0.5)
    assert start.multiplier == pytest.approx(1 / 3, rel=1e-6)


def test_where_nothing_is_lost_the_start_is_where_schedules_end() -> None:
    start = calibrate(lambda c: (0.0, 0.0), 0.01)
    assert start.bias <= LOWEST + TOLERANCE
    assert start.multiplier is None


def test_where_only_open_gates_hold_the_start_is_open() -> None:
    start = calibrate(lambda c: (1.0, 0.0) if math.isinf(c) else (0.9, 1.0), 0.01)
    assert start.bias == math.inf
    assert (start.density, start.divergence) == (1.0, 0.0)


def test_it_takes_few_evaluations() -> None:
    seen: list[float] = []
    calibrate(lambda c: (seen.append(c) or 0.5, sigmoid(-c)), 0.01)
    assert len(seen) <= 1 + math.ceil(math.log2((HIGHEST - LOWEST) / TOLERANCE))
