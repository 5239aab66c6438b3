"""What a figure at column width shows of any circuit: lines ranked, quiet layers folded; nothing is drawn here.

    line     (layer, query, key), the heads merged; its weight and its contribution are the largest of its heads
    ranked   the `most` live lines that move most (`Circuit.contribution`), or with the largest attention weight
    quiet    a layer without a ranked line
    band     one layer, or two and more quiet ones in a row, folded; the edges of band b rise from row b to row b + 1

Every open edge is in a line and every line in a band, so that nothing is left out: what is not ranked is a hairline.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from ...circuits.circuit import Circuit
from ...errors import require_choice, require_range
from .layout import Line, merged_lines

RANKS = ("contribution", "weight")
Place = tuple[int, int, int]  # layer, query, key


class Numbers(NamedTuple):
    """What a caption says of one panel.

    Attributes:
        open, visible: edges, as (layer, head, query, key).
        live: open edges on a path to the answer.
        open_heads, heads: heads with an open edge on this prompt, and all of them.
        lines, ranked: after merging heads, and those of them that are set off.
        answers: what the model says at the output positions; empty where outputs are no tokens.
    """

    open: int
    visible: int
    live: int
    open_heads: int
    heads: int
    lines: int
    ranked: int
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Ranked:
    """A one-prompt circuit, ready to be drawn.

    Attributes:
        bands: the layers of each band, from the input to the output.
        rest: lines that are hairlines, with the band in place of the layer, few heads to many.
        busy: the layers that have a ranked line.
        strong: (line, its band) of those that are ranked, weak to strong.
    """

    circuit: Circuit
    bands: tuple[range, ...]
    busy: frozenset[int]
    rest: list[Line]
    strong: list[tuple[Line, int]]
    numbers: Numbers

    @classmethod
    def of(cls, circuit: Circuit, most: int, by: str, *, answers: bool = True) -> Ranked:
        """Rank and fold a circuit of one prompt.

        Args:
            most: how many lines are ranked.
            by: contribution or weight.
            answers: whether outputs are tokens.
        Raises: `GossamerError` for another measure than those of `RANKS`,.
        """
        require_range("most", most, 1, 10_000)
        require_choice("by", by, RANKS)
        lines = merged_lines(circuit)
        moved = strongest(circuit, getattr(circuit, by))
        live = [line for line in lines if line.live]
        chosen = {line[:3] for line in sorted(live, key=lambda line: (-moved[line[:3]], line))[:most]}
        busy = frozenset(layer for layer, _, _ in chosen)
        bands = fold(busy, circuit.n_layers)
        band_of = {layer: band for band, layers in enumerate(bands) for layer in layers}
        strong = [(line, band_of[line.layer]) for line in lines if line[:3] in chosen]
        rest = [line._replace(layer=band_of[line.layer]) for line in lines if line[:3] not in chosen]
        numbers = _numbers(circuit, len(lines), len(strong), answers)
        return cls(circuit, bands, busy, _merged(rest), strong, numbers)

    def on_path(self) -> list[Line]:
        """The live lines, with the band in place of the layer."""
        strong = [line._replace(layer=band) for line, band in self.strong]
        return [line for line in (*self.rest, *strong) if line.live]

    def as_record(self) -> dict[str, Any]:
        """The caption's numbers and the ranked lines, strongest last, as plain values."""
        lines = [
            {
                "layer": x.layer,
                "heads": list(x.heads),
                "query": x.query,
                "key": x.key,
                "weight": round(x.weight, 6),
            }
            for x, _ in self.strong
        ]
        numbers = {**self.numbers._asdict(), "answers": list(self.numbers.answers)}
        folded = [[band[0], band[-1]] for band in self.bands if len(band) > 1]
        return {**numbers, "folded_layers": folded, "ranked_lines": lines}


def strongest(circuit: Circuit, values: np.ndarray) -> dict[Place, float]:
    """The largest value of the heads of each (layer, query, key)."""
    if not len(circuit):
        return {}
    places, which = np.unique(
        np.stack([circuit.layer, circuit.query, circuit.key], 1), axis=0, return_inverse=True
    )
    most = np.full(len(places), -np.inf)
    np.maximum.at(most, which.reshape(-1), values)
    return {
        (layer, query, key): float(x) for (layer, query, key), x in zip(places.tolist(), most, strict=True)
    }


def fold(busy: Collection[int], n_layers: int) -> tuple[range, ...]:
    """The layers in bands: each busy one alone, and neighbouring quiet ones together."""
    bands: list[range] = []
    for loud, layers in groupby(range(n_layers), key=lambda layer: layer in busy):
        members = list(layers)
        whole = range(members[0], members[-1] + 1)
        bands += [range(layer, layer + 1) for layer in members] if loud else [whole]
    return tuple(bands)


def _merged(lines: list[Line]) -> list[Line]:
    """One line for each (band, query, key): that of most heads, a live one before one that reaches nothing."""
    best = {line[:3]: line for line in sorted(lines, key=lambda line: (line.live, len(line.heads)))}
    return sorted(best.values(), key=lambda line: (len(line.heads), line))


def _numbers(circuit: Circuit, lines: int, ranked: int, answers: bool) -> Numbers:
    heads = len({*zip(circuit.layer.tolist(), circuit.head.tolist(), strict=True)})
    said = tuple(circuit.answers[0][position] for position in sorted(circuit.outputs) if answers)
    return Numbers(
        open=len(circuit), visible=sum(circuit.visible), live=int(circuit.live_mask().sum()), open_heads=heads,
        heads=circuit.n_layers * circuit.n_heads, lines=lines, ranked=ranked, answers=said,
    )  # fmt: skip
