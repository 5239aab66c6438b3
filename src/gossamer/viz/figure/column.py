"""A dense model above a sparse one in a column of a paper, whatever the number of layers and heads.

What a line is. One line per (layer, query, key), the heads merged. The lines that move most are blue, darkness and
width by the attention weight of the strongest head, on one scale for both panels; every other open edge is a grey
hairline, darker with the number of heads, so that the ink goes with the number of edges. A line rises from the
position that is read to the one that reads, in the band that names its layer. Bands of layers without a blue line are
flat, and neighbouring ones are one band.

What a number is. Counts are of (layer, head, query, key), before any merging. `captions` says them as text.

Ids are those of `figure`: `sparse-edge-2-7-3` (layer, query, key), `sparse-rest` for the hairlines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from ...circuits.circuit import Circuit
from ...errors import refuse
from . import layout
from .layout import POINTS, WHITESPACE, Labels
from .panel import CARRIED, GREYS, GUIDE, INK, MUTED, Look, Pen, blue, thickness
from .paper import CircuitFigure, house_style
from .ranked import Ranked

COLUMN = 3.3  # inches
SPACE = WHITESPACE[" "]
TITLE, SMALL, LEAST = 7.5, 5.5, 5.0  # points
EDGE, GAP, HEAD, KEY, BETWEEN = 0.02, 0.05, 0.26, 0.30, 0.07  # inches
BAND, LOWEST, QUIET, ROOM = (
    0.2,
    0.10,
    0.07,
    1.4,
)  # inches: a layer, the least of one, a quiet one, all bands together
HAIR = (0.15, 0.45)  # points, of a line of no head and of one of all heads, where it is not ranked
PALE, DARK = 0.16, 0.34  # the greys of the same two, of matplotlib's Greys: ink goes with the number of edges
ROOMY = 0.2  # inches between tokens below which blue lines are thinner, down to half at nothing
RUN = re.compile(f"({SPACE})\\1{{2,}}")


@dataclass(frozen=True)
class Place:
    """Where one panel's things are, in inches from the lower left corner of the figure."""

    left: float
    right: float
    bottom: float
    rows: tuple[float, ...]  # heights of the rows above that of the input
    labels: Labels
    above: Labels
    n_tokens: int

    @property
    def pitch(self) -> float:
        """Between the middles of two tokens."""
        return (self.right - self.left) / self.n_tokens

    @property
    def base(self) -> float:
        """Height of the row of the input."""
        return self.bottom + self.labels.height + GAP

    def x(self, position: int) -> float:
        """Middle of a token's column."""
        return self.left + (position + 0.5) * self.pitch

    def y(self, row: int) -> float:
        """Height of a row; band b lies between the rows b and b + 1."""
        return self.base + self.rows[row]

    @property
    def top(self) -> float:
        """Upper end of the panel."""
        return self.y(len(self.rows) - 1) + GAP + self.above.height + HEAD


def draw_column(
    *circuits: Circuit,
    prompt: int = 0,
    width: float = COLUMN,
    most: int = 40,
    by: str = "contribution",
    titles: Sequence[str] = ("Dense", "Sparse"),
    answers: bool = True,
    font: str = "DejaVu Sans",
) -> CircuitFigure:
    """The figure for one prompt at the width of a column: the first circuit above, the second, if any, below.

    Args:
        circuits: one or two, traced on the same prompts.
        prompt: which of the prompts.
        width: inches. The height follows from what is left: about 3.8 for twelve layers.
        most: how many lines of each panel are set off.
        by: what ranks them, contribution (what an edge adds to the residual stream) or weight.
        titles: of the panels, from above.
        answers: whether outputs are tokens, and so are written above the positions that answer.
        font: a family that matplotlib finds and that has your script.
    Returns: the figure, neither shown nor saved; `captions` of its circuits says its numbers as text.
    Raises: `GossamerError` if the circuits are on different prompts, or the tokens do not fit `width`.
    """
    drawn = ranked(*circuits, prompt=prompt, most=most, by=by, answers=answers)
    look = Look(width, 1.0, font, False)
    titles = [look.words(title, "bold") for title in titles[: len(drawn)]]
    names = ("dense", "sparse") if len(drawn) > 1 else ("circuit",)
    with house_style(**{"font.family": look.font}):
        bottom, places, names_end = KEY, [], _gutter(drawn, look)
        for one in reversed(drawn):
            places.insert(0, _place(one, names_end, bottom, look))
            bottom = places[0].top + BETWEEN
        pen = Pen(CircuitFigure(width=width, height=bottom - BETWEEN + EDGE), look)
        for one, name, title, place in zip(drawn, names, titles, places, strict=True):
            _panel(pen, one, name, title, place, drawn[0].numbers.answers)
        _key(pen, drawn, by)
    pen.figure.title = " and ".join(titles)
    pen.figure.description = " ".join(captions(drawn, titles))
    return pen.figure


