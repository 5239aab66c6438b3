"""What is left of each kind of gate and of the model's size, and the neurons that are left, as HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...circuits.circuit import UnitsLeft
from ...models.run_report import OpenUnits, RunReport, describe_sizes
from .html import bars, grid, parts, section, table, text


def what_is_left(report: RunReport, told: Collection[str] = ()) -> str:
    """Sizes of base and sparse model, then each kind by layer: heads as a grid, others as bars.

    Args:
        told: kinds that the page shows elsewhere.
    """
    sizes = describe_sizes(report.sizes) if _static(report) else []
    whole = table(("", "base model", "left"), sizes) if sizes else ""
    return whole + units_left({kind: left for kind, left in report.gates.items() if kind not in told})


def units_left(units: Mapping[str, OpenUnits]) -> str:
    """Each kind of gate by layer: heads as a grid, others as bars."""
    return "".join(_kind(kind, left) for kind, left in units.items())


def units_of_circuit(left: UnitsLeft, n_layers: int, n_heads: int) -> dict[str, OpenUnits]:
    """Heads and neurons that are left, by kind; a kind of which nothing is closed is left out."""
    found = {}
    if left.closed_heads:
        heads = left.heads(n_layers, n_heads)
        found["heads"] = OpenUnits([list(map(float, row)) for row in heads], of_layer=[n_heads] * n_layers)
    if left.neurons:
        counts = [[float(n)] for n, _ in left.neurons]
        found["neurons"] = OpenUnits(counts, of_layer=[whole for _, whole in left.neurons])
    return found


def _static(report: RunReport) -> bool:
    return any(left.of_layer for left in report.gates.values())


def _kind(kind: str, left: OpenUnits) -> str:
    names = [f"Layer {i}" for i in range(len(left.per_group))]
    if not left.of_layer:
        return bars(f"Open {kind} per held-out row, mean", list(zip(names, left.per_layer, strict=True)))
    if kind == "heads":
        heads = list(zip(names, left.per_group, strict=True))
        return grid(
            "Heads: strong is open, faint is closed", [(name, units) for name, units in heads if units]
        )
    rows = zip(names, left.per_layer, map(float, left.of_layer), strict=True)
    return parts(f"Open {kind} per layer: strong is left, faint is the base model", list(rows))


def neurons_left(report: RunReport) -> str:
    """The neurons that are left of an adding model: what they respond to, and what closing each changes."""
    rows = [
        (text(f"{x['layer']}.{x['neuron']}"), text(x["responds_to"]), text(x["closing"]))
        for x in report.neurons
    ]
    if not rows:
        return ""
    head = ("layer.neuron", "responds to", "closing it alone")
    note = (
        "<p>A neuron responds to a fact if the fact explains at least 90 % of the variance of what the MLP's second "
        "matrix reads of it, over all sums, at the answer slot that "
        "closing it changes most, or else at the position where it varies most.</p>"
    )
    body = f"<details><summary>{len(rows)} neurons</summary>{note}{table(head, rows, escaped=True)}</details>"
    return section("Neurons that are left", body)
