"""From a folder and a prompt to the figure of a paper: what `gossamer draw` runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..circuits.circuit import Circuit
from ..circuits.trace import trace_prompt
from ..data.prompts import Prompt, open_tokenizer, positions_of
from ..errors import refuse
from ..files import require_room
from ..models.attach import find_gate_sets
from ..models.head import Head
from ..training.counted import counted
from ..viz.figure.column import COLUMN, captions, draw_column, ranked
from ..viz.figure.paper import CircuitFigure, paths_of, save
from .folders import base_beside, model_in, open_model


@dataclass(frozen=True)
class Drawn:
    """A figure with its caption.

    Attributes:
        figure: as matplotlib has it; a notebook shows it.
        caption: one sentence a panel, with its counts.
        circuits: what was drawn, dense before sparse.
        files: where it was written.
    """

    figure: CircuitFigure
    caption: tuple[str, ...]
    circuits: tuple[Circuit, ...]
    files: tuple[Path, ...]
    panels: tuple[dict[str, Any], ...]

    def as_record(self) -> dict[str, Any]:
        """The caption and the numbers behind it, as plain values."""
        return {
            "files": [str(path) for path in self.files],
            "tokens": list(self.circuits[0].tokens[0]),
            "outputs": sorted(self.circuits[0].outputs),
            "caption": list(self.caption),
            "panels": list(self.panels),
        }

    def _repr_html_(self) -> str:
        return self.figure._repr_html_()


def draw_model(
    model: Path | str,
    prompt: str,
    *,
    base: Path | str | None = None,
    out: Path | str | Sequence[Path | str] | None = None,
    positions: Sequence[int] | None = None,
    width: float = COLUMN,
    most: int = 40,
    by: str = "contribution",
    dpi: float = 300,
) -> Drawn:
    """Draw what a model reads on one prompt, dense above sparse, for a column of a paper.

    Args:
        model: a gated checkpoint or the folder of its run; a dense one is drawn alone.
        prompt: a text; the tokenizer lies with either model.
        base: the dense model above a gated one; by default the one that the run's report names, or base/ beside it.
        out: a path that ends in .svg, .pdf or .png, or a stem for all three; None writes nothing.
        positions: token positions that answer, negative from the end; by default the last of a causal model, the
            masked ones of a masked one, and otherwise all.
        width, most, by: see `draw_column`.
        dpi: dots per inch of a PNG.
    Returns: the figure, its caption, and the circuits.
    Raises: `GossamerError` for bad input, before anything is written.
    """
    paths = [] if out is None else paths_of(out)
    for path in paths:
        require_room(path)
    folder = model_in(Path(model)) if Path(model).is_dir() else model
    last = open_model(folder)
    gated = bool(find_gate_sets(last))
    if base is not None and not gated:
        raise refuse(f"a base model above {model}, which is dense itself", "a gated model", "leave it out")
    first = base if base is not None or not gated else base_beside(Path(folder))
    models = [last] if first is None else [open_model(first), last]
    tokenizer = open_tokenizer(folder, *([] if first is None else [first]))
    asked = Prompt.of(prompt, tokenizer, most=positions_of(last))
    asked = replace(
        asked, outputs=_outputs(last, asked, tokenizer) if positions is None else tuple(positions)
    )
    circuits = [trace_prompt(one, asked) for one in counted(models, "models traced")]
    titles, language = ("Dense", "Sparse"), Head.of(last).language
    drawn = ranked(*circuits, most=most, by=by, answers=language)
    figure = draw_column(*circuits, width=width, most=most, by=by, titles=titles, answers=language)
    said = tuple(captions(drawn, titles))
    panels = tuple({"title": t, **one.as_record()} for t, one in zip(titles, drawn, strict=False))
    files = tuple(save(figure, paths, dpi=dpi))
    return Drawn(figure, said, tuple(circuits), files, panels)


def _outputs(model: PreTrainedModel, prompt: Prompt, tokenizer: Any) -> tuple[int, ...]:
    """The positions that answer where nobody said which."""
    if Head.of(model).causal:
        return prompt.outputs
    mask = tokenizer.mask_token_id
    masked = tuple((prompt.ids[0] == mask).nonzero().flatten().tolist()) if mask is not None else ()
    return masked or tuple(range(len(prompt)))
