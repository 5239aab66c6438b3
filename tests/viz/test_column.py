"""The figure of a column: every open edge is in it, its numbers are those of the circuit, and it can be read."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.circuits.circuit import Circuit
from gossamer.errors import GossamerError
from gossamer.viz.figure.column import captions, draw_column, ranked
from gossamer.viz.figure.paper import save, to_svg
from gossamer.viz.figure.ranked import Ranked, fold
from helpers.hostile import KNOWN

pytestmark = pytest.mark.integration  # draws whole figures

WORDS = (
    "def",
    " __",
    "init",
    "__(",
    "self",
    ",",
    " stream",
    ",",
    " errors",
    "=",
    "'",
    "strict",
    "'):",
    "\n       ",
)
SVG = "{http://www.w3.org/2000/svg}"


def circuit(
    n_tokens: int = 12, share: float = 1.0, *, layers: int = 12, heads: int = 12, seed: int = 0, outputs=(-1,)
) -> Circuit:
    """A causal model's open edges, `share` of those that it sees, with weights as of a softmax."""
    rng = np.random.default_rng(seed)
    everything = np.tril(np.ones((n_tokens, n_tokens), bool))
    seen = np.broadcast_to(everything, (layers, heads, n_tokens, n_tokens))
    layer, head, query, key = np.nonzero(seen & (rng.random(seen.shape) < share))
    weight = rng.dirichlet(np.full(n_tokens, 0.2), size=len(layer))[:, 0].astype(np.float32)
    tokens = tuple(WORDS[i % len(WORDS)] for i in range(n_tokens))
    return Circuit(
        n_layers=layers, n_heads=heads, tokens=(tokens,), answers=(tokens[::-1],),
        outputs=tuple(p % n_tokens for p in outputs), visible=(int(seen.sum()),),
        prompt=np.zeros(len(layer), np.int32), layer=layer.astype(np.int32), head=head.astype(np.int32),
        query=query.astype(np.int32), key=key.astype(np.int32), logit=weight, weight=weight,
        contribution=rng.random(len(layer)).astype(np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> tuple[Circuit, Circuit]:
    return circuit(), circuit(share=0.01, seed=1)


def ids(figure, start: str) -> list[str]:
    root = ElementTree.fromstring(to_svg(figure, prefix=""))
    return [e.get("id") for e in root.iter() if (e.get("id") or "").startswith(start)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.floats(0, 1), st.integers(1, 30), st.integers(0, 99))
def test_every_open_edge_is_in_a_line_and_every_layer_in_one_band(tokens, layers, share, most, seed):
    found = circuit(tokens, share, layers=layers, heads=3, seed=seed)
    one = Ranked.of(found, most, "contribution")
    assert [layer for band in one.bands for layer in band] == list(range(layers))
    band_of = {layer: i for i, band in enumerate(one.bands) for layer in band}
    drawn = {line[:3] for line in one.rest} | {(band, line.query, line.key) for line, band in one.strong}
    edges = zip(found.layer.tolist(), found.query.tolist(), found.key.tolist(), strict=True)
    assert drawn == {(band_of[layer], query, key) for layer, query, key in edges}
    assert len(one.strong) == min(most, len({*map(tuple, places(found.live()))}))


def places(found: Circuit) -> list[list[int]]:
    return np.stack([found.layer, found.query, found.key], 1).tolist()


def test_those_that_move_most_are_set_off(pair):
    """The ranked lines are the live ones of the largest contribution, the heads' maximum."""
    best: dict[tuple[int, ...], float] = {}
    live = pair[0].live()
    for place, moved in zip(map(tuple, places(live)), live.contribution.tolist(), strict=True):
        best[place] = max(moved, best.get(place, 0.0))
    expected = set(sorted(best, key=lambda place: -best[place])[:40])
    assert {line[:3] for line, _ in Ranked.of(pair[0], 40, "contribution").strong} == expected


def test_quiet_neighbours_are_one_band():
    assert fold({2, 5}, 7) == (range(2), range(2, 3), range(3, 5), range(5, 6), range(6, 7))
    assert fold({0, 1}, 2) == (range(1), range(1, 2))
    assert fold(set(), 3) == (range(3),)


def test_the_numbers_are_those_of_the_circuits_on_the_page_and_as_text(pair):
    dense, sparse = pair
    said = list(captions(ranked(*pair)))
    live, heads = int(sparse.live_mask().sum()), len({*zip(sparse.layer, sparse.head, strict=True)})
    percent = f"{100 * len(sparse) / sparse.visible[0]:.1f} %"
    count = f"{len(sparse):,} of {sparse.visible[0]:,} attention edges open ({percent})"
    assert said[0].startswith("Dense: 11,232 of 11,232 attention edges open, in 144 of 144 heads")
    assert said[1].startswith(
        f"Sparse: {count}, in {heads} of 144 heads; {live} of them on a path to the answer."
    )
    figure = draw_column(*pair)
    page = to_svg(figure)
    assert f">{count}<" in page
    assert f">{live} on a path to the answer, in {heads} of 144 heads<" in page
    assert all(sentence in figure.description for sentence in said)
    assert len(dense) == 11_232


def test_each_ranked_line_has_its_tooltip(pair):
    figure = draw_column(*pair, most=7)
    lines = ids(figure, "sparse-edge-")
    assert len(lines) == 7
    for name in lines:
        layer, query, key = map(int, name.split("-")[2:])
        assert f"layer {layer}: position {query} " in figure.notes[name]
        assert f"reads position {key} " in figure.notes[name]


@pytest.mark.parametrize("n_tokens", [1, 6, 12, 40])
@pytest.mark.parametrize("outputs", [(-1,), tuple(range(-3, 0))])
def test_nothing_overlaps_in_a_column(n_tokens, outputs):
    outputs = outputs[-n_tokens:]
    figure = draw_column(circuit(n_tokens, outputs=outputs), circuit(n_tokens, 0.02, seed=1, outputs=outputs))
    assert_readable(figure)
    assert figure.get_size_inches()[0] == 3.3
    assert figure.get_size_inches()[1] < 5.2, "half a page of a paper is the most"


@pytest.mark.parametrize("token", KNOWN)
def test_hostile_tokens_stay_in_their_place(token):
    words = (token,) * 8
    found = circuit(8, 0.1, layers=3)
    assert_readable(draw_column(Circuit(**{**vars(found), "tokens": (words,), "answers": (words,)})))


def assert_readable(figure) -> None:
    """Texts apart from one another, inside the page, and no smaller than print bears."""
    renderer = figure.canvas.get_renderer()
    (axes,) = figure.axes
    boxes = {t.get_gid(): t.get_window_extent(renderer) for t in axes.texts if t.get_text().strip()}
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert not a.overlaps(b), f"{one} over {other}"
    page = figure.bbox.padded(0.5)
    assert all(page.containsx(box.x0) and page.containsx(box.x1) for box in boxes.values())
    assert all(page.containsy(box.y0) and page.containsy(box.y1) for box in boxes.values())
    assert min(t.get_fontsize() for t in axes.texts) >= 4


def test_the_columns_of_both_panels_are_one(pair):
    """A token stands at one x in both panels, whatever the names of the layers beside them are."""
    (axes,) = draw_column(pair[0], circuit(share=0.0003, seed=2)).axes
    x = {t.get_gid(): t.get_position()[0] for t in axes.texts}
    assert all(x[f"dense-input-{i}"] == x[f"sparse-input-{i}"] for i in range(12))


def test_equal_circuits_give_equal_bytes(pair, tmp_path):
    first, second = (
        [path.read_bytes() for path in save(draw_column(*pair), tmp_path / name)] for name in ("a", "b")
    )
    assert first == second


def test_another_answer_is_boxed(pair):
    other = Circuit(**{**vars(pair[1]), "answers": (("?",) * 12,)})
    boxed = [t.get_gid() for t in draw_column(pair[0], other).axes[0].texts if t.get_bbox_patch() is not None]
    assert boxed == ["sparse-output-11"]
    assert not ids(draw_column(*pair, answers=False), "sparse-output")


@pytest.mark.parametrize(("options", "message"), [
    ({"most": 0}, "most=0 is out of range"),
    ({"by": "size"}, "by='size' is not known"),
    ({"width": 0.5}, "width=0.5 is out of range"),
    ({"font": "No Such Font"}, "font='No Such Font' is not installed"),
    ({"prompt": 1}, "prompt 1"),
])  # fmt: skip
def test_bad_arguments_are_one_line(pair, options, message):
    with pytest.raises(GossamerError, match=message):
        draw_column(*pair, **options)


def test_what_does_not_fit_or_belong_together_is_refused(pair):
    with pytest.raises(GossamerError, match="60 tokens side by side"):
        draw_column(circuit(60, 0.01))
    with pytest.raises(GossamerError, match="circuits on different prompts"):
        draw_column(pair[0], circuit(11))
    with pytest.raises(GossamerError, match="3 circuits: expected one, or a dense and a sparse one"):
        draw_column(*pair, pair[0])
