"""The figure: a base model's web of attention above what is left of it in the sparse model.

What a line is. One line per (layer, query, key): the strongest of the heads that have this edge open. It
rises from the position that is read (key, lower row) to the position that reads (query, upper row); the
edges of layer l end in the row that says "Layer l", and the lowest row is the input. Darkness and width
are the softmax weight that the value is multiplied with, on one scale for both panels, so that they may
be compared.

What a number is. Captions count open edges per (layer, head, query, key), not lines. Open edges that are
not live (`Circuit.live_mask`: no path into the circuit's outputs) are grey and dashed, and counted
apart.

Where a model has closed heads or neurons, a column at the right shows for each layer its heads as squares, grey if
closed, and the neurons that are left as a bar.

Every artist that means something has a gid: `sparse-edge-2-7-3` (layer, query, key), `sparse-offpath-...`
for edges that are not live, `sparse-input-7`, `sparse-output-7`, `sparse-title`, `sparse-count`, `arrow-text`,
and of layer 2 `sparse-heads-2`, `sparse-closedheads-2`, `sparse-neurons-2`; in the SVG they are ids. Nothing is
shown, pyplot is not used, and no global setting is changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...circuits.circuit import Circuit
from ...errors import refuse
from .layout import describe
from .panel import UNITS_KEY, Look, Pen, arrow_beside, grid_for, key_below, panel
from .paper import CircuitFigure, house_style, save, to_svg

__all__ = ["CircuitFigure", "draw", "draw_one", "save", "to_svg"]

PAPER_COLUMN = 3.4  # inches
ARROW_MARGIN, KEY_HEIGHT, PANEL_GAP, EDGE = 0.40, 0.30, 0.10, 0.02  # inches


def draw(
    base: Circuit,
    sparse: Circuit,
    *,
    prompt: int = 0,
    live_only: bool = False,
    width: float = PAPER_COLUMN,
    titles: tuple[str, str] = ("Base Model", "Sparse Model"),
    arrow: str = "Sparsity-Regularised Finetuning",
    strongest: float = 1.0,
    font: str = "DejaVu Sans",
) -> CircuitFigure:
    """The two-panel figure for one prompt: base above, sparse below, an arrow from one to the other.

    Args:
        base, sparse: traced on the same prompts; the two panels share one scale of weights.
        prompt: which of the prompts.
        live_only: leave out the edges that reach no output; they are still counted.
        width: inches; 3.4 is a paper's column. The height follows from the number of layers.
        titles: of the upper and the lower panel.
        arrow: the words along the arrow.
        strongest: the weight that is darkest; lower it for long prompts, where every weight is small.
        font: a family that matplotlib finds and that has your script; the default comes with matplotlib.
    Returns: the figure, neither shown nor saved. Outputs of the sparse model unlike the base's are boxed.
    Raises: `GossamerError` if the circuits are on different prompts, or the tokens do not fit `width`.
    """
    pair = [base.of_prompt(prompt), sparse.of_prompt(prompt)]
    if pair[0].tokens != pair[1].tokens:
        shown = " and ".join(repr(" ".join(circuit.tokens[0])[:40]) for circuit in pair)
        expected = "one prompt for both"
        raise refuse(
            f"circuits on different prompts: {shown}", expected, "trace both models on the same prompts"
        )
    return _compose(pair, ("base", "sparse"), titles, arrow, Look(width, strongest, font, live_only))


def draw_one(
    circuit: Circuit,
    *,
    prompt: int = 0,
    live_only: bool = False,
    width: float = PAPER_COLUMN,
    title: str = "Attention circuit",
    strongest: float = 1.0,
    font: str = "DejaVu Sans",
) -> CircuitFigure:
    """One panel; arguments as in `draw`, gids start with `circuit-`."""
    look = Look(width, strongest, font, live_only)
    return _compose([circuit.of_prompt(prompt)], ("circuit",), (title,), "", look)


def _compose(
    circuits: Sequence[Circuit], names: Sequence[str], titles: Sequence[str], arrow: str, look: Look
) -> CircuitFigure:
    """Stack the panels from the bottom of the page to its top, then add the arrow and the key."""
    titles, arrow = [look.words(title, "bold") for title in titles], look.words(arrow)
    left = ARROW_MARGIN if len(circuits) > 1 else EDGE
    with house_style(**{"font.family": look.font}):
        units = any(any(circuit.left) for circuit in circuits)
        bottom, grids = KEY_HEIGHT + UNITS_KEY * units, []
        for circuit in reversed(circuits):
            grids.insert(0, grid_for(circuit, left, bottom, look, units=units))
            bottom = grids[0].top + PANEL_GAP
        pen = Pen(CircuitFigure(width=look.width, height=bottom - PANEL_GAP + EDGE), look)
        for circuit, name, title, grid in zip(circuits, names, titles, grids, strict=True):
            panel(pen, circuit, name, title, grid, expected=circuits[0].answers[0])
        if len(circuits) > 1:
            arrow_beside(pen, arrow, grids)
        key_below(pen, left, units=units)
    pen.figure.title = f"{arrow}: {' and '.join(titles)}" if arrow else " and ".join(titles)
    pen.figure.description = " ".join(describe(c, t) for c, t in zip(circuits, titles, strict=True))
    return pen.figure
