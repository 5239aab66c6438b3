"""What may be lost: a ceiling on the divergence from the base model, D <= epsilon."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..errors import refuse, require_choice, require_range

# What D is; all but `loss`, which is the paper's, compare with the frozen base on the same batch.
KINDS = {
    "kl": "KL(base || sparse), nats per prediction",
    "delta_ce": "cross-entropy of the sparse model minus that of the base, nats per prediction",
    "loss": "cross-entropy of the sparse model, nats per prediction",
    "fvu": "squared change of a score over the variance of the base's scores",
    "cosine": "one minus the cosine between pooled sentence embeddings",
    "pairwise": "squared change of the cosine between two sentences over the variance of the base's",
}
SENTENCES = ("cosine", "pairwise")  # of embeddings, whatever head is on them
SPREAD = ("fvu", "pairwise")  # in units of the base's own variance
# How a head reads its output -> the ceilings that mean something there, the first of them the usual one.
MEANINGFUL = {
    "classes": ("kl", "delta_ce", "loss"),
    "labels": ("kl", "delta_ce", "loss"),
    "values": ("fvu", "loss"),
    "vectors": SENTENCES,
}


def require_meaning(kind: str, reads: str, model: str) -> None:
    """Raise for a ceiling that means nothing on what a model answers, and say which does.

    Softmax over the one score of a reranker is 1 whatever the gates do, and hidden states are no logits.
    """
    if kind not in (possible := MEANINGFUL[reads]):
        what = {"values": "answers with numbers", "vectors": "answers with hidden states"}
        raise refuse(
            f"a ceiling on {kind} for {model}, which {what.get(reads, 'answers with probabilities')}",
            f"a ceiling on {' or '.join(possible)}",
            f"pass for example {possible[0]}=0.02",
        )


MARGIN = (
    2.0  # standard errors: rows that a model was not chosen by are then inside too, nineteen times in twenty
)


@dataclass(frozen=True)
class Ceiling:
    """D <= value, with D of the given kind.

    Attributes:
        kind: one of `KINDS`.
        value: epsilon, in the unit of the kind.
        unit: the violation that moves log lambda by one full ki; epsilon itself unless told otherwise.
            For `loss` epsilon is no natural scale, so a hundredth of it is taken (assumed).
    """

    kind: str
    value: float
    unit: float = 0.0

    def __post_init__(self) -> None:
        require_choice("ceiling kind", self.kind, KINDS)
        require_range("ceiling unit", self.unit, 0.0, 1e12)
        require_range(f"ceiling {self.kind}", self.value, -math.inf, math.inf)
        if not (math.isfinite(self.value) and self.value > 0):
            raise refuse(f"ceiling {self.kind}={self.value}", "a number above 0", "pass for example kl=0.02")
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
                f"kind=number, kind one of {', '.join(KINDS)}",
                "pass for example kl=0.02",
            ) from None
        if kind.strip() == "gap":
            raise refuse(
                f"ceiling kind 'gap' of 0.1.0, {text!r}", "its new name delta_ce", f"pass delta_ce={value}"
            )
        return cls(kind.strip(), number)

    @classmethod
    def of(cls, given: Ceiling | str) -> Ceiling:
        """A ceiling from itself or from its text: the door of everything that takes either."""
        if not isinstance(given, Ceiling | str):
            raise refuse(f"ceiling {given!r}", "a Ceiling, or its text", "pass for example kl=0.02")
        return given if isinstance(given, Ceiling) else cls.parse(given)

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    @property
    def needs_base(self) -> bool:
        """Whether D compares with the frozen base model, which then runs beside the sparse one."""
        return self.kind != "loss"

    def scaled(self, factor: float) -> Ceiling:
        """The same ceiling, `factor` times as high: a loose one for the start of a run."""
        return replace(self, value=self.value * factor, unit=self.unit * factor)

    def margin(self, standard_error: float) -> float:
        """What held-out rows may lose more than those that were measured: `MARGIN` standard errors.

        0 for a ceiling on the loss, which differs from row to row for reasons that no gate has.
        """
        return MARGIN * standard_error if self.needs_base and math.isfinite(standard_error) else 0.0

    def excess(self, divergence: float) -> float:
        """(D - epsilon) / unit: at most 0 where the ceiling holds."""
        return (divergence - self.value) / self.unit
