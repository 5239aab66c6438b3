"""A budget in minutes on a clock that the test moves."""

from __future__ import annotations

from gossamer.training.budget import WARM, Budget


def test_the_steps_that_fit_follow_the_pace() -> None:
    now = [0.0]
    budget = Budget(1.0, clock=lambda: now[0])
    budget.begin(0)
    assert budget.steps(0, 1000) == 1000
    now[0] = 1.0 * WARM  # a second a step
    assert budget.steps(WARM, 1000) == 60
    now[0] = 30.0
    assert budget.steps(15, 1000) == 30  # two seconds a step by now
    assert budget.steps(15, 20) == 20
    assert not budget.is_spent
    now[0] = 60.0
    assert budget.is_spent
    assert budget.steps(30, 1000) == 30


def test_a_resumed_run_counts_its_own_steps() -> None:
    now = [100.0]
    budget = Budget(1.0, clock=lambda: now[0])
    budget.begin(500)
    now[0] = 110.0
    assert budget.steps(510, 1000) == 560


def test_a_resumed_run_has_the_minutes_that_are_left() -> None:
    now = [100.0]
    budget = Budget(1.0, clock=lambda: now[0])
    budget.begin(10, 30.0)
    now[0] += 10
    assert budget.gone == 40
    assert budget.steps(20, 1000) == 40  # a second a step, and twenty are left
    now[0] += 20
    assert budget.is_spent


def test_what_is_measured_before_the_first_step_is_no_part_of_the_pace() -> None:
    now = [0.0]
    budget = Budget(1.0, clock=lambda: now[0])
    budget.begin(0)
    now[0] = 30.0  # a start was measured
    budget.prepared()
    now[0] = 33.0
    assert budget.gone == 33
    assert budget.steps(WARM, 1000) == WARM + 27  # a second a step, and 27 are left
