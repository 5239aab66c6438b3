"""`gossamer sparsify`: any model of transformers, made sparse on any text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CeilingMissed, refuse

Option = typer.Option
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        help="A setting of the recipe, as control.kp=0.3, or a field of TrainingArguments; may be repeated.",
    ),
]


def sparsify(
    model: Annotated[str, typer.Argument(help="A hub id, or a folder with a dense model and its tokenizer.")],
    data: Annotated[
        str, Option(help="stdlib, a text, JSONL or parquet file, a folder, or a hub dataset.")
    ] = "stdlib",
    ceiling: Annotated[str, Option(help="What may be lost: kl=, gap=, loss= (nats) or cosine=.")] = "kl=0.02",
    out: Annotated[Path, Option(help="Folder for checkpoints, model and report.")] = Path("sparse"),
    steps: Annotated[int, Option(help="Optimizer steps.")] = 1000,
    length: Annotated[int, Option(help="Tokens per row.")] = 128,
    batch: Annotated[int, Option(help="Rows per micro-batch and process.")] = 8,
    accumulate: Annotated[int, Option(help="Micro-batches per optimizer step.")] = 1,
    learning_rate: Annotated[float, Option(help="Peak learning rate.")] = 1e-4,
    seed: Annotated[int, Option(help="Seed of data order and gate noise.")] = 0,
    field: Annotated[str, Option(help="Column that holds the text, in tables.")] = "text",
    held_out: Annotated[int, Option(help="Held-out rows to choose by, and as many again to report on.")] = 64,
    held_out_share: Annotated[float, Option(help="Share of the documents that is held out.")] = 0.05,
    stream: Annotated[bool, Option("--stream", help="Read the text as it is needed, not before.")] = False,
    lora: Annotated[
        int, Option(help="Rank of LoRA adapters on the attention projections; 0 trains all.")
    ] = 0,
    merge: Annotated[bool, Option("--merge", help="Merge the adapters into the saved model.")] = False,
    precision: Annotated[str, Option(help="fp32, bf16 or fp16 (autocast).")] = "fp32",
    checkpointing: Annotated[
        bool, Option("--checkpointing", help="Recompute activations in backward.")
    ] = False,
    report_to: Annotated[str, Option(help="none, tensorboard, wandb, trackio.")] = "none",
    resume: Annotated[
        bool, Option("--resume", help="Continue from the last whole checkpoint in OUT.")
    ] = False,
    settings: Settings = None,
    json_output: Annotated[bool, Option("--json", help="Print report.json on standard output.")] = False,
) -> None:
    """Finetune MODEL until few attention edges are open, losing no more than the ceiling on held-out text."""
    from rich.console import Console
    from transformers.utils import logging

    from ..recipes.text import Job, report_text, run_job
    from ..training.constraint import Ceiling
    from ..training.distributed import first_process, leave

    job = Job(
        model=model, data=data, out=out, ceiling=Ceiling.parse(ceiling), steps=steps, length=length, batch=batch,
        accumulate=accumulate, learning_rate=learning_rate, seed=seed, field=field, held_out=held_out,
        held_out_share=held_out_share, stream=stream, lora=lora, merge=merge, precision=precision,
        checkpointing=checkpointing, report_to=report_to, resume=resume, settings=parse(settings or []),
    )  # fmt: skip
    logging.disable_progress_bar()  # its bars would tear ours in a terminal, and fill a log file
    report = run_job(job, Console(stderr=True))
    if first_process():
        typer.echo(json.dumps(report, indent=2) if json_output else report_text(report))
    leave()
    if not report["feasible"]:
        raise CeilingMissed(report["missed"])


def parse(settings: list[str]) -> dict[str, object]:
    """Read name=value pairs; values are JSON where they can be, else text."""
    found: dict[str, object] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise refuse(
                f"--set {setting!r}", "possible: name=value", "pass for example --set control.kp=0.3"
            )
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(sparsify)
