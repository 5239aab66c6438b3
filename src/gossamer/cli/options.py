"""Arguments and options that several verbs share, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import refuse


def with_room(path: Path | None) -> Path | None:
    """Raise where `path` cannot be written, before anything is computed for it."""
    if path is not None:
        from ..files import require_room

        require_room(path)
    return path


Model = Annotated[Path, typer.Argument(help="Folder of a model, gated or dense.")]


Json = Annotated[bool, typer.Option("--json", help="Print the record as JSON on standard output.")]


Out = Annotated[
    Path | None, typer.Option(help="Also write the record to this JSON file.", callback=with_room)
]


Sums = Annotated[list[str] | None, typer.Option("--sum", help="A sum, as 36+28; may be repeated.")]


Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--other", help="A sparse model of another seed: how alike are the circuits? May be repeated."
    ),
]


RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="A preset of how the run moves; gossamer recipes lists them.")
]


Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the recipe, as control.kp=0.3, or a field of TrainingArguments; may be repeated.",
    ),
]


Config = Annotated[
    Path | None,
    typer.Option(
        help="A YAML file with a whole run, as config.yaml in a run's folder. Options that are given replace its lines."
    ),
]


Gates = Annotated[
    str,
    typer.Option(help="Kinds of gates, separated by commas: edges, heads, neurons, weights."),
]


Uniform = Annotated[
    bool,
    typer.Option(
        "--uniform",
        help="Keep the same number of heads, and of neurons, in every layer, so that gossamer shrink can cut whatever "
        "is closed at level uniform; short for --set gate.uniform=true.",
    ),
]


Trust = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run the Python code that comes with a model or its tokenizer; read it first. No config.yaml keeps this.",
    ),
]


TaskName = Annotated[
    str,
    typer.Option(
        help="What the model is for: lm, mlm (masked), classify, tokens (a class each), embed; auto asks its head."
    ),
]


DataColumn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=NAME",
        help="A column of tables, as text=review; ROLE is text, pair (a second text), messages, tokens or label. NAME "
        "alone is the text's. By default the usual names; may be repeated.",
    ),
]


Encoding = Annotated[
    str,
    typer.Option(help="Encoding of text files, as cp1252; by default UTF-8, or what their first bytes tell."),
]


def explicit(context: typer.Context, kind: type[Any]) -> dict[str, Any]:
    """The options that a person gave and that are fields of `kind`."""
    found = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)  # its class has two homes, by the version of typer
        if name not in kind.__dataclass_fields__ or name in ("recipe", "settings") or source is None:
            continue
        if source.name == "COMMANDLINE":
            found[name] = value
    return found


def refuse_given(context: typer.Context, names: Iterable[str], beside: str) -> None:
    """Raise for an option that a person gave and that does nothing beside another one."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = next(one.opts[0] for one in context.command.params if one.name == name)
            raise refuse(f"{option} with {beside}", f"{beside} without it", "leave one of them out")


def parse_settings(settings: list[str]) -> dict[str, object]:
    """Read name=value pairs; values are JSON where they can be, else text."""
    found: dict[str, object] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise refuse(f"--set {setting!r}", "name=value", "pass for example --set control.kp=0.3")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found
