"""The Lagrangian on problems whose solution is known, and the ceilings that a person can type."""

from __future__ import annotations

import itertools
import math

import pytest

from gossamer.errors import GossamerError
from gossamer.training.constraint import KINDS, Ceiling, Multiplier
from gossamer.training.schedule import CREEP, Schedule, between


def solve(
    slope: float, epsilon: float, gain: float, steps: int = 6000, start: float = 1.0
) -> tuple[float, float]:
    """Gradient descent on A(x) = x, D(x) = slope / x, whose constrained minimum is x = slope / epsilon."""
    ceiling = Ceiling("kl", epsilon)
    multiplier = Multiplier(rate=0.01, gain=gain, decay=0.9).starting_at(start)
    x = 10.0
    for _ in range(steps):
        divergence = slope / x
        gradient = (1 - multiplier.value * slope / x**2) / (1 + multiplier.value)
        x = max(0.05, x - 0.1 * gradient)
        multiplier.step(divergence, ceiling)
    return x, multiplier.value


@pytest.mark.parametrize("gain", [0.0, 0.5])
@pytest.mark.parametrize(("slope", "epsilon"), [(1.0, 0.5), (2.0, 0.5), (0.3, 0.1)])
def test_multiplier_finds_the_constrained_minimum(slope: float, epsilon: float, gain: float) -> None:
    x, value = solve(slope, epsilon, gain)
    assert x == pytest.approx(slope / epsilon, rel=1e-3)
    # At the optimum dA/dx + lambda dD/dx = 0, so lambda = x^2 / slope.
    assert value == pytest.approx((slope / epsilon) ** 2 / slope, rel=1e-2)


def test_lagrangian_keeps_its_scale() -> None:
    multiplier = Multiplier()
    for integral in (-5.0, 0.0, 9.0):
        multiplier.integral = integral
        assert 0.0 <= multiplier.lagrangian(1.0, 1.0) <= 1.0 + 1e-12


def test_multiplier_moves_at_most_its_rate_and_is_clamped() -> None:
    multiplier, ceiling = Multiplier(rate=0.5, decay=0.0, high=2.0), Ceiling("kl", 0.1)
    multiplier.step(1e9, ceiling)
    assert multiplier.integral == pytest.approx(0.5)
    for _ in range(10):
        multiplier.step(1e9, ceiling)
    assert multiplier.value == pytest.approx(2.0)


def test_multiplier_starts_where_it_is_told_and_finds_the_same_minimum() -> None:
    assert Multiplier().starting_at(1.0) == Multiplier()
    assert Multiplier().starting_at(300.0).value == pytest.approx(300.0)
    # The start is a start only: the optimum of `solve` does not depend on it.
    _, from_one = solve(1.0, 0.5, 0.0)
    _, from_above = solve(1.0, 0.5, 0.0, start=300.0)
    assert from_above == pytest.approx(from_one, rel=1e-3)
    for value in (0.0, 1e-9, 1e9, math.nan):
        with pytest.raises(GossamerError, match="initial multiplier"):
            Multiplier().starting_at(value)


def test_multiplier_state_survives_a_round_trip() -> None:
    first, ceiling = Multiplier(rate=0.1), Ceiling("kl", 0.1)
    for divergence in (0.3, 0.2, 0.05):
        first.step(divergence, ceiling)
    second = Multiplier()
    second.load_state_dict(first.state_dict())
    first.step(0.4, ceiling)
    second.step(0.4, ceiling)
    assert first == second


def test_a_non_finite_divergence_is_refused() -> None:
    with pytest.raises(
        GossamerError, match="divergence nan; possible: a finite number; lower the learning rate"
    ):
        Multiplier().step(math.nan, Ceiling("kl", 0.1))


@pytest.mark.parametrize("text", ["kl", "kl=", "kl=x", "kl=-1", "kl=0", "kl=nan", "mse=0.1"])
def test_bad_ceilings_are_one_clear_line(text: str) -> None:
    with pytest.raises(GossamerError) as error:
        Ceiling.parse(text)
    message = str(error.value)
    assert "possible:" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", KINDS)
def test_ceilings_are_read_and_written(kind: str) -> None:
    ceiling = Ceiling.parse(f"{kind}=0.25")
    assert (ceiling.kind, ceiling.value, str(ceiling)) == (kind, 0.25, f"{kind}=0.25")
    assert ceiling.needs_base == (kind != "loss")
    assert ceiling.excess(0.25) == 0
    assert ceiling.scaled(4).value == 1.0


def tighten(schedule: Schedule, holds: bool) -> list[float]:
    final, u, values = Ceiling("kl", 0.01), 0.0, []
    for step in range(100):
        values.append(schedule.ceiling(u, final).value)
        u = schedule.next_tightened(u, step, holds)
    return values


