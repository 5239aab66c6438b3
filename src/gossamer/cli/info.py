"""`gossamer info`: what a model is, and what would run it here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Trust
from .output import finish


def info(
    place: Annotated[str, typer.Argument(help="Folder of a model or of a run, or a hub id.")],
    out: Annotated[Path | None, typer.Option(help="Also write the record to this JSON file.")] = None,
    trust_remote_code: Trust = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON on standard output.")
    ] = False,
) -> None:
    """Say what a model is, which gates it has, its ceiling, and what runs its attention here."""
    from ..data.trust import trusting
    from ..models.summary import describe

    with trusting(trust_remote_code):
        record = describe(place)
    finish(record, out, json_output, lambda: _lines(record))


def _lines(record: dict[str, Any]) -> list[str]:
    lines = [line for model in record["models"] for line in _model_lines(model)]
    for device, chosen in record["impl"].items():
        lines.append(f"impl=auto on {device}: {chosen['impl']} ({chosen['why']})")
    return [*lines, ", ".join(f"{name} {version}" for name, version in record["versions"].items())]


def _model_lines(model: dict[str, Any]) -> list[str]:
    from ..models.run_report import describe_sizes

    heads, shared = model["heads"], model["key_value_heads"]
    each = f"{heads} heads" + (f" ({shared} of keys and values)" if shared != heads else "")
    lines = [
        model["path"],
        f"  {model['architecture']} ({model['family']}), {model['layers']} layers of {each}, "
        f"{model['parameters']:,} parameters",
    ]
    if model["adapter_of"] is not None:
        lines.append(f"  adapters of {model['adapter_of']}; the sizes are that model's")
    if not model["gates"]:
        can = "can be gated" if model["edges"] else "its attention cannot be gated"
        return [*lines, f"  dense; {can}"]
    for kind, gates in model["gates"].items():
        bias = gates["bias"]
        lines.append(f"  gates on {kind}, " + ("all open" if bias == "open" else f"bias c = {bias:g} nats"))
    message = {True: "held", False: "MISSED", None: "not said whether it was held"}
    ceiling = (
        f"{model['ceiling']}, {message[model['feasible']]}" if model["ceiling"] else "not on record here"
    )
    left = [_open_line(kind, layers, model["of"].get(kind, [])) for kind, layers in model["open"].items()]
    left += [f"  {what}: {left} of {base}" for what, base, left in describe_sizes(model["sizes"])]
    why = [f"  {words}" for words in (model["task"], model["why_reads"]) if words]
    return [*lines, *why, f"  ceiling {ceiling}", *left]


def _open_line(kind: str, layers: list[float], of: list[int]) -> str:
    if not of:
        by_layer = ", ".join(f"{n:,.1f}" for n in layers)
        return f"  open {kind} per held-out row: {sum(layers):,.1f}, by layer {by_layer}"
    by_layer = ", ".join(f"{n:,.0f}" for n in layers)
    return f"  open {kind}: {sum(layers):,.0f} of {sum(of):,}, by layer {by_layer}"


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(info)
