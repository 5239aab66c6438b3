"""The parts of a recipe: each setting with its default, its explanation and its range, declared once.

Shares are of the whole run, in [0, 1]; biases and logits are in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import refuse, require_choice, require_range
from ..gates.reads import CONTRIBUTION, MAGNITUDE, READS

PACES = ("when_feasible", "always")
BIAS_PACES = (*PACES, "bidirectional", "proportional")
TIGHTEN_PACES = (*PACES, "slow_when_violated")
# Where the bias starts on a dense model without held-out rows to measure on, in nats. Logits: sigma(4) = 0.98, so
# nearly all gates are open (worked on addition; assumed elsewhere). Weights: gates open above exp(-5.8) = 0.003,
# which cost SmolLM2-135M 0.002 nats. Magnitudes: exp(6.9) of a thousand weights are open, which is nearly all.
# Contributions: only a unit that adds less than exp(-16) of the stream for what it costs would be closed (assumed).
OPEN_START = {"logit": 4.0, "weight": 5.8, MAGNITUDE: 6.9, CONTRIBUTION: 16.0}


def _says(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class GateRecipe:
    """What gates read, where they start and how they move."""

    reads: str | None = _says(
        None,
        "What a gate adds its bias to: logit, the scaled attention logit, or weight, the log of the attention weight; "
        "gates on single weights can read their magnitude; gates on heads and neurons go by a learned logit, "
        "where logit is said, or else by their measured contribution. "
        "Default: a gated model's own; for a dense model the one that leaves fewer units open where its gate bias "
        "starts, and the logit if gate.bias is given.",
    )
    bias: float | None = _says(
        None,
        "Gate bias c when training starts, negative for closed gates. Default: for a dense model it is measured, a "
        "gated model's own otherwise.",
    )
    start_share: float = _says(
        0.25,
        "Share of the ceiling that a dense model may lose, untrained, where its gate bias starts, if that is measured.",
    )
    final_bias: float = _says(
        0.0,
        "Gate bias at which it ends. For gates that read the weight exp(-final_bias) is the weight above which an "
        "edge is open.",
    )
    anneal: float = _says(0.05, "Share of the run over which the bias moves from its start to final_bias.")
    pace: str = _says(
        "when_feasible",
        "When the bias moves: when_feasible (the ceiling holds), always, bidirectional (back while it is violated), or "
        "proportional (on with the slack of the ceiling, back with its excess).",
    )
    regrow_bias: float = _says(
        0.0,
        "Gate bias from ceiling.tighten_from on, falling to final_bias as the ceiling tightens; 0 turns this off.",
    )
    layer_price_slope: float = _says(
        0.0,
        "Extra price of an open edge per layer index until ceiling.tighten_from; 0 turns this off.",
    )
    regrow_price_slope: float | None = _says(
        None,
        "The same from ceiling.tighten_from on, falling to 0 as the ceiling tightens. Default: layer_price_slope.",
    )
    head_price_slope: float = _says(
        0.0,
        "Extra price of an open edge per index of its head in the layer, until the ceiling is tight: edges gather in "
        "few heads. 0 turns this off.",
    )
    least_slope: float = _says(
        0.0,
        "Least slope of the straight-through gradient of a gate on an edge or a weight, at most 0.25, falling to 0 as "
        "the ceiling tightens: a gate far below zero learns that its connection is missed. 0 turns this off.",
    )
    last_cut: float = _says(
        0.0,
        "How many nats the bias may fall after the last step, as far as the ceiling holds on the held-out rows that "
        "choose; 0 turns this off.",
    )
    price: str = _says(
        "multiply_adds",
        "What an open unit costs where there are several kinds of gates: its multiply_adds; equal, every whole kind "
        "the same; or what each whole kind costs beside the others, as edges=10,heads=0.5,neurons=1.",
    )
    parents_from: float = _says(
        0.0,
        "How far the ceiling must have tightened, 0 to 1, before gates that hold others learn: a head that closes "
        "early takes its edges with it.",
    )
    uniform: bool = _says(
        False,
        "Whether every layer keeps the same number of heads, and of neurons, so that gossamer shrink loses nothing at "
        "level uniform.",
    )
    learning_rate: float = _says(
        0.03,
        "Learning rate of the logits that gates of their own have (heads, neurons, weights), in nats; it follows the "
        "schedule of the other.",
    )
    noise_until: float = _says(
        1.0, "Share of the run until which gates are sampled; afterwards they are hard."
    )

    def __post_init__(self) -> None:
        require_choice("gate.pace", self.pace, BIAS_PACES)
        for name in ("anneal", "noise_until", "start_share", "parents_from"):
            require_range(f"gate.{name}", getattr(self, name), 0.0, 1.0)
        for name in (
            "regrow_bias",
            "last_cut",
            "layer_price_slope",
            "regrow_price_slope",
            "head_price_slope",
        ):
            require_range(f"gate.{name}", getattr(self, name) or 0.0, 0.0, 100.0)
        require_range("gate.least_slope", self.least_slope, 0.0, 0.25)
        self.shares()
        require_range("gate.learning_rate", self.learning_rate, 0.0, 100.0)
        if self.bias is not None:
            require_range("gate.bias", self.bias, -1e3, 1e3)
        require_range("gate.final_bias", self.final_bias, -1e3, 1e3)
        if self.reads is not None:
            require_choice("gate.reads", self.reads, (*READS, MAGNITUDE, CONTRIBUTION))

    def shares(self) -> dict[str, float] | None:
        """What each whole kind costs, by its name; None for multiply-adds, empty for the same."""
        if self.price in ("multiply_adds", "equal"):
            return None if self.price == "multiply_adds" else {}
        found = {}
        for part in self.price.split(","):
            kind, _, text = part.partition("=")
            try:
                found[kind.strip()] = float(text)
            except ValueError:
                raise refuse(f"gate.price={self.price!r}", "multiply_adds, equal, or KIND=NUMBER for each kind",
                             "pass for example edges=10,heads=1") from None  # fmt: skip
            require_range(f"gate.price of {kind}", found[kind.strip()], 1e-6, 1e6)
        return found

    def starting_bias(self, own: float, reads: str = "logit") -> float:
        """The gate bias when training starts, of a model whose bias is `own` (+inf where its gates are open)."""
        if self.bias is not None:
            return self.bias
        return own if math.isfinite(own) else OPEN_START[reads]


@dataclass(frozen=True)
class CeilingRecipe:
    """How the enforced ceiling moves to the one asked for."""

    initial_factor: float = _says(
        1.0, "How many times the ceiling may be lost at first; 1 enforces it from the start."
    )
    tighten_from: float = _says(0.6, "Share of the run from which the enforced ceiling tightens.")
    tighten_until: float = _says(0.9, "Share of the run at which the enforced ceiling is the one asked for.")
    tighten_pace: str = _says(
        "when_feasible",
        "When the ceiling tightens: when_feasible (it holds), slow_when_violated (slower while violated), or always.",
    )

    def __post_init__(self) -> None:
        require_choice("ceiling.tighten_pace", self.tighten_pace, TIGHTEN_PACES)
        for name in ("tighten_from", "tighten_until"):
            require_range(f"ceiling.{name}", getattr(self, name), 0.0, 1.0)
        require_range("ceiling.tighten_until", self.tighten_until, self.tighten_from, 1.0)
        require_range("ceiling.initial_factor", self.initial_factor, 1.0, 1e9)


Bounds = tuple[float, float]
WIDEST: Bounds = (1e-3, 1e4)  # of lambda, where nothing was measured
BELOW, ABOVE = (
    0.5,
    15.0,
)  # how far lambda may leave the price that was measured (chosen on SmolLM2-135M and a GPT-2)


@dataclass(frozen=True)
class ControlRecipe:
    """The multiplier lambda, a PI controller in log space (Stooke et al. 2020, arXiv 2007.03964)."""

    ki: float = _says(0.05, "Integral gain: largest change of log lambda in one step.")
    kp: float = _says(
        0.0, "Proportional gain: share of the present relative excess that is added to log lambda."
    )
    ema_decay: float = _says(0.9, "Decay of the moving average of the divergence.")
    initial_lambda: float | None = _says(
        None,
        "lambda at the start. Default: measured with the gate bias, the price at which an edge and its loss balance; 1 "
        "where nothing is measured.",
    )
    lambda_bounds: tuple[float, float] | None = _says(
        None,
        "Smallest and largest lambda. Default: half of initial_lambda and 15 times it where a start is measured, else "
        "0.001 and 10,000.",
    )
    final_lambda_bounds: tuple[float, float] | None = _says(
        None,
        "The bounds when the ceiling is the one asked for. The lower one is approached as the ceiling tightens, the "
        "upper one takes effect at the end. Default: lambda_bounds throughout.",
    )
    lambda_nondecreasing_from: float = _says(
        1.0, "Share of the run after which lambda may not decrease; 1.0 turns this off."
    )

    def __post_init__(self) -> None:
        require_range("control.ki", self.ki, 0.0, 10.0)
        require_range("control.kp", self.kp, 0.0, 10.0)
        for name in ("ema_decay", "lambda_nondecreasing_from"):
            require_range(f"control.{name}", getattr(self, name), 0.0, 1.0)
        for name in ("lambda_bounds", "final_lambda_bounds"):
            bounds = getattr(self, name) or WIDEST
            if not isinstance(bounds, tuple | list) or len(bounds) != 2:
                raise refuse(f"control.{name}={bounds!r}", "two numbers, (low, high)", "pass both")
            low, high = bounds
            require_range(f"the lower of control.{name}", low, 1e-9, 1e9)
            require_range(f"the upper of control.{name}", high, low, 1e9)
        if self.initial_lambda is not None:
            require_range("control.initial_lambda", self.initial_lambda, *(self.lambda_bounds or WIDEST))

    def measured(self, price: float) -> ControlRecipe:
        """The recipe with what it leaves open filled in, from the lambda at which a unit and its loss balance."""
        first = self.initial_lambda or min(1e6, max(1e-6, price))
        bounds = self.lambda_bounds or (BELOW * first, ABOVE * first)
        first = min(bounds[1], max(bounds[0], first))
        return replace(self, lambda_bounds=bounds, initial_lambda=first)

    def bounds(self, tightened: float) -> Bounds:
        """The bounds when the ceiling is tightened this far: the floor moves, geometrically, and the cap jumps."""
        low, high = self.lambda_bounds or WIDEST
        final_low, final_high = self.final_lambda_bounds or (low, high)
        return low * (final_low / low) ** tightened, final_high if tightened >= 1 else high


@dataclass(frozen=True)
class RateRecipe:
    """A factor on the learning rate of `TrainingArguments`, by the ceiling and not by the clock."""

    full_above: float | None = _says(
        None,
        "Multiple of the ceiling asked for: while more is enforced the learning rate is whole, below it falls as the "
        "root of what is enforced. Default: whole throughout.",
    )
    settle: float = _says(
        0.0,
        "Share of the run, counted from when the ceiling is tight, over which the learning rate falls to rate.final; "
        "then the run is done, and one that misses its ceiling settles again from the start. 0 turns this off.",
    )
    final: float = _says(0.03, "Factor at which the learning rate ends, where it settles.")
    patience: float = _says(
        0.0,
        "Share of the run, 50 steps at least: if open units have not fallen for so long under the ceiling asked for, "
        "and a checkpoint holds it, the run ends before its steps are over. 0 turns this off.",
    )

    def __post_init__(self) -> None:
        if self.full_above is not None:
            require_range("rate.full_above", self.full_above, 1.0, 1e9)
        require_range("rate.settle", self.settle, 0.0, 1.0)
        require_range("rate.final", self.final, 0.0, 1.0)
        require_range("rate.patience", self.patience, 0.0, 1.0)

    @property
    def moves(self) -> bool:
        """Whether the recipe has a factor on the learning rate at all."""
        return self.full_above is not None or self.settle > 0


@dataclass(frozen=True)
class LogitRecipe:
    """The pull on attention logits that are out of reach of their gates (`gates/logit_penalty.py`)."""

    limit: float = _says(8.0, "How large an attention logit may be before it is pulled back, in nats.")
    weight: float = _says(0.0, "Weight of the mean squared excess over the limit; 0 turns this off.")

    def __post_init__(self) -> None:
        require_range("logits.limit", self.limit, 1.0, 1e3)
        require_range("logits.weight", self.weight, 0.0, 1e3)