def ranked(
    *circuits: Circuit, prompt: int = 0, most: int = 40, by: str = "contribution", answers: bool = True
) -> list[Ranked]:
    """What `draw_column` draws of its circuits, with the numbers of the caption."""
    if len(circuits) not in (1, 2):
        raise refuse(f"{len(circuits)} circuits", "one, or a dense and a sparse one", "pass one or two")
    found = [Ranked.of(circuit.of_prompt(prompt), most, by, answers=answers) for circuit in circuits]
    if found[0].circuit.tokens != found[-1].circuit.tokens:
        shown = " and ".join(repr(" ".join(one.circuit.tokens[0])[:40]) for one in found)
        expected, fix = "one prompt for both", "trace both models on the same prompts"
        raise refuse(f"circuits on different prompts: {shown}", expected, fix)
    return found


def captions(drawn: Sequence[Ranked], titles: Sequence[str] = ("Dense", "Sparse")) -> Iterator[str]:
    """A caption's sentences, one a panel: counts, where they are, and what the model says."""
    for one, title in zip(drawn, titles, strict=False):
        n = one.numbers
        said = f" The answer is {', '.join(map(repr, n.answers))}." if n.answers else ""
        yield (
            f"{title}: {layout.count_caption(one.circuit)}, in {n.open_heads:,} of {n.heads:,} heads; {n.live:,} of "
            f"them on a path to the answer. {n.ranked:,} of {n.lines:,} lines are blue, heads merged.{said}"
        )


def _gutter(drawn: Sequence[Ranked], look: Look) -> float:
    """Where the names of layers end, the same in all panels, so that their columns of tokens are one."""
    names = [_name(band) for one in drawn for band in one.bands]
    return EDGE + 0.13 + max(map(look.measure, names)) * LEAST / POINTS


def _label(look: Look, token: str) -> str:
    """A token as it is printed, a run of spaces as their number."""
    shown = layout.visible_text(token, look.has_glyph)
    return layout.abbreviated(RUN.sub(lambda run: f"{SPACE}×{len(run[0])}", shown))  # noqa: RUF001


def _place(one: Ranked, left: float, bottom: float, look: Look) -> Place:
    tokens, right = one.circuit.tokens[0], look.width - EDGE
    widest = max(look.measure(_label(look, token)) for token in tokens)
    labels = layout.fit_labels(widest, len(tokens), look.width, frame=left + EDGE)
    said = one.numbers.answers
    above = Labels(SMALL, False, 1.3 * SMALL / POINTS if said else 0.0)
    if len(said) > 1:
        widest = max(look.measure(_label(look, answer)) for answer in said)
        above = layout.fit_labels(widest, len(tokens), look.width, frame=left + EDGE)
    busy = len(one.busy)
    pitch = max(LOWEST, min(BAND, (ROOM - QUIET * (len(one.bands) - busy)) / max(1, busy)))
    rows = [0.0]
    for band in one.bands:
        rows.append(rows[-1] + (pitch if band[0] in one.busy else QUIET))
    return Place(left, right, bottom, tuple(rows), labels, above, len(tokens))


def _name(band: range) -> str:
    return str(band[0]) if len(band) == 1 else f"{band[0]}–{band[-1]}"  # noqa: RUF001


def _panel(pen: Pen, one: Ranked, name: str, title: str, place: Place, expected: tuple[str, ...]) -> None:
    top = place.top - 0.07
    used = pen.text(EDGE, top, title, TITLE, gid=f"{name}-title", weight="bold", room=0.4 * pen.look.width)
    n = one.numbers
    words = f"{n.live:,} on a path to the answer, in {n.open_heads:,} of {n.heads:,} heads"
    for i, (what, line) in enumerate((("count", layout.count_caption(one.circuit)), ("live", words))):
        style: dict[str, Any] = {"ha": "right", "color": MUTED, "gid": f"{name}-{what}"}
        pen.text(place.right, top - 0.095 * i, line, SMALL, room=place.right - used - 0.1, **style)
    _bands(pen, one, name, place)
    _tokens(pen, one.circuit, name, place)
    if expected:
        _answers(pen, one, name, place, expected)
    _lines(pen, one, name, place)


def _bands(pen: Pen, one: Ranked, name: str, place: Place) -> None:
    """The names of layers, a tint behind what is folded, and the residual streams."""
    for row, band in enumerate(one.bands):
        low, high = place.y(row), place.y(row + 1)
        if band[0] not in one.busy:
            size = (place.right - place.left, high - low)
            tint = Rectangle((place.left, low), *size, facecolor="#f1f1f1", linewidth=0, zorder=0)
            tint.set_gid(f"{name}-fold-{band[0]}-{band[-1]}")
            pen.axes.add_patch(tint)
        style: dict[str, Any] = {"ha": "right", "color": MUTED, "gid": f"{name}-layer-{band[0]}"}
        pen.text(place.left - 0.03, (low + high) / 2, _name(band), LEAST, **style)
    middle = (place.y(0) + place.y(len(one.bands))) / 2
    pen.text(EDGE + 0.03, middle, "layer", LEAST, ha="center", rotation=90, color=MUTED, gid=f"{name}-layers")
    carried = layout.carried_rows(one.on_path(), one.circuit.outputs, len(one.bands))
    whole = dict.fromkeys(range(place.n_tokens), (0, len(one.bands)))
    for kind, spans, color, breadth in (("stream", whole, GUIDE, 0.4), ("carried", carried, CARRIED, 0.6)):
        for position, (low, high) in spans.items():
            style = {"color": color, "linewidth": breadth, "zorder": 1, "gid": f"{name}-{kind}-{position}"}
            pen.line([place.x(position)] * 2, [place.y(low), place.y(high)], **style)


