"""`gossamer trace`, `verify`, `compare` and `export`: circuits on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .output import finish, table

Model = Annotated[Path, typer.Argument(help="Folder of a model, gated or dense.")]
Json = Annotated[bool, typer.Option("--json", help="Print the record as JSON on standard output.")]
Out = Annotated[Path | None, typer.Option(help="Also write the record to this JSON file.")]
Sums = Annotated[list[str] | None, typer.Option("--sum", help="A sum, as 36+28; may be repeated.")]
Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--other", help="A sparse model of another seed: how alike are the circuits? May be repeated."
    ),
]
ROWS = 30  # edges shown in a table; all of them are in the record


def trace(
    model: Model,
    sums: Sums = None,
    prompt: Annotated[str | None, typer.Option(help="A text; the folder must hold the tokenizer.")] = None,
    digits: Annotated[int, typer.Option(help="Digits of each operand.")] = 2,
    threshold: Annotated[
        float, typer.Option(help="Smallest attention weight that counts, for dense models.")
    ] = 0.0,
    top_k: Annotated[
        int | None, typer.Option(help="Only the k largest weights of each query and head.")
    ] = None,
    live: Annotated[bool, typer.Option(help="Only edges on a path into the answer.")] = False,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """List the open attention edges of a model on sums or on a text."""
    from ..demo import quiet
    from ..errors import refuse
    from ..export import to_record
    from ..study import trace_prompt, trace_sums

    if bool(sums) == (prompt is not None):
        raise refuse(
            "both or neither of --sum and --prompt", "possible: one of them", "for example --sum 36+28"
        )
    options = {"threshold": threshold, "top_k": top_k}
    with quiet():
        if sums:
            circuit = trace_sums(model, sums, digits=digits, **options)
        else:
            circuit = trace_prompt(model, str(prompt), **options)
    circuit = circuit.live() if live else circuit
    finish(to_record(circuit), out, json_output, lambda: [_edge_table(circuit), *_standing(circuit)])


def verify(
    base: Annotated[Path, typer.Argument(help="Folder of the dense model.")],
    sparse: Annotated[Path, typer.Argument(help="Folder of the gated one.")],
    task: Annotated[
        str | None, typer.Option(help="A language task, as for compare; by default addition.")
    ] = None,
    prompts: Annotated[int, typer.Option(help="Prompts of the language task.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of these prompts.")] = 0,
    digits: Annotated[int, typer.Option(help="Digits of each operand, for addition.")] = 2,
    smallest: Annotated[
        bool, typer.Option(help="For addition: also search the smallest working subset of edges.")
    ] = False,
    others: Others = None,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """Prove a circuit by intervention: on all sums, with what each edge carries, or on prompts of a language task.

    What edges of an adding model carry is also written to SPARSE/carries.json, from where `gossamer view` shows it.
    """
    if task is not None:
        _verify_task(base, sparse, task, prompts, seed, smallest, others or [], out, json_output)
        return
    from ..demo import quiet
    from ..study import study_addition
    from ..verify import stands
    from ..viewer.carries import write_carries

    with quiet():
        found = study_addition(base, sparse, digits=digits, smallest=smallest, others=others or [])
    if sparse.is_dir():
        path = write_carries(sparse, found.explanation.as_record(), found.weights)
        typer.echo(f"what edges carry: {path}", err=True)
    finish(found.as_record(), out, json_output, lambda: _verified(found))
    if not stands(found.proof):
        raise typer.Exit(1)


def _verify_task(
    base: Path,
    sparse: Path,
    task: str,
    n: int,
    seed: int,
    smallest: bool,
    others: list[Path],
    out: Path | None,
    as_json: bool,
) -> None:
    from ..demo import quiet
    from ..errors import refuse
    from ..task_study import study_task

    if smallest:
        raise refuse("--smallest with --task", "possible: --smallest on sums", "leave one of them out")
    with quiet():
        record = study_task(base, sparse, task, n=n, seed=seed, others=others).as_record()
    finish(record, out, as_json, lambda: _task_verified(record))
    if not record["stands"]:
        raise typer.Exit(1)


def compare(
    base: Annotated[Path, typer.Argument(help="Folder of the first model.")],
    sparse: Annotated[Path, typer.Argument(help="Folder of the second.")],
    task: Annotated[str, typer.Option(help="induction, ioi, greater_than, docstring, quotes or brackets.")],
    ablation: Annotated[
        str, typer.Option(help="What an ablated edge carries: resample, mean or zero.")
    ] = "resample",
    prompts: Annotated[int, typer.Option(help="Prompts to score on, and as many others to measure on.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """Count the heads, edges and attention edges that each of two models needs for 90 % of its effect on a task."""
    from ..demo import quiet
    from ..study import compare as compare_models

    with quiet():
        record = compare_models(base, sparse, task, ablation=ablation, n=prompts, seed=seed).as_record()
    refused = record.get("attention_edges_refused")
    more = [] if refused is None else [f"attention edges: {refused}"]
    finish(record, out, json_output, lambda: [_comparison_table(record), *more])


def export(
    circuit: Annotated[
        Path,
        typer.Argument(
            help="A circuit in JSON, as gossamer trace --out writes it; for mib a model's folder."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    form: Annotated[
        str, typer.Option("--format", help="json, graphml, csv, neuronpedia or mib.")
    ] = "graphml",
    prompt: Annotated[int, typer.Option(help="Which prompt, for neuronpedia.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Most edges to write.")] = None,
    task: Annotated[str | None, typer.Option(help="Which task, for mib: ioi, induction ...")] = None,
    edges: Annotated[
        int | None,
        typer.Option(help="Size of the circuit, for mib; by default what 90 % of the effect takes."),
    ] = None,
    ablation: Annotated[str, typer.Option(help="For mib: resample, mean or zero.")] = "resample",
    prompts: Annotated[int, typer.Option(help="For mib: prompts to score on, as many to measure on.")] = 64,
    seed: Annotated[int, typer.Option(help="For mib: seed of the prompts.")] = 0,
) -> None:
    """Write a circuit in a format that other tools read; mib scores a model's components on a task first."""
    from ..errors import refuse

    if (form == "mib") != (task is not None):
        got = f"--format {form} {'without' if task is None else 'with'} --task"
        raise refuse(got, "possible: --format mib with --task", "for example --format mib --task ioi")
    if task is not None:
        from ..demo import quiet
        from ..files import write_json
        from ..study import component_circuit

        options = {"edges": edges, "ablation": ablation, "n": prompts, "seed": seed}
        with quiet():
            found = component_circuit(circuit, task, **options)
        write_json(out, found)
        typer.echo(str(out))
        return
    from ..export import LIMIT, load_circuit
    from ..export import export as write

    path = write(load_circuit(circuit), out, form, prompt=prompt, limit=LIMIT if limit is None else limit)
    typer.echo(str(path))


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (trace, verify, compare, export):
        app.command()(verb)


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


