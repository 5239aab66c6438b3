"""`gossamer serve`: both models behind a small local web app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Trust


def serve(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a run, or one that holds base/, sparse/ and a tokenizer.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; all but loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8642,
    auth_token: Annotated[
        str, typer.Option(help="What visitors must know; `new` makes one.", envvar="GOSSAMER_TOKEN")
    ] = "",
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="The prompt shown first.")
    ] = "The cat sat on the",
    max_tokens: Annotated[int, typer.Option(help="Longest prompt, in tokens.", min=1)] = 512,
    max_requests: Annotated[int, typer.Option(help="Most requests at one time.", min=1)] = 4,
    threshold: Annotated[
        float, typer.Option(help="Smallest weight that counts as an edge, of either model.")
    ] = 0.01,
    trust_remote_code: Trust = False,
    json_output: Json = False,
) -> None:
    """Type a prompt, see both circuits and both next tokens, cut an edge and see the answer change."""
    from ..data.trust import trusting
    from ..errors import GossamerError, refuse
    from ..models.quiet import quiet
    from ..recipes.folders import pair_in

    try:
        from ..viz.serve.run import run
        from ..viz.serve.session import Limits
    except ModuleNotFoundError as error:
        do = "run pip install 'gossamer[serve]'"
        raise refuse(f"{error.name} is not installed", "the extra gossamer[serve]", do) from error
    try:
        models = pair_in(folder)
    except GossamerError:
        models = folder / "base", folder / "sparse"  # the page says what is missing
    limits = Limits(tokens=max_tokens, waiting=max_requests, threshold=threshold)
    with quiet(), trusting(trust_remote_code):
        run(
            folder, models=models, host=host, port=port, token=auth_token, start=prompt, limits=limits,
            as_json=json_output
        )  # fmt: skip


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(serve)
