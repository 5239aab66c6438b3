"""What a run has told so far: its curves, and which of what is logged belongs to which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .chart import Points


@dataclass
class History:
    """What a run has told so far; a pure container, so that the page is a pure function of it.

    Attributes:
        title: of the run.
        steps: how many it will take.
        ceiling: what may be lost, as kind=value; empty if there is none.
        curves: name -> points.
        layers: of each kind of gate, per layer, mean open units per row at each evaluation.
        started, now: seconds, of any one clock.
        done: whether the run is over.
        waits: what it waits for, in a sentence.
        written: when the page was, as people read it.
    """

    title: str
    steps: int = 0
    ceiling: str = ""
    curves: dict[str, Points] = field(default_factory=dict)
    layers: dict[str, list[Points]] = field(default_factory=dict)
    started: float = 0.0
    now: float = 0.0
    done: bool = False
    waits: str = ""
    written: str = ""

    def add(self, name: str, step: int, value: Any) -> None:
        """Note one number; what is not finite is left out."""
        if isinstance(value, int | float) and math.isfinite(value):
            self.curves.setdefault(name, []).append((float(step), float(value)))

    def add_layers(self, step: int, per_group: Sequence[Sequence[float]], kind: str = "edges") -> None:
        """Note the open units of one kind in every layer, [layer][group]."""
        layers = self.layers.setdefault(kind, [])
        while len(layers) < len(per_group):
            layers.append([])
        for points, groups in zip(layers, per_group, strict=True):
            points.append((float(step), float(sum(groups))))

    def kinds(self) -> list[str]:
        """The kinds of gates that anything is known of."""
        message = [
            name.removeprefix("open ").partition(",")[0] for name in self.curves if name.startswith("open ")
        ]
        return sorted({*self.layers, *message})

    def at(self, name: str, step: float) -> float | None:
        """The value of a curve at a step; None where there is none."""
        return dict(self.curves.get(name, ())).get(step)

    @property
    def last(self) -> float:
        """The last step that anything is known of."""
        return max((points[-1][0] for points in self.curves.values() if points), default=0.0)

    @property
    def best(self) -> tuple[float, float] | None:
        """(step, score) of the best checkpoint so far, of equals the first, as the Trainer has it."""
        return min(self.curves.get("score", ()), key=lambda point: point[1], default=None)


# What the trainer calls it -> what it is called here.
LOGGED = {
    "divergence": "divergence, training",
    "enforced_ceiling": "ceiling in force",
    "multiplier": "lambda",
    "eval_divergence": "divergence, held out",
    "eval_keys_per_query": "keys per query",
    "eval_score": "score",
    "eval_density": "share that is open",
}


def curve_of(logged: str) -> str | None:
    """The curve that a logged number belongs to; None for a number that the page does not show."""
    if logged in LOGGED:
        return LOGGED[logged]
    for prefix, name in (
        ("expected_open_", "expected open {}, training"),
        ("eval_open_", "open {}, held out"),
        ("eval_density_", "share of {} that is open"),
    ):
        if logged.startswith(prefix):
            return name.format(logged.removeprefix(prefix))
    return None
