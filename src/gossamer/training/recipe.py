"""How a run moves: one frozen object in five parts, and the presets that made the published numbers.

    gate      where gates start, how their bias goes to 0, until when they are sampled
    rate      how the learning rate follows the ceiling, and when a run is done
    ceiling   how much more than the ceiling may be lost early, and when it tightens
    control   the multiplier lambda: gains, averages, bounds
    logits    how far attention logits may leave the reach of their gates

A recipe says nothing of model, data, ceiling or optimizer: those are `SparsityConfig` and its
`TrainingArguments`. `presets.py` has the named ones. Shares are of the whole run, in [0, 1]; biases and
logits are in nats.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..errors import refuse, require_choice, require_range
from ..gates.reads import READS

PACES = ("when_feasible", "always")
BIAS_PACES = (*PACES, "bidirectional", "proportional")
TIGHTEN_PACES = (*PACES, "slow_when_violated")
# Where the bias starts on a dense model without held-out rows to measure on, in nats. Logits: sigma(4) = 0.98, so
# nearly all gates are open (worked on addition; assumed elsewhere). Weights: gates open above exp(-5.8) = 0.003,
# which cost SmolLM2-135M 0.002 nats.
OPEN_START = {"logit": 4.0, "weight": 5.8}


def _says(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class GateRecipe:
    """What gates read, where they start and how they move."""

    reads: str | None = _says(
        None,
        "What a gate adds its bias to: logit, the scaled attention logit, or weight, the log of the attention weight. "
        "Default: logit for a dense model, a gated model's own.",
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
        "Extra price of an open unit per layer index, falling to 0 as the ceiling tightens; 0 turns this off.",
    )
    noise_until: float = _says(
        1.0, "Share of the run until which gates are sampled; afterwards they are hard."
    )

    def __post_init__(self) -> None:
        require_choice("gate.pace", self.pace, BIAS_PACES)
        for name in ("anneal", "noise_until", "start_share"):
            require_range(f"gate.{name}", getattr(self, name), 0.0, 1.0)
        for name in ("regrow_bias", "layer_price_slope"):
            require_range(f"gate.{name}", getattr(self, name), 0.0, 100.0)
        if self.bias is not None:
            require_range("gate.bias", self.bias, -1e3, 1e3)
        require_range("gate.final_bias", self.final_bias, -1e3, 1e3)
        if self.reads is not None:
            require_choice("gate.reads", self.reads, READS)

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
    lambda_bounds: Bounds = _says((1e-3, 1e4), "Smallest and largest lambda.")
    final_lambda_bounds: Bounds | None = _says(
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
        for name, bounds in (
            ("lambda_bounds", self.lambda_bounds),
            ("final_lambda_bounds", self.final_bounds),
        ):
            require_range(f"the lower of control.{name}", bounds[0], 1e-9, 1e9)
            require_range(f"the upper of control.{name}", bounds[1], bounds[0], 1e9)
        if self.initial_lambda is not None:
            require_range("control.initial_lambda", self.initial_lambda, *self.lambda_bounds)

    @property
    def final_bounds(self) -> Bounds:
        """The bounds of lambda when the ceiling is tight."""
        return self.lambda_bounds if self.final_lambda_bounds is None else self.final_lambda_bounds

    def bounds(self, tightened: float) -> Bounds:
        """The bounds when the ceiling is tightened this far: the floor moves, geometrically, and the cap jumps."""
        (low, high), (final_low, final_high) = self.lambda_bounds, self.final_bounds
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

    def __post_init__(self) -> None:
        if self.full_above is not None:
            require_range("rate.full_above", self.full_above, 1.0, 1e9)
        require_range("rate.settle", self.settle, 0.0, 1.0)
        require_range("rate.final", self.final, 0.0, 1.0)


@dataclass(frozen=True)
class LogitRecipe:
    """The pull on attention logits that are out of reach of their gates (`gates/logit_penalty.py`)."""

    limit: float = _says(8.0, "How large an attention logit may be before it is pulled back, in nats.")
    weight: float = _says(0.0, "Weight of the mean squared excess over the limit; 0 turns this off.")

    def __post_init__(self) -> None:
        require_range("logits.limit", self.limit, 1.0, 1e3)
        require_range("logits.weight", self.weight, 0.0, 1e3)


@dataclass(frozen=True)
class Recipe:
    """How a run moves. `Recipe(control=ControlRecipe(kp=0.5))`, or a preset of `presets.py` with settings."""

    gate: GateRecipe = GateRecipe()
    ceiling: CeilingRecipe = CeilingRecipe()
    control: ControlRecipe = ControlRecipe()
    rate: RateRecipe = RateRecipe()
    logits: LogitRecipe = LogitRecipe()

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe with some settings changed, as `{"control.kp": 0.3}`.

        Raises: `GossamerError` for an unknown name, with the nearest one, and for a value of another kind.
        """
        parts: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            part, _, entry = name.partition(".")
            if name not in SETTINGS:
                raise unknown_setting(name, SETTINGS)
            parts.setdefault(part, {})[entry] = _of_kind(name, value, SETTINGS[name])
        return replace(self, **{part: replace(getattr(self, part), **given) for part, given in parts.items()})

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON and YAML."""
        found = dataclasses.asdict(self)
        for part in found.values():
            part.update({name: list(value) for name, value in part.items() if isinstance(value, tuple)})
        return found

    def changes(self) -> dict[str, Any]:
        """What differs from the default recipe, as `{"control.kp": 0.5}`."""
        ours, plain = self.as_dict(), Recipe().as_dict()
        return {
            f"{part}.{name}": value
            for part, values in ours.items()
            for name, value in values.items()
            if value != plain[part][name]
        }


PARTS: dict[str, type[Any]] = {
    "gate": GateRecipe,
    "ceiling": CeilingRecipe,
    "control": ControlRecipe,
    "rate": RateRecipe,
    "logits": LogitRecipe,
}
# Every name that `--set` and a YAML file know: its type, and its explanation.
SETTINGS: dict[str, Any] = {
    f"{part}.{name}": kind for part, cls in PARTS.items() for name, kind in typing.get_type_hints(cls).items()
}
HELP: dict[str, str] = {
    f"{part}.{entry.name}": entry.metadata["help"] for part, cls in PARTS.items() for entry in fields(cls)
}


def _of_kind(name: str, value: Any, kind: Any) -> Any:
    """The value if it is of its setting's type; lists become the tuples they stand for."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in kinds:
        return None
    if Bounds in kinds:
        if isinstance(value, list | tuple) and len(value) == 2 and all(_is_number(x) for x in value):
            return tuple(float(x) for x in value)
        raise refuse(f"{name}={value!r}", "two numbers, [low, high]", "pass for example [0.001, 10000]")
    if float in kinds and _is_number(value):
        return float(value)  # type: ignore[arg-type]
    if str in kinds and isinstance(value, str):
        return value
    raise refuse(f"{name}={value!r}", f"a {'number' if float in kinds else 'word'}", "pass one")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Where the flat settings of 0.1.0 are now.
