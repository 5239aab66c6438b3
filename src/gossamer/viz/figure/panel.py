"""The artists: one panel, the arrow and the key, in inches on a single pair of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ...circuits.circuit import Circuit
from ...errors import refuse, require_range
from . import layout
from .layout import POINTS, Grid, Line
from .paper import CircuitFigure

INK, MUTED, GUIDE, CARRIED, FRAME = "#111111", "#5f5f5f", "#e9e9e9", "#a3a3a3", "#a8a8a8"
TITLE, ARROW, ROW, SMALL = 8.0, 7.0, 6.0, 5.5  # points
OPEN_UNIT, CLOSED_UNIT = "#08519c", "#d0d0d0"  # a head or neurons: there, and closed
UNITS_KEY = 0.12  # inches of its line in the key
DOTS = {"linestyle": "", "marker": "o", "markersize": 2.0, "markeredgewidth": 0.0}


# Once: each look-up by name gives another copy, which computes its table of colours when it is first asked.
BLUES, GREYS = colormaps["Blues"], colormaps["Greys"]


def blue(t: float) -> tuple[float, float, float, float]:
    """ColorBrewer's Blues without its lightest quarter, which does not print; luminance falls with t."""
    return BLUES(0.25 + 0.75 * t)


def thickness(t: float) -> float:
    """Line width in points: 0.3 is the thinnest that journals print reliably (assumed), 1.5 the thickest."""
    return 0.3 + 1.2 * t


@dataclass(frozen=True)
class Look:
    """What holds for the whole figure."""

    width: float
    strongest: float
    font: str
    live_only: bool

    def __post_init__(self) -> None:
        require_range("width", self.width, 1.5, 100.0)
        require_range("strongest", self.strongest, 1e-9, 1.0)
        try:
            self.face()
        except ValueError as error:
            known = "a family known to matplotlib.font_manager"
            raise refuse(
                f"font={self.font!r} is not installed", known, "install it or leave it out"
            ) from error

    def face(self, weight: str = "normal"):
        """The font file that is measured, which is the one that is drawn."""
        return get_font(findfont(FontProperties(family=self.font, weight=weight), fallback_to_default=False))

    def measure(self, text: str, weight: str = "normal") -> float:
        """Width in points per point of font size."""
        face = self.face(weight)
        face.set_size(100, POINTS)
        face.set_text(text)
        return face.get_width_height()[0] / 64 / 100

    def has_glyph(self, char: str, weight: str = "normal") -> bool:
        """Whether the font can show it."""
        return self.face(weight).get_char_index(ord(char)) != 0

    def label(self, token: str) -> str:
        """A token as it is printed."""
        return layout.abbreviated(layout.visible_text(token, self.has_glyph))

    def words(self, text: str, weight: str = "normal") -> str:
        """Someone's title on one line, without what cannot be shown."""
        shown = (
            layout.visible_text(word, lambda char: self.has_glyph(char, weight)) for word in text.split()
        )
        return " ".join(shown)


class Pen:
    """Draws in inches on a figure, and gives each artist its gid and its note."""

    def __init__(self, figure: CircuitFigure, look: Look) -> None:
        self.figure, self.look = figure, look
        width, height = figure.get_size_inches()
        self.axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, words: str, size: float, *, room: float = 0.0, **style: Any) -> float:
        """Words from (x, y) rightwards or as `style` says, shrunk to `room` inches; returns their width."""
        breadth = self.look.measure(words, style.get("weight", "normal")) * size / POINTS
        if room and breadth > room:
            size, breadth = size * room / breadth, room
        style = {"ha": "left", "va": "center_baseline", "color": INK, "rotation_mode": "anchor", **style}
        self.axes.text(x, y, words, fontsize=size, **style)
        return breadth

    def line(
        self, xs: Sequence[float], ys: Sequence[float], *, gid: str, note: str = "", **style: Any
    ) -> None:
        """A line through points; `note` is its tooltip."""
        self.axes.add_artist(Line2D(xs, ys, gid=gid, clip_on=False, **style))
        if note:
            self.figure.notes[gid] = note


