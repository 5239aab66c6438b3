"""What changes over a run: the gate bias goes to 0, the ceiling tightens, gates reopen once, the noise stops.

The share t of the run that is done, in [0, 1), and whether the ceiling holds decide all of it.

    ceiling  = epsilon * loose ** (1 - u)     u: how far it is tightened, 0 until t = tighten_from, then growing by
                                              1 / ((tighten_until - tighten_from) * steps) per step, up to 1
    bias     = bias_0 - ...                   moving by |bias_0| / (anneal * steps) per step, to 0; with `regrow`, from
                                              t = tighten_from on regrow * (1 - u)
    price    = 1 + depth_price * (1 - u) * l  of an open edge in layer l
    lambda   may fall until t = settle_from, and only rise afterwards; its floor goes geometrically from what it is
             under the loose ceiling to what it is under the tight one, its cap changes when u = 1
    noise    until t = noise_until

Under pace "feasible" bias and ceiling move only while the present ceiling holds; under "clock" they always do. A
ceiling that "creeps" moves at `CREEP` of its pace while it is violated, for lambda hardly rises under a ceiling that
is barely missed, and a run could hang there for good. A bias that "breathes" also rises while the ceiling is
violated: a gate far below zero gets no gradient, and a run that pruned too much can only come back if something
reopens its gates.
Loose early and tight late, because wirings change while there is slack and exactness returns when there is none;
paced by feasibility, because a clock can outrun the constraint: lambda then winds up and opens edges again (LOG.md).

Prune to the bone, then let it grow. Pruning decides between redundant routes blindly, for none of them is missed
until the last one goes. Growing decides by what an edge is worth: under a ceiling so loose that whole parts of the
function are given up, then tightened slowly with gates lifted by `regrow`, one edge that restores something finds a
gradient before a relay of three does. The price on depth leaves later layers for what is built on earlier ones.

The clamps of lambda are prices of an edge, and the two ends of a run want different ones. At the bone a low floor, so
that whole parts are given up. Under a tight ceiling a high one: there the constraint is slack until an edge is lost,
and a lambda that falls all the while loses one, jumps, and buys several back. And a high cap, which is for what a run
is stuck without: a lambda of 20 may not buy it where one of 50 does. Not earlier, for a ceiling that still tightens is
violated half of the time, and a high lambda then buys edges that growth would have found to be needless (LOG.md,
2026-11-24).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import refuse, require_choice, require_range
from .constraint import Ceiling

PACES = ("feasible", "clock")
BIAS_PACES = (*PACES, "breathe")
TIGHTEN_PACES = (*PACES, "creep")
CREEP = 0.3  # how fast a violated ceiling still tightens, as a share of how fast a held one does (chosen on addition)
REOPEN = (
    0.25  # how fast a violated ceiling raises the bias, as a share of how fast a held one lowers it (assumed)
)


def between(loose: float, tight: float | None, tightened: float) -> float:
    """loose ** (1 - u) * tight ** u: a setting on its way from the loose ceiling to the tight one; None: it stays."""
    return loose if tight is None else loose * (tight / loose) ** tightened


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
    tighten_pace: str = "feasible"
    settle_from: float = 1.0
    noise_until: float = 1.0
    regrow: float = 0.0
    depth_price: float = 0.0

    def __post_init__(self) -> None:
        require_choice("bias pace", self.pace, BIAS_PACES)
        require_choice("tighten pace", self.tighten_pace, TIGHTEN_PACES)
        for name in ("anneal", "tighten_from", "tighten_until", "settle_from", "noise_until"):
            require_range(name, getattr(self, name), 0.0, 1.0)
        for name in ("regrow", "depth_price"):
            require_range(name, getattr(self, name), 0.0, 100.0)
        if self.steps < 1:
            raise refuse(f"{self.steps} steps", "possible: 1 or more", "pass max_steps or num_train_epochs")
        if self.loose < 1 or self.tighten_until < self.tighten_from:
            raise refuse(
                f"loose={self.loose}, tighten from {self.tighten_from} until {self.tighten_until}",
                "possible: loose >= 1 and from <= until",
                "start loose and end tight",
            )

    def ceiling(self, tightened: float, final: Ceiling) -> Ceiling:
        """The ceiling that is enforced when it is tightened this far, in [0, 1]; `final` itself at 1."""
        return final if tightened >= 1 else final.scaled(self.loose ** (1 - tightened))

    def next_tightened(self, tightened: float, step: int, holds: bool) -> float:
        """How far the ceiling is tightened after one more step."""
        if step < self.tighten_from * self.steps:
            return tightened
        slowed = {"feasible": 0.0, "creep": CREEP, "clock": 1.0}[self.tighten_pace]
        span = (self.tighten_until - self.tighten_from) * self.steps
        return min(1.0, tightened + (1.0 if holds else slowed) / max(1.0, span))

    def next_bias(self, bias: float, step: int, holds: bool, tightened: float) -> float:
        """The gate bias after one more step: towards 0 from where it starts, then down with the ceiling's slack."""
        if self.regrow and step >= self.tighten_from * self.steps:
            return self.regrow * (1 - tightened)
        move = abs(self.bias) / max(1.0, self.anneal * self.steps)
        if holds or self.pace == "clock":
            return max(0.0, bias - move) if self.bias >= 0 else min(0.0, bias + move)
        return min(self.bias, bias + REOPEN * move) if self.pace == "breathe" else bias

    def depth_slope(self, tightened: float) -> float:
        """How much dearer than layer 0 an open edge is for each layer further up: price = 1 + slope * layer."""
        return self.depth_price * (1 - tightened)

    def settles(self, step: int) -> bool:
        """Whether lambda may only rise from here on, so that the run ends calm and inside its ceiling."""
        return step >= self.settle_from * self.steps

    def samples(self, step: int) -> bool:
        """Whether gates are sampled at this step, or deterministic."""
        return step < self.noise_until * self.steps
