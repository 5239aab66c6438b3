"""The report as a page: what was asked, what was kept, what was lost, the controls, the limits.

A pure function of report.json; whatever a report lacks is left out, and what is new to this page is not
shown.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ..ceiling import KINDS, Ceiling
from .page import asset, fill

Record = Mapping[str, Any]
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
    sections = (_asked(report), _kept(report), _figure(figure, links or {}), _lost(report), _controls(report))
    rest = (_edges(report, carries or {}), _limits(report), _versions(report))
    body = "\n".join(filter(None, (_what(report), *sections, *rest)))
    return fill(asset("report.html"), title=_title(report), style=asset("report.css"), body=body)


def _title(report: Record) -> str:
    task = report.get("task", {})
    return _text(
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
    count = _phrase("; there are {} of them per prompt", report.get("proof", {}).get("edges_possible"))
    return fill(asset("intro.html"), model=model, count=count)


def _asked(report: Record) -> str:
    settings = report.get("settings", {})
    if not settings:
        return ""
    words = [
        _ceiling(settings.get("ceiling")),
        _phrase("Seed {}.", settings.get("seed")),
        _phrase("The base model was trained for {} steps,", settings.get("base_steps")),
        _phrase("and made sparse in {} more.", settings.get("steps")),
    ]
    return _section("What was asked", f"<p>{' '.join(words)}</p>")


def _ceiling(text: str | None) -> str:
    """What may be lost, in words: `kl=0.02` says nothing to a reader who did not type it."""
    if not text:
        return ""
    ceiling = Ceiling.parse(text)
    limit = f"Whatever is closed, at most <b>{ceiling.value:g}</b> may be lost on held-out data, measured as "
    means = MEANS.get(ceiling.kind, "")
    return limit + f"{_text(KINDS[ceiling.kind])} (<code>{_text(ceiling)}</code>){means}."


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
    table = _table(
        ("", "base model", "sparse model"), [(name, _number(a), _number(b)) for name, a, b in rows]
    )
    floor = proof.get("edges_floor")
    note = _phrase(
        "<p>We have an argument, not a proof, that no wiring does with fewer than {} edges in the mean.</p>",
        floor,
    )
    layers = proof.get("edges_per_layer") or []
    bars = _bars("Open edges per layer, mean", [(f"Layer {i}", n) for i, n in enumerate(layers)])
    return _section("What was kept", table + note + bars)


def _lost(report: Record) -> str:
    proof, run = report.get("proof", {}), report.get("run", {})
    chosen = run.get("chosen_on", {})
    items = [
        _phrase("Both models give the same output on {}", proof.get("same_row"))
        + _phrase(" of {}", proof.get("prompts") if "same_row" in proof else None)
        + _phrase(" prompts.", proof.get("same_row")),
        _phrase(
            "Of {} prompts that neither training nor the choice of the kept model had seen,",
            proof.get("unseen"),
        )
        + _phrase(" {} are exact.", proof.get("unseen_exact")),
        _phrase(
            "Divergence from the base model, where the kept model was chosen: {}", chosen.get("divergence")
        )
        + _phrase(" ± {} (standard error).", chosen.get("divergence_se")),
        _phrase("The kept model is the one of step {}", run.get("kept_step"))
        + _phrase(" of {}.", run.get("steps")),
        _phrase("<b>Missed:</b> {}.", run.get("missed") or None),
    ]
    return _section("What was lost", _list(items))


def _controls(report: Record) -> str:
    proof = report.get("proof", {})
    leaks = proof.get("leaks")
    verdict = "the drawn graph is the whole graph" if leaks == 0 else "the drawn graph is not the whole graph"
    items = [
        _phrase(
            "<b>Leaks.</b> A closed edge still counts where attention weights are normalised, and could tell something "
            "that way. Taken out there as well, {} answers change: ",
            leaks,
        )
        + ("" if leaks is None else f"{verdict}."),
        _phrase(
            "<b>Precision.</b> {} of the open edges join positions between which the task can need something to pass.",
            _share(proof.get("precision")),
        ),
        _phrase(
            "<b>Recall.</b> {} of what an answer depends on can reach it along open edges.",
            _share(proof.get("recall")),
        ),
    ]
    controls = report.get("controls", {})
    rows = [(str(name), _number(value)) for name, value in controls.items() if isinstance(value, int | float)]
    table = _table(("control", "value"), rows) if rows else ""
    return _section("The controls", _list(items) + table)


def _edges(report: Record, carries: Mapping[tuple[int, int, int, int], str]) -> str:
    names = ("layer", "head", "query", "key")
    rows = [
        (
            _text(f"{edge.get('layer')}.{edge.get('head')}"),
            _text(edge.get("to", edge.get("query", ""))),
            _text(edge.get("from", edge.get("key", ""))),
            _share(edge.get("open")) or "",
            {True: "yes", False: "no"}.get(edge.get("needed"), ""),
            *([_text(carries.get(tuple(edge.get(name) for name in names), ""))] if carries else []),  # type: ignore[arg-type]
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
    table = _table(head, rows, escaped=True)
    note = "<p>a is the first number, b the second; a slot is a place of the answer.</p>"
    if carries:
        note += "<p>What an edge carries was found by exchanging it between prompts, on all of them.</p>"
    body = f"<details><summary>{len(rows)} edges</summary>{note}{table}</details>"
    return _section("Every edge that was ever open", body)


def _limits(report: Record) -> str:
    items = [
        "An edge says what is read, not what is computed from it: that happens in the layers between.",
        "Counts are of (layer, head, query, key); several heads with one edge make one line in the figure.",
        "This is one model from one seed; another seed may find another wiring for the same answers.",
        "Exact on every listed prompt is a fact about those prompts, and about no others.",
        "Whether each edge is needed was not tested here: <code>gossamer verify</code> closes them one by one.",
    ]
    return _section("The limits", _list(items))


def _versions(report: Record) -> str:
    found = dict(report.get("versions", {}))
    if "impl" in report:
        found["gated attention"] = report["impl"]
    words = ", ".join(f"{_text(name)} {_text(value)}" for name, value in found.items())
    return f"<footer>{words}</footer>" if words else ""


def _figure(figure: str, links: Mapping[str, str]) -> str:
    """The figure as an image, so that its ids and fonts stay its own, and what lies beside the page."""
    if not figure and not links:
        return ""
    data = base64.b64encode(figure.encode()).decode()
    alt = "Base model above, sparse model below; the numbers are in the tables of this page."
    image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">' if figure else ""
    more = _list([f'<a href="{_text(address)}">{_text(words)}</a>' for words, address in links.items()])
    return _section("The figure", image + more)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _list(items: Iterable[str]) -> str:
    kept = [f"<li>{item}</li>" for item in items if item]
    return f"<ul>{''.join(kept)}</ul>" if kept else ""


def _phrase(form: str, value: Any) -> str:
    """A phrase with a value in it, or nothing where there is none."""
    return "" if value is None or value == "" else form.format(_number(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, escaped: bool = False) -> str:
    show = str if escaped else _text
    kept = [list(row) for row in rows]
    sides = [' class="number"' if _is_numbers(column) else "" for column in zip(*kept, strict=True)]
    names = "".join(
        f'<th scope="col"{side}>{_text(name)}</th>' for name, side in zip(head, sides, strict=True)
    )
    cells = [
        "".join(f"<td{side}>{show(cell)}</td>" for cell, side in zip(row, sides, strict=True)) for row in kept
    ]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_numbers(column: Iterable[str]) -> bool:
    """Whether a column holds numbers, which stand flush right, and nothing else."""
    said = [cell for cell in column if cell]
    return bool(said) and all(re.fullmatch(r"[\d,.]+( %)?", cell) for cell in said)


def _bar(share: float) -> str:
    return f'<span class="bar" style="width:{200 * share:.0f}px"></span>' if share else ""


def _bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Numbers as bars on one scale."""
    most = max((value for _, value in values), default=0.0)
    rows = [
        f'<tr><th scope="row">{_text(name)}</th><td>{_bar(value / most)} {_number(value)}</td></tr>'
        for name, value in values
        if most
    ]
    return f"<table><caption>{_text(title)}</caption><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _share(value: Any) -> str | None:
    return f"{100 * value:.2f} %" if isinstance(value, int | float) else None


def _number(value: Any) -> str:
    """A value for people: thousands separated, four significant digits where there are decimals."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _text(value)
    if isinstance(value, int) or abs(value) >= 10:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return f"{Decimal(f'{value:.4g}' if abs(value) > 1e-4 else f'{value:.2g}'):f}"  # 0.0000037, not 3.7e-06


def _text(value: Any) -> str:
    return html.escape(str(value))
