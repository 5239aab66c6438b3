"""`gossamer trace`: the open attention edges of a model on a prompt."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import Json, Model, Out, Sums, Trust, refuse_given
from .output import finish, table

ROWS = 30  # edges shown in a table; all of them are in the record


def trace(
    context: typer.Context,
    model: Model,
    sums: Sums = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A text; the folder must hold the tokenizer.")
    ] = None,
    digits: Annotated[int, typer.Option(help="Digits of each operand.")] = 2,
    threshold: Annotated[
        float, typer.Option(help="Smallest attention weight that counts, for dense models.")
    ] = 0.0,
    top_k: Annotated[
        int | None, typer.Option(help="Only the k largest weights of each query and head.")
    ] = None,
    live: Annotated[bool, typer.Option(help="Only edges on a path into the answer.")] = False,
    trust_remote_code: Trust = False,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """List the open attention edges of a model on sums or on a text."""
    from ..circuits.export.record import to_record
    from ..data.trust import trusting
    from ..errors import refuse
    from ..models.quiet import quiet
    from ..recipes.addition.verify import trace_sums
    from ..recipes.trace import trace_text
    from ..training.counted import told

    if bool(sums) == (prompt is not None):
        raise refuse("both or neither of --sum and --prompt", "one of them", "write for example --sum 36+28")
    if not sums:
        refuse_given(context, ("digits",), "--prompt")
    options = {"threshold": threshold, "top_k": top_k}
    with quiet(), told("trace"), trusting(trust_remote_code):
        if sums:
            circuit = trace_sums(model, sums, digits=digits, **options)
        else:
            circuit = trace_text(model, str(prompt), **options)
    circuit = circuit.live() if live else circuit
    finish(
        to_record(circuit),
        out,
        json_output,
        lambda: [_edge_table(circuit), *_standing(circuit), *_units(circuit)],
    )


def _edge_table(circuit: Any) -> Any:
    live = circuit.live_mask()
    rows = []
    for number in (-circuit.contribution).argsort(kind="stable")[:ROWS].tolist():
        prompt, layer, head, query, key = (
            int(getattr(circuit, name)[number]) for name in ("prompt", "layer", "head", "query", "key")
        )
        tokens = circuit.tokens[prompt]
        values = f"{circuit.weight[number]:.3f}", f"{circuit.contribution[number]:.3f}"
        ends = f"{query} {tokens[query]!r}", f"{key} {tokens[key]!r}"
        rows.append([prompt, layer, head, *ends, *values, "yes" if live[number] else "no"])
    counts = f"{len(circuit):,} open edges of {sum(circuit.visible):,} visible ones"
    title = (
        f"{counts} on {circuit.n_prompts} prompts, {int(live.sum()):,} live; the {len(rows)} that move most"
    )
    return table(title, "prompt layer head reads from weight moves live", rows)


def _standing(circuit: Any) -> list[str]:
    """How steadily edges are open, where there are several prompts to tell it from."""
    if circuit.n_prompts < 2:
        return []
    found = circuit.standing()
    never = "" if found.never is None else f", {found.never:,} open on none"
    return [f"{len(found.always)} edges are open on every prompt, {len(found.sometimes)} on some{never}"]


def _units(circuit: Any) -> list[str]:
    """What gates close besides edges: which heads, and how many neurons of each layer are left."""
    closed, neurons = circuit.left
    heads = ", ".join(f"{layer}.{head}" for layer, head in closed)
    counts = ", ".join(f"{left:,}" for left, _ in neurons)
    return [
        *(
            [f"{len(closed)} of {circuit.n_layers * circuit.n_heads} heads are closed: {heads}"]
            if closed
            else []
        ),
        *(
            [f"neurons left in layers 0 to {len(neurons) - 1}: {counts} of {neurons[0][1]:,} each"]
            if neurons
            else []
        ),
    ]


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(trace)
