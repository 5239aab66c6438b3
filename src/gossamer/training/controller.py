"""What holds a run to its ceiling: constraint, schedule, multiplier and gate bias in one object; no model in sight.

The problem:  minimise  A (expected open units, priced)     subject to   D <= epsilon
The step:     minimise  (A + lambda D) / (1 + lambda)       over the weights; then, once per optimizer step,

    m          <- beta m + (1 - beta) D                     moving average of the measured D
    x           = (m - e) / unit                            how far over the enforced ceiling e, in its units
    I          <- clamp(I + ki clip(x, -1, 1))              inside the bounds of lambda
    log lambda  = I + kp clip(x, -1, 2)
    e           = epsilon initial_factor ** (1 - u)         u: how far the ceiling is tightened, from 0 to 1
    bias       -> 0, or regrow_bias (1 - u) once tightening has begun

Why a ceiling and not a weight: a person knows what may be lost and cannot know a lambda. Why the logarithm: the right
lambda spans orders of magnitude within one run. Why divide by 1 + lambda: gradient clipping and Adam then see one
scale whatever lambda is. Why the clip: one bad batch may not throw I by more than one step of ki. Why kp: the integral
alone answers late and swings; a proportional part damps it (Stooke et al. 2020, arXiv 2007.03964).
Source: GECO, Rezende and Viola 2018 (arXiv 1810.00597), in the relative form.

Bias and ceiling move while the enforced ceiling holds, unless the recipe's paces say otherwise: a clock can outrun the
constraint (LOG.md). A ceiling that is `slow_when_violated` moves at `CREEP` of its pace, since lambda hardly rises
under a ceiling that is barely missed, and a run could hang there for good. A `proportional` bias moves with the slack
of the ceiling and back with its excess, so that it comes to rest where the ceiling is just held. A `bidirectional` bias
also rises while the ceiling is violated: a gate far below zero gets no gradient, and only a lifted one can come back.

Over-prune, then regrow (`initial_factor` and `regrow_bias`): pruning cannot rank redundant routes, since removing one
costs nothing until only one is left, so which one survives is arbitrary. Under a ceiling so loose that parts of the
function are given up, then tightened slowly with lifted gates, an edge that restores something finds a gradient before
a relay of three does; the price by layer leaves later layers for what is built on earlier ones. The bounds of lambda
are prices of an edge: low while over-pruning, so that whole parts go; under a tight ceiling a high floor, since there
the constraint is slack until an edge is lost, and a high cap, for what a run is stuck without. Not earlier: a ceiling
that still tightens is violated half of the time, and a high lambda then buys edges that are not needed (LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import refuse
from ..gates.openness import Slopes
from .calibrate import Start
from .constraint import Ceiling
from .controller_state import put_state, state_of
from .falling import Falling
from .recipe import Recipe

CREEP = 0.3  # how fast a violated ceiling still tightens, as a share of how fast a held one does (chosen on addition)
REOPEN = (
    0.25  # how fast a violated ceiling raises the bias, as a share of how fast a held one lowers it (assumed)
)
AGAIN = 3  # times as long as the first a run settles when it has to again (chosen on addition, seed 7)
LEAST_PATIENCE = 50  # steps: the average of the open units takes some twenty to follow (assumed)
# Of the ceiling: how low a run aims at most, where training rows tell little of others (assumed).
LEAST_AIM = 0.5


class Controller:
    """lambda, the enforced ceiling, the gate bias and the noise of one run; `step` moves them all.

    Args:
        ceiling: what may be lost, D <= epsilon.
        recipe: how a run moves.
        own_bias: the gate bias of the model as it comes, +inf for open gates.
        reads: what the gates read, for the start of a dense model.

    Attributes:
        bias: the gate bias to use, in nats.
        sampling: whether gates are sampled, or hard.
        tightened: u, how far the ceiling is tightened, in [0, 1].
        average: m, None before the first step.
        taken: optimizer steps so far.
    """

    def __init__(
        self, ceiling: Ceiling, recipe: Recipe, *, own_bias: float = math.inf, reads: str = "logit"
    ) -> None:
        self.ceiling, self.recipe = ceiling, recipe
        self.start = self.bias = recipe.gate.starting_bias(own_bias, reads)
        low, high = recipe.control.bounds(0.0)
        first = recipe.control.initial_lambda or 1.0
        self.integral, self.boost = math.log(min(high, max(low, first))), 0.0
        self.average: float | None = None
        self.tightened, self.taken, self.sampling, self.steps = 0.0, 0, True, 1
        self.settled, self.restarts, self.done, self.aim = 0, 0, False, 1.0
        self.price: float | None = None
        self.falling = Falling()

    def start_at(self, measured: Start) -> None:
        """Start where the untrained model was measured, as far as the recipe leaves it open."""
        if self.recipe.gate.bias is None and math.isfinite(measured.bias):
            self.start = self.bias = measured.bias
        if measured.multiplier is not None:
            self.price = measured.multiplier
            self.recipe = replace(self.recipe, control=self.recipe.control.measured(self.price))
            self.integral = math.log(self.recipe.control.initial_lambda or 1.0)

    def begin(self, steps: int) -> None:
        """Say how many optimizer steps the run has; shares in the recipe are of these."""
        if steps < 1:
            raise refuse(f"{steps} steps", "1 or more", "pass max_steps or num_train_epochs")
        self.steps = steps
        self.sampling = self._samples(self.taken)

    @property
    def multiplier(self) -> float:
        """lambda."""
        return math.exp(self.integral + self.boost)

    @property
    def enforced(self) -> Ceiling:
        """The ceiling in force; when it is tight the one asked for, less what held-out data lose more."""
        return self.ceiling.scaled(self.aim * self.recipe.ceiling.initial_factor ** (1 - self.tightened))

    def aim_by(self, divergence: float, standard_error: float) -> None:
        """Aim so low that held-out rows hold the ceiling, with a margin, where training rows meet the one in force.

            aim = 1 - (D_held-out + margin - m) / epsilon, from LEAST_AIM to 1

        Args:
            divergence, standard_error: of an evaluation.
        """
        if self.average is None:
            return
        short = (divergence + self.ceiling.margin(standard_error) - self.average) / self.ceiling.value
        self.aim = min(1.0, max(LEAST_AIM, 1 - short))

    @property
    def price_slopes(self) -> Slopes:
        """How much more an open edge of a later layer costs, and of a later head."""
        gate = self.recipe.gate
        regrow = gate.layer_price_slope if gate.regrow_price_slope is None else gate.regrow_price_slope
        layer = (regrow if self._tightens else gate.layer_price_slope) * (1 - self.tightened)
        return Slopes(layer, gate.head_price_slope if self.tightened < 1 else 0.0)

    @property
    def _tightens(self) -> bool:
        """Whether the recipe lets the ceiling tighten by now."""
        return self.taken >= self.recipe.ceiling.tighten_from * self.steps

    @property
    def least_slope(self) -> float:
        """The least straight-through slope of a gate."""
        return self.recipe.gate.least_slope * (1 - self.tightened)

    @property
    def rate(self) -> float:
        """The factor on the learning rate: the root of how loose the ceiling is, and a cosine once it is tight."""
        recipe = self.recipe.rate
        loose = self.enforced.value / self.ceiling.value
        whole = 1.0
        if recipe.full_above is not None and not self.restarts:
            whole = min(1.0, math.sqrt(loose / recipe.full_above))
        return recipe.final + (whole - recipe.final) * (1 + math.cos(math.pi * self.settled_share)) / 2

    @property
    def settled_share(self) -> float:
        """How much of the settling is over, in [0, 1]."""
        return min(1.0, self.settled / self._settling) if self.recipe.rate.settle else 0.0

    @property
    def _settling(self) -> int:
        """Steps from a tight ceiling to the end of the run."""
        return max(1, round(self.recipe.rate.settle * self.steps * (AGAIN if self.restarts else 1)))

    @property
    def is_settled(self) -> bool:
        """Whether the learning rate has fallen as far as it goes under the ceiling asked for."""
        return self.recipe.rate.settle > 0 and self.settled >= self._settling

    @property
    def patience(self) -> int | None:
        """For how many steps open units may not fall before a run ends; None for a recipe that waits for all steps."""
        share = self.recipe.rate.patience
        return max(LEAST_PATIENCE, round(share * self.steps)) if share else None

    @property
    def has_stalled(self) -> bool:
        """Whether open units have not fallen for as long as the recipe waits, under the ceiling that was asked for."""
        loose = self.recipe.ceiling.initial_factor > 1 and self.tightened < 1
        return self.patience is not None and not loose and self.falling.steps >= self.patience

    @property
    def expected_steps(self) -> int:
        """How many steps the run will have, as far as its pace so far tells; all of them until the ceiling tightens."""
        begun = self.taken - self.recipe.ceiling.tighten_from * self.steps
        if not self.recipe.rate.settle or (self.tightened < 1 and (begun <= 0 or self.tightened <= 0)):
            return self.steps
        left = self._settling - self.settled
        if self.tightened < 1:
            left += begun * (1 - self.tightened) / self.tightened
        return min(self.steps, self.taken + max(0, round(left)))

    def judge(self, holds: bool) -> None:
        """Say whether a settled model holds its ceiling on held-out data: the run is done, or starts to settle again.

        What was lost and did not come back has gates that are far from opening. On addition (LOG.md, 2026-11-26) a
        lambda of 270 at a fifth of the rate did nothing for 1,000 steps; the whole rate brought it back in 200 to 300,
        and with lifted gates and a lambda of 30 it ended sparser than with either missing.
        """
        self.done = holds
        if not holds:
            self.restarts, self.settled = self.restarts + 1, 0
            self.integral = math.log(self.recipe.control.bounds(1.0)[1])

    @property
    def holds(self) -> bool:
        """Whether the moving average is at or under the enforced ceiling."""
        return self.average is not None and self.average <= self.enforced.value

    def lagrangian(self, openness: Any, divergence: Any) -> Any:
        """(A + lambda D) / (1 + lambda), for tensors or floats; its scale does not depend on lambda."""
        return (openness + self.multiplier * divergence) / (1 + self.multiplier)

    def step(self, divergence: float, openness: float | None = None) -> None:
        """Take in the divergence and the open units of one optimizer step; move lambda, ceiling, bias and noise.

        Args:
            openness: A, the expected share of open units; without it no run is told to have stalled.
        Raises: `GossamerError` for a divergence that is not finite, which would stay in the average.
        """
        if not math.isfinite(divergence):
            raise refuse(f"divergence {divergence}", "a finite number", "lower the learning rate")
        self._move_lambda(divergence)
        holds = self.holds
        if openness is not None and holds:  # what is closed while it does not hold may have to open again
            self.falling.see(openness)
        self._tighten(holds)
        self.bias = self._next_bias(holds)
        self.taken += 1
        self.settled += self.tightened >= 1
        self.sampling = self._samples(self.taken)

    def _move_lambda(self, divergence: float) -> None:
        control = self.recipe.control
        beta = control.ema_decay
        self.average = divergence if self.average is None else beta * self.average + (1 - beta) * divergence
        excess = self.enforced.excess(self.average)
        if self.taken >= control.lambda_nondecreasing_from * self.steps:
            excess = max(0.0, excess)
        low, high = control.bounds(self.tightened)
        moved = self.integral + control.ki * max(-1.0, min(1.0, excess))
        self.integral = min(math.log(high), max(math.log(low), moved))
        self.boost = control.kp * max(-1.0, min(2.0, excess))

    def _tighten(self, holds: bool) -> None:
        recipe = self.recipe.ceiling
        if not self._tightens:
            return
        slowed = {"when_feasible": 0.0, "slow_when_violated": CREEP, "always": 1.0}[recipe.tighten_pace]
        span = (recipe.tighten_until - recipe.tighten_from) * self.steps
        self.tightened = min(1.0, self.tightened + (1.0 if holds else slowed) / max(1.0, span))

    def _next_bias(self, holds: bool) -> float:
        """From the start to `final_bias`; with regrowth, down with the ceiling's slack once it tightens."""
        gate, end = self.recipe.gate, self.recipe.gate.final_bias
        if gate.regrow_bias and self._tightens:
            lifted = 1 - self.tightened if not self.restarts else max(0.0, 1 - 2 * self.settled_share)
            return end + (gate.regrow_bias - end) * lifted
        move = abs(self.start - end) / max(1.0, gate.anneal * self.steps)
        if gate.pace == "proportional":
            slack = max(-1.0, min(1.0, -self.enforced.excess(self.average or 0.0)))
            low, high = sorted((self.start, end))
            return max(low, min(high, self.bias + math.copysign(move, end - self.start) * slack))
        if holds or gate.pace == "always":
            return max(end, self.bias - move) if self.start >= end else min(end, self.bias + move)
        return min(self.start, self.bias + REOPEN * move) if gate.pace == "bidirectional" else self.bias

    def _samples(self, step: int) -> bool:
        return step < self.recipe.gate.noise_until * self.steps

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as plain numbers, with what it must share with its start."""
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a saved state back.

        Raises: `CheckpointError` for the state of another ceiling, or one that lacks something.
        """
        put_state(self, state)
        if self.price is not None:
            self.recipe = replace(self.recipe, control=self.recipe.control.measured(self.price))