def _tokens(pen: Pen, circuit: Circuit, name: str, place: Place) -> None:
    labels, y = place.labels, place.base - GAP
    turn: dict[str, Any] = {"rotation": 90, "ha": "right"} if labels.turned else {"ha": "center"}
    y -= 0 if labels.turned else labels.height / 2
    for position, token in enumerate(circuit.tokens[0]):
        gid = f"{name}-input-{position}"
        pen.text(place.x(position), y, _label(pen.look, token), labels.size, gid=gid, **turn)
        pen.figure.notes[gid] = f"input, position {position}: {token!r}"


def _answers(pen: Pen, one: Ranked, name: str, place: Place, expected: tuple[str, ...]) -> None:
    """What the model says above the positions that answer; boxed where the first panel says something else."""
    labels, outputs = place.above, sorted(one.circuit.outputs)
    y = place.y(len(one.bands)) + GAP
    turn: dict[str, Any] = {"rotation": 90, "ha": "left"} if labels.turned else {"ha": "center"}
    y += 0 if labels.turned else labels.height / 2
    for position, answer, wanted in zip(outputs, one.numbers.answers, expected, strict=True):
        gid, style, x = f"{name}-output-{position}", dict(turn), place.x(position)
        pen.figure.notes[gid] = f"output, position {position}: {answer!r}"
        words = _label(pen.look, answer)
        if len(outputs) == 1:  # it may be wider than its column
            x = min(x, place.right - pen.look.measure(words) * labels.size / POINTS / 2 - 0.02)
        if answer != wanted:
            style["bbox"] = {"boxstyle": "square,pad=0.12", "fill": False, "linewidth": 0.6}
            pen.figure.notes[gid] += f", where the first panel has {wanted!r}"
        pen.text(x, y, words, labels.size, gid=gid, color=INK, **style)


def _lines(pen: Pen, one: Ranked, name: str, place: Place) -> None:
    """Hairlines as one artist, then a line for each ranked one, with its tooltip."""
    ends = [[(place.x(x.key), place.y(x.layer)), (place.x(x.query), place.y(x.layer + 1))] for x in one.rest]
    shares = [len(x.heads) / one.circuit.n_heads for x in one.rest]
    greys = [GREYS(PALE + DARK * share) for share in shares]
    widths = [HAIR[0] + (HAIR[1] - HAIR[0]) * share for share in shares]
    rest = LineCollection(ends, colors=greys, linewidths=widths, zorder=2, gid=f"{name}-rest", clip_on=False)
    pen.axes.add_collection(rest, autolim=False)
    tokens, thin = one.circuit.tokens[0], 0.5 + 0.5 * min(1.0, place.pitch / ROOMY)
    for line, band in one.strong:
        t = layout.shade(line.weight, pen.look.strongest)
        note = (
            f"layer {line.layer}: position {line.query} {tokens[line.query]!r} reads position {line.key} "
            f"{tokens[line.key]!r}, weight {line.weight:.3f}, head{'s' * (len(line.heads) > 1)} "
            f"{', '.join(map(str, line.heads))}"
        )
        xs, ys = (place.x(line.key), place.x(line.query)), (place.y(band), place.y(band + 1))
        style = {"color": blue(t), "linewidth": thin * thickness(t), "zorder": 3, "solid_capstyle": "butt"}
        pen.line(xs, ys, gid=f"{name}-edge-{line.layer}-{line.query}-{line.key}", note=note, **style)


def _key(pen: Pen, drawn: Sequence[Ranked], by: str) -> None:
    """What blue, grey, dark and folded mean."""
    x, y, step = EDGE, 0.2, 0.1
    muted: dict[str, Any] = {"color": MUTED}
    x += 0.03 + pen.text(x, y, "0", SMALL, gid="key-low", **muted)
    for i in range(5):
        pen.line([x, x + step], [y, y], gid=f"key-{i}", color=blue(i / 4), linewidth=thickness(i / 4))
        x += step
    x += 0.09 + pen.text(x + 0.03, y, "1", SMALL, gid="key-high", **muted)
    counts = sorted({one.numbers.ranked for one in drawn})
    most = "the lines" if not counts[-1] else f"the {' or '.join(f'{n:,}' for n in counts)} lines"
    what = "that move most" if by == "contribution" else "of the largest weight"
    room = pen.look.width - 2 * EDGE
    pen.text(x, y, f"attention weight; blue: {most} {what}", SMALL, gid="key-words", room=room - x, **muted)
    grey = "Grey: other open edges, darker with more heads. Flat: layers without blue."
    pen.text(EDGE, 0.08, grey, SMALL, gid="key-grey", room=room, **muted)
