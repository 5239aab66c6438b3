"""One run of `gossamer sparsify`: a model and a text in; a folder with the sparse model and what it lost out.

    OUT/checkpoint-N   the run, to resume from              OUT/metrics.jsonl  everything that was logged
    OUT/model          the best checkpoint (merged), or          OUT/adapter        its LoRA adapters alone
    OUT/report.json    the ceiling and what became of it    OUT/report.{md,html}   the same to read
    OUT/config.yaml    every setting, to repeat the run     OUT/started.json   what a resumed run must share
    OUT/training.html  the run while it lasts, and after

The best checkpoint is chosen on one part of the held-out documents and reported on another, which nothing was
chosen by. What is saved carries a card, README.md.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, set_seed

from ..data.prompts import training_tokenizer
from ..data.sequences import TensorRows, collate_rows
from ..data.splits import Splits
from ..errors import refuse
from ..files import locked, require_writable, write_text, writing
from ..gates.edges import EdgeGates
from ..models.attach import attach_missing, find_gate_sets, gate_sets_of
from ..models.checkpoint import load_for_training, save, save_adapter
from ..models.model_card import left_lines, model_card, number_rows
from ..models.quiet import without_padding_advice
from ..models.run_report import OpenUnits, RunReport, versions
from ..training.adapters import add_adapters
from ..training.base_model import OpenBase
from ..training.calibrate import Start
from ..training.config import CHECKPOINTING, SparsityConfig, configured, gate_options
from ..training.distributed import gathered
from ..training.estimate import Shape, describe, explain_oom, seconds_per_step, what_to_lower
from ..training.progress import ProgressLine
from ..training.run_manifest import Metrics, begin
from ..training.sparsify import Outcome, sparsify, violation_message
from ..training.tasks import Task, rows_for
from ..training.trainer import SparsityTrainer
from ..viz.monitor import TrainingPage
from ..viz.report.page import report_page
from .remaining import with_remaining
from .run_config import write_config
from .sparsify_settings import OWN, SparsifySettings

PAGE = "training.html"


def configure(job: SparsifySettings) -> SparsityConfig:
    """The Trainer's settings for a job."""
    every = max(1, job.steps // 10)
    given = {
        "output_dir": str(job.out),
        "gates": job.gates,
        "recipe": job.recipe,
        "max_steps": job.steps,
        "max_minutes": job.max_minutes,
        "per_device_train_batch_size": job.batch,
        "per_device_eval_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulate,
        "learning_rate": job.learning_rate,
        "warmup_steps": min(50, every),
        "seed": job.seed,
        "bf16": job.precision == "bf16",
        "fp16": job.precision == "fp16",
        "use_cpu": not torch.cuda.is_available(),
        "report_to": job.report_to,
        "eval_steps": every,
        "save_steps": every,
        "logging_steps": max(1, job.steps // 50),
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "impl": "auto",
    }
    if job.ceiling is not None:
        given["ceiling"] = job.ceiling
    if job.checkpointing:
        given[CHECKPOINTING] = True
    for name in job.settings:
        if name in OWN:
            raise refuse(f"--set {name}, which has an option of its own", f"{OWN[name]}", "pass that")
    return configured(given, job.settings)


@without_padding_advice()
def run_job(job: SparsifySettings, console: Console, *, resume: bool = False) -> RunReport:
    """Do the run and return its report; everything it leaves is in `job.out`.

    Raises: `GossamerError` for bad input, told before anything is trained. A missed ceiling is in the report.
    """
    config = configure(job)
    require_writable(job.out)
    with locked(job.out) if config.process_index == 0 else nullcontext():
        return _run(job, config, console, resume=resume)


def _run(job: SparsifySettings, config: SparsityConfig, console: Console, *, resume: bool) -> RunReport:
    model = load_for_training(job.model)
    tokenizer = training_tokenizer(job.model, model, job.length)
    task = Task.of(model, job.task, job.ceiling)
    config.ceiling = job.ceiling or task.ceiling
    job = replace(job, task=task.name or job.task, ceiling=config.ceiling)
    rows = rows_of(job, task, model, tokenizer, config.world_size)
    task.require_labels(rows, config.ceiling)
    begin(job.out, *facts(job, rows, config), resume=resume, first=config.process_index == 0)
    if config.process_index == 0:
        write_config(job.out, "sparsify", job)
    model = gated(model, job, config) if job.lora else model
    base = OpenBase(model, gate_sets_of(model)) if job.lora else None
    shape = shape_of(model, job, config)
    watchers: list[TrainerCallback] = [Metrics(job.out)]
    if config.process_index == 0:
        _say_resting(find_gate_sets(model).kinds, config.gate_kinds, console)
        watchers += [ProgressLine("sparsify", console), TrainingPage(job.out / PAGE, title=_title(job))]
    collate = None if job.stream else collate_rows
    with explain_oom(job.batch, job.length, what_to_lower(shape)):
        if config.process_index == 0:
            console.print(_estimate(model, shape, job, rows), highlight=False, soft_wrap=True)
        outcome = sparsify(
            model, rows.train, rows.choose, config, base=base, resume=resume,
            data_collator=collate, processing_class=tokenizer, callbacks=watchers,
        )  # fmt: skip
    report = replace(report_of(job, outcome, rows.report), task=task.as_record(rows))
    model = gathered(outcome.trainer.accelerator, outcome.trainer.model, lambda: again(job, config, outcome))
    if config.process_index == 0:
        if job.lora and job.merge:
            model = model.merge_and_unload()
        report = write(job, model, tokenizer, report)
    return report


def rows_of(job: SparsifySettings, task: Task, model: Any, tokenizer: Any, processes: int) -> Splits:
    """The data of a job, in its three splits."""
    return rows_for(
        task, model, tokenizer, job.data, columns=job.columns, length=job.length,
        train=job.steps * job.batch * job.accumulate * processes, held_out=job.held_out,
        held_out_share=job.held_out_share, encoding=job.encoding, stream=job.stream, seed=job.seed,
    )  # fmt: skip


def gated(model: Any, job: SparsifySettings, config: SparsityConfig) -> Any:
    """A dense model with gates, and with adapters where the job has them."""
    attach_missing(model, config.gate_kinds, gate_options(config, config.impl))
    set_seed(job.seed)  # adapters begin with random numbers, and the Trainer seeds only after them
    return add_adapters(model, rank=job.lora) if job.lora else model


def again(job: SparsifySettings, config: SparsityConfig, outcome: Outcome) -> Any:
    """The model of a job as it was before training, with the gate bias of the best checkpoint."""
    model = gated(load_for_training(job.model), job, config)
    gate_sets_of(model).bias = outcome.trainer.gates.bias
    return model


def facts(
    job: SparsifySettings, rows: Splits, config: SparsityConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a resumed run must share with its start, and what it may change with a warning."""
    per_step = job.batch * job.accumulate * config.world_size
    fixed: dict[str, Any] = {
        "--ceiling": str(config.ceiling),
        "--gates": job.gates,
        "--length": job.length,
        "--learning-rate": job.learning_rate,
        "--seed": job.seed,
        "--lora": job.lora,
        "--stream": job.stream,
        "--precision": job.precision,
        "rows per step (--batch x --accumulate x processes)": per_step,
        "the held-out text (--data, --column, --held-out, --held-out-share, tokenizer)": rows.fingerprint(),
    }
    movable = {"--steps": job.steps, "--batch": job.batch, "processes": config.world_size}
    settings = {**job.recipe.changes(), **job.settings}
    return fixed | {f"--set {name}": value for name, value in settings.items()}, movable


def shape_of(model: Any, job: SparsifySettings, config: SparsityConfig) -> Shape:
    """The sizes of a job, for the estimate."""
    return Shape.of(
        model,
        rows=job.batch,
        length=job.length,
        activation_bytes=4 if job.precision == "fp32" else 2,
        separate_base=not job.lora and config.ceiling.needs_base,
        checkpointing=job.checkpointing,
        eager=config.impl == "eager",
    )


def _say_resting(there: tuple[str, ...], wanted: tuple[str, ...], console: Console) -> None:
    """Name the kinds of gates that a model has and a run leaves as they are."""
    if resting := [kind for kind in there if kind not in wanted]:
        console.print(
            f"gates on {', '.join(resting)} stay as they are, since --gates is {','.join(wanted)}",
            highlight=False,
        )


def _estimate(model: Any, shape: Shape, job: SparsifySettings, rows: Splits) -> str:
    batch = {name: column[: job.batch] for name, column in rows.choose.columns.items() if name != "labels"}
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.precision)
    with torch.autocast(model.device.type, dtype=half, enabled=half is not None):  # as the steps will run
        seconds = seconds_per_step(model, batch, accumulation=job.accumulate, checkpointing=job.checkpointing)
    return describe(shape, seconds, job.steps, job.max_minutes)


def report_of(job: SparsifySettings, outcome: Outcome, rows: TensorRows) -> RunReport:
    """Evaluate the best checkpoint on rows that nothing was chosen by, and say whether it holds the ceiling."""
    trainer, edges = outcome.trainer, EdgeGates.on(outcome.model)
    found = {name.removeprefix("eval_"): value for name, value in trainer.evaluate(rows).items()}
    missed = violation_message(trainer, found)
    timing = ("runtime", "per_second", "preparation", "epoch", "score")
    numbers = {k: v for k, v in found.items() if not any(t in k for t in timing) and v == v}
    return RunReport(
        recipe="text",
        model=job.model,
        data=job.data,
        # No hub ids, whatever they look like.
        local=[name for name in (job.model, job.data) if Path(name).exists()],
        settings=job.as_dict(),
        ceiling=str(trainer.ceiling),
        feasible=not missed,
        missed=missed,
        best_step=outcome.step,
        steps=outcome.steps,
        ended=outcome.ended,
        held_out=numbers,
        held_out_rows=len(rows),
        chosen_on={k: v for k, v in outcome.metrics.items() if k in numbers},
        gates={kind: open_units(trainer, kind) for kind in trainer.tally.kinds()},
        starts={name: _plain(start) for name, start in outcome.starts.items()},
        impl="" if edges is None else edges.impl,
        versions=versions(),
    )


def _plain(start: Start) -> dict[str, float | None]:
    """A measured start as JSON values: no bias where only open gates hold."""
    return {
        name: value if value is not None and isfinite(value) else None
        for name, value in asdict(start).items()
    }


def open_units(trainer: SparsityTrainer, kind: str) -> OpenUnits:
    """What the trainer's last evaluation counted of one kind of gate."""
    return OpenUnits(trainer.tally.per_group(kind), trainer.tally.keys_per_query(kind))


def write(job: SparsifySettings, model: Any, tokenizer: Any, report: RunReport) -> RunReport:
    """Write the best checkpoint with its tokenizer and its card as one folder, and the report, which is returned.

    The sizes of a model with adapters are those that it has once they are merged; afterwards it is without them.
    """
    adapted = job.lora and not job.merge
    folder = job.out / ("adapter" if adapted else "model")
    with writing(folder) as temporary:
        (save_adapter if adapted else save)(model, temporary)
        report = with_remaining(report, model.unload() if adapted else model)
        tokenizer.save_pretrained(temporary)
        card = model_card(report, title=f"{Path(job.model).name}, sparse", where=str(folder))
        write_text(temporary / "README.md", card)
    report.write(job.out)
    write_text(job.out / "report.md", report_text(report))
    links = {"How the run went, in curves": PAGE} if (job.out / PAGE).is_file() else {}
    write_text(job.out / "report.html", report_page(report, links=links))
    return report


def _title(job: SparsifySettings) -> str:
    """Of the page of a run."""
    return f"{Path(job.model).name} on {Path(job.data).name}, made sparse"


def report_text(report: RunReport) -> str:
    """The report in words."""
    held = "held" if report.feasible else f"MISSED: {report.missed}"
    head = f"# {report.model} on {report.data}\n\nCeiling {report.ceiling} on held-out data: {held}."
    head += f" {sentence}" if (sentence := report.task_in_words) else ""
    head += f" Gated attention: {report.impl}." if report.impl else ""
    if report.best_step == 0:
        head += (
            " Nothing that was trained held the ceiling with fewer open units: this is the untrained model."
        )
    head += f" The run ended {report.ended}." if report.ended else ""
    head += f"\n\n{report.why_reads[0].upper()}{report.why_reads[1:]}." if report.why_reads else ""
    lines = [head, "", "| held-out | |", "|---|---|", *number_rows(report)]
    return "\n".join([*lines, *left_lines(report)]) + "\n"
