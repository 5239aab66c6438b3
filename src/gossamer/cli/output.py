"""How verbs show their records: JSON, a file, or tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer


def finish(record: dict[str, Any], out: Path | None, json_output: bool, shown: Any) -> None:
    """Write and print a record, as JSON or as what `shown()` lists."""
    from rich.console import Console

    from ..files import write_json

    if out is not None:
        write_json(out, record)
    if json_output:
        typer.echo(json.dumps(record, indent=2, allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    for part in shown():
        console.print(part, markup=False) if isinstance(part, str) else console.print(part)


def written(path: Path) -> dict[str, Any]:
    """The record of a verb that writes one file."""
    return {"path": str(path), "bytes": path.stat().st_size}


def table(title: str, columns: str, rows: list[list[Any]]) -> Any:
    """A rich table; columns are named by words of a string, `_` for a space."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left")
    for name in columns.split():
        made.add_column(name.replace("_", " "), justify="right" if name not in ("reads", "from") else "left")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made
