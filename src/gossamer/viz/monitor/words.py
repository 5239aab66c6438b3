"""The first two lines of a run's page: whether the ceiling holds and what is left, and what the run waits for."""

from __future__ import annotations

from ...training.controller import Controller
from ..report.verdict import open_of, verdict
from .history import History


def waits_for(controller: Controller) -> str:
    """One sentence on what has to happen before the run goes on to its next phase or ends."""
    recipe, limit = controller.recipe, controller.enforced.value
    if controller.done:
        return "It is done: held-out rows hold the ceiling."
    if controller.average is None:
        return "It measures the untrained model, then takes its first step."
    loose = recipe.ceiling.initial_factor != 1 and controller.tightened < 1
    if not controller.holds:
        force = f"the {limit:.3g} in force" if loose or controller.aim < 1 else f"the ceiling, {limit:.3g}"
        return (
            f"It waits for the divergence on training rows, {controller.average:.3g}, to fall to {force}; "
            f"until then lambda, {controller.multiplier:.3g}, rises."
        )
    if loose:
        begins = recipe.ceiling.tighten_from * controller.steps
        if controller.taken < begins:
            return f"It closes what it can under a loose ceiling, {limit:.3g}, until step {begins:,.0f}."
        return (
            f"It tightens the ceiling, {limit:.3g} now, to {controller.ceiling.value:g}: {controller.tightened:.0%} of "
            "the way is done."
        )
    end = recipe.gate.final_bias
    if controller.bias > end and recipe.gate.pace != "proportional":
        return f"It closes gates: their bias falls from {controller.start:.3g} to {end:g}, now {controller.bias:.3g}."
    if recipe.rate.settle:
        return (
            f"It settles under the ceiling, {controller.settled_share:.0%} done; then held-out rows decide whether it "
            "is over."
        )
    left = max(0, controller.expected_steps - controller.taken)
    said = f"It closes what the ceiling allows for the {left:,} steps that are left"
    if controller.patience is None:
        return f"{said}."
    return f"{said}, or until no more closed for {controller.patience:,} steps ({controller.falling.steps:,} so far)."


def verdict_of(history: History) -> str:
    """The first line: the ceiling, and what the best checkpoint so far has left."""
    if history.best is None:
        return verdict(history.ceiling, None, None, [])
    step, score = history.best
    left = []
    for kind in history.kinds():
        opened = history.at(f"open {kind}, held out", step)
        share = history.at(f"share of {kind} that is open", step)
        if share is None and len(history.kinds()) == 1:
            share = history.at("share that is open", step)
        left += [] if opened is None else [open_of(kind, opened, share)]
    which = "is the untrained model" if step == 0 else f"is that of step {step:,.0f}"
    so_far = "" if history.done else " so far"
    lost = history.at("divergence, held out", step)
    return verdict(history.ceiling, score <= 1, lost, left, f"The best checkpoint{so_far} {which}.")


def state_of(history: History) -> str:
    """The second line: how far the run is, and what it waits for."""
    seconds = history.now - history.started
    if history.done:
        return f"Done after {history.last:,.0f} steps and {_minutes(seconds)}."
    step = f"Step {history.last:,.0f} of {history.steps:,}" if history.steps else "Before its first step"
    return f"Running. {step}, {_minutes(seconds)}. {history.waits} Last written {history.written}.".replace(
        "  ", " "
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
