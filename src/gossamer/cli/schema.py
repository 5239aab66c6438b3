"""`gossamer schema`: what every verb prints with --json, as JSON Schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import Json
from .output import finish


def schema(
    verb: Annotated[str | None, typer.Argument(help="A verb. Default: list all that have a schema.")] = None,
    json_output: Json = False,
) -> None:
    """Print the JSON Schema of what a verb prints with --json."""
    from ..errors import require_choice
    from .schemas import RECORDS, schema_of

    if verb is None:
        finish({"verbs": sorted(RECORDS)}, None, json_output, lambda: sorted(RECORDS))
        return
    require_choice("verb", verb, RECORDS)
    typer.echo(json.dumps(schema_of(verb), indent=2))


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(schema)
