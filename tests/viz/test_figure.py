"""The figure, read back from its SVG: every edge, word and count, and what becomes of bad input."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from gossamer.circuits.circuit import Circuit, UnitsLeft, concatenate
from gossamer.errors import GossamerError
from gossamer.viz.figure import draw, draw_one
from gossamer.viz.figure.layout import (
    Line,
    Squares,
    abbreviated,
    carried_rows,
    count_caption,
    row_pitch,
    visible_text,
)
from gossamer.viz.figure.panel import blue, thickness
from gossamer.viz.figure.paper import save, to_svg

pytestmark = pytest.mark.integration  # draws whole figures

LAYERS, HEADS = 4, 4
HOSTILE = (
    "$x$",
    "</svg>",
    "<script>alert(1)</script>",
    "😀",
    "中",
    "\x00",
    "\u202e",
    "a\nb",
    " long " * 9,
    "]]>",
)
HOSTILE += ("--", "&amp;", "", "\ud800", "$\\frac{", "\ufffe", '"', "'", "Ġthe", "مرحبا")


def sum_tokens(a: int, b: int, digits: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Input and answer of a sum: 2 digits are 11 tokens, 4 digits 19."""
    asked, slots = f"{a:0{digits}d}+{b:0{digits}d}=", 2 * digits + 1
    return tuple(asked + "?" * slots), tuple(asked + f"{a + b:0{slots}d}")


def circuit_of(edges, tokens, answers, n_layers=LAYERS) -> Circuit:
    """A circuit from (layer, head, query, key, weight) rows."""
    table = np.array(edges, dtype=np.float64).reshape(-1, 5)
    index, weight = table[:, :4].astype(np.int32), table[:, 4].astype(np.float32)
    outputs = tuple(i for i, token in enumerate(tokens) if token == "?") or (len(tokens) - 1,)
    fields = dict(zip(("layer", "head", "query", "key"), index.T, strict=True))
    return Circuit(
        n_layers=n_layers,
        n_heads=HEADS,
        tokens=(tokens,),
        answers=(answers,),
        outputs=outputs,
        visible=(n_layers * HEADS * len(tokens) ** 2,),
        prompt=np.zeros(len(table), dtype=np.int32),
        logit=weight,
        weight=weight,
        contribution=weight,
        **fields,
    )


def dense(tokens, answers, n_layers=LAYERS, seed=0) -> Circuit:
    """Every edge open, with softmax weights."""
    logits = 1.6 * np.random.default_rng(seed).normal(size=(n_layers, HEADS, len(tokens), len(tokens)))
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return circuit_of(
        [(*index, weight) for index, weight in np.ndenumerate(weights)], tokens, answers, n_layers
    )


def sparse(tokens, answers) -> Circuit:
    """Digits into the last slots and a carry; one pair in two heads, and one edge that reaches nothing."""
    last = len(tokens) - 1
    edges = [(0, 1, last, 1, 0.62), (0, 3, last, 1, 0.30), (0, 1, last, 4, 0.55), (0, 0, last - 1, 1, 0.2)]
    edges += [(1, 2, last - 1, last, 0.71), (1, 0, last - 1, 0, 0.48), (2, 3, last - 2, last - 1, 0.93)]
    return circuit_of([*edges, (3, 0, 0, 3, 0.4)], tokens, answers)


@pytest.fixture(scope="module")
def pair():
    tokens, answers = sum_tokens(36, 28, 2)
    return dense(tokens, answers), sparse(tokens, answers)


@pytest.fixture(scope="module")
def figure(pair):
    return draw(*pair)


@pytest.fixture(scope="module")
def small(pair):
    """A figure that is quick to write."""
    return draw(pair[1], pair[1])


@pytest.fixture(scope="module")
def page(figure):
    return ElementTree.fromstring(to_svg(figure, prefix=""))


def tag(name: str) -> str:
    return "{http://www.w3.org/2000/svg}" + name


def groups(root, start: str) -> dict[str, ElementTree.Element]:
    """The elements whose id starts so, in document order, which is drawing order."""
    return {e.get("id"): e for e in root.iter() if (e.get("id") or "").startswith(start)}


