"""What may be lost, and the multiplier that holds a run to it; no model in sight.

The problem:  minimise  A (open edges, as a share of the visible)   subject to   D <= epsilon
The step:     minimise  (A + lambda D) / (1 + lambda)                over the weights
              m         <- beta m + (1 - beta) D                     moving average of the measured D
              x       = (m - epsilon) / unit                       how far over, in units of the ceiling
              I       <- clamp(I + rate * clip(x, -1, 1))
              log lambda = I + gain * clip(x, -1, 2)

Why a ceiling and not a weight: a person knows what may be lost and cannot know a lambda. Why the logarithm: the
right lambda spans orders of magnitude within one run. Why divide by 1 + lambda: gradient clipping and Adam then
see one scale whatever lambda is (measured on addition, METHOD in DESIGN.md). Why the clip: one bad batch may not
throw I by more than one step of `rate`. Why the gain: the integral alone answers late and swings; a proportional
part damps it (Stooke et al. 2020, arXiv 2007.03964).
Source: GECO, Rezende and Viola 2018 (arXiv 1810.00597), in the relative form.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import refuse, require_choice, require_range

# What D is; `kl`, `gap` and `cosine` compare with the frozen base on the same batch, `loss` is the paper's.
KINDS = {
    "kl": "KL(base || sparse), nats per token",
    "gap": "cross-entropy of the sparse model minus that of the base, nats per token",
    "loss": "cross-entropy of the sparse model, nats per token",
    "cosine": "one minus the cosine between pooled sentence embeddings",
}


@dataclass(frozen=True)
class Ceiling:
    """D <= value, with D of the given kind.

    Attributes:
        kind: one of `KINDS`.
        value: epsilon, in the unit of the kind.
        unit: the violation that moves log lambda by one full `rate`; epsilon itself unless told otherwise.
            For `loss` epsilon is no natural scale, so a hundredth of it is taken (assumed).
    """

    kind: str
    value: float
    unit: float = 0.0

    def __post_init__(self) -> None:
        require_choice("ceiling kind", self.kind, KINDS)
        if not (math.isfinite(self.value) and self.value > 0):
            raise refuse(
                f"ceiling {self.kind}={self.value}", "possible: a number above 0", "pass for example kl=0.02"
            )
        if self.unit <= 0:
            object.__setattr__(self, "unit", self.value * (0.01 if self.kind == "loss" else 1.0))

    @classmethod
    def parse(cls, text: str) -> Ceiling:
        """Read `kind=value`, as in `kl=0.02`."""
        kind, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise refuse(
                f"ceiling {text!r}",
                f"possible: kind=number, kind one of {', '.join(KINDS)}",
                "pass for example kl=0.02",
            ) from None
        return cls(kind.strip(), number)

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    @property
    def needs_base(self) -> bool:
        """Whether D compares with the frozen base model, which then runs beside the sparse one."""
        return self.kind != "loss"

    def scaled(self, factor: float) -> Ceiling:
        """The same ceiling, `factor` times as high: a loose one for the start of a run."""
        return replace(self, value=self.value * factor, unit=self.unit * factor)

    def excess(self, divergence: float) -> float:
        """(D - epsilon) / unit: at most 0 where the ceiling holds."""
        return (divergence - self.value) / self.unit


@dataclass
class Multiplier:
    """lambda of the Lagrangian, stepped once per optimizer step.

    Attributes:
        rate: largest change of the integral part of log lambda in one step.
        gain: share of the present excess that is added to log lambda; 0 for GECO's own rule.
        decay: beta of the moving average of D.
        low, high: where exp of the integral part is clamped.
        integral: I.
        boost: gain * clip(x, -1, 2) at the last step.
    """

    rate: float = 0.05
    gain: float = 0.0
    decay: float = 0.9
    low: float = 1e-3
    high: float = 1e4
    integral: float = 0.0
    boost: float = 0.0
    average: float | None = None

    def __post_init__(self) -> None:
        require_range("multiplier rate", self.rate, 0.0, 10.0)
        require_range("multiplier gain", self.gain, 0.0, 10.0)
        require_range("multiplier decay", self.decay, 0.0, 1.0)

    def starting_at(self, value: float) -> Multiplier:
        """The same rule from lambda = `value`, which must lie in [low, high], where it is clamped later."""
        require_range("initial multiplier", value, self.low, self.high)
        return replace(self, integral=math.log(value), boost=0.0)

    @property
    def value(self) -> float:
        """lambda."""
        return math.exp(self.integral + self.boost)

    def lagrangian(self, openness: Any, divergence: Any) -> Any:
        """(A + lambda D) / (1 + lambda), for tensors or floats; its scale does not depend on lambda."""
        return (openness + self.value * divergence) / (1 + self.value)

    def step(self, divergence: float, ceiling: Ceiling, *, falls: bool = True) -> None:
        """Take in one measured D and move lambda; a non-finite D is refused, for it would stay in the average.

        Args:
            falls: whether lambda may fall; at the calm end of a run it may only rise.
        """
        if not math.isfinite(divergence):
            raise refuse(f"divergence {divergence}", "possible: a finite number", "lower the learning rate")
        kept = self.average
        self.average = divergence if kept is None else self.decay * kept + (1 - self.decay) * divergence
        excess = ceiling.excess(self.average) if falls else max(0.0, ceiling.excess(self.average))
        moved = self.integral + self.rate * max(-1.0, min(1.0, excess))
        self.integral = min(math.log(self.high), max(math.log(self.low), moved))
        self.boost = self.gain * max(-1.0, min(2.0, excess))

    def holds(self, ceiling: Ceiling) -> bool:
        """Whether the moving average is at or under the ceiling."""
        return self.average is not None and self.average <= ceiling.value

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as plain numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a saved state back."""
        for name, value in state.items():
            setattr(self, name, value)
