"""When a run that has stalled ends: a verdict on what it would give back; the trainer only holds a controller."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gossamer.training.constraint import Ceiling
from gossamer.training.control_steps import ControlSteps
from gossamer.training.controller import Controller
from gossamer.training.recipe import Recipe


def stalled_run() -> tuple[ControlSteps, Controller]:
    controller = Controller(Ceiling("kl", 0.1), Recipe().with_settings({"rate.patience": 0.1}))
    controller.begin(500)
    while not controller.has_stalled:
        controller.step(0.0, 0.5)
    trainer = SimpleNamespace(controller=controller, is_in_train=True, eval_dataset=[1], budget=None)
    return ControlSteps(trainer), controller


@pytest.mark.parametrize(
    ("score", "best", "best_step", "ends"),
    [
        (0.2, None, None, True),  # this model holds the ceiling
        (3.0, 0.3, 25, True),  # one that is kept does
        (3.0, 1.7, 25, False),  # the best misses too
        (3.0, 0.9, 0, False),  # what holds is the dense beginning
        (3.0, None, None, False),
    ],
)
def test_a_stalled_run_ends_when_it_has_a_model_that_holds(
    score: float, best: float | None, best_step: int | None, ends: bool
) -> None:
    steps, controller = stalled_run()
    state: Any = SimpleNamespace(global_step=controller.taken, best_metric=best, best_global_step=best_step)
    control: Any = SimpleNamespace(should_training_stop=False)
    metrics = {"eval_divergence": 0.1, "eval_divergence_se": 0.0, "eval_score": score}
    steps.on_evaluate(None, state, control, metrics=metrics)
    assert control.should_training_stop is ends


def test_a_stalled_run_is_evaluated_once_in_each_patience() -> None:
    steps, controller = stalled_run()
    asked = []
    for _ in range(150):
        control: Any = SimpleNamespace(should_evaluate=False, should_save=False, should_training_stop=False)
        steps.on_step_end(None, SimpleNamespace(global_step=1, max_steps=100), control)
        asked.append(control.should_evaluate)
        controller.step(0.0, 0.5)
    assert sum(asked) == 3