def test_the_ceiling_starts_loose_and_ends_as_asked() -> None:
    values = tighten(Schedule(steps=100, loose=10.0, tighten_from=0.5, tighten_until=0.9), holds=True)
    assert values[0] == values[50] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert values[70] == pytest.approx(0.01 * 10**0.5)
    assert values[91:] == [0.01] * 9


def test_the_ceiling_waits_for_feasibility_unless_told_otherwise() -> None:
    assert set(tighten(Schedule(steps=100, loose=10.0, tighten_from=0.5), holds=False)) == {0.1}
    assert tighten(Schedule(steps=100, loose=10.0, tighten_pace="clock"), holds=False)[-1] == 0.01


def test_a_creeping_ceiling_tightens_at_its_share_of_the_pace_while_it_is_violated() -> None:
    schedule = Schedule(steps=100, tighten_from=0.0, tighten_until=1.0, tighten_pace="creep")
    assert schedule.next_tightened(0.5, 10, holds=True) == pytest.approx(0.51)
    assert schedule.next_tightened(0.5, 10, holds=False) == pytest.approx(0.5 + CREEP / 100)


def test_the_bias_waits_for_feasibility_or_follows_the_clock() -> None:
    paced = Schedule(steps=100, bias=4.0, anneal=0.1)
    assert paced.next_bias(4.0, 0, holds=False, tightened=0.0) == 4.0
    assert paced.next_bias(4.0, 0, holds=True, tightened=0.0) == pytest.approx(3.6)
    assert Schedule(steps=100, bias=4.0, anneal=0.1, pace="clock").next_bias(
        4.0, 0, holds=False, tightened=0.0
    ) == pytest.approx(3.6)
    assert paced.next_bias(0.1, 0, holds=True, tightened=0.0) == 0.0
    breathing = Schedule(steps=100, bias=4.0, anneal=0.1, pace="breathe")
    assert breathing.next_bias(0.0, 0, holds=False, tightened=0.0) == pytest.approx(0.1)
    assert breathing.next_bias(4.0, 0, holds=False, tightened=0.0) == 4.0
    assert breathing.next_bias(4.0, 0, holds=True, tightened=0.0) == pytest.approx(3.6)


def test_gates_may_start_closed_and_open_towards_zero() -> None:
    closed = Schedule(steps=100, bias=-4.0, anneal=0.1, pace="clock")
    assert closed.next_bias(-4.0, 0, holds=False, tightened=0.0) == pytest.approx(-3.6)
    assert closed.next_bias(-0.1, 0, holds=False, tightened=0.0) == 0.0
    assert Schedule(steps=100, bias=-4.0, anneal=0.1).next_bias(-4.0, 0, holds=False, tightened=0.0) == -4.0


def test_gates_are_lifted_while_the_ceiling_has_slack() -> None:
    schedule = Schedule(steps=100, bias=-4.0, tighten_from=0.2, tighten_until=0.5, regrow=2.0)
    assert schedule.next_bias(0.0, 19, holds=True, tightened=0.0) == 0.0
    lifted = [schedule.next_bias(0.0, 20, holds=False, tightened=u) for u in (0.0, 0.25, 1.0)]
    assert lifted == [2.0, 1.5, 0.0]


def test_depth_is_dearer_while_the_ceiling_has_slack() -> None:
    schedule = Schedule(steps=100, depth_price=1.0)
    assert [schedule.depth_slope(u) for u in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert Schedule(steps=100).depth_slope(0.0) == 0.0


def test_a_setting_goes_geometrically_from_the_loose_ceiling_to_the_tight_one() -> None:
    assert [between(0.01, 1.0, u) for u in (0.0, 0.5, 1.0)] == pytest.approx([0.01, 0.1, 1.0])
    assert [between(0.01, None, u) for u in (0.0, 0.5, 1.0)] == [0.01, 0.01, 0.01]


def test_at_the_end_lambda_only_rises() -> None:
    multiplier, ceiling = Multiplier(rate=0.1, gain=0.5, decay=0.0), Ceiling("kl", 0.1)
    multiplier.step(0.05, ceiling, falls=False)
    assert multiplier.value == 1.0
    multiplier.step(0.2, ceiling, falls=False)
    assert multiplier.integral == pytest.approx(0.1)
    assert Schedule(steps=10, settle_from=0.8).settles(8)
    assert not Schedule(steps=10, settle_from=0.8).settles(7)


def test_contradicting_schedules_are_refused() -> None:
    with pytest.raises(GossamerError, match="start loose and end tight"):
        Schedule(steps=10, tighten_from=0.9, tighten_until=0.5)
    with pytest.raises(
        GossamerError, match="bias pace='fast' is not known; possible: feasible, clock, breathe"
    ):
        Schedule(steps=10, pace="fast")
