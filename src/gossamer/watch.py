"""A training run, watched: one HTML file without script, rewritten as the run goes.

The page reloads itself while the run lasts, by a `meta refresh`, so it can be left open beside the
terminal; it holds the whole history, so it is also what is left of a run that stopped. Curves are drawn
from what the trainer logs and evaluates: open edges per layer, held-out divergence against the ceiling,
lambda, keys per query.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback

from .files import write_text

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 180, 76, 24  # of one chart, CSS pixels
DECADES = 5  # a logarithmic scale goes no further down from its highest value
REFRESH = 5  # seconds between reloads while the run lasts
Points = list[tuple[float, float]]  # (step, value)
# Blue to orange in equal steps of lightness, told apart by colour-blind readers; dashes tell them apart in
# grey.
COLOURS = ("#08519c", "#c2410c", "#2f7d4f", "#7b3fa0", "#946200", "#1f7a8c")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "10 4")


class Curve(NamedTuple):
    """One line of a chart."""

    name: str
    points: Points


@dataclass
class History:
    """What a run has told so far; a pure container, so that the page is a pure function of it.

    Attributes:
        title: of the run.
        steps: how many it will take.
        ceiling: what may be lost, as kind=value; empty if there is none.
        curves: name -> points.
        layers: per layer, mean open edges per row at each evaluation.
        started, now: seconds, of any one clock.
        done: whether the run is over.
    """

    title: str
    steps: int = 0
    ceiling: str = ""
    curves: dict[str, Points] = field(default_factory=dict)
    layers: list[Points] = field(default_factory=list)
    started: float = 0.0
    now: float = 0.0
    done: bool = False

    def add(self, name: str, step: int, value: Any) -> None:
        """Note one number; what is not finite is left out."""
        if isinstance(value, int | float) and math.isfinite(value):
            self.curves.setdefault(name, []).append((float(step), float(value)))

    def add_layers(self, step: int, per_head: Sequence[Sequence[float]]) -> None:
        """Note the open edges of every layer, [layer][head]."""
        while len(self.layers) < len(per_head):
            self.layers.append([])
        for points, heads in zip(self.layers, per_head, strict=True):
            points.append((float(step), float(sum(heads))))


# What the trainer calls it -> what it is called here.
LOGGED = {
    "divergence": "divergence, training",
    "enforced_ceiling": "ceiling in force",
    "multiplier": "lambda",
    "expected_open_edges": "expected open edges, training",
    "eval_divergence": "divergence, held out",
    "eval_open_edges": "open edges, held out",
    "eval_keys_per_query": "keys per query",
}


class TrainingPage(TrainerCallback):
    """Write the run's page after every log and evaluation.

    Args:
        path: the HTML file.
        title: of the run.
        every: seconds that must pass between two writings; the last one is always made.
    """

    def __init__(
        self, path: Path | str, *, title: str = "Sparsity-regularised finetuning", every: float = 2.0
    ) -> None:
        self.path, self.every, self.written = Path(path), every, -math.inf
        self.history = History(title, started=time.monotonic())

    def watching(self, trainer: Any) -> TrainingPage:
        """Let the page know the trainer, whose evaluation counts edges per layer; returns the page."""
        self.trainer = trainer
        return self

    trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history.steps = state.max_steps
        self.history.ceiling = str(getattr(args, "ceiling", ""))
        self._write(last=True)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        for name, value in (logs or {}).items():
            if name in LOGGED:
                self.history.add(LOGGED[name], state.global_step, value)
        self._write()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tally = getattr(self.trainer, "tally", None)
        if tally is not None:
            self.history.add_layers(state.global_step, tally.per_head())
        self._write()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history.done = True
        self._write(last=True)

    def _write(self, *, last: bool = False) -> None:
        self.history.now = time.monotonic()
        if last or self.history.now - self.written >= self.every:
            self.written = self.history.now
            write_text(self.path, watch_page(self.history))


def watch_page(history: History) -> str:
    """The page of a run, as text; nothing is fetched and nothing is run."""
    curves = history.curves
    limit = _ceiling_curve(history)
    charts = [
        chart(
            "Divergence from the base model",
            [*_named(curves, "divergence, held out", "divergence, training"), *limit],
            log=not history.ceiling.startswith("gap"),  # a gap may be negative; every other kind is not
        ),
        chart(
            "Open edges per layer, held out", [Curve(f"Layer {i}", p) for i, p in enumerate(history.layers)]
        ),
        chart(
            "Open edges per row",
            _named(curves, "open edges, held out", "expected open edges, training"),
            log=True,
        ),
        chart("Keys per query and head, held out", _named(curves, "keys per query")),
        chart("lambda", _named(curves, "lambda"), log=True),
    ]
    refresh = "" if history.done else f'<meta http-equiv="refresh" content="{REFRESH}">'
    return _PAGE.format(
        refresh=refresh,
        title=html.escape(history.title),
        words=html.escape(_words(history)),
        charts="\n".join(filter(None, charts)),
    )


def _named(curves: Mapping[str, Points], *names: str) -> list[Curve]:
    return [Curve(name, curves[name]) for name in names if curves.get(name)]


def _ceiling_curve(history: History) -> list[Curve]:
    """The ceiling that was asked for, and the one in force where a schedule loosens it."""
    _, _, value = history.ceiling.partition("=")
    asked = []
    if value:
        asked = [
            Curve(
                f"ceiling {history.ceiling}",
                [(0.0, float(value)), (float(max(1, history.steps)), float(value))],
            )
        ]
    return [*asked, *_named(history.curves, "ceiling in force")]


def _words(history: History) -> str:
    last = max((points[-1][0] for points in history.curves.values() if points), default=0.0)
    state = "done" if history.done else "running"
    minutes = (history.now - history.started) / 60
    latest = [f"{name} {points[-1][1]:.4g}" for name, points in history.curves.items() if points]
    return f"Step {last:,.0f} of {history.steps:,}, {state}, {minutes:.1f} min. Latest: {'; '.join(latest)}"


def chart(title: str, curves: Sequence[Curve], *, log: bool = False) -> str:
    """One chart as inline SVG with its legend in words, or nothing without points.

    Args:
        log: a logarithmic scale; values that are not positive are left out, and those more than `DECADES`
            decades below the highest stand at the bottom.
    """
    drawn = [Curve(name, [p for p in points if p[1] > 0 or not log]) for name, points in curves]
    drawn = [curve for curve in drawn if curve.points]
    if not drawn:
        return ""
    scale = math.log10 if log else float
    values = [scale(y) for curve in drawn for _, y in curve.points]
    high = max(values)
    low = max(min(values), high - DECADES) if log else min(0.0, *values)
    high = high if high > low else low + 1.0
    right = max(x for curve in drawn for x, _ in curve.points) or 1.0

    def place(x: float, y: float) -> str:
        across = LEFT + x / right * (WIDTH - LEFT - 8)
        return f"{across:.1f},{8 + (high - max(low, scale(y))) / (high - low) * (HEIGHT - BOTTOM - 8):.1f}"

    lines = []
    for i, curve in enumerate(drawn):
        style = f'fill="none" stroke="{COLOURS[i % 6]}" stroke-width="1.8" stroke-dasharray="{DASHES[i % 6]}"'
        path = " ".join(place(*point) for point in curve.points)
        lines.append(f'<polyline {style} points="{path}"><title>{html.escape(curve.name)}</title></polyline>')
    marks = [
        (place(0, 10**t if log else t).partition(",")[2], _tick(10**t if log else t))
        for t in _ticks(low, high, log)
    ]
    return _framed(f"{title} (logarithmic)" if log else title, drawn, "".join(lines), marks, right)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers between two ends of a scale, at most five or so, in the scale's own unit."""
    if log:
        for leads in ((1,), (1, 2, 5)):
            powers = range(math.floor(low), math.ceil(high) + 1)
            found = [k + math.log10(lead) for k in powers for lead in leads]
            found = [t for t in found if low <= t <= high]
            if len(found) > 1:
                return found[:: math.ceil(len(found) / 6)]
        return [low, high]
    least = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(least))
    step = next(lead * power for lead in (1, 2, 5, 10) if lead * power >= least)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _framed(
    title: str, curves: Sequence[Curve], lines: str, ticks: Sequence[tuple[str, str]], right: float
) -> str:
    """Axes, round numbers on them and a legend around the lines; `ticks` are (y, words)."""
    y = HEIGHT - BOTTOM
    axis = f'<path d="M{LEFT} 8V{y}H{WIDTH - 8}" fill="none" stroke="currentColor" stroke-width="0.6"/>'
    axis += "".join(
        f'<path d="M{LEFT} {at}H{WIDTH - 8}" stroke="#dddddd" stroke-width="0.8"/>' for at, _ in ticks
    )
    marks = [(LEFT - 6, float(at) + 4, "end", words) for at, words in ticks]
    marks += [(LEFT, HEIGHT - 6, "start", "0"), (WIDTH - 8, HEIGHT - 6, "end", f"step {right:,.0f}")]
    texts = "".join(
        f'<text x="{x}" y="{at:g}" text-anchor="{side}" font-size="12" fill="currentColor">{words}</text>'
        for x, at, side, words in marks
    )
    legend = "".join(_legend(i, curve) for i, curve in enumerate(curves))
    name = html.escape(title)
    image = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{axis}{lines}{texts}</svg>'
    return f"<section><h2>{name}</h2>{image}<ul>{legend}</ul></section>"


def _legend(i: int, curve: Curve) -> str:
    """A piece of the line, its name, and its latest value."""
    stroke = f'stroke="{COLOURS[i % 6]}" stroke-width="2" stroke-dasharray="{DASHES[i % 6]}"'
    line = (
        f'<svg width="26" height="8" aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4" {stroke}/></svg>'
    )
    return f"<li>{line} {html.escape(curve.name)}: {curve.points[-1][1]:.4g}</li>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.4 system-ui, "DejaVu Sans", Verdana, sans-serif; max-width: 1400px; margin: 0 auto;
padding: 16px; }} h1 {{ font-size: 1.3em; }} h2 {{ font-size: 1em; margin: 0; }} main {{ display: grid;
grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 20px; }} section {{ background:
#ffffff; color: #111111; border: 1px solid #c9c9c9; border-radius: 7px; padding: 10px; }} section
svg[viewBox] {{ width: 100%; height: auto; }} ul {{ list-style: none; margin: 0; padding: 0; display: flex;
flex-wrap: wrap; gap: 2px 18px; font-size: 0.87em; }} @media (max-width: 520px) {{ section svg text {{
font-size: 18px; }} }}
</style></head><body><h1>{title}</h1><p>{words}</p><main> {charts} </main></body></html>
"""
