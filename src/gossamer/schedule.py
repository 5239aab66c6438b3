"""What changes over a run: the gate bias comes down, the ceiling tightens, the noise stops.

All of it is a function of the share t of the run that is done, in [0, 1), and of whether the ceiling holds.

    ceiling(t)  = epsilon * loose                         for t < tighten_from
                = epsilon * loose ** (1 - u)              geometrically, u from 0 to 1 over the tightening
                = epsilon                                 for t >= tighten_until
    bias(t)     = bias_0 * (1 - progress)                 progress grows by 1 / (anneal * steps) per step,
                                                          under pace "feasible" only while the ceiling holds
Loose early and tight late, because edges are lost while there is slack and exactness returns when there is none;
paced by feasibility, because a clock can outrun the constraint on a pretrained model (both measured, DESIGN.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from .ceiling import Ceiling
from .errors import refuse, require_choice, require_range

PACES = ("feasible", "clock")


@dataclass(frozen=True)
class Schedule:
    """How a run of `steps` optimizer steps moves; shares are of the whole run."""

    steps: int
    bias: float = 4.0
    anneal: float = 0.05
    pace: str = "feasible"
    loose: float = 1.0
    tighten_from: float = 0.6
    tighten_until: float = 0.9
    noise_until: float = 1.0

    def __post_init__(self) -> None:
        require_choice("bias pace", self.pace, PACES)
        for name in ("anneal", "tighten_from", "tighten_until", "noise_until"):
            require_range(name, getattr(self, name), 0.0, 1.0)
        if self.steps < 1:
            raise refuse(f"{self.steps} steps", "possible: 1 or more", "pass max_steps or num_train_epochs")
        if self.loose < 1 or self.tighten_until < self.tighten_from:
            raise refuse(
                f"loose={self.loose}, tighten from {self.tighten_from} until {self.tighten_until}",
                "possible: loose >= 1 and from <= until",
                "start loose and end tight",
            )

    def ceiling(self, step: int, final: Ceiling) -> Ceiling:
        """The ceiling that is enforced at this step; `final` itself from `tighten_until` on."""
        t = step / self.steps
        if t < self.tighten_from:
            return final.scaled(self.loose)
        if t >= self.tighten_until:
            return final
        u = (t - self.tighten_from) / (self.tighten_until - self.tighten_from)
        return final.scaled(self.loose ** (1 - u))

    def next_bias(self, bias: float, holds: bool) -> float:
        """The gate bias after one more step, never below 0."""
        if self.pace == "feasible" and not holds:
            return bias
        return max(0.0, bias - self.bias / max(1.0, self.anneal * self.steps))

    def samples(self, step: int) -> bool:
        """Whether gates are sampled at this step, or deterministic."""
        return step < self.noise_until * self.steps
