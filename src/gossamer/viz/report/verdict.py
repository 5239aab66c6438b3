"""The first line of a page about a run: whether the ceiling holds, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...models.run_report import RunReport
from .html import number, text

ROUNDING = 1e-7  # of a divergence: a model that is its base has one of some 1e-9, of either sign
STATES = {True: "holds", False: "missed", None: "unknown"}


def verdict(ceiling: str, holds: bool | None, lost: float | None, left: Sequence[str], more: str = "") -> str:
    """One paragraph of HTML, its colour and its words the same in meaning.

    Args:
        holds: None where nothing has been evaluated yet, or no report says it.
        lost: the divergence on held-out rows.
        left: phrases such as "812.0 open edges per row (8.5 %)".
        more: which model this is about, as text.
    """
    said = {True: "holds", False: "is missed", None: "has not been checked"}[holds]
    named = f"The ceiling {text(ceiling)} {said}" if ceiling else "No ceiling was set"
    much = lost is not None and abs(lost) > ROUNDING
    loss = f": {number(lost) if much else 'nothing'} is lost on held-out rows" if lost is not None else ""
    rest = f" Left: {text(', '.join(left))}." if left else ""
    after = f" {text(more)}" if more else ""
    state = STATES[holds if ceiling else None]
    return f'<p class="verdict {state}"><strong>{named}</strong>{loss}.{rest}{after}</p>'


def open_of(kind: str, opened: float, share: float | None, per: str = "row") -> str:
    """`812.2 open edges per row (8.5 %)`; of what does not depend on the input, `7 open heads (87.5 %)`."""
    per = f" per {per}" if kind == "edges" else ""
    percent = "" if share is None else f" ({_percent(share)})"
    return (
        f"{opened:,.4g} open {kind}{per}{percent}"
        if opened < 1e4
        else f"{opened:,.0f} open {kind}{per}{percent}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%" if share >= 0.0005 or not share else f"{100 * share:.1g}\u00a0%"


def report_verdict(report: RunReport) -> str:
    """The verdict on a finished run; nothing where the report says neither ceiling nor result."""
    if not report.ceiling and report.feasible is None:
        return ""
    held, proof = report.held_out, report.proof
    lost = held.get("divergence", report.chosen_on.get("divergence"))
    which = "" if report.best_step is None else f"This is the checkpoint of step {report.best_step:,}"
    which += f" of {report.steps:,}." if which and report.steps else "." if which else ""
    if report.best_step == 0:
        which = "This is the untrained model: nothing that was trained held the ceiling with less open."
    which += f" The run ended {report.ended}." if report.ended else ""
    return verdict(report.ceiling, report.feasible, lost, _left(report, held, proof), which)


def _left(report: RunReport, held: Mapping[str, float], proof: Mapping[str, float]) -> list[str]:
    found = []
    for kind, units in report.gates.items():
        opened, whole = sum(units.per_layer), sum(units.of_layer)
        share = held.get(f"density_{kind}", held.get("density") if len(report.gates) == 1 else None)
        found.append(f"{opened:,.0f} of {whole:,} {kind}" if whole else open_of(kind, opened, share))
    if not any(kind == "edges" for kind in report.gates) and proof.get("edges_mean") is not None:
        share = proof["edges_mean"] / proof["edges_possible"] if proof.get("edges_possible") else None
        found.insert(0, open_of("edges", proof["edges_mean"], share, "prompt"))
    return found
