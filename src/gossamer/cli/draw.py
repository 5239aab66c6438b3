"""`gossamer draw`: the figure of a paper, of any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Trust
from .output import finish


def draw(
    model: Annotated[
        str, typer.Argument(help="Folder of a gated model or of its run; a dense model is drawn alone.")
    ],
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="A text; the tokenizer lies with either model.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="A file that ends in .pdf, .svg or .png, or a name without ending for all three."),
    ] = Path("figure.pdf"),
    base: Annotated[
        str | None,
        typer.Option(help="The dense model above; by default the run's, or base/ beside the sparse one."),
    ] = None,
    positions: Annotated[
        list[int] | None,
        typer.Option(
            "--position",
            help="A token position that answers, -1 for the last; may be repeated. By default the last of a causal "
            "model, the masked ones of a masked one, and otherwise all.",
        ),
    ] = None,
    width: Annotated[float, typer.Option(help="Inches; 3.3 is a column.")] = 3.3,
    most: Annotated[
        int, typer.Option(help="Lines of each panel that are set off; the others are hairlines.")
    ] = 40,
    by: Annotated[
        str,
        typer.Option(
            help="What ranks lines: contribution (what an edge adds to the residual stream) or weight."
        ),
    ] = "contribution",
    dpi: Annotated[float, typer.Option(help="Dots per inch of a PNG.", min=30, max=2400)] = 300.0,
    trust_remote_code: Trust = False,
    json_output: Json = False,
) -> None:
    """Draw what a model reads on a prompt, dense above sparse, for a column of a paper; print the caption's numbers."""
    from ..data.trust import trusting
    from ..models.quiet import quiet
    from ..recipes.draw import draw_model
    from ..training.counted import told

    with quiet(), told("draw"), trusting(trust_remote_code):
        drawn = draw_model(
            model, prompt, base=base, out=out, positions=positions, width=width, most=most, by=by, dpi=dpi
        )
    finish(drawn.as_record(), None, json_output, lambda: [*drawn.caption, *map(str, drawn.files)])


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(draw)
