"""The report as a page: what was asked, what was kept, what was lost, the controls, the limits.

A pure function of report.json; whatever a report lacks is left out, and what is new to this page is not
shown.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from ...training.constraint import KINDS, Ceiling
from ..viewer.page import asset, fill
from .html import bars, bullets, number, phrase, section, share, table, text

Record = Mapping[str, Any]
HERE = __name__.rpartition(".")[0]
# Ceilings whose unit says nothing to a reader who does not use it every day.
MEANS = {
    "kl": ": how far, on average, the probabilities that the sparse model gives to the tokens are from those of the "
    "base model; 0 is no difference"
}


def report_page(
    report: Record,
    *,
    figure: str = "",
    links: Mapping[str, str] | None = None,
    carries: Mapping[tuple[int, int, int, int], str] | None = None,
) -> str:
    """A report as one HTML file without script.

    Args:
        report: what `gossamer demo` writes as report.json.
        figure: an SVG of ours, set in as it is; or empty.
        links: words -> relative address of files beside the page, such as the interactive one.
        carries: (layer, head, query, key) -> what that edge carries, in words, where it is known.
    """
    seen = _figure(figure, links or {})
    body = report_body(report, seen=seen, carries=carries)
    return bare_page(_title(report), body)


def bare_page(title: str, body: str) -> str:
    """A page of this style around a body of HTML, without script; the title is HTML too."""
    return fill(asset("report.html", HERE), title=title, style=asset("report.css", HERE), body=body)


def report_body(
    report: Record, *, seen: str = "", carries: Mapping[tuple[int, int, int, int], str] | None = None
) -> str:
    """The sections of a report without the page around them, as a notebook's cell shows them.

    Args:
        seen: what stands between what was kept and what was lost; the figure, on a page.
    """
    sections = (_asked(report), _kept(report), seen, _lost(report), _controls(report))
    rest = (_edges(report, carries or {}), _limits(report), _versions(report))
    return "\n".join(filter(None, (_what(report), *sections, *rest)))


def _title(report: Record) -> str:
    task = report.get("task", {})
    return text(
        f"{task['digits']}-digit addition, made sparse" if "digits" in task else "A model made sparse"
    )


def _what(report: Record) -> str:
    """What this is about, for a reader who meets it here."""
    digits, model = report.get("task", {}).get("digits"), "The model of this page"
    if digits:
        given = f"{'36'[:digits]}+{'28'[:digits]}={'?' * (digits + 3)}" if digits < 3 else "two numbers"
        model = (
            f"A small transformer was trained to add two numbers of {digits} digits; it is given "
            f"<code>{given}</code> and fills in all answer digits at once. It"
        )
    count = phrase("; there are {} of them per prompt", report.get("proof", {}).get("edges_possible"))
    return fill(asset("intro.html", HERE), model=model, count=count)


def _asked(report: Record) -> str:
    settings = report.get("settings", {})
    if not settings:
        return ""
    words = [
        _ceiling(settings.get("ceiling")),
        phrase("Seed {}.", settings.get("seed")),
        phrase("The base model was trained for {} steps,", settings.get("base_steps")),
        phrase("and made sparse in {} more.", settings.get("steps")),
    ]
    return section("What was asked", f"<p>{' '.join(words)}</p>")


def _ceiling(asked: str | None) -> str:
    """What may be lost, in words: `kl=0.02` says nothing to a reader who did not type it."""
    if not asked:
        return ""
    ceiling = Ceiling.parse(asked)
    limit = f"Whatever is closed, at most <b>{ceiling.value:g}</b> may be lost on held-out data, measured as "
    means = MEANS.get(ceiling.kind, "")
    return limit + f"{text(KINDS[ceiling.kind])} (<code>{text(ceiling)}</code>){means}."


def _kept(report: Record) -> str:
    proof = report.get("proof", {})
    if not proof:
        return ""
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
    return section("What was kept", table(("", "base model", "sparse model"), cells) + note + shares)


def _lost(report: Record) -> str:
    proof, run = report.get("proof", {}), report.get("run", {})
    chosen = run.get("chosen_on", {})
    items = [
        phrase("Both models give the same output on {}", proof.get("same_row"))
        + phrase(" of {}", proof.get("prompts") if "same_row" in proof else None)
        + phrase(" prompts.", proof.get("same_row")),
        phrase(
            "Of {} prompts that neither training nor the choice of the kept model had seen,",
            proof.get("unseen"),
        )
        + phrase(" {} are exact.", proof.get("unseen_exact")),
        phrase(
            "Divergence from the base model, where the kept model was chosen: {}", chosen.get("divergence")
        )
        + phrase(" ± {} (standard error).", chosen.get("divergence_se")),
        phrase("The kept model is the one of step {}", run.get("kept_step"))
        + phrase(" of {}.", run.get("steps")),
        phrase("<b>Missed:</b> {}.", run.get("missed") or None),
    ]
    return section("What was lost", bullets(items))


def _controls(report: Record) -> str:
    proof = report.get("proof", {})
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
    controls = report.get("controls", {})
    rows = [(str(name), number(value)) for name, value in controls.items() if isinstance(value, int | float)]
    return section("The controls", bullets(items) + (table(("control", "value"), rows) if rows else ""))


def _edges(report: Record, carries: Mapping[tuple[int, int, int, int], str]) -> str:
    names = ("layer", "head", "query", "key")
    rows = [
        (
            text(f"{edge.get('layer')}.{edge.get('head')}"),
            text(edge.get("to", edge.get("query", ""))),
            text(edge.get("from", edge.get("key", ""))),
            share(edge.get("open")) or "",
            {True: "yes", False: "no"}.get(edge.get("needed"), ""),
            *([text(carries.get(tuple(edge.get(name) for name in names), ""))] if carries else []),  # type: ignore[arg-type]
        )
        for edge in report.get("edges", [])
    ]
    if not rows:
        return ""
    head = (
        "layer.head",
        "reader",
        "read",
        "open in",
        "can be needed",
        *(["what it carries"] if carries else []),
    )
    note = "<p>a is the first number, b the second; a slot is a place of the answer.</p>"
    if carries:
        note += "<p>What an edge carries was found by exchanging it between prompts, on all of them.</p>"
    body = f"<details><summary>{len(rows)} edges</summary>{note}{table(head, rows, escaped=True)}</details>"
    return section("Every edge that was ever open", body)


def _limits(report: Record) -> str:
    items = [
        "An edge says what is read, not what is computed from it: that happens in the layers between.",
        "Counts are of (layer, head, query, key); several heads with one edge make one line in the figure.",
        "This is one model from one seed; another seed may find another wiring for the same answers.",
        "Exact on every listed prompt is a fact about those prompts, and about no others.",
        "Whether each edge is needed was not tested here: <code>gossamer verify</code> closes them one by one.",
    ]
    return section("The limits", bullets(items))


def _versions(report: Record) -> str:
    found = dict(report.get("versions", {}))
    if "impl" in report:
        found["gated attention"] = report["impl"]
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