MOVED = {
    "gate_bias": "gate.bias",
    "bias_anneal": "gate.anneal",
    "bias_pace": "gate.pace",
    "regrow": "gate.regrow_bias",
    "depth_price": "gate.layer_price_slope",
    "noise_until": "gate.noise_until",
    "loose": "ceiling.initial_factor",
    "tighten_from": "ceiling.tighten_from",
    "tighten_until": "ceiling.tighten_until",
    "tighten_pace": "ceiling.tighten_pace",
    "dual_rate": "control.ki",
    "dual_gain": "control.kp",
    "dual_decay": "control.ema_decay",
    "initial_multiplier": "control.initial_lambda",
    "min_multiplier": "control.lambda_bounds",
    "max_multiplier": "control.lambda_bounds",
    "tight_min_multiplier": "control.final_lambda_bounds",
    "tight_max_multiplier": "control.final_lambda_bounds",
    "settle_from": "control.lambda_nondecreasing_from",
    "logit_limit": "logits.limit",
    "logit_weight": "logits.weight",
}


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a recipe, by their names of today or of 0.1.0, and all others."""
    of_recipe = {name: value for name, value in settings.items() if name in SETTINGS or name in MOVED}
    return of_recipe, {name: value for name, value in settings.items() if name not in of_recipe}


def unknown_setting(name: str, known: typing.Iterable[str]) -> Exception:
    """The error for a setting that there is not: where it is now, or the nearest name."""
    if name in MOVED:
        return refuse(f"setting {name!r} is now {MOVED[name]!r}", "the new name", f"pass {MOVED[name]}")
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    near = (
        near
        or [choice for choice in choices if choice.endswith(f".{name}")]
        or ["those of `gossamer recipes`"]
    )
    return refuse(f"no setting {name!r}", f"{', '.join(near)}", "check the name")
