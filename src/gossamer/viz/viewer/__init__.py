"""The interactive page: both circuits of a prompt, in one HTML file that needs nothing else.

`view` shows circuits that were traced; `gossamer.recipes.addition.page.view_addition` holds every sum, and the
models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...circuits.circuit import Circuit, UnitsLeft
from ...errors import refuse
from ..report.left import units_left, units_of_circuit
from .pack import circuits
from .page import page

__all__ = ["view"]

MOST_EDGES = (
    300_000  # per panel; about 3.2 MB of page, and still redrawn smoothly (measured, docs/how-to/look.md)
)
Carries = Mapping[tuple[int, ...], str]


def view(
    base: Circuit | Sequence[Circuit],
    sparse: Circuit | Sequence[Circuit] | None = None,
    *,
    titles: Sequence[str] | None = None,
    title: str = "Attention circuits",
    edge_findings: Carries | None = None,
    places: Sequence[str] = (),
    most_edges: int = MOST_EDGES,
) -> str:
    """The page for one or two circuits on the same prompts, as text to write to an .html file.

    Args:
        base, sparse: traced on the same prompts; leave `sparse` out for a single panel, of whichever model. Several
            circuits of one model, one after another, where the outputs differ from prompt to prompt.
        titles: of the panels; "Base Model" and "Sparse Model" for two, "Circuit" for one.
        title: of the page.
        carries: (layer, head, query, key) or (layer, query, key) -> what that edge of the last panel's model
            carries, in words.
        places: what each position is, in words, where all prompts share that.
        most_edges: per panel; of a larger circuit those that reach the answer are kept, then the heaviest, and the
            page says so.

    Where one circuit was traced from a threshold on, all panels count edges from there on, and say so.
    Raises: `GossamerError` if the circuits are on different prompts.
    """
    sides = [_parts(side) for side in (base, sparse) if side is not None]
    tokens = [[row for part in side for row in part.tokens] for side in sides]
    if tokens[0] != tokens[-1]:
        raise refuse("circuits on different prompts", "one list of prompts", "trace both on the same")
    if not tokens[0]:
        raise refuse("a circuit without prompts", "one prompt or more", "trace the model on a prompt")
    least = max((float(part.meta.get("threshold", 0.0)) for side in sides for part in side), default=0.0)
    sides = [[part.select(part.weight >= least) for part in side] for side in sides]
    names = ("circuit",) if sparse is None else ("base", "sparse")
    titles = titles or (("Circuit",) if sparse is None else ("Base Model", "Sparse Model"))
    panels = [
        panel(name, words, parts, most=most_edges, least=least)
        for name, words, parts in zip(names, titles, sides, strict=False)
    ]
    data = page_data("prompts", panels, edge_findings=edge_findings, places=places)
    return page(data, title=title, left=left_of(data))


def _parts(side: Circuit | Sequence[Circuit]) -> list[Circuit]:
    return [side] if isinstance(side, Circuit) else list(side)


def panel(
    name: str, title: str, parts: Sequence[Circuit], *, most: int = MOST_EDGES, least: float = 0.0
) -> dict[str, Any]:
    """One panel of stored circuits of one model."""
    size, stored = (parts[0].n_layers, parts[0].n_heads), circuits(parts, most=most)
    return panel_data(name, title, size, parts[0].left, least=least, circuits=stored)


def panel_data(
    name: str,
    title: str,
    size: tuple[int, int],
    left: UnitsLeft,
    *,
    least: float = 0.0,
    circuits: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the scripts call PanelData; `size` is layers and heads."""
    closed, neurons = ([list(pair) for pair in pairs] for pairs in left)
    shape = {"layers": size[0], "heads": size[1], "least": least, "closed": closed, "neurons": neurons}
    return {"name": name, "title": title, **shape, "circuits": circuits, "model": model}


def left_of(data: dict[str, Any]) -> str:
    """The heads and neurons that are left of the last panel's model, drawn as in a report."""
    last = data["panels"][-1]
    left = UnitsLeft(*(tuple(map(tuple, last[name])) for name in ("closed", "neurons")))
    return units_left(units_of_circuit(left, last["layers"], last["heads"]))


def page_data(
    kind: str,
    panels: Sequence[dict[str, Any]],
    *,
    edge_findings: Carries | None = None,
    places: Sequence[str] = (),
    start: str = "",
    **more: Any,
) -> dict[str, Any]:
    """What the scripts call PageData."""
    spoken = {",".join(map(str, edge)): words for edge, words in (edge_findings or {}).items()}
    common = {"kind": kind, "panels": list(panels), "carries": spoken, "places": list(places), "start": start}
    return common | {"digits": 0, "vocabulary": [], "limits": {}} | more
