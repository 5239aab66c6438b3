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

from ..errors import refuse
from .recipe_parts import Bounds, CeilingRecipe, ControlRecipe, GateRecipe, LogitRecipe, RateRecipe


@dataclass(frozen=True)
class Recipe:
    """How a run moves. `Recipe(control=ControlRecipe(kp=0.5))`, or a preset of `presets.py` with settings."""

    gate: GateRecipe = field(default_factory=GateRecipe)
    ceiling: CeilingRecipe = field(default_factory=CeilingRecipe)
    control: ControlRecipe = field(default_factory=ControlRecipe)
    rate: RateRecipe = field(default_factory=RateRecipe)
    logits: LogitRecipe = field(default_factory=LogitRecipe)

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
    if any(type(value) is one for one in kinds if one in (str, bool)):
        return value
    expected = "a number" if float in kinds else "true or false" if bool in kinds else "a word"
    raise refuse(f"{name}={value!r}", expected, "pass one")


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
