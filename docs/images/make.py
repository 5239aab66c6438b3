"""The pictures of the site, from the folder in which the Quickstart was done: its my-gpt2 and its run.

    python docs/images/make.py FOLDER
    gossamer demo && cp demo/figure.png docs/images/addition.png

One prompt, one row of one head, one run: what is drawn is what those files hold, nothing is made up. matplotlib writes
text as text and no date, so the same folder gives the same files.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from transformers import AutoTokenizer

from gossamer import draw, gates_of, load, trace
from gossamer.circuits.circuit import Circuit
from gossamer.models.checkpoint import load_dense
from gossamer.models.forward import evaluating
from gossamer.viz.figure import save
from gossamer.viz.figure.paper import CircuitFigure, house_style

HERE = Path(__file__).parent
PROMPT = "When Mary and John went to the store , John gave a drink to"
OPEN, CLOSED, LIMIT, INK = "#08306b", "#c6d3e3", "#b3431c", "#222222"


class Rows:
    """A head's attention row at the answer: every key's weight, and the weight above which its gate is open."""

    def __init__(self, model: Any, ids: torch.Tensor, tokens: list[str]) -> None:
        gates = gates_of(model)
        self.tokens, self.threshold = tokens, math.exp(-gates.bias)
        weights: dict[int, np.ndarray] = {}
        with evaluating(model), gates.observing(lambda call: weights.update({call.layer: last_row(call)})):
            model(input_ids=ids)
        self.weights = weights

    @property
    def clearest(self) -> tuple[int, int, np.ndarray]:
        """The layer and head whose open edges hold about two thirds of the row, and the row."""
        shares = {
            (layer, head): float(row[row > self.threshold].sum())
            for layer, rows in self.weights.items()
            for head, row in enumerate(rows)
        }
        layer, head = min(shares, key=lambda place: abs(shares[place] - 0.67))
        return layer, head, self.weights[layer][head]


def last_row(call: Any) -> np.ndarray:
    """(H, S) softmax weights of the last query."""
    return call.logits()[0, :, -1].softmax(-1).numpy()


@contextmanager
def plot(name: str, width: float, height: float, title: str, description: str) -> Iterator[Figure]:
    """A figure in the house style, saved as NAME.svg with words for those who cannot see it."""
    with house_style(**{"font.family": "DejaVu Sans", "font.size": "8"}):
        figure = CircuitFigure(width=width, height=height)
        figure.title, figure.description = title, description
        yield figure
        figure.set_layout_engine("tight")
        save(figure, HERE / f"{name}.svg")


def bare(axes: Any) -> Any:
    """Axes with two sides."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def gate(rows: Rows) -> None:
    """A row of weights, its threshold, and what passes."""
    layer, head, weights = rows.clearest
    passes = weights > rows.threshold
    what = f"Attention weights of layer {layer}, head {head} at the last token"
    with plot(
        "gate", 6.4, 2.4, what, f"{passes.sum()} of {len(passes)} weights are above the threshold."
    ) as figure:
        axes = bare(figure.add_subplot())
        axes.bar(range(len(weights)), weights, color=[OPEN if one else CLOSED for one in passes])
        axes.axhline(rows.threshold, color=LIMIT, linewidth=1)
        axes.text(-0.4, rows.threshold * 1.04, f"exp(-c) = {rows.threshold:.2f}", color=LIMIT)
        axes.set_xticks(range(len(weights)), rows.tokens, rotation=45, ha="right")
        axes.set_ylabel("attention weight")
        axes.set_title(f"{what}; open: {passes.sum()} of {len(passes)}", loc="left", fontsize=8, color=INK)


def leak(rows: Rows) -> None:
    """What closed edges still do: they take their share of the softmax."""
    *_, weights = rows.clearest
    passes = weights > rows.threshold
    share = float(weights[passes].sum())
    title = "The same row with and without its closed edges in the softmax"
    description = f"Open edges pass {share:.2f} of the weight; in the leak test they pass all of it."
    with plot("leak", 6.4, 1.7, title, description) as figure:
        axes = bare(figure.add_subplot())
        for place, scale in ((1, 1.0), (0, 1.0 / share)):
            start = 0.0
            for token, weight in zip(np.array(rows.tokens)[passes], weights[passes] * scale, strict=True):
                axes.barh(place, weight, left=start, color=OPEN, edgecolor="white", height=0.6)
                if weight > 0.06:
                    axes.text(start + weight / 2, place, token, color="white", ha="center", va="center")
                start += weight
            if start < 0.999:
                axes.barh(place, 1 - start, left=start, color=CLOSED, height=0.6)
                axes.text(start + (1 - start) / 2, place, "closed", ha="center", va="center", color=INK)
        axes.set_yticks([0, 1], ["leak test", "as the model runs"])
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the softmax")


def ceiling(folder: Path) -> None:
    """A run: what it loses, below the ceiling, and what is open, by steps."""
    report = json.loads((folder / "report.json").read_text())
    limit = float(report["ceiling"].partition("=")[2])
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = {
        line["step"]: line for line in reversed(log) if "eval_divergence" in line
    }  # first one of a step
    steps = sorted(evaluated)
    seen, kept = [evaluated[step] for step in steps], steps.index(report["best_step"])
    with plot(
        "ceiling", 6.4, 2.4, "A run under its ceiling", "Held-out divergence and open edges by steps."
    ) as figure:
        left, right = (bare(axes) for axes in figure.subplots(1, 2))
        for axes, name, what in (
            (left, "eval_divergence", "divergence from the base model"),
            (right, "eval_open_edges", "open edges of a row of 32 tokens"),
        ):
            values = [line[name] for line in seen]
            axes.plot(steps, values, "o-", color=OPEN, markersize=3)
            axes.plot(steps[kept], values[kept], "o", color=LIMIT, markersize=9, fillstyle="none")
            axes.set_ylim(0, max(values) * 1.15)
            axes.set_title(what, loc="left", fontsize=8)
        left.axhline(limit, color=LIMIT, linewidth=1)
        left.text(steps[-1] * 0.55, limit * 1.04, f"ceiling: {limit:g} nats", color=LIMIT, ha="center")
        for axes in (left, right):
            axes.set_xlabel("step")


def circuits(dense: Circuit, circuit: Circuit) -> None:
    """The two-panel figure, and the lower half with what never reaches the answer."""
    save(draw(dense, circuit, live_only=True, width=5), HERE / "quickstart.svg")
    save(draw(dense, circuit, width=5), HERE / "live.svg")


def main(workspace: Path) -> None:
    """Draw them all."""
    tokenizer = AutoTokenizer.from_pretrained(workspace / "my-gpt2")
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    base, sparse = load_dense(workspace / "my-gpt2"), load(workspace / "run/model", impl="eager")
    options: dict[str, Any] = {"text": tokenizer.convert_ids_to_tokens, "outputs": [-1]}
    circuits(trace(base, ids, **options), trace(sparse, ids, **options))
    rows = Rows(sparse, ids, tokenizer.convert_ids_to_tokens(ids[0].tolist()))
    gate(rows)
    leak(rows)
    ceiling(workspace / "run")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
