"""The figure, end to end: train a model that adds, make it sparse, prove it on every sum, draw it.

The folder that a demo leaves (and from which it continues):

    config.yaml     what was asked; a folder is continued only under the same settings
    base/           the base model, an ordinary checkpoint            sparse/   the gated one
    edges/, units/  with gates on heads or neurons: the models of the two runs before; edges.html, units.html
    work/           trainer checkpoints, until the stage that made them is done
    figure.{svg,pdf,png}, figure-12+34.* ...     report.{json,md,html}
    training.html   the run, rewritten as it goes                    view.html, film.gif, tries.json

Which sums are for what: 80 % train both models; half of the held-out ones help to choose the best checkpoint, together
with the training sums; the other half is looked at once, by the final proof, and is reported on its own. Of a million
sums (three digits), `stages.MOST_CHOOSING` help to choose and `MOST_CHECKED` are looked at by the proof, in these
shares.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel

from ...circuits.verify import verify
from ...errors import refuse
from ...files import locked, read_json, require_writable, write_text
from ...models.attach import gates_of
from ...models.quiet import quiet
from ...models.run_report import RunReport
from ..remaining import with_remaining
from ..run_config import FILE, read_config, write_config
from .explain.facts import Truth
from .explain.neurons import count_open, label_neurons
from .figures import draw_sums, write_pages
from .outcome import least_step, read_outcome
from .report import as_markdown, build_report
from .settings import DemoSettings
from .stages import make_models, one_thread
from .task import MOST_CHECKED, Addition, as_text
from .tries import keep_best, restart


def run_demo(
    out: Path,
    settings: DemoSettings,
    *,
    sums: Sequence[str] = ("36+28",),
    film: bool = False,
    print_json: bool = False,
    console: Console | None = None,
) -> RunReport:
    """Make or continue the demo in `out`; returns the report, which is also written there.

    Runs on one thread whatever the machine has: rounding depends on the number of threads, and a run of thousands of
    steps on its rounding, so only then is a seed one run. (Seed 0 on two threads took 6 min 8 s and ended at 9,999.)

    With `settings.tries` above 1 there are as many runs at a time, each on one thread, and the best one's models are
    what is proved. Where nothing that was trained holds the ceiling, `settings.restarts` more seeds are tried, one
    after the other (`tries.py`).

    Raises: `GossamerError` for bad sums, another run's folder, an unwritable folder.
    """
    screen = console or Console(stderr=print_json)
    task = Addition(settings.digits)
    chosen = [task.parse(text) for text in sums]
    settings.sparsity(out / "sparse")  # what it refuses is said before the base model is trained
    require_writable(out)
    with locked(out), quiet(), one_thread():
        _claim(out, settings)
        started = time.monotonic()
        kept, base, sparse, tries = _models(task, settings, out, screen, sums[0] if film else None)
        run = read_outcome(out)
        looked, every = task.checked(kept.seed), "all " * (task.n_sums <= MOST_CHECKED)
        opened = count_open(sparse)  # closing hundreds takes minutes
        too = f", and closing {opened:,} neurons one by one" if opened else ""
        screen.print(f"verifying {every}{len(looked):,} sums{too}", highlight=False)
        neurons = [one.as_record(task) for one in label_neurons(sparse, Truth(task, looked))]
        report = replace(prove(task, kept, base, sparse, run), neurons=neurons)
        report = replace(report, settings=settings.as_dict(), tries=tries)
        seconds = {**report.seconds, "this_call": round(time.monotonic() - started, 1)}
        report = replace(report, seconds=seconds, figures=draw_sums(task, base, sparse, chosen, out))
        report.write(out)
        write_text(out / "report.md", as_markdown(report))
        write_pages(task, base, sparse, report, out, sums[0])
    if film and not (out / "film.gif").is_file():
        screen.print("no film: the sparse model was complete already; choose another --out", highlight=False)
    if print_json:
        print(json.dumps(report.as_dict(), indent=2))  # noqa: T201
    _say_result(screen, report, out, nothing=least_step(run) == 0)
    return report


def _models(
    task: Addition, settings: DemoSettings, out: Path, console: Console, film: str | None
) -> tuple[DemoSettings, PreTrainedModel, PreTrainedModel, list[dict[str, Any]]]:
    """Settings, base and sparse model of the try that is kept; and what came of all, where there were several."""
    tries = keep_best(out, settings, console, film)
    kept = replace(settings, seed=tries[0]["seed"]) if tries else settings
    models = make_models(task, kept, out, console, None if film is None else task.parse(film))
    if more := restart(out, settings, console, film):
        tries, kept = more, replace(settings, seed=more[0]["seed"])
        models = make_models(task, kept, out, console)
    return kept, *models, tries


def _claim(out: Path, settings: DemoSettings) -> None:
    """Refuse to continue a folder that other settings made."""
    path, now = out / FILE, settings.as_dict()
    if path.is_file():
        before = DemoSettings(**read_config(path, "demo", DemoSettings)).as_dict()
    elif (out / "settings.json").is_file():  # of 0.1.0, which had one recipe
        before = {**now, **read_json(out / "settings.json")}
    else:
        before = now
    different = [
        f"{name} {before[name]}, now {value}"
        for name, value in now.items()
        if before[name] != value and name != "restarts"  # more of them leave what was made as it is
    ]
    if different:
        raise refuse(
            f"{out} was made with other settings ({', '.join(different)})",
            "the same settings",
            "choose another --out",
        )
    write_config(out, "demo", settings)


def prove(
    task: Addition,
    settings: DemoSettings,
    base: PreTrainedModel,
    sparse: PreTrainedModel,
    run: dict[str, Any],
) -> RunReport:
    """Verify both models on all sums, or a sample of them, and gather the report."""
    looked = task.checked(settings.seed)
    inputs, labels = task.encode(looked)
    found = verify(base, sparse, inputs, labels, text=as_text)
    _, held_out = task.split(settings.seed)
    unseen = torch.isin(looked, held_out[len(held_out) // 2 :]).nonzero()[:, 0]
    report = build_report(task, settings.as_dict(), found, unseen, run, impl=gates_of(sparse).impl)
    return with_remaining(report, sparse)


def _say_result(console: Console, report: RunReport, out: Path, *, nothing: bool) -> None:
    proof = report.proof
    console.print(
        f"base exact on {proof['base_exact']:,} of {proof['prompts']:,} sums, sparse on {proof['sparse_exact']:,}; "
        f"{proof['edges_mean']:.2f} of {proof['edges_possible']:,} attention edges open on average. "
        f"Figure and report: {out}",
        highlight=False,
    )
    if nothing:
        which = ", or with fewer heads or neurons: this" if len(report.gates) > 1 else ": this"
        console.print(
            f"nothing that was trained held the ceiling with fewer edges{which} is the model that training began "
            f"with. Pass another --seed, or --restarts {report.settings['restarts'] + 1}, which tries one seed more",
            highlight=False,
        )


__all__ = ["DemoSettings", "run_demo"]
