"""`gossamer compare`: what two models need for a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json, Out, Trust
from .output import finish, table


def compare(
    base: Annotated[Path, typer.Argument(help="Folder of the first model.")],
    sparse: Annotated[Path, typer.Argument(help="Folder of the second.")],
    task: Annotated[str, typer.Option(help="induction, ioi, greater_than, docstring, quotes or brackets.")],
    ablation: Annotated[
        str, typer.Option(help="What an ablated edge carries: resample, mean or zero.")
    ] = "resample",
    n_prompts: Annotated[
        int, typer.Option(help="Prompts to score on, and as many others to measure on.")
    ] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    trust_remote_code: Trust = False,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """Count the heads, edges and attention edges that each of two models needs for 90 % of its effect on a task."""
    from ..data.trust import trusting
    from ..models.quiet import quiet
    from ..recipes.compare import compare as compare_models
    from ..training.counted import told

    with quiet(), told("compare"), trusting(trust_remote_code):
        record = compare_models(base, sparse, task, ablation=ablation, n=n_prompts, seed=seed).as_record()
    refused = record.get("attention_edges_refused")
    more = [] if refused is None else [f"attention edges: {refused}"]
    finish(record, out, json_output, lambda: [_comparison_table(record), *more])


def _comparison_table(record: dict[str, Any]) -> Any:
    rows = []
    names = {"heads": "heads", "edges": "edges between them", "attention_edges": "attention edges a prompt"}
    for kind, name in names.items():
        counts, ratio = record[kind], record[f"{kind}_ratio"]
        shown = "not reached" if ratio is None else f"{ratio:.2f}"
        cells = ["none" if counts[key] is None else counts[key] for key in ("base", "sparse", "of")]
        rows.append([name, *cells, shown])
    settings = f"{record['ablation']} ablation, {record['n']} prompts"
    title = f"{record['task']}: needed for 90 % of the effect, {settings}"
    return table(title, "from base sparse of base_/_sparse", rows)


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(compare)