def grid_for(circuit: Circuit, left: float, bottom: float, look: Look, *, units: bool = False) -> Grid:
    """Where a panel goes whose lower left corner is given, and how its tokens are set.

    Args:
        units: leave a column for heads and neurons.
    """
    n_layers, n_tokens = circuit.n_layers, len(circuit.tokens[0])
    widest = max(look.measure(look.label(token)) for token in (*circuit.tokens[0], *circuit.answers[0]))
    gutter = 0.11 + max(map(look.measure, layout.row_names(n_layers))) * ROW / POINTS
    right = look.width - 0.02
    pitch = layout.row_pitch(n_layers, look.width)
    strip = layout.Squares.of(circuit.n_heads, pitch).width + Grid.GAP if units else 0.0
    labels = layout.fit_labels(widest, n_tokens, look.width, frame=left + gutter + 0.02 + Grid.GAP + strip)
    return Grid(left, right, bottom, pitch, gutter, labels, n_layers, n_tokens, strip)


def panel(pen: Pen, circuit: Circuit, name: str, title: str, grid: Grid, *, expected: Sequence[str]) -> None:
    """Frame, words, nodes and edges of a circuit on one prompt; answers not as `expected` are boxed."""
    size = (grid.right - grid.left, grid.top - grid.bottom)
    frame = FancyBboxPatch((grid.left, grid.bottom), *size, boxstyle="round,pad=0,rounding_size=0.05")
    frame.set(facecolor="white", edgecolor=FRAME, linewidth=0.6, gid=f"{name}-panel", clip_on=False)
    pen.axes.add_patch(frame)
    outputs = {position % grid.n_tokens for position in circuit.outputs}
    lines = [line for line in layout.merged_lines(circuit) if line.live or not pen.look.live_only]
    _heading(pen, circuit, name, title, grid)
    _inputs(pen, circuit, name, grid)
    _outputs(pen, circuit, name, grid, outputs, expected)
    _nodes(pen, name, grid, lines, outputs)
    for line in lines:
        _edge(pen, circuit.tokens[0], name, grid, line)
    if grid.strip:
        _units(pen, circuit, name, grid)


def _heading(pen: Pen, circuit: Circuit, name: str, title: str, grid: Grid) -> None:
    start, end, y = grid.left + grid.PAD, grid.right - grid.PAD, grid.top - 0.11
    room = 0.45 * (end - start)
    used = pen.text(start, y, title, TITLE, gid=f"{name}-title", room=room, weight="bold")
    off_path = layout.off_path_caption(int((~circuit.live_mask()).sum()), drawn=not pen.look.live_only)
    for index, (what, words) in enumerate((("count", layout.count_caption(circuit)), ("never", off_path))):
        if words:
            style: dict[str, Any] = {"ha": "right", "color": MUTED, "gid": f"{name}-{what}"}
            pen.text(end, y - 0.095 * index, words, SMALL, room=end - start - used - 0.1, **style)
    heights = [grid.input_y, *(grid.y(row + 1) for row in range(grid.n_layers)), grid.output_y]
    for row, (words, height) in enumerate(zip(layout.row_names(grid.n_layers), heights, strict=True)):
        pen.text(start, height, words, ROW, gid=f"{name}-row-{row}", color=MUTED)


def _inputs(pen: Pen, circuit: Circuit, name: str, grid: Grid) -> None:
    """Turned tokens end at the nodes above them."""
    place: dict[str, Any] = {"rotation": 90, "ha": "right"} if grid.labels.turned else {"ha": "center"}
    y = grid.input_y + (grid.labels.height / 2 if grid.labels.turned else 0)
    for position, token in enumerate(circuit.tokens[0]):
        gid = f"{name}-input-{position}"
        pen.text(grid.x(position), y, pen.look.label(token), grid.labels.size, gid=gid, **place)
        pen.figure.notes[gid] = f"input, position {position}: {token!r}"


