"""How circuits show themselves in a notebook: a static figure always, the interactive page on request.

Untrusted notebooks, GitHub and nbviewer drop scripts, so what a cell shows by itself is inline SVG with ids
of its own, and a PNG beside it for front ends that show neither. The interactive page comes as `<iframe
srcdoc>`: a document of its own, of fixed height, since some front ends shrink a frame that asks for a share
of the cell.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_text
from ..models.run_report import RunReport
from .report.page import report_body
from .viewer import view as as_page

if TYPE_CHECKING:
    from ..circuits.circuit import Circuit
    from ..circuits.verify import Verification

FRAME_HEIGHT = 820  # pixels; both panels, the readout and the controls at 1,000 pixels of width
WIDEST = 24.0  # inches of a static figure; longer prompts are told in words
MOST_EDGES = 20_000  # of a static figure: beyond, a cell would hold megabytes of lines on top of one another
SHOWN_PROMPT = 0


@dataclass(frozen=True)
class Page:
    """An interactive page: `save` it, or let a notebook show it.

    Attributes:
        html: the whole page, as text.
        height: of the frame in a notebook, in pixels.
    """

    html: str
    height: int = FRAME_HEIGHT

    def save(self, path: Path | str) -> Path:
        """Write the page to a file that opens anywhere; returns the path."""
        write_text(Path(path), self.html)
        return Path(path)

    def _repr_html_(self) -> str:
        return as_frame(self.html, height=self.height)

    def __repr__(self) -> str:
        return f"Page of {len(self.html) / 1e6:.1f} MB: save(path) writes it, a notebook shows it"


def as_frame(page: str, *, height: int = FRAME_HEIGHT) -> str:
    """A page as an iframe of fixed height that needs no file and no server."""
    style = f"width:100%;height:{height}px;border:0"
    title = "Interactive attention circuits"
    return f'<iframe title="{title}" style="{style}" height="{height}" srcdoc="{html.escape(page)}"></iframe>'


def bundle(circuit: Circuit) -> dict[str, Any]:
    """The mimebundle of a circuit: SVG for pages, PNG for the rest, words for terminals."""
    figure = static_figure(circuit)
    if figure is None:
        return {"text/plain": in_words(circuit), "text/html": f"<p>{html.escape(in_words(circuit))}</p>"}
    return {
        "text/plain": in_words(circuit),
        "text/html": with_caption(figure._repr_html_(), circuit),
        "image/png": figure._repr_png_(),
    }


def run_report_bundle(report: RunReport) -> dict[str, Any]:
    """The mimebundle of a run's report: tables and words, without script or style sheet."""
    return {"text/plain": repr(report), "text/html": report_body(report)}


def verification_bundle(found: Verification) -> dict[str, Any]:
    """The mimebundle of a verification: tables for pages, its fields for terminals."""
    return {"text/plain": repr(found), "text/html": report_body(RunReport(proof=found.as_record()))}


def static_figure(circuit: Circuit) -> Any:
    """The figure of the first prompt, or None where there is none or it is too long to be read."""
    if not circuit.n_prompts:
        return None
    from .figure import draw_one

    width = max(3.4, min(WIDEST, 0.9 + 0.16 * len(circuit.tokens[SHOWN_PROMPT])))
    if (
        0.9 + 0.09 * len(circuit.tokens[SHOWN_PROMPT]) > WIDEST
        or circuit.per_prompt()[SHOWN_PROMPT] > MOST_EDGES
    ):
        return None
    return draw_one(circuit, prompt=SHOWN_PROMPT, width=width)


def with_caption(svg: str, circuit: Circuit) -> str:
    """A figure with the words below it."""
    words = html.escape(in_words(circuit))
    return (
        f'<figure style="margin:0;background:#fff;color:#111">{svg}<figcaption>{words}</figcaption></figure>'
    )


def in_words(circuit: Circuit) -> str:
    """What a circuit is, in one sentence."""
    more = "" if circuit.n_prompts < 2 else f", of which the figure shows the first of {circuit.n_prompts:,}"
    units = f", {circuit.units_in_words()}" if circuit.units_in_words() else ""
    return (
        f"Circuit of {circuit.n_layers} layers with {circuit.n_heads} heads: {circuit.mean_edges:,.1f} "
        f"open edges per prompt ({100 * circuit.density:.2g} % of those visible){units}{more}."
    )


def view(
    circuit: Circuit, base: Circuit | None = None, *, height: int = FRAME_HEIGHT, **options: Any
) -> Page:
    """The interactive page of a circuit, below its base circuit if there is one: to show in a notebook, or to save.

    Args:
        options: as for `gossamer.viz.viewer.view`.
    """
    circuits = [circuit] if base is None else [base, circuit]
    return Page(as_page(*circuits, **options), height)
