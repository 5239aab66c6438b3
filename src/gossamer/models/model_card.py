"""A run in words: its report, and the card of what it shares, which says how to load it gated."""

from __future__ import annotations

from .run_report import OpenUnits, RunReport, describe_sizes

TEMPLATE = """---
library_name: transformers
tags:
- gossamer
- sparse-attention
- interpretability
{front}---

# {title}

**These weights are sparse with gates only.** Plain `transformers` refuses to build the model, or runs it DENSE where
it is asked for another `attn_implementation`; adapters in plain `peft` run DENSE without a word. Load it with gossamer:

```python
import gossamer

model = gossamer.load("{where}")  # gates on, and proven to be on
```

`{base}`, finetuned until few {kinds} are open, with a ceiling on what may be lost: **{ceiling}**
({kept}).
{measured}{left}
What is closed is multiplied by zero; an attention weight after the softmax, and the rest is not renormalised (arXiv
2512.05865). config.json has a block for each kind of gate.
"""

# Name in the report, words, form.
ROWS = (
    ("keys_per_query", "open keys per query and head", "{:.3f}"),
    ("density", "open share of all that has gates", "{:.5f}"),
    ("density_gap", "expected minus hard density", "{:+.5f}"),
    ("loss", "cross-entropy, nats per prediction", "{:.4f}"),
    ("delta_ce", "its rise over the base model", "{:+.4f}"),
    ("kl", "KL from the base model, nats per prediction", "{:.4f}"),
    ("cosine", "one minus the cosine of sentence embeddings", "{:.5f}"),
    ("pairwise", "squared change of similarities over the variance of the base's", "{:.5f}"),
    ("fvu", "squared change of scores over the variance of the base's", "{:.5f}"),
    ("agreement", "top-1 agreement with the base model", "{:.4f}"),
    ("accuracy", "accuracy on the labels", "{:.4f}"),
    ("base_accuracy", "the base model's accuracy on them", "{:.4f}"),
)


# The same of each kind of gate, by the beginning of the name.
KIND_ROWS = (("density_", "open share of the {}", "{:.5f}"), ("open_", "open {} per row", "{:,.1f}"))


def held_out_rows(held_out: dict[str, float]) -> list[tuple[str, str]]:
    """The held-out numbers that were measured, in words, each with its standard error."""
    rows, known = [], [name for name, _, _ in ROWS]
    of_kinds = [
        (name, words.format(name.removeprefix(start)), form)
        for start, words, form in KIND_ROWS
        for name in sorted(held_out)
        if name.startswith(start) and name.removesuffix("_se") not in known
    ]
    for name, words, form in (*ROWS, *of_kinds):
        if name in held_out:
            error = held_out.get(f"{name}_se")
            message = form.format(held_out[name]) + (
                "" if error is None else f" (standard error {error:.2g})"
            )
            rows.append((words, message))
    return rows


# The same of a run on addition, where every prompt is a row of the proof.
PROOF_ROWS = (
    ("base_exact", "exact answers of the base model", "{:,}"),
    ("sparse_exact", "exact answers of the sparse model", "{:,}"),
    ("edges_possible", "attention edges a sum has", "{:,}"),
    ("edges_mean", "open attention edges a sum, mean", "{:.3f}"),
    ("edges_max", "open attention edges a sum, most", "{:,}"),
    ("leaks", "answers that closed edges change", "{:,}"),
    ("precision", "share of open edges that addition needs", "{:.4f}"),
    ("recall", "share of needed paths that are open", "{:.4f}"),
)


def number_rows(report: RunReport) -> list[str]:
    """What was measured, as rows of a Markdown table."""
    found = held_out_rows(report.held_out)
    if not found:
        known = [row for row in PROOF_ROWS if report.proof.get(row[0]) is not None]
        found = [(words, form.format(report.proof[name])) for name, words, form in known]
    return [f"| {words} | {message} |" for words, message in found]


def _measured(report: RunReport) -> str:
    """The numbers of a report as a Markdown table; nothing where there are none."""
    whole, rows = report.proof and not report.held_out, number_rows(report)
    of = f"on all {report.proof.get('prompts', 0):,} prompts" if whole else "on held-out data"
    return "\n".join(["", f"| {of} | |", "|---|---|", *rows, ""]) if rows else ""


def model_card(report: RunReport, *, title: str, where: str) -> str:
    """The README.md of a sparse model.

    Args:
        report: of the run that made the model.
        title: the model's name.
        where: folder or hub id it is loaded from.
    """
    base, data = report.model, report.data
    # A local folder or the embedded text is no hub id, and the hub refuses a card that says it is.
    local = report.local
    front = "" if base in local or not _is_hub_id(base) else f"base_model: {base}\n"
    if report.recipe != "addition" and data not in local and _is_hub_id(data):
        front += f"datasets:\n- {data.partition(':')[0]}\n"
    return TEMPLATE.format(
        front=front,
        title=title,
        where=where,
        base=base,
        kinds=" and ".join(report.gates) or "units",
        ceiling=report.ceiling,
        kept="held on held-out data" if report.feasible else "NOT held: " + report.missed,
        measured=_measured(report),
        left="\n".join([*left_lines(report), ""]),
    )


def left_lines(report: RunReport) -> list[str]:
    """What is left, as Markdown: sizes of base and sparse model, then each kind of gate by layer."""
    sizes, lines = describe_sizes(report.sizes), []
    if sizes:
        lines = ["", "| | base | left |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in sizes)]
    for kind, left in report.gates.items():
        table = layer_table(kind, left)
        rules = "|".join("---" for _ in table[0])
        lines += [
            "",
            f"| {' | '.join(table[0])} |",
            f"|{rules}|",
            *(f"| {' | '.join(x)} |" for x in table[1:]),
        ]
    return lines


def layer_table(kind: str, left: OpenUnits) -> list[list[str]]:
    """A head line and one line a layer: open units, of how many, which heads, keys per query."""
    single, keys = kind == "heads" and bool(left.of_layer), left.keys_per_query
    head = ["layer", f"open {kind}" + ("" if left.of_layer else " per row")]
    head += ["of"] * bool(left.of_layer) + ["open, in order"] * single
    rows = [head + ["open keys per query, per head"] * bool(keys)]
    for layer, total in enumerate(left.per_layer):
        row = [str(layer), f"{total:,.0f}" if left.of_layer else f"{total:,.1f}"]
        row += [f"{of:,}" for of in left.of_layer[layer : layer + 1]]
        row += ["".join("■" if x else "□" for x in left.per_group[layer])] * single
        rows.append(row + ([", ".join(f"{x:.2f}" for x in keys[layer])] if keys else []))
    return rows


def _is_hub_id(name: str) -> bool:
    parts = name.partition(":")[0].split("/")
    return name != "stdlib" and len(parts) <= 2 and all(parts) and not name.startswith((".", "~"))