def _outputs(
    pen: Pen, circuit: Circuit, name: str, grid: Grid, outputs: set[int], expected: Sequence[str]
) -> None:
    """Turned tokens start at the nodes below them; those that are not the answer are muted, and silence is blank."""
    place: dict[str, Any] = {"rotation": 90, "ha": "left"} if grid.labels.turned else {"ha": "center"}
    y = grid.output_y - (grid.labels.height / 2 if grid.labels.turned else 0)
    for position, (token, wanted) in enumerate(zip(circuit.answers[0], expected, strict=True)):
        if token == wanted == "" and (position not in outputs or not any(circuit.answers[0])):
            continue  # a classifier answers at its outputs alone, an encoder nowhere
        gid, style = f"{name}-output-{position}", {"color": INK if position in outputs else MUTED, **place}
        pen.figure.notes[gid] = f"output, position {position}: {token!r}"
        if token != wanted:
            style["bbox"] = {"boxstyle": "square,pad=0.12", "fill": False, "linewidth": 0.6}
            pen.figure.notes[gid] += f", where the base model says {wanted!r}"
        pen.text(grid.x(position), y, pen.look.label(token), grid.labels.size, gid=gid, **style)


def _nodes(pen: Pen, name: str, grid: Grid, lines: Sequence[Line], outputs: set[int]) -> None:
    """The grid of positions and rows over their residual streams; what live edges use of them is darker."""
    nodes = [(position, row) for position in range(grid.n_tokens) for row in range(grid.n_layers + 1)]
    carried = layout.carried_rows(lines, outputs, grid.n_layers)
    whole = dict.fromkeys(range(grid.n_tokens), (0, grid.n_layers))
    for kind, spans, color, width in (("stream", whole, GUIDE, 0.5), ("carried", carried, CARRIED, 0.7)):
        for position, (low, high) in spans.items():
            style = {"color": color, "linewidth": width, "zorder": 1, "gid": f"{name}-{kind}-{position}"}
            pen.line([grid.x(position)] * 2, [grid.y(low), grid.y(high)], **style)
    live = [line for line in lines if line.live]
    used = {(line.key, line.layer) for line in live} | {(line.query, line.layer + 1) for line in live}
    for kind, color in (("nodes-offpath", "#bdbdbd"), ("nodes", "#333333")):
        spots = [node for node in nodes if (node in used) == (kind == "nodes")]
        xs, ys = [grid.x(position) for position, _ in spots], [grid.y(row) for _, row in spots]
        pen.line(xs, ys, gid=f"{name}-{kind}", color=color, zorder=4, **DOTS)


def _units(pen: Pen, circuit: Circuit, name: str, grid: Grid) -> None:
    """Heads as squares, dark where open, and the neurons that are left as a bar, beside the edges of each layer."""
    squares = layout.Squares.of(circuit.n_heads, grid.row_pitch)
    left = grid.right - Grid.GAP - squares.width
    rows = math.ceil(circuit.n_heads / squares.columns)
    style: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 0.72 * squares.step * POINTS}
    for layer, heads in enumerate(circuit.left.heads(circuit.n_layers, circuit.n_heads)):
        middle = (grid.y(layer) + grid.y(layer + 1)) / 2
        top = middle + (rows * squares.step + 0.27 * grid.row_pitch * bool(circuit.left.neurons)) / 2
        for opened, color in ((True, OPEN_UNIT), (False, CLOSED_UNIT)):
            here = [head for head, state in enumerate(heads) if state == opened]
            if not here:
                continue
            xs, ys = zip(*((left + x, top - y) for x, y in map(squares.at, here)), strict=True)
            gid, state = (
                f"{name}-{'heads' if opened else 'closedheads'}-{layer}",
                "open" if opened else "closed",
            )
            note = f"layer {layer}: head{'s' * (len(here) > 1)} {', '.join(map(str, here))} {state}"
            pen.line(xs, ys, gid=gid, note=note, color=color, markeredgewidth=0.0, **style)
        if circuit.left.neurons:
            place = left, top - rows * squares.step - 0.2 * grid.row_pitch, squares.width
            _neurons(pen, *circuit.left.neurons[layer], place, 0.14 * grid.row_pitch, f"{name}-{{}}-{layer}")


