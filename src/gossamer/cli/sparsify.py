"""`gossamer sparsify`: any model of transformers, made sparse on any data of its task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..data.examples import parse_columns
from ..errors import CeilingMissed
from ..recipes.sparsify_settings import SparsifySettings
from .options import (
    Config,
    DataColumn,
    Encoding,
    Gates,
    RecipeName,
    Set,
    TaskName,
    Trust,
    Uniform,
    explicit,
    parse_settings,
)

Option = typer.Option
DEFAULT = SparsifySettings(model="")  # the one place of every default


def sparsify(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A hub id, or a folder with a dense model and its tokenizer.")
    ] = None,
    data: Annotated[
        str, Option(help="stdlib, a text, JSONL, CSV, parquet or CoNLL file, a folder, or a hub dataset.")
    ] = DEFAULT.data,
    task: TaskName = DEFAULT.task,
    column: DataColumn = None,
    encoding: Encoding = DEFAULT.encoding,
    ceiling: Annotated[
        str | None,
        Option(
            help="Maximum divergence from the base model on held-out data, as KIND=VALUE: kl (nats per token), "
            "delta_ce (increase in cross-entropy), loss (cross-entropy), cosine (embedding distance), pairwise (change "
            "of similarities), fvu (change of scores), the last two over the base's variance. By default 0.02 of kl, "
            "cosine for embeddings, fvu for scores."
        ),
    ] = None,
    gates: Gates = DEFAULT.gates,
    uniform: Uniform = False,
    out: Annotated[Path, Option(help="Folder for checkpoints, model and report.")] = DEFAULT.out,
    steps: Annotated[int, Option(help="Optimizer steps, at most.")] = DEFAULT.steps,
    max_minutes: Annotated[
        float, Option(help="Minutes that training may take, 0 for as long as its steps take.")
    ] = DEFAULT.max_minutes,
    length: Annotated[int, Option(help="Tokens per row.")] = DEFAULT.length,
    batch: Annotated[int, Option(help="Rows per micro-batch and process.")] = DEFAULT.batch,
    accumulate: Annotated[int, Option(help="Micro-batches per optimizer step.")] = DEFAULT.accumulate,
    learning_rate: Annotated[float, Option(help="Peak learning rate.")] = DEFAULT.learning_rate,
    seed: Annotated[int, Option(help="Seed of data order and gate noise.")] = DEFAULT.seed,
    held_out: Annotated[
        int, Option(help="Held-out rows to choose by, and as many again to report on.")
    ] = DEFAULT.held_out,
    held_out_share: Annotated[
        float, Option(help="Share of the documents that is held out, 0 to 1.")
    ] = DEFAULT.held_out_share,
    stream: Annotated[bool, Option("--stream", help="Read the text as it is needed, not before.")] = False,
    lora: Annotated[
        int, Option(help="Rank of LoRA adapters on the attention projections; 0 trains all weights.")
    ] = DEFAULT.lora,
    merge: Annotated[bool, Option("--merge", help="Merge the adapters into the saved model.")] = False,
    precision: Annotated[str, Option(help="fp32, bf16 or fp16 (autocast).")] = DEFAULT.precision,
    checkpointing: Annotated[
        bool, Option("--checkpointing", help="Recompute activations in backward.")
    ] = False,
    report_to: Annotated[str, Option(help="none, tensorboard, wandb, trackio.")] = DEFAULT.report_to,
    trust_remote_code: Trust = False,
    recipe: RecipeName = None,
    settings: Set = None,
    config: Config = None,
    resume: Annotated[
        bool, Option("--resume", help="Continue from the last whole checkpoint in OUT.")
    ] = False,
    json_output: Annotated[bool, Option("--json", help="Print report.json on standard output.")] = False,
) -> None:
    """Finetune MODEL until few attention edges are open, losing no more than the ceiling on held-out text."""
    from rich.console import Console
    from transformers.utils import logging

    from ..data.trust import trusting
    from ..recipes.run_config import settings_of
    from ..recipes.text import report_text, run_job
    from ..training.distributed import first_process, leave

    changes = ({"gate.uniform": True} if uniform else {}) | parse_settings(settings or [])
    given = explicit(context, SparsifySettings)
    given |= {"columns": parse_columns(column)} if column else {}
    job = settings_of(
        SparsifySettings, "sparsify", config=config, given=given, recipe=recipe, changes=changes
    )
    logging.disable_progress_bar()  # its bars would tear ours in a terminal, and fill a log file
    with trusting(trust_remote_code):
        report = run_job(job, Console(stderr=True), resume=resume)
    if first_process():
        typer.echo(json.dumps(report.as_dict(), indent=2) if json_output else report_text(report))
    leave()
    if not report.feasible:
        raise CeilingMissed(report.missed)


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(sparsify)
