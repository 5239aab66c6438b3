"""`gossamer export`: a circuit in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Trust, refuse_given, with_room
from .output import finish, written

OF_MIB = ("edges", "ablation", "n_prompts", "seed", "trust_remote_code")
OF_CIRCUITS = ("prompt_index", "limit", "links")


def export(
    context: typer.Context,
    circuit: Annotated[
        Path,
        typer.Argument(
            help="A circuit in JSON, as gossamer trace --out writes it; for mib a model's folder."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write.", callback=with_room)],
    form: Annotated[
        str, typer.Option("--format", help="json, graphml, csv, neuronpedia or mib.")
    ] = "graphml",
    prompt_index: Annotated[
        int | None,
        typer.Option(
            help="Which prompt of the circuit, from 0; by default all, and for neuronpedia the first."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most edges to write; more are refused.")] = None,
    links: Annotated[
        int | None, typer.Option(help="For neuronpedia: most links; the strongest edges are kept.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Which task, for mib: ioi, induction ...")] = None,
    edges: Annotated[
        int | None,
        typer.Option(help="Size of the circuit, for mib; by default what 90 % of the effect takes."),
    ] = None,
    ablation: Annotated[str, typer.Option(help="For mib: resample, mean or zero.")] = "resample",
    n_prompts: Annotated[int, typer.Option(help="For mib: prompts to score on, as many to measure on.")] = 64,
    seed: Annotated[int, typer.Option(help="For mib: seed of the prompts.")] = 0,
    trust_remote_code: Trust = False,
    json_output: Json = False,
) -> None:
    """Write a circuit in a format that other tools read; mib scores a model's components on a task first."""
    from ..errors import refuse

    if (form == "mib") != (task is not None):
        got = f"--format {form} {'without' if task is None else 'with'} --task"
        raise refuse(got, "--format mib with --task", "write for example --format mib --task ioi")
    refuse_given(context, OF_CIRCUITS if form == "mib" else OF_MIB, f"--format {form}")
    if task is not None:
        from ..data.trust import trusting
        from ..files import write_json
        from ..models.quiet import quiet
        from ..recipes.compare import component_circuit
        from ..training.counted import told

        options = {"edges": edges, "ablation": ablation, "n": n_prompts, "seed": seed}
        with quiet(), told("export"), trusting(trust_remote_code):
            found = component_circuit(circuit, task, **options)
        write_json(out, found)
        finish(written(out), None, json_output, lambda: [str(out)])
        return
    from ..circuits.export import LIMIT, LINKS
    from ..circuits.export import export as write
    from ..circuits.export.record import load_circuit

    if form != "neuronpedia":
        refuse_given(context, ("links",), f"--format {form}")
    most = {"limit": LIMIT if limit is None else limit, "links": LINKS if links is None else links}
    path = write(load_circuit(circuit), out, form, prompt=prompt_index, **most)
    finish(written(path), None, json_output, lambda: [str(path)])


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(export)
