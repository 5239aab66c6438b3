"""A training run, watched: one HTML file without script, rewritten as the run goes.

Its first line says whether the ceiling holds and what is left, of the best checkpoint so far; the second, while the
run lasts, what it waits for.

The page reloads itself while the run lasts, by a `meta refresh`, so it can be left open beside the
terminal; it holds the whole history, so it is also what is left of a run that stopped. Curves are drawn
from what the trainer logs and evaluates: open edges per layer, held-out divergence against the ceiling,
lambda, keys per query.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import write_text
from ...training.progress import Watching
from .chart import Curve, Points, chart
from .history import History, curve_of
from .words import state_of, verdict_of, waits_for

__all__ = ["Curve", "History", "TrainingPage", "chart", "watch_page"]

REFRESH = 5  # seconds between reloads while the run lasts


class TrainingPage(Watching):
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

    def watching(self, trainer: Any) -> Any:
        """Let the page know its trainer, and write it: measuring the untrained model may take a while."""
        super().watching(trainer)
        self.history.ceiling = str(getattr(trainer.args, "ceiling", ""))
        self._write(last=True)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history.steps = state.max_steps
        self.history.ceiling = str(getattr(args, "ceiling", ""))
        for logged in getattr(state, "log_history", ()):  # of a run that is resumed
            self._add(logged["step"], logged)
        self._write(last=True)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self._add(state.global_step, logs or {})
        if self.trainer is not None:
            self.history.steps = self.trainer.controller.expected_steps
        self._write()

    def _add(self, step: int, logged: Mapping[str, Any]) -> None:
        for name, value in logged.items():
            if (curve := curve_of(name)) is not None:
                self.history.add(curve, step, value)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tally = getattr(self.trainer, "tally", None)
        if tally is not None:
            for kind in tally.kinds():
                self.history.add_layers(state.global_step, tally.per_group(kind), kind)
        self._write()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history.done, self.history.steps = True, state.global_step
        self._write(last=True)

    def _write(self, *, last: bool = False) -> None:
        self.history.now, self.history.written = time.monotonic(), time.strftime("%Y-%m-%d %H:%M:%S %Z")
        if self.trainer is not None:
            self.history.waits = waits_for(self.trainer.controller)
        if last or self.history.now - self.written >= self.every:
            self.written = self.history.now
            write_text(self.path, watch_page(self.history))


def watch_page(history: History) -> str:
    """The page of a run, as text; nothing is fetched and nothing is run."""
    curves, limit = history.curves, _ceiling_curve(history)
    charts = [
        chart(
            "Divergence from the base model",
            [*_named(curves, "divergence, held out", "divergence, training"), *limit],
            log=not history.ceiling.startswith("delta_ce"),  # a gap may be negative; every other kind is not
            note="What is lost, and how much may be. The ceiling is on the held-out curve.",
        ),
        *(part for kind in history.kinds() for part in _charts_of(history, kind)),
        chart(
            "Keys per query and head, held out",
            _named(curves, "keys per query"),
            log=True,
            note="How many positions a head reads from one position: comparable between prompts of any length.",
        ),
        chart(
            "lambda",
            _named(curves, "lambda"),
            log=True,
            note="The price of divergence against open edges: up while the ceiling is broken, down while it holds.",
        ),
    ]
    refresh = "" if history.done else f'<meta http-equiv="refresh" content="{REFRESH}">'
    return _PAGE.format(
        refresh=refresh,
        title=html.escape(history.title),
        verdict=verdict_of(history),
        now=html.escape(state_of(history)),
        charts="\n".join(filter(None, charts)),
    )


def _charts_of(history: History, kind: str) -> list[str]:
    """What is left of one kind of gate, by layer and in all."""
    return [
        chart(
            f"Open {kind} per layer, held out",
            [Curve(f"Layer {i}", points) for i, points in enumerate(history.layers.get(kind, []))],
            log=True,
            note=f"The mean of a row, which is one prompt. A layer without open {kind} stands on the axis.",
        ),
        chart(
            f"Open {kind} per row",
            _named(history.curves, f"open {kind}, held out", f"expected open {kind}, training"),
            log=True,
            note="All layers together: held out those that are open, in training the expected number.",
        ),
    ]


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


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --page: #ffffff; --ink: #111111; --muted: #595959; --line: #c9c9c9; --grid: #e2e2e2;
--ok: #1d7a3e; --bad: #b3261e;
--c0: #08519c; --c1: #c2410c; --c2: #2f7d4f; --c3: #7b3fa0; --c4: #946200; --c5: #1f7a8c; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #12161b; --ink: #f0f0f0; --muted: #a9b1ba; --line: #3a434e;
--grid: #2b323b; --ok: #7ddb94; --bad: #ff9d8a;
--c0: #9ecae1; --c1: #ffb067; --c2: #7ddb94; --c3: #cfa6ee; --c4: #e0c15a; --c5: #79d0e0; }} }}
body {{ font: 15px/1.4 system-ui, "DejaVu Sans", Verdana, sans-serif; max-width: 1400px; margin: 0 auto;
padding: 16px; background: var(--page); color: var(--ink); }}
h1 {{ font-size: 1.3em; margin: 0; }} h2 {{ font-size: 1em; margin: 0; }}
main {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 20px; }}
section {{ border: 1px solid var(--line); border-radius: 7px; padding: 10px; }}
.verdict {{ border-left: 5px solid var(--muted); padding: 2px 0 2px 10px; margin: 10px 0; font-size: 1.1em; }}
.verdict strong {{ font-weight: 650; }}
.holds {{ border-color: var(--ok); }} .holds strong {{ color: var(--ok); }}
.missed {{ border-color: var(--bad); }} .missed strong {{ color: var(--bad); }}
section p {{ margin: 0 0 6px; color: var(--muted); font-size: 0.87em; }}
section svg[viewBox] {{ width: 100%; height: auto; }}
ul {{ list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 0.87em; }}
@media (max-width: 520px) {{ section svg text {{ font-size: 16px; }} }}
</style></head><body><h1>{title}</h1>{verdict}<p>{now}</p><main> {charts} </main></body></html>
"""
