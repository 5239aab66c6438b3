"""`gossamer demo`: the figure, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import CeilingMissed

Sums = Annotated[list[str] | None, typer.Option("--sum", help="A sum to draw, as 36+28; may be repeated.")]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for models, figure and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the split, both trainings and the noise.")] = 0,
    digits: Annotated[int, typer.Option(help="Digits of each operand.")] = 2,
    base_steps: Annotated[int | None, typer.Option(help="Optimizer steps of the base model.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps of the sparsity-regularised finetuning.")
    ] = None,
    ceiling: Annotated[str | None, typer.Option(help="What may be lost, as kind=value.")] = None,
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
    from ..training.constraint import Ceiling

    limit = None if ceiling is None else Ceiling.parse(ceiling)
    given = {"base_steps": base_steps, "steps": steps, "ceiling": limit}
    settings = DemoSettings(seed=seed, digits=digits, **{k: v for k, v in given.items() if v is not None})
    report = run_demo(
        out,
        settings,
        sums=tuple(sums or (("36+28",) if digits > 1 else ("3+8",))),
        film=film,
        print_json=json_output,
    )
    if report["run"].get("missed"):
        raise CeilingMissed(
            f"{report['run']['missed']}; what was kept is the model that misses it least, in {out}"
        )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)