def words(root, start: str) -> list[str]:
    return ["".join(e.find(tag("text")).itertext()) for e in groups(root, start).values()]


def look(element) -> dict[str, str]:
    style = element.find(tag("path")).get("style")
    return dict(part.strip().split(": ") for part in style.split(";"))


def ends(element) -> tuple[float, float, float, float]:
    return tuple(float(x) for x in re.findall(r"-?\d+\.?\d*", element.find(tag("path")).get("d")))


def luminance(hexcolor: str) -> float:
    channels = np.array([int(hexcolor[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def strongest_heads(circuit: Circuit) -> dict[tuple[int, int, int], float]:
    pairs: dict[tuple[int, int, int], float] = {}
    for layer, query, key, weight in zip(
        circuit.layer, circuit.query, circuit.key, circuit.weight, strict=True
    ):
        where = (int(layer), int(query), int(key))
        pairs[where] = max(float(weight), pairs.get(where, 0.0))
    return pairs


@pytest.mark.parametrize("name", ["base", "sparse"])
def test_lines_are_the_circuits_edges(name, pair, page):
    circuit = pair[name == "sparse"]
    live = circuit.live_mask()
    for kind, part in (("edge", circuit.select(live)), ("offpath", circuit.select(~live))):
        drawn = groups(page, f"{name}-{kind}-")
        expected = strongest_heads(part)
        assert drawn.keys() == {f"{name}-{kind}-{q}-{i}-{j}" for q, i, j in expected}
        for (layer, query, key), weight in expected.items():
            element = drawn[f"{name}-{kind}-{layer}-{query}-{key}"]
            assert ("stroke-dasharray" in look(element)) == (kind == "offpath")
            assert f"weight {weight:.3f}" in element.find(tag("title")).text
            if kind == "edge":
                assert look(element)["stroke"] == matplotlib.colors.to_hex(blue(weight))
                assert float(look(element)["stroke-width"]) == pytest.approx(thickness(weight), abs=1e-5)


def test_an_edge_rises_from_the_key_to_the_query(page):
    text = {
        int(gid.split("-")[2]): float(e.find(tag("text")).get("x"))
        for gid, e in groups(page, "base-input-").items()
    }
    row_y = [float(e.find(tag("text")).get("y")) for e in groups(page, "base-row-").values()]
    assert row_y == sorted(row_y, reverse=True)
    for gid, element in groups(page, "base-edge-").items():
        layer, query, key = map(int, gid.split("-")[2:])
        x0, y0, x1, y1 = ends(element)
        assert (x0, x1) == pytest.approx((text[key], text[query]), abs=1e-3)
        assert (
            abs(y1 - row_y[layer + 1]) < 4 < abs(y0 - row_y[layer + 1])
        )  # points: ends in the row of its name


def test_weak_lines_lie_under_strong_ones_and_lines_off_the_path_under_all(pair, page):
    weights = strongest_heads(pair[0])
    gids = [gid.split("-") for gid in groups(page, "base-") if gid.count("-") == 4]
    kinds = [kind for _, kind, *_ in gids]
    assert kinds == sorted(kinds, reverse=True)  # off the path before on it
    order = [weights[tuple(map(int, rest))] for _, kind, *rest in gids if kind == "edge"]
    assert order == sorted(order)
    assert len(order) == 4 * 121 - 66


def test_words_of_the_figure(page):
    for name, title in (("base", "Base Model"), ("sparse", "Sparse Model")):
        assert words(page, f"{name}-title") == [title]
        assert words(page, f"{name}-input-") == list("36+28=?????")
        assert words(page, f"{name}-output-") == list("36+28=00064")
        assert words(page, f"{name}-row-") == ["input", "Layer 0", "Layer 1", "Layer 2", "Layer 3", "output"]
    assert words(page, "arrow-text") == ["Sparsity-Regularised Finetuning"]
    assert (
        groups(page, "arrow-text")["arrow-text"].find(tag("text")).get("transform").startswith("rotate(-90")
    )
    assert words(page, "base-count") == ["1,936 of 1,936 attention edges open"]
    assert words(page, "base-never")[0] == "264 of them never reach the answer (dashed)"
    assert words(page, "sparse-count") == ["8 of 1,936 attention edges open (0.4 %)"]
    assert words(page, "key-direction") == [
        "Lines rise from what is read to what reads; grey: the residual stream."
    ]


def test_it_says_in_words_what_it_shows(page):
    assert page.get("role") == "img"
    title, description = (e.text for e in list(page)[:2])
    assert title == "Sparsity-Regularised Finetuning: Base Model and Sparse Model"
    assert "Base Model: input 3 6 + 2 8 = ? ? ? ? ?; output 3 6 + 2 8 = 0 0 0 6 4; 1,936 of" in description
    assert "8 of 1,936 attention edges open (0.4 %), 1 of them never reaches the answer." in description
    note = groups(page, "sparse-edge-0-10-1")["sparse-edge-0-10-1"].find(tag("title")).text
    assert note == "layer 0: position 10 '?' reads position 1 '6', weight 0.620, heads 1, 3"


def test_live_only_leaves_out_lines_off_the_path_but_counts_them(pair):
    page = ElementTree.fromstring(to_svg(draw(pair[1], pair[1], live_only=True)))
    assert not [e for e in page.iter() if "offpath-3" in (e.get("id") or "")]
    said = ["".join(e.itertext()) for e in page.iter(tag("text"))]
    assert "8 of 1,936 attention edges open (0.4 %)" in said
    assert "1 of them never reaches the answer (not drawn)" in said


def test_closed_heads_are_grey_and_neurons_are_bars(pair):
    """Squares of open and of closed heads differ in colour; a bar is as long as its share; the base has all heads."""
    left = UnitsLeft(((0, 0), (0, 2)), ((0, 64), (16, 64), (64, 64), (1, 640)))
    base, closed = pair[0], replace(pair[1].select(pair[1].layer > 0), left=left)
    page = ElementTree.fromstring(to_svg(draw(base, closed), prefix=""))
    squares = {
        name: len(list(x.iter(tag("use")))) for name, x in groups(page, "sparse-").items() if "heads-" in name
    }
    assert (squares["sparse-heads-0"], squares["sparse-closedheads-0"]) == (HEADS - 2, 2)
    assert [squares[f"sparse-heads-{layer}"] for layer in range(1, LAYERS)] == [HEADS] * 3
    assert not groups(page, "base-closedheads")
    assert len(groups(page, "base-heads")) == LAYERS
    bars = {name: ends(x) for name, x in groups(page, "sparse-").items() if "neurons-" in name}
    long = {name: x2 - x1 for name, (x1, _, x2, _) in bars.items()}
    whole = long["sparse-allneurons-1"]
    assert "sparse-neurons-0" not in bars
    assert long["sparse-neurons-1"] == pytest.approx(whole / 4, rel=1e-3)
    assert long["sparse-neurons-2"] == pytest.approx(whole, rel=1e-3)
    assert 0 < long["sparse-neurons-3"] < whole / 10
    assert "heads, grey if closed" in words(page, "key-units")[0]
    assert "2 of 16 heads closed, 81 of 832 neurons left" in draw(base, closed).description


def test_a_model_whose_heads_are_all_open_has_no_squares(page):
    assert not [x for x in page.iter() if "heads-" in x.get("id", "") or "neurons-" in x.get("id", "")]
    assert not groups(page, "key-units")


@pytest.mark.parametrize(("layers", "heads"), [(4, 4), (12, 12), (30, 9), (2, 64)])
def test_squares_and_bars_of_a_layer_stay_between_its_rows_of_nodes(layers, heads):
    pitch = row_pitch(layers, 3.4)
    squares = Squares.of(heads, pitch)
    places = [squares.at(head) for head in range(heads)]
    assert len(set(places)) == heads
    assert max(y for _, y in places) + squares.step / 2 + 0.27 * pitch < pitch
    assert max(x for x, _ in places) + squares.step / 2 <= squares.width + 1e-9


def test_an_output_unlike_the_bases_is_boxed(pair):
    tokens, answers = sum_tokens(36, 28, 2)
    page = ElementTree.fromstring(to_svg(draw(pair[1], sparse(tokens, (*answers[:-1], "5"))), prefix=""))
    notes = {gid: e.find(tag("title")).text for gid, e in groups(page, "sparse-output-").items()}
    assert notes["sparse-output-10"] == "output, position 10: '5', where the base model says '4'"
    boxed = [gid for gid, e in groups(page, "sparse-output-").items() if e.findall(f".//{tag('path')}")]
    assert boxed == ["sparse-output-10"]


@pytest.mark.parametrize("digits", [2, 3, 4])
@pytest.mark.parametrize("width", [3.4, 7.0])
def test_nothing_overlaps_at_any_number_of_digits(digits, width):
    tokens, answers = sum_tokens(4 * 10 ** (digits - 1) + 8, 5 * 10 ** (digits - 1) + 7, digits)
    many = sparse(tokens, answers)
    assert_no_overlap(draw(many, many, width=width))


def test_nothing_overlaps_with_words_many_layers_or_long_titles():
    tokens = ("When", " Mary", " and", " John", " went", " to", " the", " store", ",", " incomprehensibly")
    deep = dense(tokens, tokens[::-1], n_layers=12).select(np.arange(0, 4800, 97))
    assert_no_overlap(draw_one(deep, title="A title that goes on for longer than there is room in a column"))
    for token in ("1234", "123", "12345678"):  # set smaller, set in full, turned
        assert_no_overlap(draw_one(circuit_of([], (token,) * 11, (token,) * 11)))
    assert_no_overlap(draw(deep, deep, arrow="Finetuning " * 9, titles=("Base " * 20, "S"), width=2.4))


def assert_no_overlap(figure) -> None:
    """Texts apart from one another, from the nodes, and inside the page, as the renderer measures them."""
    renderer = figure.canvas.get_renderer()
    axes = figure.axes[0]
    boxes = {t.get_gid(): t.get_window_extent(renderer) for t in axes.texts}
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert not a.overlaps(b), f"{one} over {other}"
    for gid, box in boxes.items():
        assert figure.bbox.contains(box.x0, box.y0), gid
        assert figure.bbox.contains(box.x1, box.y1), gid
    dots = [line for line in axes.lines if "-nodes" in str(line.get_gid())]
    spots = np.concatenate(
        [axes.transData.transform(line.get_xydata()) for line in dots if len(line.get_xdata())]
    )
    for gid, box in boxes.items():
        inside = (spots > box.min - 3).all(axis=1) & (spots < box.max + 3).all(axis=1)
        assert not inside.any(), gid


def test_hostile_tokens_stay_text(tmp_path):
    circuit = dense(HOSTILE, HOSTILE[::-1], n_layers=1)
    figure = draw_one(circuit, title="$\\frac{1}{2}$ </title>\n\x00😀")
    assert_no_overlap(figure)
    svg, pdf, png = save(figure, tmp_path / "hostile")
    assert all(path.stat().st_size > 5_000 for path in (svg, pdf, png))
    page = ElementTree.parse(svg).getroot()
    notes = [e.find(tag("title")).text for e in groups(page, "circuit-input-").values()]
    assert notes == [f"input, position {i}: {token!r}" for i, token in enumerate(HOSTILE)]
    assert words(page, "circuit-input-")[:2] == ["$x$", "</svg>"]
    assert words(page, "circuit-title") == ["$\\frac{1}{2}$ </title> □😀"]
    seen: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda name, attrs: seen.add(name)  # type: ignore[method-assign]
    parser.feed(f"<div>{to_svg(figure)}</div>")
    assert seen == {"div", "svg", "title", "desc", "defs", "g", "path", "text", "use"}


def test_a_token_is_printed_legibly():
    def known(char: str) -> bool:
        return char != "中"

    assert visible_text(" a\tb\n", known) == "␣a⇥b↵"
    assert visible_text("", known) == "∅"
    assert visible_text("\u202e中\u00a0", known) == "□□□"
    assert abbreviated("incomprehensibly") == "incompr…ibly"
    assert abbreviated("twelve chars") == "twelve chars"


def test_shades_fall_in_grey_and_widths_rise():
    steps = np.linspace(0, 1, 101)
    greys = [luminance(matplotlib.colors.to_hex(blue(t))) for t in steps]
    assert (np.diff(greys) < 0).all()
    assert greys[0] < 0.75  # the weakest line still shows on white
    assert (np.diff([thickness(t) for t in steps]) > 0).all()


@pytest.mark.parametrize(
    ("count", "visible", "text"),
    [
        (1936, 1936, "1,936 of 1,936 attention edges open"),
        (1935, 1936, "1,935 of 1,936 attention edges open (99.9 %)"),
        (7, 1936, "7 of 1,936 attention edges open (0.4 %)"),
        (1, 10**4, "1 of 10,000 attention edges open (0.01 %)"),
        (0, 1936, "0 of 1,936 attention edges open (0.0 %)"),
    ],
)
def test_counts_are_of_layer_head_query_key(count, visible, text):
    circuit = circuit_of([(0, 0, 0, 0, 0.5)] * count, ("a",), ("a",))
    assert count_caption(Circuit(**{**vars(circuit), "visible": (visible,)})) == text


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ({"threshold": 0.0}, "7 of 1,936 attention edges open (0.4 %)"),
        ({"threshold": 0.05}, "7 of 1,936 attention edges of weight 0.05 or more (0.4 %)"),
        ({"top_k": 3}, "7 of 1,936 attention edges open, the 3 strongest of each query (0.4 %)"),
    ],
)
def test_a_count_says_which_edges_were_listed(listed, text):
    circuit = circuit_of([(0, 0, 0, 0, 0.5)] * 7, ("a",), ("a",))
    assert count_caption(Circuit(**{**vars(circuit), "visible": (1936,), "meta": listed})) == text


def test_what_a_residual_stream_carries():
    lines = [Line(0, 5, 1, 0.5, (0,), True), Line(2, 4, 5, 0.5, (0,), True), Line(1, 4, 0, 0.5, (0,), True)]
    lines.append(Line(3, 3, 2, 0.5, (0,), False))
    # 5 is written by layer 0 and read by layer 2, 0 is read from the input by layer 1, 4 is an output.
    assert carried_rows(lines, {4}, 4) == {0: (0, 1), 4: (2, 4), 5: (1, 2)}


def test_an_empty_circuit_is_a_figure(pair):
    nothing = pair[1].select(np.zeros(len(pair[1]), dtype=bool))
    page = ElementTree.fromstring(to_svg(draw(pair[1], nothing), prefix=""))
    assert words(page, "sparse-count") == ["0 of 1,936 attention edges open (0.0 %)"]
    assert not groups(page, "sparse-edge-")


def test_any_prompt_of_many(pair):
    tokens, answers = sum_tokens(91, 19, 2)
    both = concatenate([pair[1], sparse(tokens, answers)])
    page = ElementTree.fromstring(to_svg(draw(both, both, prompt=1), prefix=""))
    assert words(page, "base-input-") == list(tokens)
    assert len(groups(page, "sparse-edge-")) == 6
    with pytest.raises(GossamerError, match="prompt 2: expected 0 to 1"):
        draw(both, both, prompt=2)


def test_bad_input_is_told_in_one_line(pair):
    other = sparse(*sum_tokens(11, 22, 2))
    with pytest.raises(
        GossamerError, match=r"different prompts: '3 6 .*' and '1 1 .*: expected one prompt for both"
    ):
        draw(pair[0], other)
    with pytest.raises(
        GossamerError, match=r"120 tokens side by side on 3\.4 in: expected up to \d\d, .*at least 8"
    ):
        draw_one(circuit_of([], ("a",) * 120, ("a",) * 120))
    draw_one(circuit_of([], ("a",) * 120, ("a",) * 120), width=9.0)
    with pytest.raises(GossamerError, match="font='No Such Face' is not installed"):
        draw(*pair, font="No Such Face")
    with pytest.raises(GossamerError, match="strongest=0 is out of range"):
        draw(*pair, strongest=0)
    with pytest.raises(GossamerError, match="width=nan is out of range"):
        draw(*pair, width=float("nan"))


def test_same_circuit_same_bytes_whatever_the_users_settings(pair, small, tmp_path):
    first = [path.read_bytes() for path in save(small, tmp_path / "a")]
    theirs = {"text.usetex": True, "svg.fonttype": "path", "lines.linewidth": 9, "path.sketch": (1, 2, 3)}
    with matplotlib.rc_context(
        {**theirs, "figure.facecolor": "black", "font.size": 30, "savefig.bbox": "tight"}
    ):
        before = dict(matplotlib.rcParams)
        second = [path.read_bytes() for path in save(draw(pair[1], pair[1]), tmp_path / "b")]
        assert dict(matplotlib.rcParams) == before
    assert first == second


def test_pdf_embeds_truetype_and_svg_keeps_text(figure, tmp_path):
    svg, pdf = save(figure, [tmp_path / "f.svg", tmp_path / "f.pdf"])
    assert b"/FontFile2" in pdf.read_bytes()
    assert b"/Type3" not in pdf.read_bytes()
    root = ElementTree.parse(svg).getroot()
    assert root.get("width") == "244.8pt"
    assert all("'DejaVu Sans', Verdana, sans-serif" in e.get("style") for e in root.iter(tag("text")))


def test_two_figures_on_one_page_share_no_id(small, figure):
    pages = [to_svg(small), to_svg(small), to_svg(figure)]
    ids = [[e.get("id") for e in ElementTree.fromstring(page).iter() if e.get("id")] for page in pages]
    assert all(len(own) == len(set(own)) for own in ids)
    assert all(set(a).isdisjoint(b) for a, b in combinations(ids, 2))
    for page, own in zip(pages, ids, strict=True):
        refs = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
        refs += re.search(r'aria-labelledby="([^"]+)"', page).group(1).split()
        assert set(refs) <= set(own)
        assert len(refs) > 2
        assert page.startswith("<svg")
        assert not re.search(r"<(script|style|metadata|!DOCTYPE)|https?://(?!www\.w3\.org)", page)
    assert small._repr_html_().startswith("<svg")
    assert small._repr_png_().startswith(b"\x89PNG")


def test_save_names_its_files(small, tmp_path):
    stem = tmp_path / "new" / "figure.v2"
    assert save(small, stem) == [Path(f"{stem}.{suffix}") for suffix in ("svg", "pdf", "png")]
    assert save(small, str(tmp_path / "one.PDF")) == [tmp_path / "one.PDF"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "one.PDF"]
    with pytest.raises(GossamerError, match=r"f\.gif as a figure: expected svg, pdf, png"):
        save(small, [tmp_path / "f.svg", tmp_path / "f.gif"])
    with pytest.raises(GossamerError, match=r"f\.TIFF as a figure: expected svg, pdf, png"):
        save(small, tmp_path / "f.TIFF")
    with pytest.raises(GossamerError, match="'' as a figure"):
        save(small, "")


def test_an_unwritable_folder_is_told_and_leaves_nothing(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        GossamerError, match=r"cannot be written \((Not a directory|File exists)\): expected a"
    ):
        save(small, tmp_path / "file" / "figure")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_figure_whole(small, tmp_path, monkeypatch):
    (tmp_path / "f.svg").write_text("old")
    whole = Path.write_bytes

    def fill(path: Path, data: bytes) -> int:
        if path.suffix == ".part" and ".pdf" in path.name:
            whole(path, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return whole(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(GossamerError, match="No space left on device") as caught:
        save(small, [tmp_path / "f.svg", tmp_path / "f.pdf"])
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["f.svg"]
    assert (tmp_path / "f.svg").read_text() == "old"


def test_it_needs_no_pyplot_and_no_torch():
    code = "import sys, gossamer.viz.figure; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
