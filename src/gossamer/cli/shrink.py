"""`gossamer shrink`: a smaller model of the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json, Trust
from .output import finish, table


def shrink(
    sparse: Annotated[Path, typer.Argument(help="Folder of a gated model, or of the run that made it.")],
    out: Annotated[Path, typer.Option(help="Folder of the small model, new or empty.")],
    level: Annotated[
        str | None,
        typer.Option(
            help="uniform (the same count in every layer; opens in plain transformers), per-layer (opens with "
            "gossamer.load) or masked (zeros, same shapes); by default the strongest that the architecture allows."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Text whose held-out rows are in the proof; by default the run's, if it is on this machine."
        ),
    ] = None,
    anyway: Annotated[bool, typer.Option(help="Also shrink a model that missed its ceiling.")] = False,
    trust_remote_code: Trust = False,
    json_output: Json = False,
) -> None:
    """Cut closed heads and neurons out of a sparse model, prove that it computes the same, and measure its speed."""
    from ..data.trust import trusting
    from ..models.quiet import quiet
    from ..recipes.shrink import shrink as write

    with quiet(), trusting(trust_remote_code):
        found = write(sparse, out, level=level, data=data, anyway=anyway)
    finish(found.as_record(), None, json_output, lambda: _lines(found))


def _lines(found: Any) -> list[Any]:
    from ..recipes.shrink import side_by_side

    rows = [list(row) for row in side_by_side(found.base, found.small)]
    proof = found.proof
    where = (
        f", held-out rows of {found.held_out} among them" if found.held_out else ", all of them probe rows"
    )
    cached = f"; {proof['generated']:.0f} tokens generated with a cache" if proof["generated"] else ""
    return [
        *(f"{kind}: {level}{_because(found, kind)}" for kind, level in found.parts.items()),
        *(["edges: the small model keeps its gates on edges"] if found.edges else []),
        f"outputs equal those of the gated model on {proof['rows']:.0f} rows{where} (largest difference "
        f"{proof['error']:.2g}, {proof['allowed']:.2g} allowed){cached}",
        table("Base and small, in one run on this machine", "from base small", rows),
        found.last_line(),
    ]


def _because(found: Any, kind: str) -> str:
    return f" ({found.why[kind]})" if kind in found.why else ""


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(shrink)
