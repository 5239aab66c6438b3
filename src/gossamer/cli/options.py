"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="Folder of a model, gated or dense.")]


Json = Annotated[bool, typer.Option("--json", help="Print the record as JSON on standard output.")]


Out = Annotated[Path | None, typer.Option(help="Also write the record to this JSON file.")]


Sums = Annotated[list[str] | None, typer.Option("--sum", help="A sum, as 36+28; may be repeated.")]


Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--other", help="A sparse model of another seed: how alike are the circuits? May be repeated."
    ),
]
