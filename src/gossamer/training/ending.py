"""Why a run ended, in words for its report."""

from __future__ import annotations

from typing import Any

FRESH = 0.05  # of the run: open units that fell this short a time before its end still fall (assumed)


def why_it_ended(trainer: Any) -> str:
    """What a finished `SparsityTrainer` stopped for: `after N steps: ...`, with what more steps could be for."""
    cut = trainer.last_cut
    return _why(trainer) + (f"; then the gate bias fell by {cut:.3g} nats more" if cut else "")


def _why(trainer: Any) -> str:
    controller, taken = trainer.controller, trainer.state.global_step
    if trainer.budget is not None and trainer.budget.is_spent:
        why = "its minutes were over"
    elif controller.done:
        why = "it had settled, and a model that holds the ceiling was there"
    elif controller.has_stalled and taken < trainer.state.max_steps:
        waited = f"no more closed for {controller.falling.steps:,} steps"
        return f"after {taken:,} of {trainer.state.max_steps:,} steps: {waited}"
    elif taken < trainer.state.max_steps:
        why = "it was stopped"
    else:
        why = "its steps were over"
    still = controller.falling.steps <= FRESH * taken and not controller.done
    return f"after {taken:,} steps: {why}" + (", while open units still fell" if still else "")
