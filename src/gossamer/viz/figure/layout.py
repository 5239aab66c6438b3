"""What the figure shows and where: lines, shades, words and inches; nothing is drawn here.

    line      (layer, query, key), the heads merged: weight = max over heads of the edge's softmax weight
    rows      row 0 is the residual stream at the input, row l + 1 the stream after layer l
    an edge   of layer l rises from (key, row l), which is read, to (query, row l + 1), which reads
    shade     t = weight / strongest in [0, 1]  ->  single-hue blue, luminance falling with t, and line width

The maximum, since a line should be as dark as the strongest thing it stands for: a mean would fade one sharp
head among those that hardly read, and a sum could pass 1. Shade and width say the same, so grey print and colour-blind
readers lose nothing. Lengths are in inches, font sizes in points.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ...circuits.circuit import Circuit
from ...errors import refuse

POINTS = 72.0  # per inch
TOKEN_SIZE, SMALLEST_UPRIGHT, SMALLEST = 7.0, 5.0, 4.0  # points; print below 4 is not legible (assumed)
LONGEST_LABEL = 12  # characters of a token that are shown; the SVG's tooltip has them all
WHITESPACE = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}
UNSHOWN = "□"  # control, bidirectional override, unassigned, or not in the font


class Line(NamedTuple):
    """The open edges of one (layer, query, key), merged."""

    layer: int
    query: int
    key: int
    weight: float  # of the strongest head
    heads: tuple[int, ...]
    live: bool  # on a path into the circuit's outputs; depends on layer and query, so all heads agree


def merged_lines(circuit: Circuit) -> list[Line]:
    """A one-prompt circuit's lines in drawing order: those that reach nothing, then weak to strong."""
    found: dict[tuple[int, int, int], Line] = {}
    columns = (circuit.layer, circuit.query, circuit.key, circuit.weight, circuit.head, circuit.live_mask())
    for layer, query, key, weight, head, live in zip(*(column.tolist() for column in columns), strict=True):
        old = found.get((layer, query, key), Line(layer, query, key, weight, (), live))
        heads = tuple(sorted({head, *old.heads}))
        found[layer, query, key] = old._replace(weight=max(weight, old.weight), heads=heads)
    return sorted(found.values(), key=lambda line: (line.live, line.weight, line))


def carried_rows(lines: Iterable[Line], outputs: Iterable[int], n_layers: int) -> dict[int, tuple[int, int]]:
    """Position -> (lowest, highest) row between which its residual stream carries what live edges move.

    A position is carried from its first writing, or from the input if it is read before it is written, up to
    its last reading, or to the top if it is a written output.
    """
    never = n_layers + 1
    first_write, first_read, last_read = {}, {}, {}
    for line in sorted(line for line in lines if line.live):
        first_write.setdefault(line.query, line.layer + 1)
        first_read.setdefault(line.key, line.layer)
        last_read[line.key] = line.layer
    last_read |= dict.fromkeys(first_write.keys() & set(outputs), n_layers)
    spans = {}
    for position, high in sorted(last_read.items()):
        written = first_write.get(position, never)
        low = 0 if first_read.get(position, never) < written else written
        if low < high:
            spans[position] = (low, high)
    return spans


def shade(weight: float, strongest: float) -> float:
    """t in [0, 1] of a weight; `strongest` and everything above it is darkest."""
    return min(1.0, max(0.0, weight / strongest))


def count_caption(circuit: Circuit) -> str:
    """`7 of 1,936 attention edges open (0.4 %)`: edges are (layer, head, query, key), before any merging.

    Of a dense model every edge is open; where `trace` listed some of them, the caption says which.
    """
    count, visible = len(circuit), sum(circuit.visible)
    threshold, top_k = circuit.meta.get("threshold"), circuit.meta.get("top_k")
    which = f"of weight {threshold:g} or more" if threshold else "open"
    which += f", the {top_k} strongest of each query" if top_k else ""
    text = f"{count:,} of {visible:,} attention edges {which}"
    if count == visible:
        return text
    percent = min(99.9, 100.0 * circuit.density)
    return f"{text} ({percent:.1f} %)" if percent >= 0.05 or not count else f"{text} ({percent:.1g} %)"


def off_path_caption(off_path: int, *, drawn: bool) -> str:
    """How many of the open edges reach no output, and whether they are drawn; empty if there are none."""
    if not off_path:
        return ""
    fate = "reaches" if off_path == 1 else "reach"
    return f"{off_path:,} of them never {fate} the answer ({'dashed' if drawn else 'not drawn'})"


def describe(circuit: Circuit, title: str) -> str:
    """A panel in words, for those who cannot see it."""
    rows = (circuit.tokens[0], circuit.answers[0])
    inputs, outputs = (
        " ".join(visible_text(token, lambda _: True) for token in row if token) for row in rows
    )
    off_path = off_path_caption(int((~circuit.live_mask()).sum()), drawn=True).partition(" (")[0]
    counts = ", ".join(filter(None, (count_caption(circuit), off_path, circuit.units_in_words())))
    return f"{title}: input {inputs}; output {outputs or 'without words'}; {counts}."


