"""`gossamer view`: the interactive page of a base and a sparse model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Trust
from .output import written

Folder = Annotated[Path, typer.Argument(help="Folder of a run, or one that holds base/ and sparse/.")]
Prompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="A prompt, for language models; may be repeated."),
]


def view(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="The HTML file; DIR/view.html by default.")] = None,
    prompts: Prompts = None,
    sum_: Annotated[str, typer.Option("--sum", help="The sum shown first, for models that add.")] = "36+28",
    base: Annotated[Path | None, typer.Option(help="The dense model, if not DIR/base or the run's.")] = None,
    sparse: Annotated[
        Path | None, typer.Option(help="The gated model, if not DIR/sparse or DIR/model.")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(help="Smallest weight that counts as an edge of a language model, in both panels."),
    ] = 0.01,
    edge_findings: Annotated[
        Path | None,
        typer.Option(
            help="What edges carry, as gossamer verify writes it; SPARSE/edge_findings.json by default."
        ),
    ] = None,
    trust_remote_code: Trust = False,
    json_output: Json = False,
) -> None:
    """Write one HTML file, needing nothing else, in which both circuits can be looked at."""
    from rich.console import Console

    from ..data.trust import trusting
    from ..files import require_room, write_text
    from ..models.quiet import quiet
    from ..recipes.folders import pair_in
    from ..recipes.view import view_folders
    from ..training.counted import told

    target = folder / "view.html" if out is None else out
    require_room(target)
    dense, gated = pair_in(folder, base, sparse)
    with quiet(), told("view"), trusting(trust_remote_code):
        html = view_folders(
            dense, gated, prompts or [], start=sum_, threshold=threshold, edge_findings=edge_findings
        )
    write_text(target, html)
    if json_output:
        typer.echo(json.dumps(written(target), indent=2))
        return
    Console(stderr=True, highlight=False).print(f"{target} ({len(html.encode()) / 1e6:.1f} MB)", markup=False)


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(view)
