"""Plots of records."""

from __future__ import annotations

from pathlib import Path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#333333", "#999999", "#CC79A7", "#E69F00")  # Okabe and Ito 2008


def plot(series: dict[str, list[tuple[int, float]]], path: Path, *, unit: str, title: str) -> None:
    """One line for each name, (T, value) by (T, value), both axes logarithmic; ticks where T was measured."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    # Colours that stay apart for the colour-blind (Okabe and Ito 2008), and marks that stay apart in grey.
    for (name, points), colour, mark in zip(
        series.items(), ("#0072b2", "#d55e00", "#009e73", "#555555"), "os^D", strict=False
    ):
        axes.plot(*zip(*points, strict=True), marker=mark, color=colour, label=name)
    lengths = sorted({length for points in series.values() for length, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{length:,}" for length in lengths])
    axes.set(xlabel="T, positions", ylabel=unit, title=title)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.legend()
    figure.savefig(path)
