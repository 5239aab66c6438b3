"""The figure losing its lines, from the first step to the last, as an animated GIF.

`Filmed` traces one prompt as the run goes and keeps a few hundred edges per frame; `film` draws the frames
when the run is over, so that filming costs a run one forward pass per frame and no drawing. Frames are
close together where much changes: at the beginning, in equal ratios of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor
from transformers import TrainerCallback

from ..circuits.circuit import Circuit
from ..circuits.trace import trace
from ..errors import refuse
from ..files import writing
from .figure import draw
from .figure.paper import house_style

FRAMES = 48  # assumed: four seconds at twelve frames a second, and then the last one rests
FRAME_MS, FIRST_MS, LAST_MS = 83, 1200, 3000
PAPER = 248  # of 255 in every channel: what is lighter is paper
COLOURS = 64  # of the palette; blues and greys need no more


class Frame(NamedTuple):
    """The circuit at a step."""

    step: int
    circuit: Circuit


class Filmed(TrainerCallback):
    """Trace `input_ids` at about `frames` steps of a run.

    Args:
        input_ids: (1, T) token ids of the prompt.
        text, outputs: as for `trace`.
        frames: how many at most; the steps are in equal ratios, so the early ones are close together.
    Attributes:
        frames: what was seen, in order.
    """

    def __init__(
        self,
        input_ids: Tensor,
        *,
        text: Callable[[Tensor], tuple[str, ...]] | None = None,
        outputs: Sequence[int] | None = None,
        frames: int = FRAMES,
    ) -> None:
        self.input_ids, self.text, self.outputs, self.most = input_ids, text, outputs, frames
        self.frames: list[Frame] = []
        self.due: set[int] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.due = frame_steps(state.max_steps, self.most)
        self._look(state.global_step, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step in self.due:
            self._look(state.global_step, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not self.frames or self.frames[-1].step != state.global_step:  # a run may be done early
            self._look(state.global_step, model)

    def _look(self, step: int, model: Any) -> None:
        model = getattr(model, "module", model)  # as data parallelism wraps it
        self.frames.append(Frame(step, trace(model, self.input_ids, text=self.text, outputs=self.outputs)))


def frame_steps(steps: int, frames: int) -> set[int]:
    """At most `frames` steps from 1 to `steps`, in equal ratios."""
    if steps < 1 or frames < 2:
        return {max(0, steps)}
    return {max(1, round(math.exp(math.log(steps) * i / (frames - 1)))) for i in range(frames)}


def film(
    base: Circuit, frames: Sequence[Frame], path: Path | str, *, dpi: float = 160, **options: Any
) -> Path:
    """Draw the frames below the base circuit and write them as a GIF that plays once through and starts
    again.

    Args:
        base: the base model's circuit on the same prompt; it stays the upper panel.
        frames: from `Filmed`.
        path: the .gif file.
        dpi: pixels per inch; 160 makes the column of a paper 544 pixels wide.
        options: passed to `draw`.
    Raises: `GossamerError` without frames, or where the file cannot be written.
    """
    if not frames:
        raise refuse("a film without frames", "one or more", "pass Filmed to the trainer as a callback")
    images = _same_size([_drawn(base, frame, dpi, options) for frame in frames])
    palette = _palette(images[0])  # one for all, so that nothing flickers
    still = [image.quantize(COLOURS, palette=palette, dither=Image.Dither.NONE) for image in images]
    duration = [FRAME_MS] * len(still)
    duration[0], duration[-1] = FIRST_MS, LAST_MS
    with writing(Path(path)) as temporary:
        still[0].save(
            temporary, format="GIF", save_all=True, append_images=still[1:], duration=duration, loop=0
        )
    return Path(path)


def _drawn(base: Circuit, frame: Frame, dpi: float, options: dict[str, Any]) -> Image.Image:
    titles = options.get("titles", ("Base Model", f"Sparse Model, step {frame.step:,}"))
    figure = draw(base, frame.circuit, **{**options, "titles": titles})
    buffer = BytesIO()
    with house_style():
        figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def _palette(image: Image.Image) -> Image.Image:
    """A palette of `COLOURS` in which all that is nearly white is white.

    Pillow looks colours up by coarse boxes, so white in the palette does not win against a near neighbour
    (measured, Pillow 13): the paper would become an off-white.
    """
    made = image.quantize(COLOURS)
    colours = made.getpalette() or []
    triples = [colours[i : i + 3] for i in range(0, len(colours), 3)]
    made.putpalette([x for triple in triples for x in ([255] * 3 if min(triple) >= PAPER else triple)])
    return made


def _same_size(images: list[Image.Image]) -> list[Image.Image]:
    """All on white of the largest size: a longer answer token makes a higher figure."""
    size = max(image.width for image in images), max(image.height for image in images)
    sheets = [Image.new("RGB", size, "white") for _ in images]
    for sheet, image in zip(sheets, images, strict=True):
        sheet.paste(image, (0, size[1] - image.height))
    return sheets
