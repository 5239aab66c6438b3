"""The report of a run as a page: settings, result, loss against the base model, controls, limits.

A pure function of a `RunReport`; what a report lacks is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from ...models.model_card import held_out_rows
from ...models.run_report import RunReport
from ...training.constraint import KINDS, Ceiling
from ..viewer.page import asset, fill
from .html import bars, bullets, number, phrase, section, share, table, text
from .left import neurons_left, what_is_left
from .verdict import report_verdict

HERE = __name__.rpartition(".")[0]
# Ceilings whose unit says nothing to a reader who does not use it every day.
MEANS = {
    "kl": ": how far, on average, the probabilities that the sparse model gives are from those of the "
    "base model; 0 is no difference"
}


def report_page(
    report: RunReport,
    *,
    figure: str = "",
    links: Mapping[str, str] | None = None,
    edge_findings: Mapping[tuple[int, int, int, int], str] | None = None,
) -> str:
    """A report as one HTML file without script.

    Args:
        report: of `gossamer demo` or `gossamer sparsify`.
        figure: an SVG of ours, set in as it is; or empty.
        links: words -> relative address of files beside the page, such as the interactive one.
        carries: (layer, head, query, key) -> what that edge carries, in words, where it is known.
    """
    seen = _figure(figure, links or {})
    body = report_body(report, seen=seen, edge_findings=edge_findings)
    return bare_page(_title(report), body)


def bare_page(title: str, body: str) -> str:
    """A page of this style around a body of HTML, without script; the title is HTML too."""
    return fill(asset("report.html", HERE), title=title, style=asset("report.css", HERE), body=body)


def report_body(
    report: RunReport, *, seen: str = "", edge_findings: Mapping[tuple[int, int, int, int], str] | None = None
) -> str:
    """The sections of a report without the page around them, as a notebook's cell shows them.

    Args:
        seen: what stands between result and loss; the figure, on a page.
    """
    sections = (_asked(report), _kept(report), seen, _lost(report), _controls(report))
    rest = (neurons_left(report), _edges(report, edge_findings or {}), _limits(report), _versions(report))
    return "\n".join(filter(None, (report_verdict(report), _what(report), *sections, *rest)))


def _title(report: RunReport) -> str:
    if "digits" in report.task:
        return text(f"{report.task['digits']}-digit addition, made sparse")
    return text(f"{Path(report.model).name}, made sparse" if report.model else "A model made sparse")


def _what(report: RunReport) -> str:
    """What this is about, for a reader who meets it here."""
    digits, model = report.task.get("digits"), "The model of this page"
    if digits:
        given = f"{'36'[:digits]}+{'28'[:digits]}={'?' * (digits + 3)}" if digits < 3 else "two numbers"
        model = (
            f"A small transformer was trained to add two numbers of {digits} digits; it is given "
            f"<code>{given}</code> and fills in all answer digits at once. It"
        )
    count = phrase("; there are {} of them per prompt", report.proof.get("edges_possible"))
    return fill(asset("intro.html", HERE), model=model, count=count)


def _asked(report: RunReport) -> str:
    settings = report.settings
    words = [
        _ceiling(report.ceiling),
        phrase("The data are {}.", report.data if report.recipe == "text" else None),
        text(report.task_in_words),
        phrase("Seed {}.", settings.get("seed")),
        _tries(report),
        phrase("The base model was trained for {} steps.", settings.get("base_steps")),
        phrase("The finetuning under this ceiling was given at most {} steps.", settings.get("steps")),
    ]
    asked = " ".join(filter(None, words))
    return section("Settings", f"<p>{asked}</p>" if asked else "")


def _tries(report: RunReport) -> str:
    """Whose models these are, where several seeds were tried; the settings name the one that was asked for."""
    if not report.tries:
        return ""
    seeds = [one["seed"] for one in report.tries]
    return text(f"The models are those of seed {seeds[0]}, kept of {', '.join(map(str, sorted(seeds)))}.")


def _ceiling(asked: str) -> str:
    """What may be lost, in words: `kl=0.02` says nothing to a reader who did not type it."""
    if not asked:
        return ""
    ceiling = Ceiling.parse(asked)
    limit = f"Whatever is closed, at most <b>{ceiling.value:g}</b> may be lost on held-out data, measured as "
    means = MEANS.get(ceiling.kind, "")
    return limit + f"{text(KINDS[ceiling.kind])} (<code>{text(ceiling)}</code>){means}."


def _kept(report: RunReport) -> str:
    proof = report.proof
    if not proof:
        return section("Result", what_is_left(report))
    whole = proof.get("prompts")
    rows = [
        (
            "Exact answers" + (f", of {whole:,} prompts" if whole else ""),
            proof.get("base_exact"),
            proof.get("sparse_exact"),
        ),
        ("Open attention edges per prompt, mean", proof.get("edges_possible"), proof.get("edges_mean")),
        ("Open attention edges per prompt, most", proof.get("edges_possible"), proof.get("edges_max")),
        ("Open edges on a path to an answer, mean", None, proof.get("live_edges_mean")),
    ]
    cells = [(name, number(a), number(b)) for name, a, b in rows]
    floor = proof.get("edges_floor")
    note = phrase(
        "<p>We have an argument, not a proof, that no wiring does with fewer than {} edges in the mean.</p>",
        floor,
    )
    layers = proof.get("edges_per_layer") or []
    shares = bars("Open edges per layer, mean", [(f"Layer {i}", n) for i, n in enumerate(layers)])
    return section(
        "Result",
        table(("", "base model", "sparse model"), cells) + note + shares + what_is_left(report, {"edges"}),
    )


def _lost(report: RunReport) -> str:
    proof, chosen = report.proof, report.chosen_on
    items = [
        phrase("Both models give the same output on {}", proof.get("same_row"))
        + phrase(" of {}", proof.get("prompts") if "same_row" in proof else None)
        + phrase(" prompts.", proof.get("same_row")),
        phrase(
            "Of {} prompts that neither training nor the choice of the best checkpoint had seen,",
            proof.get("unseen"),
        )
        + phrase(" {} are exact.", proof.get("unseen_exact")),
        phrase(
            "Divergence from the base model, where the best checkpoint was chosen: {}",
            chosen.get("divergence"),
        )
        + phrase(" ± {} (standard error).", chosen.get("divergence_se")),
        phrase("The best checkpoint is the one of step {}", report.best_step)
        + phrase(" of {}.", report.steps),
        phrase("<b>Missed:</b> {}.", report.missed or None),
    ]
    rows = held_out_rows(report.held_out)
    return section(
        "Loss against the base model",
        bullets(items) + (table(("on held-out data", ""), rows) if rows else ""),
    )


def _controls(report: RunReport) -> str:
    proof = report.proof
    leaks = proof.get("leaks")
    verdict = "the drawn graph is the whole graph" if leaks == 0 else "the drawn graph is not the whole graph"
    items = [
        phrase(
            "<b>Leaks.</b> A closed edge still counts where attention weights are normalised, and could tell something "
            "that way. Taken out there as well, {} answers change: ",
            leaks,
        )
        + ("" if leaks is None else f"{verdict}."),
        phrase(
            "<b>Precision.</b> {} of the open edges join positions between which the task can need something to pass.",
            share(proof.get("precision")),
        ),
        phrase(
            "<b>Recall.</b> {} of what an answer depends on can reach it along open edges.",
            share(proof.get("recall")),
        ),
    ]
    rows = [(str(name), number(value)) for name, value in report.controls.items()]
    return section("Controls", bullets(items) + (table(("control", "value"), rows) if rows else ""))


def _edges(report: RunReport, edge_findings: Mapping[tuple[int, int, int, int], str]) -> str:
    rows = [
        (
            text(f"{edge.get('layer')}.{edge.get('head')}"),
            text(edge.get("to", edge.get("query", ""))),
            text(edge.get("from", edge.get("key", ""))),
            share(edge.get("open")) or "",
            {True: "yes", False: "no", None: ""}[edge.get("needed")],
            *(
                [text(edge_findings.get((edge["layer"], edge["head"], edge["query"], edge["key"]), ""))]
                if edge_findings
                else []
            ),
        )
        for edge in report.edges
    ]
    if not rows:
        return ""
    head = (
        "layer.head",
        "reader",
        "read",
        "open in",
        "can be needed",
        *(["what it carries"] if edge_findings else []),
    )
    note = "<p>a is the first number, b the second; a slot is a place of the answer.</p>"
    if edge_findings:
        note += "<p>What an edge carries was found by exchanging it between prompts, on all of them.</p>"
    body = f"<details><summary>{len(rows)} edges</summary>{note}{table(head, rows, escaped=True)}</details>"
    return section("Edges that were open on some prompt", body)


def _limits(report: RunReport) -> str:
    items = [
        "An edge says what is read, not what is computed from it: that happens in the layers between.",
        "Counts are of (layer, head, query, key); several heads with one edge make one line in the figure.",
        "This is one model from one seed; another seed may find another wiring for the same answers.",
        *(
            ["Exact on every listed prompt is a fact about those prompts, and about no others."]
            if report.proof
            else []
        ),
        "Whether each edge is needed was not tested here: <code>gossamer verify</code> closes them one by one.",
    ]
    return section("Limits", bullets(items))


def _versions(report: RunReport) -> str:
    found = dict(report.versions)
    if report.impl:
        found["gated attention"] = report.impl
    words = ", ".join(f"{text(name)} {text(value)}" for name, value in found.items())
    return f"<footer>{words}</footer>" if words else ""


def _figure(figure: str, links: Mapping[str, str]) -> str:
    """The figure as an image, so that its ids and fonts stay its own, and what lies beside the page."""
    if not figure and not links:
        return ""
    data = base64.b64encode(figure.encode()).decode()
    alt = "Base model above, sparse model below; the numbers are in the tables of this page."
    image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">' if figure else ""
    more = bullets([f'<a href="{text(address)}">{text(words)}</a>' for words, address in links.items()])
    return section("The figure", image + more)
