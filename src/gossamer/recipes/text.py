"""One run of `gossamer sparsify`: a model and a text in; a folder with the sparse model and what it lost out.

    OUT/checkpoint-N   the run, to resume from              OUT/metrics.jsonl  everything that was logged
    OUT/model          the kept model (merged), or          OUT/adapter        its LoRA adapters alone
    OUT/report.json    the promise and what became of it    OUT/report.md       the same in words
    OUT/started.json   what a resumed run must share

The kept model is chosen on one part of the held-out documents and reported on another, which nothing was
chosen by. What is saved carries a card, README.md.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, set_seed

from ..data.prompts import load_tokenizer
from ..data.sequences import TensorRows, collate_rows
from ..data.splits import Portions
from ..data.text import Corpus
from ..errors import refuse, require_choice, require_range
from ..files import require_writable, write_json, write_text
from ..models.attach import attach, gates_of
from ..models.checkpoint import load_for_training, save, save_adapter
from ..models.model_card import model_card, number_rows
from ..training.adapters import add_adapters
from ..training.base_model import OpenBase
from ..training.config import CHECKPOINTING, SparsityConfig, configured
from ..training.constraint import Ceiling
from ..training.distributed import gathered
from ..training.estimate import Shape, describe, seconds_per_step, told_when_out_of_memory, what_to_lower
from ..training.progress import ProgressLine
from ..training.run_manifest import Metrics, begin
from ..training.sparsify import Outcome, sparsify, told_missed

# Settings of the Trainer that are options of ours: set twice, one of the two would be ignored.
OWN = {"output_dir": "--out", "ceiling": "--ceiling", "max_steps": "--steps", "report_to": "--report-to",
       "per_device_train_batch_size": "--batch", "gradient_accumulation_steps": "--accumulate", "seed": "--seed",
       "learning_rate": "--learning-rate", "bf16": "--precision", "fp16": "--precision",
       "gradient_checkpointing": "--checkpointing", "activation_checkpointing": "--checkpointing"}  # fmt: skip
PRECISIONS = ("fp32", "bf16", "fp16")
TRACKERS = ("tensorboard", "wandb", "trackio")  # each is also the name of its package


@dataclass(frozen=True)
class Job:
    """Every setting of a run that is not in `SparsityConfig`; `settings` passes more of those on."""

    model: str
    data: str
    out: Path
    ceiling: Ceiling = Ceiling("kl", 0.02)
    length: int = 128
    steps: int = 1000
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-4
    seed: int = 0
    field: str = "text"
    held_out: int = 64  # rows to choose by, and as many again to report on
    held_out_share: float = 0.05
    stream: bool = False
    lora: int = 0  # rank; 0 for full finetuning
    merge: bool = False
    precision: str = "fp32"
    checkpointing: bool = False
    report_to: str = "none"
    resume: bool = False
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, PRECISIONS)
        require_choice("report_to", self.report_to, ("none", *TRACKERS))
        for name in ("steps", "batch", "accumulate", "held_out"):
            require_range(name, getattr(self, name), 1, 10**9)
        require_range("length", self.length, 4, 10**9)  # a start, an end, and two tokens to attend between
        require_range("lora", self.lora, 0, 10**6)
        require_range("seed", self.seed, 0, 2**32 - 1)
        require_range("learning_rate", self.learning_rate, 0.0, 1e3)
        if self.merge and not self.lora:
            raise refuse(
                "--merge without adapters", "possible: with --lora", "pass --lora 8, or drop --merge"
            )
        if self.stream and self.ceiling.kind == "cosine":
            raise refuse("--stream under a cosine ceiling, which takes whole sentences",
                         "possible: without --stream", "drop it")  # fmt: skip
        if self.report_to != "none" and find_spec(self.report_to) is None:
            raise refuse(f"tracker {self.report_to} is not installed", "possible: none, or an installed one",
                         f"pip install {self.report_to}")  # fmt: skip
        if self.precision == "fp16" and not torch.cuda.is_available():
            raise refuse("fp16 on a CPU", "possible: fp32, bf16", "pass --precision bf16")


def configure(job: Job) -> SparsityConfig:
    """The Trainer's settings for a job."""
    every = max(1, job.steps // 10)
    given = {
        "output_dir": str(job.out),
        "ceiling": job.ceiling,
        "max_steps": job.steps,
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
    if job.checkpointing:
        given[CHECKPOINTING] = True
    for name in job.settings:
        if name in OWN:
            raise refuse(
                f"--set {name}, which has an option of its own", f"possible: {OWN[name]}", "pass that"
            )
    return configured(given, job.settings)


def run_job(job: Job, console: Console) -> dict[str, Any]:
    """Do the run and return its report; everything it leaves is in `job.out`.

    Raises: `GossamerError` for bad input, told before anything is trained. A missed ceiling is in the report.
    """
    config = configure(job)
    require_writable(job.out)
    model = load_for_training(job.model)
    tokenizer = load_tokenizer(job.model, model, job.length)
    rows = rows_of(job, tokenizer, mask_token_of(model, tokenizer), config.world_size)
    begin(job.out, *facts(job, rows, config), resume=job.resume, first=config.process_index == 0)
    model = gated(model, job, config) if job.lora else model
    base = OpenBase(model, gates_of(model)) if job.lora else None
    shape = shape_of(model, job, config)
    watchers: list[TrainerCallback] = [Metrics(job.out, resume=job.resume)]
    if config.process_index == 0:
        watchers.append(ProgressLine("sparsify", console))
    collate = None if job.stream else collate_rows
    with told_when_out_of_memory(job.batch, job.length, what_to_lower(shape)):
        if config.process_index == 0:
            console.print(_estimate(model, shape, job, rows), highlight=False, soft_wrap=True)
        kept = sparsify(
            model, rows.train, rows.choose, config, base=base, resume=job.resume,
            data_collator=collate, processing_class=tokenizer, callbacks=watchers,
        )  # fmt: skip
    report = report_of(job, kept, rows.report)
    model = gathered(kept.trainer.accelerator, kept.trainer.model, lambda: again(job, config, kept))
    if config.process_index == 0:
        write(job, model, tokenizer, report)
    return report


def rows_of(job: Job, tokenizer: Any, mask_token: int | None, processes: int) -> Portions:
    """The text of a job, in its three portions."""
    return Portions(
        Corpus(job.data, field=job.field, held_out_share=job.held_out_share),
        tokenizer,
        job.length,
        train=job.steps * job.batch * job.accumulate * processes,
        held_out=job.held_out,
        stream=job.stream,
        sentences=job.ceiling.kind == "cosine",
        mask_token=mask_token,
        seed=job.seed,
    )


def gated(model: Any, job: Job, config: SparsityConfig) -> Any:
    """A dense model with gates, and with adapters where the job has them."""
    attach(model, impl=config.impl)
    set_seed(job.seed)  # adapters begin with random numbers, and the Trainer seeds only after them
    return add_adapters(model, rank=job.lora) if job.lora else model


def again(job: Job, config: SparsityConfig, kept: Outcome) -> Any:
    """The model of a job as it was before training, with the gate bias of the kept one."""
    model = gated(load_for_training(job.model), job, config)
    gates_of(model).bias = kept.trainer.gates.bias
    return model


def facts(job: Job, rows: Portions, config: SparsityConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a resumed run must share with its start, and what it may change with a warning."""
    per_step = job.batch * job.accumulate * config.world_size
    fixed: dict[str, Any] = {
        "--ceiling": str(job.ceiling),
        "--length": job.length,
        "--learning-rate": job.learning_rate,
        "--seed": job.seed,
        "--lora": job.lora,
        "--stream": job.stream,
        "--precision": job.precision,
        "rows per step (--batch x --accumulate x processes)": per_step,
        "the held-out text (--data, --field, --held-out, --held-out-share, tokenizer)": rows.fingerprint(),
    }
    movable = {"--steps": job.steps, "--batch": job.batch, "processes": config.world_size}
    return fixed | {f"--set {name}": value for name, value in job.settings.items()}, movable


def mask_token_of(model: Any, tokenizer: Any) -> int | None:
    """The mask token of a masked language model; None for one that predicts the next token."""
    causal = "CausalLM" in type(model).__name__ or "LMHead" in type(model).__name__
    return None if causal else tokenizer.mask_token_id


def shape_of(model: Any, job: Job, config: SparsityConfig) -> Shape:
    """The sizes of a job, for the estimate."""
    return Shape.of(
        model,
        rows=job.batch,
        length=job.length,
        activation_bytes=4 if job.precision == "fp32" else 2,
        separate_base=not job.lora and job.ceiling.needs_base,
        checkpointing=job.checkpointing,
        eager=config.impl == "eager",
    )


def _estimate(model: Any, shape: Shape, job: Job, rows: Portions) -> str:
    batch = {name: column[: job.batch] for name, column in rows.choose.columns.items() if name != "labels"}
    seconds = seconds_per_step(model, batch, accumulation=job.accumulate, checkpointing=job.checkpointing)
    return describe(shape, seconds, job.steps)


def report_of(job: Job, kept: Outcome, rows: TensorRows) -> dict[str, Any]:
    """Evaluate the kept model on rows that nothing was chosen by; the promise, and what became of it."""
    trainer = kept.trainer
    found = {name.removeprefix("eval_"): value for name, value in trainer.evaluate(rows).items()}
    missed = told_missed(trainer, found)
    timing = ("runtime", "per_second", "preparation", "epoch", "score")
    numbers = {k: v for k, v in found.items() if not any(t in k for t in timing) and v == v}
    layers = [sum(heads) for heads in trainer.tally.per_head()]
    return {
        "model": job.model,
        "data": job.data,
        # No hub ids, whatever they look like.
        "local": [name for name in (job.model, job.data) if Path(name).exists()],
        "ceiling": str(trainer.ceiling),
        "impl": gates_of(kept.model).impl,
        "feasible": not missed,
        "missed": missed,
        "held_out": numbers,
        "held_out_rows": len(rows),
        "chosen_on": {k: v for k, v in kept.metrics.items() if k in numbers},
        "open_edges_per_layer": layers,
        "open_edges_per_head": trainer.tally.per_head(),
        "keys_per_query_per_head": trainer.tally.keys_per_head(),
        "kept_step": kept.step,
        "steps": kept.steps,
        "settings": {**asdict(job), "out": str(job.out), "ceiling": str(job.ceiling)},
    }


def write(job: Job, model: Any, tokenizer: Any, report: dict[str, Any]) -> None:
    """Write the kept model with its card, and the report."""
    folder = job.out / ("adapter" if job.lora and not job.merge else "model")
    if job.lora and job.merge:
        model = model.merge_and_unload()
    if job.lora and not job.merge:
        save_adapter(model, folder)
    else:
        save(model, folder)
    tokenizer.save_pretrained(folder)
    card = model_card(report, title=f"{Path(job.model).name}, sparse", where=str(folder))
    write_text(folder / "README.md", card)
    write_json(job.out / "report.json", report)
    write_text(job.out / "report.md", report_text(report))


def report_text(report: dict[str, Any]) -> str:
    """report.json in words."""
    held = "held" if report["feasible"] else f"MISSED: {report['missed']}"
    head = f"# {report['model']} on {report['data']}\n\nCeiling {report['ceiling']} on held-out data: {held}."
    head += f" Gated attention: {report['impl']}."
    table = ["| held-out | |", "|---|---|", *number_rows(report["held_out"])]
    heads = ["| layer | open edges per row | open keys per query, per head |", "|---|---|---|"]
    layers = zip(report["open_edges_per_layer"], report["keys_per_query_per_head"], strict=True)
    for layer, (total, each) in enumerate(layers):
        heads.append(f"| {layer} | {total:.1f} | {', '.join(f'{x:.2f}' for x in each)} |")
    return "\n".join([head, "", *table, "", *heads]) + "\n"
