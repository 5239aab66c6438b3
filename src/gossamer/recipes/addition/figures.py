"""What the demo leaves for the eye: a figure per sum, the report as a page, and the interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ...circuits.trace import trace
from ...files import write_text
from ...models.run_report import RunReport
from ...viz.figure import draw
from ...viz.figure.paper import save as save_figure
from ...viz.report.page import report_page
from .explain.findings import edge_findings_beside
from .page import view_addition
from .task import Addition, as_text

RUNS = {
    "edges.html": "The finetuning of edges, before heads and neurons",
    "units.html": "The finetuning that closed heads and neurons, before the last one",
    "training.html": "The finetuning, step by step",
}


def draw_sums(
    task: Addition, base: PreTrainedModel, sparse: PreTrainedModel, chosen: Sequence[int], out: Path
) -> dict[str, Any]:
    """Draw the two-panel figure of each chosen sum; returns what is in each."""
    message: dict[str, Any] = {}
    for number, index in enumerate(chosen):
        inputs, _ = task.encode(torch.tensor([index]))
        dense, thin = (trace(model, inputs, text=as_text) for model in (base, sparse))
        first, second = (int(x) for x in task.operands(torch.tensor(index)))
        name = "figure" if number == 0 else f"figure-{first}+{second}"
        save_figure(draw(dense, thin), out / name)
        message[f"{first}+{second}"] = {
            "file": name,
            "base_edges": len(dense),
            "sparse_edges": len(thin),
            "base_answer": "".join(dense.answers[0]),
            "sparse_answer": "".join(thin.answers[0]),
        }
    return message


def write_pages(
    task: Addition,
    base: PreTrainedModel,
    sparse: PreTrainedModel,
    report: RunReport,
    out: Path,
    start: str,
) -> None:
    """Write report.html, and view.html where all sums fit into one page; both say what edges carry if it is known."""
    links, edge_findings = {}, edge_findings_beside(out / "sparse", sparse)
    if task.digits <= 2:
        write_text(out / "view.html", view_addition(base, sparse, start=start, edge_findings=edge_findings))
        links["Both circuits of every sum, interactive"] = "view.html"
    links |= {words: name for name, words in RUNS.items() if (out / name).is_file()}
    figure = (out / "figure.svg").read_text(encoding="utf-8")
    write_text(
        out / "report.html",
        report_page(report, figure=figure[figure.index("<svg") :], links=links, edge_findings=edge_findings),
    )