def _neurons(
    pen: Pen, kept: int, whole: int, place: tuple[float, float, float], thick: float, gid: str
) -> None:
    """A bar at (x, y, width): a layer's neurons pale, those that are left dark; of any that are, at least a tick."""
    (x, y, width), style = place, {"linewidth": min(2.6, thick * POINTS), "solid_capstyle": "butt"}
    note = f"layer {gid.rpartition('-')[2]}: {kept:,} of {whole:,} neurons left"
    ends = {
        "allneurons": (x + width, CLOSED_UNIT),
        "neurons": (x + max(0.012, width * kept / whole), OPEN_UNIT),
    }
    for what, (end, color) in ends.items():
        if kept or what == "allneurons":
            pen.line([x, end], [y, y], gid=gid.format(what), note=note, color=color, **style)


def _edge(pen: Pen, tokens: Sequence[str], name: str, grid: Grid, line: Line) -> None:
    t = layout.shade(line.weight, pen.look.strongest)
    style = {"color": blue(t), "linewidth": thickness(t), "zorder": 3, "solid_capstyle": "butt"}
    if not line.live:
        grey, dashes = GREYS(0.3 + 0.3 * t), (0, (3.0, 2.0))
        style |= {"color": grey, "linewidth": 0.3 + 0.6 * t, "linestyle": dashes, "zorder": 2}
    note = (
        f"layer {line.layer}: position {line.query} {tokens[line.query]!r} reads position {line.key} "
        f"{tokens[line.key]!r}, weight {line.weight:.3f}, head{'s' * (len(line.heads) > 1)} "
        f"{', '.join(map(str, line.heads))}{'' if line.live else '; never reaches the answer'}"
    )
    xs, ys = (grid.x(line.key), grid.x(line.query)), (grid.y(line.layer), grid.y(line.layer + 1))
    gid = f"{name}-{'edge' if line.live else 'offpath'}-{line.layer}-{line.query}-{line.key}"
    pen.line(xs, ys, gid=gid, note=note, **style)


def arrow_beside(pen: Pen, words: str, grids: Sequence[Grid]) -> None:
    """The curved arrow from the first panel to the last, with its words turned to run along it."""
    high, low = ((grid.top + grid.bottom) / 2 for grid in (grids[0], grids[-1]))
    x = grids[0].left - 0.03
    curve = FancyArrowPatch((x, high), (x, low), connectionstyle="arc3,rad=0.16", shrinkA=0, shrinkB=0)
    curve.set_arrowstyle("-|>", head_length=5, head_width=2.2)
    curve.set(mutation_scale=1, linewidth=1.3, color=INK, gid="arrow", clip_on=False)
    pen.axes.add_patch(curve)
    place: dict[str, Any] = {"rotation": 90, "ha": "center"}
    room = grids[0].top - grids[-1].bottom
    pen.text(0.08, (high + low) / 2, words, ARROW, gid="arrow-text", room=room, **place)


def key_below(pen: Pen, left: float, *, units: bool = False) -> None:
    """What light, dark and direction mean, and the squares and bars where there are some."""
    base = UNITS_KEY if units else 0.0
    x, y, step = left + 0.02, base + 0.2, 0.12
    muted: dict[str, Any] = {"color": MUTED}
    x += 0.04 + pen.text(x, y, "0", SMALL, gid="key-low", **muted)
    for index in range(5):
        t = index / 4
        pen.line([x, x + step], [y, y], gid=f"key-{index}", color=blue(t), linewidth=thickness(t))
        x += step
    high = f"{pen.look.strongest:.3g}" + (" or more" if pen.look.strongest < 1 else "")
    x += 0.12 + pen.text(x + 0.04, y, high, SMALL, gid="key-high", **muted)
    room = pen.look.width - 0.04
    words = "attention weight of the strongest head"
    pen.text(x, y, words, SMALL, gid="key-words", room=room - x, **muted)
    words = "Lines rise from what is read to what reads; grey: the residual stream."
    pen.text(left + 0.02, base + 0.08, words, SMALL, gid="key-direction", room=room - left, **muted)
    if units:
        words = "Squares: heads, grey if closed. Bars: neurons, dark what is left of each layer."
        pen.text(left + 0.02, 0.08, words, SMALL, gid="key-units", room=room - left, **muted)
