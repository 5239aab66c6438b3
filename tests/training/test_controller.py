"""The controller on problems whose solution is known, and how it moves ceiling, bias and lambda; without a Trainer."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import CheckpointError, GossamerError
from gossamer.training.calibrate import Start
from gossamer.training.constraint import Ceiling
from gossamer.training.controller import AGAIN, CREEP, LEAST_AIM, Controller
from gossamer.training.falling import Falling
from gossamer.training.presets import PRESETS
from gossamer.training.recipe import CeilingRecipe, ControlRecipe, GateRecipe, Recipe

KL = Ceiling("kl", 0.1)


def controller(steps: int = 100, ceiling: Ceiling = KL, **settings: Any) -> Controller:
    """A controller with settings written as `gate__bias`."""
    flat = {name.replace("__", "."): value for name, value in settings.items()}
    made = Controller(ceiling, Recipe().with_settings(flat))
    made.begin(steps)
    return made


def at(
    made: Controller, step: int, *, tightened: float = 0.0, holds: bool = True, bias: float | None = None
) -> Controller:
    """The controller after one step from a given place, under a divergence that holds the ceiling or does not."""
    made.taken, made.tightened, made.average = step, tightened, None
    made.bias = made.bias if bias is None else bias
    made.step(0.0 if holds else 1e6)
    return made


def solve(
    slope: float, epsilon: float, kp: float, steps: int = 6000, start: float = 1.0
) -> tuple[float, float]:
    """Gradient descent on A(x) = x, D(x) = slope / x, whose constrained minimum is x = slope / epsilon."""
    made = controller(
        steps, Ceiling("kl", epsilon), control__ki=0.01, control__kp=kp, control__initial_lambda=start
    )
    x = 10.0
    for _ in range(steps):
        value = made.multiplier
        x = max(0.05, x - 0.1 * (1 - value * slope / x**2) / (1 + value))
        made.step(slope / x)
    return x, made.multiplier


@pytest.mark.parametrize("kp", [0.0, 0.5])
@pytest.mark.parametrize(("slope", "epsilon"), [(1.0, 0.5), (2.0, 0.5), (0.3, 0.1)])
def test_multiplier_finds_the_constrained_minimum(slope: float, epsilon: float, kp: float) -> None:
    x, value = solve(slope, epsilon, kp)
    assert x == pytest.approx(slope / epsilon, rel=2e-3)
    # At the optimum dA/dx + lambda dD/dx = 0, so lambda = x^2 / slope.
    assert value == pytest.approx((slope / epsilon) ** 2 / slope, rel=1e-2)


def test_lagrangian_keeps_its_scale() -> None:
    made = controller()
    for integral in (-5.0, 0.0, 9.0):
        made.integral = integral
        assert 0.0 <= made.lagrangian(1.0, 1.0) <= 1.0 + 1e-12


def test_multiplier_moves_at_most_its_rate_and_is_clamped() -> None:
    made = controller(control__ki=0.5, control__ema_decay=0.0, control__lambda_bounds=(1e-3, 2.0))
    made.step(1e9)
    assert made.integral == pytest.approx(0.5)
    for _ in range(10):
        made.step(1e9)
    assert made.multiplier == pytest.approx(2.0)


def test_multiplier_starts_where_it_is_told_and_finds_the_same_minimum() -> None:
    assert controller(control__initial_lambda=300.0).multiplier == pytest.approx(300.0)
    # The start is a start only: the optimum of `solve` does not depend on it.
    _, from_one = solve(1.0, 0.5, 0.0)
    _, from_above = solve(1.0, 0.5, 0.0, start=300.0)
    assert from_above == pytest.approx(from_one, rel=1e-3)
    for value in (0.0, 1e-9, 1e9):
        with pytest.raises(GossamerError, match="initial_lambda"):
            controller(control__initial_lambda=value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 59), st.booleans())
def test_a_resumed_controller_is_the_uninterrupted_one(values: list[float], stop: int, moves: bool) -> None:
    settings = {
        "gate__bias": -2.0,
        "gate__regrow_bias": 1.0,
        "ceiling__initial_factor": 5.0,
        "ceiling__tighten_from": 0.1,
        "ceiling__tighten_until": 0.3,
        "rate__settle": 0.1,
    }
    measured = Start(bias=3.0, density=0.5, divergence=0.01, multiplier=2.0)
    whole, part = (controller(60, **settings if moves else {}) for _ in range(2))
    for one in (whole, part):
        one.start_at(measured)
    for i, value in enumerate(values):
        if i == stop:
            saved = json.loads(json.dumps(part.state_dict()))
            part = controller(60, **settings if moves else {})
            part.load_state_dict(saved)
        for one in (whole, part):
            one.step(value, 1 / (i + 1))
            if one.is_settled:
                one.aim_by(value, 0.01)
                one.judge(holds=value < 0.1)
    assert vars(whole) == vars(part)


def test_the_state_of_another_run_is_refused() -> None:
    state = controller().state_dict()
    with pytest.raises(CheckpointError, match=r"ceiling kl=0.2 on a checkpoint made with ceiling kl=0.1"):
        controller(ceiling=Ceiling("kl", 0.2)).load_state_dict(state)
    with pytest.raises(CheckpointError, match="a controller's state without integral, boost"):
        controller().load_state_dict({"ceiling": "kl=0.1"})


def test_a_non_finite_divergence_is_refused() -> None:
    with pytest.raises(
        GossamerError, match=r"divergence nan: expected a finite number\. Lower the learning rate"
    ):
        controller().step(math.nan)


def tighten(made: Controller, holds: bool) -> list[float]:
    values = []
    for _ in range(100):
        values.append(made.enforced.value)
        made.average = None
        made.step(0.0 if holds else 1e6)
    return values


def test_the_ceiling_starts_loose_and_ends_as_asked() -> None:
    loose = {"ceiling__initial_factor": 10.0, "ceiling__tighten_from": 0.5, "ceiling__tighten_until": 0.9}
    values = tighten(controller(**loose), holds=True)
    assert values[0] == values[50] == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert values[70] == pytest.approx(0.1 * 10**0.5)
    assert values[91:] == [0.1] * 9


def test_the_ceiling_waits_for_feasibility_unless_told_otherwise() -> None:
    loose = {"ceiling__initial_factor": 10.0, "ceiling__tighten_from": 0.5}
    assert set(tighten(controller(**loose), holds=False)) == {1.0}
    assert tighten(controller(**loose, ceiling__tighten_pace="always"), holds=False)[-1] == 0.1


def test_a_slowed_ceiling_tightens_at_its_share_of_the_pace_while_it_is_violated() -> None:
    slow = {
        "ceiling__tighten_from": 0.0,
        "ceiling__tighten_until": 1.0,
        "ceiling__tighten_pace": "slow_when_violated",
    }
    assert at(controller(**slow), 10, tightened=0.5).tightened == pytest.approx(0.51)
    assert at(controller(**slow), 10, tightened=0.5, holds=False).tightened == pytest.approx(
        0.5 + CREEP / 100
    )


def test_the_bias_waits_for_feasibility_or_follows_the_clock() -> None:
    paced = {"gate__bias": 4.0, "gate__anneal": 0.1}
    assert at(controller(**paced), 0, holds=False).bias == 4.0
    assert at(controller(**paced), 0).bias == pytest.approx(3.6)
    assert at(controller(**paced, gate__pace="always"), 0, holds=False).bias == pytest.approx(3.6)
    assert at(controller(**paced), 0, bias=0.1).bias == 0.0
    both = {**paced, "gate__pace": "bidirectional"}
    assert at(controller(**both), 0, bias=0.0, holds=False).bias == pytest.approx(0.1)
    assert at(controller(**both), 0, bias=4.0, holds=False).bias == 4.0
    assert at(controller(**both), 0, bias=4.0).bias == pytest.approx(3.6)


@pytest.mark.parametrize(
    ("divergence", "moved"), [(0.0, -0.4), (0.05, -0.2), (0.1, 0.0), (0.15, 0.2), (9.0, 0.4)]
)
def test_a_proportional_bias_moves_with_the_slack(divergence: float, moved: float) -> None:
    made = controller(gate__bias=4.0, gate__anneal=0.1, gate__pace="proportional")
    made.bias, made.average = 2.0, divergence
    made.step(divergence)
    assert made.bias == pytest.approx(2.0 + moved)


@pytest.mark.parametrize("cost", [0.3, 3.0])
def test_a_proportional_bias_comes_to_rest_at_the_ceiling(cost: float) -> None:
    """A toy model that loses cost * exp(-c): the others go past the ceiling and wait there, this one stops at it."""
    made = controller(steps=400, gate__bias=6.0, gate__anneal=0.2, gate__pace="proportional")
    for _ in range(400):
        made.step(cost * math.exp(-made.bias))
    assert cost * math.exp(-made.bias) == pytest.approx(KL.value, rel=0.02)


def test_gates_may_start_closed_and_open_towards_zero() -> None:
    closed = {"gate__bias": -4.0, "gate__anneal": 0.1}
    assert at(controller(**closed, gate__pace="always"), 0, holds=False).bias == pytest.approx(-3.6)
    assert at(controller(**closed, gate__pace="always"), 0, bias=-0.1).bias == 0.0
    assert at(controller(**closed), 0, holds=False).bias == -4.0


def test_gates_are_lifted_while_the_ceiling_has_slack() -> None:
    lifting = {
        "gate__bias": -4.0,
        "ceiling__tighten_from": 0.2,
        "ceiling__tighten_until": 0.5,
        "gate__regrow_bias": 2.0,
    }
    assert at(controller(**lifting), 19, bias=0.0).bias == 0.0
    lifted = [at(controller(**lifting), 20, tightened=u, holds=False).bias for u in (0.0, 0.25, 1.0)]
    assert lifted == [2.0, 1.5, 0.0]


def test_depth_is_dearer_while_the_ceiling_has_slack() -> None:
    made, found = controller(gate__layer_price_slope=1.0), []
    for made.tightened in (0.0, 0.25, 1.0):
        found.append(made.price_slopes.layer)
    assert found == [1.0, 0.75, 0.0]
    assert controller().price_slopes == (0.0, 0.0)


def test_depth_has_a_price_of_its_own_while_units_grow_back() -> None:
    given = {"gate__layer_price_slope": 3.0, "ceiling__tighten_from": 0.2, "ceiling__tighten_until": 0.5}
    made = controller(**given, gate__regrow_price_slope=0.5)
    assert (at(made, 18).price_slopes.layer, made.taken) == (3.0, 19)
    assert [at(made, 19, tightened=u).price_slopes.layer for u in (0.0, 0.5, 1.0)] == [0.5, 0.25, 0.0]
    assert at(controller(**given, gate__regrow_price_slope=0.0), 19).price_slopes.layer == 0.0
    assert at(controller(**given), 19).price_slopes.layer == 3.0


def test_later_heads_are_dearer_until_the_ceiling_is_tight() -> None:
    made = controller(gate__head_price_slope=0.5)
    found = []
    for made.tightened in (0.0, 0.25, 1.0):
        found.append(made.price_slopes.head)
    assert found == [0.5, 0.5, 0.0]


def test_the_least_slope_falls_as_the_ceiling_tightens() -> None:
    made, found = controller(gate__least_slope=0.1), []
    for made.tightened in (0.0, 0.25, 1.0):
        found.append(made.least_slope)
    assert found == pytest.approx([0.1, 0.075, 0.0])
    assert controller().least_slope == 0.0


def test_a_floor_goes_geometrically_from_the_loose_ceiling_to_the_tight_one_and_a_cap_jumps() -> None:
    control = ControlRecipe(lambda_bounds=(0.01, 1.0), final_lambda_bounds=(1.0, 50.0))
    assert [control.bounds(u)[0] for u in (0.0, 0.5, 1.0)] == pytest.approx([0.01, 0.1, 1.0])
    assert [control.bounds(u)[1] for u in (0.0, 0.5, 1.0)] == [1.0, 1.0, 50.0]
    assert replace(control, final_lambda_bounds=None).bounds(0.5) == (0.01, 1.0)


def test_at_the_end_lambda_only_rises() -> None:
    settings = {"control__ki": 0.1, "control__kp": 0.5, "control__ema_decay": 0.0}
    made = controller(10, **settings, control__lambda_nondecreasing_from=0.8)
    made.taken = 7
    made.step(0.05)
    assert made.multiplier < 1.0
    low = made.integral
    made.step(0.05)
    assert (made.integral, made.boost) == (low, 0.0)
    made.step(0.2)
    assert made.integral == pytest.approx(low + 0.1)


@given(
    st.sampled_from(["when_feasible", "always", "bidirectional", "proportional"]),
    st.sampled_from(["when_feasible", "slow_when_violated", "always"]),
    st.floats(-8, 8),
    st.lists(st.floats(0, 1), min_size=20, max_size=20),
)
def test_whatever_is_measured_everything_stays_in_its_range(
    pace: str, tighten_pace: str, bias: float, values: list[float]
) -> None:
    gate = GateRecipe(bias=bias, anneal=0.3, pace=pace)
    ceiling = CeilingRecipe(
        initial_factor=3.0, tighten_from=0.2, tighten_until=0.6, tighten_pace=tighten_pace
    )
    made = Controller(
        KL, Recipe(gate=gate, ceiling=ceiling, control=ControlRecipe(kp=0.5, lambda_bounds=(0.1, 10.0)))
    )
    made.begin(20)
    before = 0.0
    for value in values:
        made.step(value)
        assert min(0.0, bias) <= made.bias <= max(0.0, bias)
        assert before <= made.tightened <= 1.0
        assert 0.1 * math.exp(-0.5) <= made.multiplier <= 10.0 * math.exp(1.0) * (1 + 1e-12)
        assert KL.value <= made.enforced.value <= 3.0 * KL.value
        before = made.tightened


def test_contradicting_recipes_are_refused() -> None:
    with pytest.raises(GossamerError, match="tighten_until"):
        CeilingRecipe(tighten_from=0.9, tighten_until=0.5)
    with pytest.raises(
        GossamerError, match=r"gate.pace='fast' is not known: expected one of when_feasible, always, bidirect"
    ):
        GateRecipe(pace="fast")
    for bounds in (
        {"lambda_bounds": (1.0, 0.1)},
        {"final_lambda_bounds": (1.0, 0.1)},
        {"lambda_bounds": (2.0, 3.0), "initial_lambda": 1.0},
    ):
        with pytest.raises(GossamerError, match="lambda"):
            ControlRecipe(**bounds)
    with pytest.raises(GossamerError, match="0 steps"):
        controller(0)


def tight(made: Controller, steps: int = 1, divergence: float = 0.0) -> Controller:
    made.tightened = 1.0
    for _ in range(steps):
        made.step(divergence)
    return made


def test_the_rate_is_whole_above_a_multiple_and_falls_as_the_root_below() -> None:
    made = controller(rate__full_above=25.0, ceiling__initial_factor=400.0)
    assert made.rate == 1.0
    made.tightened = 1 - math.log(4) / math.log(400)  # 4 times the ceiling is enforced
    assert made.rate == pytest.approx((4 / 25) ** 0.5)
    made.tightened = 1.0
    assert made.rate == pytest.approx(0.2)
    assert controller().rate == 1.0


def test_a_tight_run_settles_whatever_it_loses_and_is_then_judged() -> None:
    """No phase waits for what another prevents: the rate falls under a violated ceiling too, which it may be that
    violates it."""
    for divergence in (0.0, 1e3):
        made = tight(controller(rate__settle=0.2, rate__final=0.1), 20, divergence)
        assert made.is_settled
        assert made.rate == pytest.approx(0.1)
        assert not made.done
        made.judge(holds=True)
        assert made.done


def test_a_settled_run_that_misses_its_ceiling_settles_again_from_the_whole_rate() -> None:
    made = tight(
        controller(gate__bias=0.0, ceiling__tighten_from=0.0, rate__settle=0.2, rate__final=0.1), 20, 1e3
    )
    made.judge(holds=False)
    assert not made.done
    assert not made.is_settled
    assert made.rate == 1.0
    assert made.bias == 0.0
    made.recipe = made.recipe.with_settings({"gate.regrow_bias": 2.0})
    assert tight(made, 1, 1e3).bias == 2.0
    assert 1.8 < tight(made, 1, 1e3).bias < 2.0
    assert made.multiplier >= made.recipe.control.bounds(1.0)[1]
    tight(made, 20 * AGAIN - 3, 1e3)
    assert not made.is_settled
    assert made.bias == 0.0
    assert tight(made, 1).is_settled


def test_a_run_with_every_pace_ends_tight_within_its_steps_under_any_divergence() -> None:
    """The published recipe used to lock: its ceiling crept while lambda stood at its cap and the rate fell by the
    clock. In this one a violated ceiling comes down at its slower pace, and the rate falls with it."""
    for divergence in (0.0, 1e3):
        made = Controller(Ceiling("kl", 0.0004), PRESETS["addition"].recipe)
        made.begin(7000)
        taken = 0
        while not made.is_settled and taken < 7000:
            made.step(divergence)
            taken += 1
        assert made.is_settled
        assert made.enforced.value == pytest.approx(0.0004)


def test_the_aim_is_lowered_by_what_held_out_rows_lose_more() -> None:
    made = controller(control__ema_decay=0.0)
    made.aim_by(9.0, 1.0)  # nothing was trained: no average to compare with
    assert made.aim == 1.0
    made.step(0.08)
    made.aim_by(0.09, 0.005)
    assert made.aim == pytest.approx(1 - (0.09 + 2 * 0.005 - 0.08) / 0.1)
    assert made.enforced.value == pytest.approx(0.08)
    made.aim_by(0.02, math.nan)
    assert made.aim == 1.0
    made.aim_by(9.0, 0.0)
    assert made.aim == LEAST_AIM


def test_a_measured_start_is_taken_where_the_recipe_leaves_it_open() -> None:
    measured = Start(bias=7.5, density=0.9, divergence=0.01, multiplier=12.0)
    made = controller()
    made.start_at(measured)
    assert (made.bias, made.start) == (7.5, 7.5)
    assert made.multiplier == pytest.approx(12.0)
    told = controller(gate__bias=-2.0, control__initial_lambda=3.0)
    told.start_at(measured)
    assert told.bias == -2.0
    assert told.multiplier == pytest.approx(3.0)
    bounded = controller(control__lambda_bounds=(20.0, 300.0))
    bounded.start_at(measured)
    assert bounded.multiplier == pytest.approx(20.0)


def test_the_length_of_a_run_is_told_from_its_pace() -> None:
    made = controller(rate__settle=0.1, ceiling__tighten_from=0.1, ceiling__tighten_until=0.3)
    assert made.expected_steps == 100
    made.taken, made.tightened = 20, 0.5
    assert made.expected_steps == 20 + 10 + 10
    tight(made, 4)
    assert made.expected_steps == 24 + 6


def test_a_run_has_stalled_when_open_units_have_not_fallen_for_its_patience() -> None:
    made, opened = controller(1000, rate__patience=0.1), 1.0
    for step in range(1000):
        opened *= 0.98 if step < 300 else 1.0
        made.step(0.0, opened)
        if made.has_stalled:
            break
    # The average follows with a delay of some twenty steps, and a hundred more must pass without a fall.
    assert 400 < made.taken < 600
    assert not controller(1000).has_stalled
    assert controller(1000).patience is None


def test_nothing_stalls_under_a_ceiling_looser_than_the_one_asked_for() -> None:
    made = controller(1000, rate__patience=0.1, ceiling__initial_factor=4.0)
    for _ in range(300):
        made.step(0.0, 0.5)
    assert not made.has_stalled
    made.tightened = 1.0
    assert made.has_stalled


def test_a_run_that_misses_its_ceiling_recovers_and_does_not_stall() -> None:
    made = controller(1000, rate__patience=0.1)
    made.step(0.0, 1.0)
    for _ in range(300):
        made.step(1e6, 0.5)  # what is closed now may have to open again
    assert (made.falling.steps, made.has_stalled) == (0, False)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_falling_counts_the_steps_since_the_lowest(values: list[float]) -> None:
    seen = Falling()
    for value in values:
        before = (seen.lowest, seen.steps)
        seen.see(value)
        assert seen.lowest is not None
        assert seen.steps == 0 or (seen.lowest, seen.steps - 1) == before
        assert before[0] is None or seen.lowest <= before[0]
    flat = seen.steps
    for _ in range(10_000):
        seen.see(max(values))
    assert seen.steps >= 9_000 or flat == 0
