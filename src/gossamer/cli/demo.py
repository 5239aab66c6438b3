"""`gossamer demo`: the figure, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import CeilingMissed
from .options import Config, Gates, RecipeName, Set, explicit, parse_settings

Sums = Annotated[list[str] | None, typer.Option("--sum", help="A sum to draw, as 36+28; may be repeated.")]


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for models, figure and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the split, both trainings and the noise.")] = 0,
    tries: Annotated[
        int | None,
        typer.Option(
            help="Seeds that are begun, on all cores. After a look at their edges the better half goes on, and the "
            "sparsest that holds its ceiling is kept. By default 4, and 1 with gates on weights."
        ),
    ] = None,
    restarts: Annotated[
        int,
        typer.Option(
            help="Seeds more, one after the other, where nothing that was trained held its ceiling."
        ),
    ] = 1,
    digits: Annotated[int, typer.Option(help="Digits of each operand.")] = 2,
    base_steps: Annotated[int | None, typer.Option(help="Optimizer steps of the base model.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps of the sparsity-regularised finetuning.")
    ] = None,
    ceiling: Annotated[
        str | None,
        typer.Option(help="Maximum divergence from the base model, as KIND=VALUE."),
    ] = None,
    gates: Gates = "edges",
    recipe: RecipeName = None,
    changes: Set = None,
    config: Config = None,
    sums: Sums = None,
    film: Annotated[
        bool, typer.Option("--film", help="Film the first sum losing its lines: film.gif.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print report.json on standard output.")
    ] = False,
) -> None:
    """Train a model that adds, make it sparse, prove it on every sum, and draw 36 + 28."""
    from ..recipes.addition.run import run_demo
    from ..recipes.addition.settings import DemoSettings
    from ..recipes.run_config import settings_of

    settings = settings_of(
        DemoSettings,
        "demo",
        config=config,
        given=explicit(context, DemoSettings),
        recipe=recipe or ("addition_weights" if "weights" in gates and config is None else None),
        changes=parse_settings(changes or []),
    )
    report = run_demo(
        out,
        settings,
        sums=tuple(sums or (("36+28",) if settings.digits > 1 else ("3+8",))),
        film=film,
        print_json=json_output,
    )
    if report.missed:
        raise CeilingMissed(f"{report.missed}; the model that misses it least is, in {out}")
    if other := report.proof["prompts"] - report.proof["same_row"]:  # of sums that chose nothing
        raise CeilingMissed(
            f"the sparse model answers {other:,} of {report.proof['prompts']:,} sums otherwise than the base model; "
            f"both are in {out}"
        )


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(demo)
