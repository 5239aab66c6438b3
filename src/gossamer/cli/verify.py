"""`gossamer verify`: a circuit proved by intervention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json, Others, Out, Trust, refuse_given, with_room
from .output import finish, table


def verify(
    context: typer.Context,
    base: Annotated[Path, typer.Argument(help="Folder of the dense model.")],
    sparse: Annotated[Path, typer.Argument(help="Folder of the gated one.")],
    task: Annotated[
        str | None, typer.Option(help="A language task, as for compare; by default addition.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A text; SPARSE must hold the tokenizer. Repeat for several."),
    ] = None,
    n_prompts: Annotated[int, typer.Option(help="Prompts of the language task.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of these prompts.")] = 0,
    digits: Annotated[int, typer.Option(help="Digits of each operand, for addition.")] = 2,
    smallest: Annotated[
        bool, typer.Option(help="For addition: also search the smallest working subset of edges.")
    ] = False,
    ablation: Annotated[
        str,
        typer.Option(
            help="What of the removed edges is closed: total (all at once), or subsets (also random subsets of them, "
            "whose worst case is told)."
        ),
    ] = "total",
    others: Others = None,
    trust_remote_code: Trust = False,
    out: Out = None,
    json_output: Json = False,
) -> None:
    """Prove a circuit by intervention: on sums, with what each edge carries, on a language task, or on texts.

    Of 10,000 sums or fewer all are looked at; of a million (three digits), 10,000. For an adding model, what each edge
    carries is written to SPARSE/edge_findings.json, which `gossamer view` shows.
    """
    from ..data.trust import trusting

    _refuse_mixed(context, task, prompt)
    draws = _draws(ablation)
    if task is not None or prompt:
        from ..recipes.verify_task import study_prompts, study_task

        if task is None:
            study = partial(study_prompts, base, sparse, prompt or [])
        else:
            study = partial(study_task, base, sparse, task, n=n_prompts, seed=seed)
        with trusting(trust_remote_code):
            _verify_texts(partial(study, others=others or [], draws=draws), out, json_output)
        return
    from ..circuits.verify import all_claims_hold
    from ..models.quiet import quiet
    from ..recipes.addition.explain.findings import FILE, write_edge_findings
    from ..recipes.addition.verify import study_addition
    from ..training.counted import told

    with_room(sparse / FILE if sparse.is_dir() else None)
    with quiet(), told("verify"), trusting(trust_remote_code):
        found = study_addition(
            base, sparse, digits=digits, smallest=smallest, others=others or [], draws=draws
        )
    if sparse.is_dir():
        path = write_edge_findings(sparse, found.explanation.as_record(), found.weights)
        typer.echo(f"what edges carry: {path}", err=True)
    finish(found.as_record(), out, json_output, lambda: _verified(found))
    if not all_claims_hold(found.proof):
        raise typer.Exit(1)


def _draws(ablation: str) -> int:
    """How many random subsets an ablation closes."""
    from ..circuits.subsets import DRAWS
    from ..errors import require_choice

    require_choice("ablation", ablation, ("total", "subsets"))
    return DRAWS if ablation == "subsets" else 0


def _refuse_mixed(context: typer.Context, task: str | None, prompt: list[str] | None) -> None:
    """Raise for a task beside prompts, and for options of what is not proved."""
    from ..errors import refuse

    if task is not None and prompt:
        raise refuse("--task and --prompt", "one of them", "leave one out")
    if prompt:
        refuse_given(context, ("n_prompts", "seed", "digits", "smallest"), "--prompt")
    elif task is not None:
        refuse_given(context, ("digits", "smallest"), "--task")
    else:
        refuse_given(context, ("n_prompts", "seed"), "sums")


def _verify_texts(study: Callable[[], Any], out: Path | None, as_json: bool) -> None:
    from ..models.quiet import quiet
    from ..training.counted import told

    with quiet(), told("verify"):
        record = study().as_record()
    finish(record, out, as_json, lambda: _task_verified(record))
    if not record["all_claims_hold"]:
        raise typer.Exit(1)


def _verified(found: Any) -> list[Any]:
    proof, checked = found.proof, found.verification
    rows: list[list[Any]] = [
        ["base exact", checked.base_exact],
        ["sparse exact", checked.sparse_exact],
        *([f"sufficient ({scope})", one.same] for scope, one in proof.sufficient.items()),
        ["live edges alone sufficient", proof.live_alone.same],
        *([_worst(one.as_record()), one.worst] for one in proof.subsets),
        ["leaks", proof.leaks],
        ["program right", found.explanation.correct],
        ["program as the model", found.explanation.agrees],
        ["all head outputs exchanged", found.explanation.causal_scrubbing],
    ]
    redundant = f"{len(proof.necessity.redundant)} of {len(proof.necessity.edges)} live edges are necessary for no sum"
    truth = f"precision {found.precision:.4f}, recall {found.recall:.4f} against what addition needs"
    counts = table("Addition, by intervention", f"from sums_of_{proof.n}", rows)
    alike = [] if found.others is None else [_alike(found.others.as_record())]
    drawn = [] if proof.n == found.n_sums else [f"{proof.n:,} sums, drawn from {found.n_sums:,}"]
    return [
        counts,
        *drawn,
        redundant,
        truth,
        *alike,
        *found.explanation.sentences(),
        *found.explanation.program.words(),
    ]


def _task_verified(record: dict[str, Any]) -> list[Any]:
    known = record["base_right"] is not None  # of prompts of one's own nobody says what is right
    claims = {
        **({"base right": record["base_right"], "sparse right": record["sparse_right"]} if known else {}),
        "same answer": record["same_answer"],
        **{f"sufficient ({scope})": found for scope, found in record["sufficient"].items()},
        "live edges alone sufficient": record["live_alone"],
        "live edges necessary": record["necessary"],
        **{_worst(found): found["worst"] for found in record["subsets"]},
        "leaks": record["leaks"],
    }
    rows = [
        [name, found["hits"], found["n"], "{:.3f} to {:.3f}".format(*found["interval"])]
        for name, found in claims.items()
    ]
    edges = record["edges_a_prompt"]
    counts = f"{edges['open']:.2f} open edges a prompt of {edges['visible']:.0f}, {edges['live']:.2f} live"
    redundant = f"{record['redundant']} live edges are necessary for no prompt"
    steady = [
        f"{length} tokens: resampled prompts share {found['edges_mean']:.3f} of the edges (Jaccard, mean)"
        for length, found in record["stable"].items()
    ]
    steady += [f"{length} tokens: {_alike(found)}" for length, found in record["others"].items()]
    if found := record["paraphrases"]:
        steady.append(
            f"{found['templates']} templates: two of them share {found['heads_mean']:.3f} of their heads "
            "(Jaccard, mean)"
        )
    return [
        table(f"{record['task']}, by intervention", "from hits of 95_%", rows),
        counts,
        redundant,
        *steady,
        _verdict(record),
    ]


def _verdict(record: dict[str, Any]) -> str:
    """Whether every claim holds on every prompt, and otherwise which do not; the exit code says the same."""
    from ..circuits.verify import CLAIMED

    whole, leaks = record["sufficient"]["prompt"], record["leaks"]["hits"]
    missed = whole["n"] - whole["hits"]
    failed = [f"not sufficient on {missed} prompts"] * (missed > 0)
    failed += [
        f"the {one['circuit']} edges not sufficient in the worst of {one['draws']} random subsets"
        for one in record["subsets"]
        if one["circuit"] in CLAIMED and one["worst"]["hits"] < one["worst"]["n"]
    ]
    failed += [f"not minimal: {record['redundant']} live edges are redundant"] * (record["redundant"] > 0)
    failed += [f"not leak-free on {leaks} prompts"] * (leaks > 0)
    return (
        f"Some claims fail (exit code 1): {'; '.join(failed)}."
        if failed
        else "Every claim holds on every prompt."
    )


def _worst(found: dict[str, Any]) -> str:
    """The name of a row: which circuit, and how its removed edges were closed."""
    return f"{found['circuit']} edges, worst of {found['draws']} random subsets"


def _alike(found: dict[str, Any]) -> str:
    """How alike the circuits of several models are, from strict to kind."""
    edges, renamed, pairs = (found[f"{name}_mean"] for name in ("edges", "up_to_heads", "pairs"))
    return (
        f"two models share {edges:.3f} of their edges, {renamed:.3f} with heads renamed within layers, "
        f"{pairs:.3f} of their position pairs (Jaccard, mean of {found['comparisons']})"
    )


def register(app: typer.Typer, panel: str) -> None:
    """Add the verb, in a panel of the help."""
    app.command(rich_help_panel=panel)(verify)