def _verified(found: Any) -> list[Any]:
    proof, checked = found.proof, found.verification
    rows: list[list[Any]] = [
        ["base exact", checked.base_exact],
        ["sparse exact", checked.sparse_exact],
        *([f"sufficient ({scope})", one.same] for scope, one in proof.sufficient.items()),
        ["live edges alone sufficient", proof.live_alone.same],
        ["leaks", proof.leaks],
        ["program right", found.explanation.correct],
        ["program as the model", found.explanation.agrees],
        ["all bundles exchanged", found.explanation.scrubbed],
    ]
    idle = f"{len(proof.necessity.idle)} of {len(proof.necessity.edges)} live edges are necessary for no sum"
    truth = f"precision {found.precision:.4f}, recall {found.recall:.4f} against what addition needs"
    counts = table("Addition, by intervention", f"from sums_of_{proof.n}", rows)
    alike = [] if found.others is None else [_alike(found.others.as_record())]
    return [counts, idle, truth, *alike, *found.explanation.sentences(), *found.explanation.program.words()]


def _task_verified(record: dict[str, Any]) -> list[Any]:
    claims = {
        "base right": record["base_right"],
        "sparse right": record["sparse_right"],
        "same answer": record["same_answer"],
        **{f"sufficient ({scope})": found for scope, found in record["sufficient"].items()},
        "live edges alone sufficient": record["live_alone"],
        "live edges necessary": record["necessary"],
        "leaks": record["leaks"],
    }
    rows = [
        [name, found["hits"], found["n"], "{:.3f} to {:.3f}".format(*found["interval"])]
        for name, found in claims.items()
    ]
    edges = record["edges_a_prompt"]
    counts = f"{edges['open']:.2f} open edges a prompt of {edges['visible']:.0f}, {edges['live']:.2f} live"
    idle = f"{record['idle']} live edges are necessary for no prompt"
    steady = [
        f"{length} tokens: resampled prompts share {found['edges_mean']:.3f} of the edges (Jaccard, mean)"
        for length, found in record["stable"].items()
    ]
    steady += [f"{length} tokens: {_alike(found)}" for length, found in record["others"].items()]
    if told := record["paraphrases"]:
        steady.append(
            f"{told['templates']} templates: two of them share {told['heads_mean']:.3f} of their heads (Jaccard, mean)"
        )
    return [table(f"{record['task']}, by intervention", "from hits of 95_%", rows), counts, idle, *steady]


def _alike(found: dict[str, Any]) -> str:
    """How alike the circuits of several models are, from strict to kind."""
    edges, renamed, pairs = (found[f"{name}_mean"] for name in ("edges", "up_to_heads", "pairs"))
    return (
        f"two models share {edges:.3f} of their edges, {renamed:.3f} with heads renamed within layers, "
        f"{pairs:.3f} of their position pairs (Jaccard, mean of {found['comparisons']})"
    )


def _comparison_table(record: dict[str, Any]) -> Any:
    rows = []
    names = {"heads": "heads", "edges": "edges between them", "attention_edges": "attention edges a prompt"}
    for kind, name in names.items():
        counts, ratio = record[kind], record[f"{kind}_ratio"]
        shown = "not reached" if ratio is None else f"{ratio:.2f}"
        cells = ["none" if counts[key] is None else counts[key] for key in ("base", "sparse", "of")]
        rows.append([name, *cells, shown])
    settings = f"{record['ablation']} ablation, {record['n']} prompts"
    title = f"{record['task']}: needed for 90 % of the effect, {settings}"
    return table(title, "from base sparse of base_/_sparse", rows)
