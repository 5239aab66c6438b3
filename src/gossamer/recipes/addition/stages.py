"""The trainings of a demo: the base model, its heads and neurons if they have gates, and the sparse model.

Each is continued where it was stopped; one whose model has its folder is not done again. Trainer checkpoints lie in
OUT/work, until the stage is done.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedModel, Trainer, set_seed
from transformers.trainer_callback import PrinterCallback

from ...circuits.trace import trace
from ...data.sequences import TensorRows, collate_rows
from ...errors import DivergedTraining, refuse
from ...models.checkpoint import load, load_dense, save, save_folder
from ...models.forward import evaluating, first_output
from ...training.atomic_checkpoints import AtomicCheckpoints
from ...training.base_model import without_dropout
from ...training.progress import ProgressLine
from ...training.resume import last_checkpoint
from ...training.sparsify import Outcome, sparsify
from ...viz.film import Filmed
from ...viz.film import film as make_film
from ...viz.monitor import TrainingPage
from .look import PauseAt, Paused
from .outcome import note
from .settings import ATTENTION_DROPOUT, DemoSettings
from .task import Addition, as_text

MOST_CHOOSING = 40_000  # sums that an evaluation of the sparse run reads
MOST_KEPT = (
    20_000  # sums for which the base model's outputs are kept; for more they are computed at each step
)


def make_models(
    task: Addition, settings: DemoSettings, out: Path, console: Console, filmed: int | None = None
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The base model and the sparse one of a folder; what is not there is trained.

    Heads and neurons go in a run of their own, from a web that is found already, for it needs few of them; and edges
    once more then, in what is left. Where all go at once, or units first, more edges stay (LOG.md, 2026-11-29).

    Args:
        filmed: the number of the sum to film while the sparse model is made, or None.
    """
    base = _base(task, settings, out, console)
    if settings.unit_kinds:
        for stage, title in (("edges", "edges"), ("units", " and ".join(settings.unit_kinds))):
            prepare = partial(make_ready, task, settings, base, out, console, stage, title)
            _stage(console, out, stage, title, _load_sparse, prepare)
    make = lambda: make_sparse(task, settings, base, out, console, filmed)  # noqa: E731
    return base, _stage(console, out, "sparse", "sparse model", _load_sparse, make)


def begin(task: Addition, settings: DemoSettings, out: Path, console: Console) -> PreTrainedModel:
    """The base model of a folder, and a checkpoint of its first run on edges at the step where tries are looked at."""
    base, started = _base(task, settings, out, console), time.monotonic()
    model, bar = _start(out / "base", console), ProgressLine("first look", console)
    with suppress(Paused):
        _sparsify(task, settings, model, base, out, settings.first_stage, [bar, PauseAt(settings.look_step)])
    note(out, "look", started)
    return base


def _base(task: Addition, settings: DemoSettings, out: Path, console: Console) -> PreTrainedModel:
    train = lambda: train_base(task, settings, out, console)  # noqa: E731
    return _stage(console, out, "base", "base model", load_dense, train)


def _stage(console: Console, out: Path, stage: str, what: str, reload: Any, make: Any) -> PreTrainedModel:
    """Reuse a finished stage, or do it; says which. Then its trainer checkpoints go."""
    folder = out / stage
    if (folder / "config.json").is_file():
        console.print(f"{what}: complete in {folder}, reused", highlight=False)
        model = reload(folder)
    else:
        model = make()
    shutil.rmtree(out / "work" / stage, ignore_errors=True)
    return model


def _load_sparse(folder: Path) -> PreTrainedModel:
    return load(folder, impl="blockwise")


def train_base(task: Addition, settings: DemoSettings, out: Path, console: Console) -> PreTrainedModel:
    """Train the dense model, without gates or ceiling, and save it whole."""
    started = time.monotonic()
    set_seed(settings.seed)
    model = BertForMaskedLM(task.model_config(attention_dropout=ATTENTION_DROPOUT))
    train, _ = task.split(settings.seed)
    inputs, labels = task.encode(train)
    work = out / "work" / "base"
    arguments = settings.base(work)
    trainer = AtomicCheckpoints(
        model=model,
        args=arguments,
        train_dataset=TensorRows(input_ids=inputs, labels=labels),
        data_collator=collate_rows,  # type: ignore[arg-type]  # it gets the rows as one batch
    )
    _train(trainer, "base model", work, console)
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise refuse("the base model's weights are not finite", "a stable run", "report it", DivergedTraining)
    note(out, "base", started)
    save_folder(model.eval(), out / "base")
    return model


