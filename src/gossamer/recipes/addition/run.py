"""The figure, end to end: train a model that adds, make it sparse, prove it on every sum, draw it.

The folder that a demo leaves (and from which it continues):

    config.yaml     what was asked; a folder is continued only under the same settings
    base/           the base model, an ordinary checkpoint            sparse/   the gated one
    work/           trainer checkpoints, until the stage that made them is done
    figure.{svg,pdf,png}, figure-12+34.* ...     report.{json,md,html}
    training.html   the run, rewritten as it goes                    view.html, film.gif

Which sums are for what: 80 % train both models; half of the held-out ones help to choose the best checkpoint, together
with the training sums; the other half is looked at once, by the final proof, and is reported on its own. Of a million
sums (three digits), `MOST_CHOOSING` help to choose and `MOST_CHECKED` are looked at by the proof, in these shares.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedModel, Trainer, set_seed
from transformers.trainer_callback import PrinterCallback

from ...circuits.trace import trace
from ...circuits.verify import verify
from ...data.sequences import TensorRows, collate_rows
from ...errors import DivergedTraining, refuse
from ...files import locked, read_json, require_writable, write_text
from ...models.attach import gates_of
from ...models.checkpoint import load, load_dense, save, save_folder
from ...models.forward import evaluating, first_output
from ...models.quiet import quiet
from ...models.run_report import RunReport
from ...training.atomic_checkpoints import AtomicCheckpoints
from ...training.base_model import without_dropout
from ...training.progress import ProgressLine
from ...training.resume import last_checkpoint
from ...training.sparsify import sparsify
from ...viz.film import Filmed
from ...viz.film import film as make_film
from ...viz.monitor import TrainingPage
from ..remaining import with_remaining
from ..run_config import FILE, read_config, write_config
from .explain.facts import Truth
from .explain.neurons import count_open, label_neurons
from .figures import draw_sums, write_pages
from .outcome import note, read_outcome
from .report import as_markdown, build_report
from .settings import ATTENTION_DROPOUT, DemoSettings
from .task import MOST_CHECKED, Addition, as_text

MOST_CHOOSING = 40_000  # sums that an evaluation of the sparse run reads
MOST_KEPT = (
    20_000  # sums for which the base model's outputs are kept; for more they are computed at each step
)


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
        base = _stage(
            screen, out, "base", "base model", load_dense, lambda: train_base(task, settings, out, screen)
        )
        sparse = _stage(
            screen,
            out,
            "sparse",
            "sparse model",
            _load_sparse,
            lambda: make_sparse(task, settings, base, out, screen, chosen[0] if film else None),
        )
        run = read_outcome(out)
        looked, every = task.checked(settings.seed), "all " * (task.n_sums <= MOST_CHECKED)
        opened = count_open(sparse)  # closing hundreds takes minutes
        too = f", and closing {opened:,} neurons one by one" if opened else ""
        screen.print(f"verifying {every}{len(looked):,} sums{too}", highlight=False)
        neurons = [one.as_record(task) for one in label_neurons(sparse, Truth(task, looked))]
        report = replace(prove(task, settings, base, sparse, run), neurons=neurons)
        seconds = {**report.seconds, "this_call": round(time.monotonic() - started, 1)}
        report = replace(report, seconds=seconds, figures=draw_sums(task, base, sparse, chosen, out))
        report.write(out)
        write_text(out / "report.md", as_markdown(report))
        write_pages(task, base, sparse, report, out, sums[0])
    if film and not (out / "film.gif").is_file():
        screen.print("no film: the sparse model was complete already; choose another --out", highlight=False)
    if print_json:
        print(json.dumps(report.as_dict(), indent=2))  # noqa: T201
    _say_result(screen, report, out)
    return report


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
        f"{name} {before[name]}, now {value}" for name, value in now.items() if before[name] != value
    ]
    if different:
        raise refuse(
            f"{out} was made with other settings ({', '.join(different)})",
            "the same settings",
            "choose another --out",
        )
    write_config(out, "demo", settings)


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


def make_sparse(
    task: Addition,
    settings: DemoSettings,
    base: PreTrainedModel,
    out: Path,
    console: Console,
    filmed: int | None = None,
) -> PreTrainedModel:
    """Finetune a copy of the base under the penalty, keep the best feasible model, save it whole.

    Args:
        filmed: the number of the sum to film while the run goes, or None.
    """
    started = time.monotonic()
    model = load_dense(out / "base")
    rate = without_dropout(model)
    console.print(
        f"sparse model: the base's dropout of {rate:g} is off, it would count as divergence", highlight=False
    )
    train, held_out = task.split(settings.seed)
    choosing = _choosing(train, held_out[: len(held_out) // 2])
    work = out / "work" / "sparse"
    bar, page = ProgressLine("sparse model", console), TrainingPage(out / "training.html")
    prompt = None if filmed is None else task.encode(torch.tensor([filmed]))[0]
    camera = [] if prompt is None else [Filmed(prompt, text=as_text)]
    try:
        result = sparsify(
            model,
            rows(task, base, train),
            rows(task, base, choosing),
            settings.sparsity(work),
            base=base,
            resume=work.is_dir(),
            data_collator=collate_rows,
            callbacks=[bar, page, *camera],
        )
    finally:
        bar.close()
    if prompt is not None:
        make_film(trace(base, prompt, text=as_text), camera[0].frames, out / "film.gif")
    note(out, "sparse", started, result)
    save(result.model, out / "sparse")
    return result.model.eval()


def _choosing(train: Tensor, seen: Tensor) -> Tensor:
    """The sums by which the best checkpoint is chosen: all of both, or `MOST_CHOOSING` in the same shares."""
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _say_result(console: Console, report: RunReport, out: Path) -> None:
    proof = report.proof
    console.print(
        f"base exact on {proof['base_exact']:,} of {proof['prompts']:,} sums, sparse on {proof['sparse_exact']:,}; "
        f"{proof['edges_mean']:.2f} of {proof['edges_possible']:,} attention edges open on average. "
        f"Figure and report: {out}",
        highlight=False,
    )


__all__ = ["DemoSettings", "run_demo"]
