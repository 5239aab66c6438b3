"""The report of a demo: its `RunReport`, and the same as a page of Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...circuits.circuit import Circuit
from ...circuits.verify import Verification
from ...models.model_card import left_lines
from ...models.run_report import OpenUnits, RunReport, versions
from .explain.facts import position_names
from .task import Addition

FLOOR_MEAN_TWO_DIGITS = 4.545  # the argument is in DESIGN.md: 4 digit edges at 0.9, carries at 0.45 and 0.495


def build_report(
    task: Addition,
    settings: dict[str, Any],
    found: Verification,
    unseen: Tensor,
    run: dict[str, Any],
    *,
    impl: str,
) -> RunReport:
    """Gather what was asked, what was kept, and what was proved.

    Args:
        found: the verification on all sums, or a sample of them.
        unseen: places in `found` of the sums that neither training nor the choice of the best checkpoint saw.
        run: what the sparsifying run told about itself.
        impl: the implementation of gated attention in the model that was verified.
    """
    circuit = found.circuit
    return RunReport(
        recipe="addition",
        model="base",
        data="addition",
        local=["base"],
        settings=settings,
        ceiling=settings["ceiling"],
        feasible=run.get("feasible"),
        missed=run.get("missed") or "",
        best_step=run.get("best_step"),
        steps=run.get("steps"),
        ended=run.get("ended", ""),
        chosen_on=run.get("chosen_on", {}),
        gates={"edges": OpenUnits(_per_head(circuit))},
        impl=impl,
        versions=versions(),
        seconds=run.get("seconds", {}),
        task={"name": "addition", "digits": task.digits, "sums": task.n_sums, "tokens": task.length},
        proof=found.as_record()
        | {
            "unseen": len(unseen),
            "unseen_exact": int(found.correct[unseen].sum()),
            "precision": task.precision(circuit),
            "precision_relays": task.precision(circuit, relays=True),
            "recall": task.recall(circuit),
            "edges_floor": FLOOR_MEAN_TWO_DIGITS if task.digits == 2 else None,
        },
        edges=_edges(task, found),
    )


def _per_head(circuit: Circuit) -> list[list[float]]:
    """Open edges per prompt, [layer][head]."""
    opened: dict[tuple[int, int], float] = defaultdict(float)
    for (layer, head, _, _), share in circuit.frequency().items():
        opened[layer, head] += share
    return [[opened[layer, head] for head in range(circuit.n_heads)] for layer in range(circuit.n_layers)]


def _edges(task: Addition, found: Verification) -> list[dict[str, Any]]:
    """Every edge that was ever open: where, how often, and whether addition can need it."""
    names = position_names(task)
    return [
        {
            "layer": layer,
            "head": head,
            "from": names[key],
            "to": names[query],
            "query": query,
            "key": key,
            "open": share,
            "needed": task.is_sound(query, key),
        }
        for (layer, head, query, key), share in found.circuit.frequency().items()
    ]


def as_markdown(report: RunReport) -> str:
    """The report as a page that a colleague understands without us."""
    proof, settings = report.proof, report.settings
    lines = [
        f"# {settings['digits']}-digit addition, made sparse",
        "",
        f"Seed {settings['seed']}, {settings['base_steps']} base steps, {settings['steps']} sparsifying steps, "
        f"ceiling {report.ceiling}; gossamer {report.versions['gossamer']}, "
        f"torch {report.versions['torch']}, transformers {report.versions['transformers']}, "
        f"gated attention {report.impl}.",
        "",
        "| | base | sparse |",
        "|---|---|---|",
        f"| exact, of {_looked_at(proof['prompts'], report.task['sums'])} sums | "
        f"{proof['base_exact']:,} | {proof['sparse_exact']:,} |",
        f"| open attention edges per sum, mean | {proof['edges_possible']:,} | {proof['edges_mean']:.3f} |",
        f"| open attention edges per sum, most | {proof['edges_possible']:,} | {proof['edges_max']} |",
        "",
        f"Same output row from both models: {proof['same_row']:,} of {proof['prompts']:,}. "
        f"On the {proof['unseen']:,} sums that "
        f"nothing had seen before this proof: {proof['unseen_exact']:,} exact. Edges that reach the answer: "
        f"{proof['live_edges_mean']:.3f} in the mean.",
        "",
        f"Leak test: taking the closed edges out of the softmax denominator as well changed {proof['leaks']:,} of "
        f"{proof['prompts']:,} answers"
        + (
            ": the drawn graph is the whole graph."
            if not proof["leaks"]
            else ": the drawn graph is not the whole graph."
        ),
        "",
        f"Against what addition needs: precision {proof['precision']:.4f} "
        f"({proof['precision_relays']:.4f} if a slot may hand "
        f"on what a higher slot has read), recall {proof['recall']:.4f}."
        + (f" Floor of the mean: {proof['edges_floor']} edges." if proof["edges_floor"] else ""),
        "",
        *_run_lines(report),
        *(left_lines(report)[1:] if report.sizes else []),
        "",
        *_neuron_lines(report),
        "## Open edges",
        "",
        "| layer | head | from | to | open in | needed |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {e['layer']} | {e['head']} | {e['from']} | {e['to']} | {100 * e['open']:.2f} % | "
        f"{'yes' if e['needed'] else 'no'} |"
        for e in report.edges
    ]
    return "\n".join([*lines, ""])


def _looked_at(n: int, sums: int) -> str:
    """How many sums a proof looked at, and of how many they are a sample."""
    return f"{n:,}" if n == sums else f"{n:,} drawn of {sums:,}"


def _neuron_lines(report: RunReport) -> list[str]:
    if not report.neurons:
        return []
    rows = [f"| {x['layer']} | {x['neuron']} | {x['responds_to']} | {x['closing']} |" for x in report.neurons]
    head = ["## Neurons that are left", "", "| layer | neuron | responds to | closing it alone |"]
    return [*head, "|---|---|---|---|", *rows, ""]


def tries_in_words(tries: Sequence[dict[str, Any]]) -> str:
    """Which try was kept, and what the others came to, as `RunReport.tries` has them."""
    said = [
        f"seed {one['seed']} with {one['open_edges']:.2f} edges"
        + ("" if one["feasible"] else " outside its ceiling")
        for one in tries
        if "feasible" in one
    ]
    said += [f"seed {one['seed']}, left after a look" for one in tries if "feasible" not in one]
    return f"kept of {len(tries)} tries: {said[0]}; not {', '.join(said[1:])}"


def looks_in_words(seen: Mapping[str, dict[str, float]], half: int) -> str:
    """What a look saw of each seed, the best first, and which go on."""
    said = [
        f"{seed} ({one['open_edges']:.1f} edges"
        + (f", and its base model wrong on {one['base_wrong']:,.0f} sums)" if one["base_wrong"] else ")")
        for seed, one in seen.items()
    ]
    return f"seeds that go on: {', '.join(said[:half])}; left: {', '.join(said[half:])}"


def _run_lines(report: RunReport) -> list[str]:
    tries = [f"{tries_in_words(report.tries).capitalize()}.", ""] if report.tries else []
    return tries + _checkpoint_lines(report)


def _checkpoint_lines(report: RunReport) -> list[str]:
    if report.best_step is None or report.steps is None:
        return []
    kept = f"The best checkpoint was seen at step {report.best_step:,} of {report.steps:,}."
    held = "It holds the ceiling." if report.feasible else f"**Missed:** {report.missed}."
    return [f"{kept} {held}", ""]
