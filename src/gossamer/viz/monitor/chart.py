"""One chart as inline SVG: curves, round numbers on both axes, a legend in words; no script."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 190, 62, 14, 10, 24  # of one chart, CSS pixels
DECADES = 5  # a logarithmic scale goes no further down from its highest value
HEADROOM = 0.04  # of the scale, so that no curve lies on the edge
Points = list[tuple[float, float]]  # (step, value)
# The page gives the colours, light and dark, as --c0 to --c5: blue to orange in equal steps of lightness, told apart by
# colour-blind readers; dashes tell them apart in grey.
COLOURS = 6
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "10 4")


class Curve(NamedTuple):
    """One line of a chart."""

    name: str
    points: Points


class Scale(NamedTuple):
    """The vertical axis, in its own unit: decades if `log`."""

    low: float
    high: float
    log: bool

    def y(self, value: float) -> float:
        """Where a value stands; on a logarithmic scale zero and what is too small stand at the bottom."""
        at = (math.log10(value) if value > 0 else self.low) if self.log else value
        share = (self.high - max(self.low, at)) / (self.high - self.low)
        return TOP + share * (HEIGHT - BOTTOM - TOP)

    def marks(self) -> list[tuple[float, str]]:
        """Round numbers as (where, words)."""
        values = [10**t if self.log else t for t in _ticks(self.low, self.high, self.log)]
        return [(self.y(value), _tick(value)) for value in values]


def chart(title: str, curves: Sequence[Curve], *, log: bool = False, note: str = "") -> str:
    """One chart with its legend, or nothing without points.

    Args:
        log: a logarithmic scale; what is not positive, or more than `DECADES` decades below the highest, stands at
            the bottom.
        note: one sentence below the title.
    """
    drawn = [curve for curve in curves if curve.points]
    scale = _scale([y for curve in drawn for _, y in curve.points], log)
    if scale is None:
        return ""
    right = max(x for curve in drawn for x, _ in curve.points) or 1.0
    lines = []
    for i, curve in enumerate(drawn):
        path = " ".join(f"{_across(x, right):.1f},{scale.y(y):.1f}" for x, y in curve.points)
        lines.append(
            f'<polyline {_pen(i, 1.8)} points="{path}"><title>{html.escape(curve.name)}</title></polyline>'
        )
    name = html.escape(f"{title} (logarithmic)" if log else title)
    inside = _axes(scale, right) + "".join(lines)
    image = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{inside}</svg>'
    legend = "".join(_legend(i, curve) for i, curve in enumerate(drawn))
    words = f"<p>{html.escape(note)}</p>" if note else ""
    return f"<section><h2>{name}</h2>{words}{image}<ul>{legend}</ul></section>"


def _scale(values: Sequence[float], log: bool) -> Scale | None:
    """A scale that holds all values, or None where there is nothing to hold."""
    found = (
        [math.log10(value) for value in values if value > 0] if log else [float(value) for value in values]
    )
    if not found:
        return None
    high = max(found)
    low = max(min(found), high - DECADES) if log else min(0.0, *found)
    high = high if high > low else low + 1.0
    room = HEADROOM * (high - low)
    return Scale(low - room if log or low < 0 else low, high + room, log)


def _across(x: float, right: float) -> float:
    return LEFT + x / right * (WIDTH - LEFT - RIGHT)


def _pen(i: int, width: float) -> str:
    dash = DASHES[i % COLOURS]
    return f'fill="none" stroke="var(--c{i % COLOURS})" stroke-width="{width}" stroke-dasharray="{dash}"'


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers between two ends of a scale, at most six or so, in the scale's own unit."""
    if log:
        found: list[float] = []
        for leads in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            powers = range(math.floor(low), math.ceil(high) + 1)
            found = [k + math.log10(lead) for k in powers for lead in leads]
            found = [t for t in found if low <= t <= high]
            if len(found) > 2:
                return found[:: math.ceil(len(found) / 6)]
        return found or [low, high]
    least = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(least))
    step = next(lead * power for lead in (1, 2, 5, 10) if lead * power >= least)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _axes(scale: Scale, right: float) -> str:
    """Both axes, a rule at every round number, and the numbers."""
    y, marks = HEIGHT - BOTTOM, scale.marks()
    rules = "".join(
        f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="var(--grid)" stroke-width="0.8"/>'
        for at, _ in marks
    )
    frame = (
        f'<path d="M{LEFT} {TOP}V{y}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" stroke-width="0.6"/>'
    )
    texts = [(LEFT - 6, at + 4, "end", words) for at, words in marks]
    steps = _ticks(0.0, right, False)
    texts += [
        (_across(x, right), HEIGHT - 7, "middle", _tick(x)) for x in steps if _across(x, right) < WIDTH - 90
    ]
    texts.append((WIDTH - RIGHT, HEIGHT - 7, "end", f"step {right:,.0f}"))
    return (
        rules
        + frame
        + "".join(
            f'<text x="{x:.1f}" y="{at:.1f}" text-anchor="{side}" font-size="12" fill="currentColor">{words}</text>'
            for x, at, side, words in texts
        )
    )


def _legend(i: int, curve: Curve) -> str:
    """A piece of the line, its name, and its latest value."""
    line = f'<svg width="26" height="8" aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4" {_pen(i, 2)}/></svg>'
    return f"<li>{line} {html.escape(curve.name)}: {curve.points[-1][1]:.4g}</li>"