def _train(trainer: Trainer, title: str, work: Path, console: Console) -> None:
    trainer.remove_callback(PrinterCallback)
    bar = ProgressLine(title, console)
    trainer.add_callback(bar)
    checkpoint = last_checkpoint(work)
    if checkpoint:
        console.print(f"{title}: continued from {Path(checkpoint).name}", highlight=False)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        bar.close()


def make_ready(
    task: Addition,
    settings: DemoSettings,
    base: PreTrainedModel,
    out: Path,
    console: Console,
    stage: str,
    title: str,
) -> PreTrainedModel:
    """A run before the last one: edges of a copy of the base, or units of what that left; keep the best, save it."""
    started = time.monotonic()
    model = _start(out / ("base" if stage == settings.first_stage else "edges"), console)
    bar, page = ProgressLine(title, console), TrainingPage(out / f"{stage}.html")
    result = _sparsify(task, settings, model, base, out, stage, [bar, page])
    note(out, stage, started, result)
    save(result.model, out / stage)
    return result.model


def make_sparse(
    task: Addition,
    settings: DemoSettings,
    base: PreTrainedModel,
    out: Path,
    console: Console,
    filmed: int | None = None,
) -> PreTrainedModel:
    """Finetune a copy of the base, or what the runs before left of it, under the penalty; keep and save the best model.

    Args:
        filmed: the number of the sum to film while the run goes, or None.
    """
    started, stage = time.monotonic(), "sparse"
    model = _start(out / ("units" if settings.unit_kinds else "base"), console)
    bar, page = ProgressLine("sparse model", console), TrainingPage(out / "training.html")
    prompt = None if filmed is None else task.encode(torch.tensor([filmed]))[0]
    camera = [] if prompt is None else [Filmed(prompt, text=as_text)]
    result = _sparsify(task, settings, model, base, out, stage, [bar, page, *camera])
    if prompt is not None:
        make_film(trace(base, prompt, text=as_text), camera[0].frames, out / "film.gif")
    note(out, stage, started, result)
    save(result.model, out / stage)
    return result.model.eval()


def _start(folder: Path, console: Console) -> PreTrainedModel:
    """The model that a sparse run begins with, without dropout."""
    model = load_dense(folder) if folder.name == "base" else _load_sparse(folder)
    rate = without_dropout(model)
    console.print(
        f"sparse model: the base's dropout of {rate:g} is off, it would count as divergence", highlight=False
    )
    return model


def _sparsify(
    task: Addition,
    settings: DemoSettings,
    model: PreTrainedModel,
    base: PreTrainedModel,
    out: Path,
    stage: str,
    watchers: list[Any],
) -> Outcome:
    """One sparse run on the sums of the settings, continued where it was stopped; the first watcher is its bar."""
    train, _ = task.split(settings.seed)
    work = out / "work" / stage
    try:
        return sparsify(
            model,
            rows(task, base, train),
            rows(task, base, choosing(task, settings.seed)),
            settings.sparsity(work, stage),
            base=base,
            resume=work.is_dir(),
            data_collator=collate_rows,
            callbacks=watchers,
        )
    finally:
        watchers[0].close()


def choosing(task: Addition, seed: int) -> Tensor:
    """The sums by which the best checkpoint is chosen, all that train and half of the others, or `MOST_CHOOSING`."""
    train, held_out = task.split(seed)
    seen = held_out[: len(held_out) // 2]
    share = min(1.0, MOST_CHOOSING / (len(train) + len(seen)))
    return torch.cat([part[: round(share * len(part))] for part in (train, seen)])


def rows(task: Addition, base: PreTrainedModel, index: Tensor) -> TensorRows:
    """Inputs, labels and, where there are few, the base model's output for the sums `index`, so that it runs once."""
    inputs, labels = task.encode(index)
    if len(index) > MOST_KEPT:
        return TensorRows(input_ids=inputs, labels=labels)
    with evaluating(base):
        outputs = torch.cat([first_output(base, {"input_ids": ids}) for ids in inputs.split(1024)])
    return TensorRows(input_ids=inputs, labels=labels, base_output=outputs)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
