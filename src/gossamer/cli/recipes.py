"""`gossamer recipes`: the presets of how a run moves, and every setting with its meaning."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import Json, Out
from .output import finish


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A preset, to see every setting of it. Default: list all presets.")
    ] = None,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """List the presets for --recipe, each with its purpose, its record and what it changes."""
    from ..training.presets import PRESETS, recipe_of

    if name is None:
        record = {
            each: {"purpose": p.purpose, "record": p.record, "changes": p.recipe.changes()}
            for each, p in PRESETS.items()
        }
        finish(record, out, json_output, lambda: _list_lines(record))
        return
    recipe = recipe_of(name)
    whole = {f"{part}.{n}": value for part, values in recipe.as_dict().items() for n, value in values.items()}
    finish({"name": name, "settings": whole}, out, json_output, lambda: _setting_lines(name, whole))


def _list_lines(record: dict[str, Any]) -> list[str]:
    lines = []
    for name, preset in record.items():
        lines += [f"{name}: {preset['purpose']}", f"  record: {preset['record']}"]
        if preset["changes"]:
            lines.append(
                "  " + " ".join(f"{setting}={value}" for setting, value in preset["changes"].items())
            )
    return [*lines, "", "gossamer recipes NAME explains every setting; --set NAME=VALUE changes one."]


def _setting_lines(name: str, whole: dict[str, Any]) -> list[str]:
    from ..training.presets import PRESETS
    from ..training.recipe import HELP

    lines = [f"{name}: {PRESETS[name].purpose}", f"record: {PRESETS[name].record}", ""]
    for setting, value in whole.items():
        lines += [f"{setting} = {value}", f"    {HELP[setting]}"]
    return lines


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(recipes)