def visible_text(token: str, has_glyph: Callable[[str], bool]) -> str:
    """A token as it is printed: whitespace as signs, what cannot be shown as a box."""

    def sign(char: str) -> str:
        if char in WHITESPACE:
            return WHITESPACE[char]
        shown = unicodedata.category(char)[0] not in "CZ" and has_glyph(char)
        return char if shown else UNSHOWN

    return "".join(map(sign, token)) or WHITESPACE[""]


def abbreviated(text: str) -> str:
    """The start and the end of a long token."""
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 5]}…{text[-4:]}"


@dataclass(frozen=True)
class Labels:
    """How tokens are set: upright if they fit side by side, else turned by 90 degrees; one size for all."""

    size: float  # points
    turned: bool
    height: float  # inches that a row of them needs


def fit_labels(widest: float, n_tokens: int, width: float, *, frame: float) -> Labels:
    """The largest setting in which neighbours do not touch.

    Args:
        widest: width of the widest token, in points per point of font size.
        width, frame: inches of the figure, and those of them that are not columns of tokens.
    Raises: `GossamerError` with the width that would do, if no legible size fits.
    """
    pitch, least = (width - frame) / n_tokens, 1.2 * SMALLEST / POINTS
    upright = min(TOKEN_SIZE, 0.85 * pitch * POINTS / widest)
    if upright >= SMALLEST_UPRIGHT:
        return Labels(upright, False, 1.25 * upright / POINTS)
    if pitch < least:
        raise refuse(
            f"{n_tokens} tokens side by side on {width:.1f} in",
            f"up to {max(0, int((width - frame) / least))}, so that they can be read",
            f"pass a width of at least {frame + least * n_tokens + 0.05:.1f}, or draw a shorter prompt",
        )
    turned = min(TOKEN_SIZE, pitch * POINTS / 1.2)
    return Labels(turned, True, widest * turned / POINTS + 0.03)


@dataclass(frozen=True)
class Grid:
    """Where one panel's things are, in inches from the lower left corner of the figure."""

    left: float
    right: float
    bottom: float
    row_pitch: float
    gutter: float  # width of the column of row names
    labels: Labels
    n_layers: int
    n_tokens: int
    strip: float = 0.0  # width of the column of heads and neurons

    PAD, GAP, HEAD = 0.06, 0.065, 0.25

    def x(self, position: int) -> float:
        """Centre of a token's column."""
        start = self.left + self.gutter
        return start + (position + 0.5) * (self.right - self.GAP - self.strip - start) / self.n_tokens

    def y(self, row: int) -> float:
        """Height of a row of nodes; row 0 is the input."""
        return self.bottom + self.PAD + self.labels.height + self.GAP + row * self.row_pitch

    @property
    def input_y(self) -> float:
        """Middle of the row of input tokens."""
        return self.y(0) - self.GAP - self.labels.height / 2

    @property
    def output_y(self) -> float:
        """Middle of the row of output tokens."""
        return self.y(self.n_layers) + self.GAP + self.labels.height / 2

    @property
    def top(self) -> float:
        """Upper edge of the panel."""
        return self.y(self.n_layers) + self.GAP + self.labels.height + self.HEAD


class Squares(NamedTuple):
    """How a layer's heads stand beside it: squares in rows, the neurons that are left as a bar below.

    Attributes:
        columns, step: squares in a row, and inches from one to the next.
        width: inches of a row, and of the bar.
    """

    columns: int
    step: float
    width: float

    @classmethod
    def of(cls, n_heads: int, pitch: float) -> Squares:
        """About four times as wide as high, so that rows and a bar fit between two rows of nodes."""
        columns = math.ceil((4 * n_heads) ** 0.5)
        rows = math.ceil(n_heads / columns)
        step = min(0.075, 0.44 * pitch / rows)
        return cls(columns, step, max(0.3, columns * step))

    def at(self, head: int) -> tuple[float, float]:
        """Centre of a head's square, in inches to the right of and below the first row's upper left corner."""
        row, column = divmod(head, self.columns)
        return (column + 0.5) * self.step, (row + 0.5) * self.step


def row_pitch(n_layers: int, width: float) -> float:
    """Inches between rows: 0.31 for up to six layers at 3.4 in, then closer, so that it fits a page."""
    return max(0.14, min(0.31, 1.86 / max(1, n_layers))) * max(1.0, width / 3.4) ** 0.5


def row_names(n_layers: int) -> list[str]:
    """The words beside the rows, from bottom to top: a layer's edges end in the row that bears its name."""
    return ["input", *(f"Layer {layer}" for layer in range(n_layers)), "output"]
