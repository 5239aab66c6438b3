"""`gossamer compare`: what two models need for a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json, Out, Trust, refuse_given
from .output import finish, table


def compare(
    context: typer.Context,
    base: Annotated[Path, typer.Argument(help="Folder of the first model.")],
    sparse: Annotated[Path, typer.Argument(help="Folder of the second.")],
    task: Annotated[
        str | None, typer.Option(help="induction, ioi, greater_than, docstring, quotes or brackets.")
    ] = None,
    ablation: Annotated[
        str, typer.Option(help="What an ablated edge carries: resample, mean or zero.")
    ] = "resample",
    n_prompts: Annotated[
        int, typer.Option(help="Prompts to score on, and as many others to measure on.")
    ] = 64,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="A text on which the second model's divergence from the first is measured, beside that under its "
            "ceiling: stdlib, a file, a folder or a hub data set. May be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the prompts, and of the rows of --also.")] = 0,
    trust_remote_code: Trust = False,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """Count what each of two models needs for 90 % of its effect on a task; measure divergence on other texts.

    Counted are heads, edges between components and attention edges. Pass --task, --also or both.
    """
    from ..data.trust import trusting
    from ..errors import refuse
    from ..models.quiet import quiet
    from ..recipes.also import compare_also
    from ..recipes.compare import compare as compare_models
    from ..training.counted import told

    if task is None and not also:
        raise refuse("neither --task nor --also", "one of them, or both", "pass --task ioi or --also stdlib")
    if task is None:
        refuse_given(context, ("ablation", "n_prompts"), "--also alone")
    record: dict[str, Any] = {}
    with quiet(), told("compare"), trusting(trust_remote_code):
        if task is not None:
            record = compare_models(base, sparse, task, ablation=ablation, n=n_prompts, seed=seed).as_record()
        if also:
            record |= compare_also(base, sparse, also, seed=seed)
    finish(record, out, json_output, lambda: _shown(record))


def _shown(record: dict[str, Any]) -> list[Any]:
    parts = [_comparison_table(record)] if "task" in record else []
    if refused := record.get("attention_edges_refused"):
        parts.append(f"attention edges: {refused}")
    return [*parts, _also_table(record)] if "also" in record else parts


def _also_table(record: dict[str, Any]) -> Any:
    """Divergence on other texts under the line of the ceiling's own."""
    held, names = record["held"], ("kl", "delta_ce", "agreement")
    rows = [["its own text", *(_number(held, name) for name in names)]] if held else []
    rows += [[found["data"], *(_number(found, name) for name in names)] for found in record["also"]]
    ceiling = f"ceiling {record['ceiling']}" if record["ceiling"] else "no report beside the model"
    return table(f"Divergence from the first model, per token; {ceiling}", "from kl delta_ce agreement", rows)


def _number(found: dict[str, Any], name: str) -> str:
    if name not in found:
        return "not measured"
    error = found.get(f"{name}_se")
    return f"{found[name]:.4g}" + (f" +- {error:.2g}" if error is not None else "")


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
