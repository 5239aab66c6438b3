"""From figure to file: SVG, PDF and PNG, the same bytes for the same circuit, whole or not there at all.

SVG keeps text as text (svg.fonttype "none"), so that it can be selected, searched, edited and read
aloud. The price is that a viewer without DejaVu Sans sets another font: Verdana, whose widths are nearly
the same, is named next, and DejaVu is among the widest of sans-serifs, so a substitute leaves air rather
than collides. PDF embeds the font as TrueType (fonttype 42), which journals ask for.

Inlined in a page, an SVG shares ids and style sheets with the rest: every id gets a prefix, the style
sheet becomes two attributes of the root, and there is no script. Tooltips are <title> elements.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...errors import refuse
from ...files import explain_failed_write, require_replaceable

FORMATS = ("svg", "pdf", "png")
FALLBACK_FONTS = "Verdana, sans-serif"
HOUSE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gossamer",
    "pdf.fonttype": 42,
    "text.usetex": False,
    "text.parse_math": False,
    "text.hinting": "none",  # the PNG has the widths of the vector formats
    "path.simplify": False,
}
# What matplotlib would stamp on the file; None leaves it out, so that equal circuits give equal bytes.
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_handed_out: Counter[str] = Counter()


@contextmanager
def house_style(**more: str) -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever the user has set; theirs are back afterwards."""
    with style.context(["default", {**HOUSE, **more}]):
        yield


class CircuitFigure(Figure):
    """A matplotlib Figure that can also say in words what it shows.

    Attributes:
        notes: gid of an artist -> one sentence, the tooltip in the SVG.
        title, description: of the figure as a whole, for screen readers.
    """

    def __init__(self, *, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=300, facecolor="white")
        FigureCanvasAgg(self)
        self.notes: dict[str, str] = {}
        self.title = self.description = ""

    def _repr_html_(self) -> str:
        return to_svg(self)

    def _repr_png_(self) -> bytes:
        return _render(self, "png", 150)


def to_svg(figure: Figure, *, prefix: str | None = None) -> str:
    """The figure as one <svg> element for a page or a notebook; no script, nothing fetched.

    Args:
        prefix: goes before every id; by default unique per call, and the same again in a fresh process, so
            that a notebook that is run twice does not change.
    """
    if prefix is None:
        digest = hashlib.sha256(_svg(figure, "").encode()).hexdigest()[:8]
        _handed_out[digest] += 1
        prefix = f"g{digest}-{_handed_out[digest]}-"
    return _svg(figure, prefix)


def save(figure: Figure, where: str | Path | Sequence[str | Path], *, dpi: float = 300) -> list[Path]:
    """Write the figure; every file appears whole or not at all.

    Args:
        where: a stem such as `out/figure`, which gives figure.svg, figure.pdf and figure.png; or a path that
            ends in one of these; or several such paths. Folders are made.
        dpi: dots per inch of the PNG.
    Returns: the paths written.
    Raises: `GossamerError` if a path names another format or cannot be written.
    """
    paths = paths_of(where)
    for path in paths:
        require_replaceable(path)
    contents = {
        suffix: _render(figure, suffix, dpi) for suffix in {path.suffix[1:].lower() for path in paths}
    }
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    try:
        for path, part in zip(paths, parts, strict=True):
            with explain_failed_write(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(contents[path.suffix[1:].lower()])
        for path, part in zip(paths, parts, strict=True):
            with explain_failed_write(path):
                os.replace(part, path)
    finally:
        for part in parts:
            _discard(part)
    return paths


def paths_of(where: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that `save` writes for what it is given."""
    if isinstance(where, (str, Path)):
        path = Path(where)
        if not path.name:
            raise refuse(f"{str(where)!r} as a figure", "a path such as out/figure", "name the file")
        # A stem may have a dot, as figure.v2 does; the ending of some other kind of picture is no part of a stem.
        stem = path.suffix[1:].lower() not in FigureCanvasAgg.filetypes
        where = [path.with_name(f"{path.name}.{suffix}") for suffix in FORMATS] if stem else [path]
    paths = [Path(path) for path in where]
    for path in paths:
        if path.suffix[1:].lower() not in FORMATS:
            raise refuse(f"{path} as a figure", f"{', '.join(FORMATS)}", "end the path in one of them")
    return paths


def _discard(part: Path) -> None:
    try:
        part.unlink()
    except OSError:
        return  # renamed, never made, or its folder is out of reach: nothing of ours is left to remove


def _render(figure: Figure, suffix: str, dpi: float) -> bytes:
    if suffix == "svg":
        return f'<?xml version="1.0" encoding="utf-8"?>\n{_svg(figure, "")}\n'.encode()
    buffer = BytesIO()
    with house_style():
        figure.savefig(buffer, format=suffix, dpi=dpi, metadata=UNDATED[suffix])
    return buffer.getvalue()


def _svg(figure: Figure, prefix: str) -> str:
    buffer = BytesIO()
    with house_style():
        figure.savefig(buffer, format="svg", metadata=UNDATED["svg"])
    root = ElementTree.fromstring(buffer.getvalue())
    _own_style(root)
    _tooltips(root, getattr(figure, "notes", {}))
    _speak(root, getattr(figure, "title", ""), getattr(figure, "description", ""))
    _plain_names(root, prefix)
    return ElementTree.tostring(root, encoding="unicode")


def _own_style(root: ElementTree.Element) -> None:
    """Drop metadata and the style sheet, which would apply to the whole page; say the same on the root."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    root.set("style", "max-width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt")
    for element in root.iter(f"{_SVG}text"):
        families = rf"\1, {FALLBACK_FONTS}"
        element.set("style", re.sub(r"(font-family: [^;]+)", families, element.get("style", "")))


def _tooltips(root: ElementTree.Element, notes: dict[str, str]) -> None:
    for element in list(root.iter(f"{_SVG}g")):
        note = notes.get(element.get("id", ""))
        if note:
            title = ElementTree.Element(f"{_SVG}title")
            title.text = note
            element.insert(0, title)


def _speak(root: ElementTree.Element, title: str, description: str) -> None:
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{_SVG}{tag}", {"id": f"figure-{tag}"})
        element.text = text
        root.insert(index, element)
    root.set("role", "img")
    root.set("aria-labelledby", "figure-title figure-desc")


def _plain_names(root: ElementTree.Element, prefix: str) -> None:
    """Prefix every id and every reference to one; write names without the generated ns0: of ElementTree."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set(name, prefix + value)
            elif name == "aria-labelledby":
                element.set(name, " ".join(prefix + part for part in value.split()))
            elif name == _HREF:
                del element.attrib[name]
                element.set("xlink:href", f"#{prefix}{value.removeprefix('#')}")
            else:
                element.set(name, value.replace("url(#", f"url(#{prefix}"))
    root.set("xmlns", _SVG.strip("{}"))
    root.set("xmlns:xlink", _HREF.removesuffix("href").strip("{}"))
