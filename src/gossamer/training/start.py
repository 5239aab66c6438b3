"""The first act of a run: measure where it starts, and keep a model that holds the ceiling before anything is trained.

The dense model with open gates holds every ceiling that compares with it, so a run has something to give back from its
first moment on: checkpoint-0, the untrained model at the smallest bias that costs little. A later checkpoint takes its
place only by holding the ceiling with fewer open units, so no run ends outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from ..errors import refuse
from ..gates.gate_sets import GateSets
from ..gates.reads import CONTRIBUTION
from ..models.head import BASE_OUTPUT
from .calibrate import TOLERANCE, Start, calibrate
from .distributed import reduced, reshard
from .metrics import Tally
from .spread import first_rows

# On which the start is measured, and at least a batch of each process (assumed: it need not be exact).
ROWS = 8


def begin_inside(trainer: Any) -> None:
    """Calibrate a dense model's start, and save checkpoint-0 if it holds the ceiling.

    Raises: `GossamerError` for a ceiling that the base model itself misses with every gate open. A ceiling on the loss
        is not refused, since training may bring the loss down.
    """
    if trainer.eval_dataset is None:
        return
    found = False
    with torch.random.fork_rng():  # a data loader draws a number when it begins
        bias = trainer.gates.bias
        if math.isinf(bias):  # a gated model starts where it is
            start = _measured(trainer)
            trainer.controller.start_at(start)
            bias = start.bias
        if trainer.args.load_best_model_at_end:
            found = _holds(trainer, bias)
    if found:  # with the random state that training begins with
        trainer._save_checkpoint(trainer.model_wrapped, trial=None)
    trainer.use_controller()


def price_kinds(trainer: Any) -> None:
    """Let whole kinds of gates cost what the recipe says, if not their multiply-adds; held-out rows are counted for it.

    Raises: `GossamerError` without held-out rows.
    """
    shares = trainer.args.recipe.gate.shares()
    if shares is None or len(trainer.gates) < 2:
        return
    if shares and (missing := set(trainer.gates.kinds) - set(shares)):
        raise refuse(f"gate.price without {', '.join(sorted(missing))}", "one for each kind of gate that there is",
                     "name all kinds")  # fmt: skip
    if trainer.eval_dataset is None:
        raise refuse(
            f"gate.price={trainer.args.recipe.gate.price} without an eval_dataset",
            "rows to count units on",
            "pass eval_dataset",
        )
    with torch.random.fork_rng():
        for one in trainer.gates:
            one.emphasis = 1.0
        sums = _tallied(trainer, first_rows(trainer, ROWS)).sums
    for one in trainer.gates:
        one.emphasis = shares.get(one.kind, 1.0) * sums["rows"] / sums[f"{one.kind}/price"]


def _measured(trainer: Any) -> Start:
    """The start of a dense model, by the reading that leaves fewest units open."""
    recipe = trainer.args.recipe.gate
    batches = [batch | {BASE_OUTPUT: trainer._base_output(batch)} for batch in first_rows(trainer, ROWS)]
    training = trainer.model.training
    trainer.model.eval()
    try:
        if any(one.reads == CONTRIBUTION for one in trainer.gates):
            with trainer.gates.measuring():
                _tallied(trainer, batches)
            trainer.settle()
            trainer.gates.scale(lambda: _measure(trainer, batches, math.inf)[1])
        allowed = recipe.start_share * trainer.ceiling.value
        is_open = recipe.reads is None and recipe.bias is None  # a bias is one of a reading
        for reading in trainer.gates.readings if is_open else (trainer.gates.reads,):
            trainer.gates.reads = reading
            _align(trainer, batches, allowed)
            trainer.starts[reading] = calibrate(partial(_measure, trainer, batches), allowed)
        trainer.gates.reads = min(trainer.starts, key=lambda reading: trainer.starts[reading].density)
        _align(trainer, batches, allowed)
        return trainer.starts[trainer.gates.reads]
    finally:
        trainer.model.train(training)
        trainer.gates.bias = math.inf


def _align(trainer: Any, batches: list[Any], allowed: float) -> None:
    """Give units that go by their contribution a scale on which the others' bias is theirs, as both start.

    Alone, either of them loses half of what the start may lose at that bias.
    """
    by, others = (
        GateSets(one for one in trainer.gates if (one.reads == CONTRIBUTION) == whether)
        for whether in (True, False)
    )
    if by and others:
        mine, theirs = (
            calibrate(partial(_measure, trainer, batches, only=some), allowed / 2).bias
            for some in (by, others)
        )
        # Learned logits alone do not move with the bias.
        if math.isfinite(mine) and TOLERANCE < theirs < math.inf:
            by.shift(mine - theirs)


def _measure(
    trainer: Any, batches: list[Any], bias: float, only: GateSets | None = None
) -> tuple[float, float]:
    """(density, divergence) on hard gates; those that are not in `only` are open."""
    trainer.gates.bias = math.inf
    (trainer.gates if only is None else only).bias = bias
    found = _tallied(trainer, batches).summary()
    return found["density"], found["divergence"]


def _tallied(trainer: Any, batches: Iterable[Any]) -> Tally:
    """What all processes count on some batches."""
    trainer.tally = Tally()
    for batch in batches:
        trainer.prediction_step(trainer.model, batch, True)
    reshard(trainer.model)
    return reduced(trainer.tally, trainer.accelerator) if trainer.args.world_size > 1 else trainer.tally


def _holds(trainer: Any, bias: float) -> bool:
    """Evaluate the untrained model, with open gates if it needs them; whether it holds, as only a loss may not be."""
    metrics: dict[str, float] = {}
    for candidate in dict.fromkeys((bias, math.inf)):
        trainer.gates.bias = candidate
        metrics = trainer.evaluate()
        if metrics["eval_score"] <= 1:
            break
    else:
        if trainer.ceiling.kind == "loss":
            return False
        raise refuse(
            f"ceiling {trainer.ceiling} on a model that loses {metrics['eval_divergence']:.3g} with every gate open",
            "a ceiling that the base model itself holds",
            "check that base and model are the same model, in the same precision",
        )
    trainer._determine_best_metric(metrics=metrics, trial=None)
    return True
