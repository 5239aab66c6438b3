"""Texts that break what handles them carelessly, and circuits of such tokens, for property tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from gossamer.circuits.circuit import EDGE_FIELDS, VALUE_FIELDS, Circuit, UnitsLeft

# Markup that ends elements, quotes, escapes, what a template or a table takes for its own, what XML forbids,
# what editors and normalisers change, what looks like a number or like nothing.
KNOWN = (
    "</script><script>alert(1)</script>",
    "</SCRIPT\t>",
    "<!--<script>",
    "--></style></title><b>",
    "]]><![CDATA[",
    "&lt;&#60;&amp;",
    '"\'`\\"\\u003c',
    "@data@ @script@ ${x} {0}",
    "a,b;c\td\ne\r\nf\rg",
    "\r",
    "\x00\x01\x1b[31m\x7f\x85",
    "\u2028\u2029\ufeff\u202e",
    "e\u0301 \u00e9 \u1e9b\u0323",
    "\ud7ff\ue000\ufffe\uffff\U0001f600\U0010ffff",
    "NaN",
    "null",
    "-0",
    " ",
    "",
)
LONG = st.integers(1, 2000).map(lambda lines: "</script>\n" * lines)
TEXTS = st.sampled_from(KNOWN) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | LONG
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)


def circuits(
    texts: st.SearchStrategy[str] = TEXTS, values: st.SearchStrategy[float] = VALUES
) -> st.SearchStrategy[Circuit]:
    """Circuits of any small size, edges in any order, whose prompts differ in length."""
    return _circuits(texts, values)


@st.composite
def _circuits(draw: st.DrawFn, texts: st.SearchStrategy[str], values: st.SearchStrategy[float]) -> Circuit:
    layers, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    tokens, answers = (
        tuple(tuple(draw(st.lists(texts, min_size=n, max_size=n))) for n in lengths) for _ in range(2)
    )
    edges = draw(st.lists(_edges(lengths, layers, heads), unique=True, max_size=6))
    places = np.array(edges, dtype=np.int32).reshape(-1, len(EDGE_FIELDS))
    return Circuit(
        n_layers=layers,
        n_heads=heads,
        tokens=tokens,
        answers=answers,
        outputs=tuple(draw(st.lists(st.integers(0, min(lengths) - 1), unique=True))),
        visible=tuple(draw(st.integers(0, 2**40)) for _ in lengths),
        meta=draw(st.dictionaries(texts, texts | NUMBERS, max_size=3)),
        left=UnitsLeft(_closed(draw, edges, layers, heads), _neurons(draw, layers)),
        **dict(zip(EDGE_FIELDS, places.T, strict=True)),
        **{name: _column(draw, values, len(edges)) for name in VALUE_FIELDS},
    )


def _closed(
    draw: st.DrawFn, edges: list[tuple[int, ...]], layers: int, heads: int
) -> tuple[tuple[int, int], ...]:
    """Some of the heads that no edge is in."""
    idle = sorted({(x, y) for x in range(layers) for y in range(heads)} - {edge[1:3] for edge in edges})
    return tuple(head for head in idle if draw(st.booleans()))


def _neurons(draw: st.DrawFn, layers: int) -> tuple[tuple[int, int], ...]:
    """[left, of] of each layer, or of none."""
    pairs = st.tuples(st.integers(0, 9), st.integers(9, 99))
    return tuple(draw(st.just([]) | st.lists(pairs, min_size=layers, max_size=layers)))


@st.composite
def _edges(draw: st.DrawFn, lengths: list[int], layers: int, heads: int) -> tuple[int, ...]:
    """(prompt, layer, head, query, key) with both positions inside the prompt."""
    prompt = draw(st.integers(0, len(lengths) - 1))
    inside = st.integers(0, lengths[prompt] - 1)
    return (
        prompt,
        draw(st.integers(0, layers - 1)),
        draw(st.integers(0, heads - 1)),
        draw(inside),
        draw(inside),
    )


def _column(draw: st.DrawFn, values: st.SearchStrategy[float], size: int) -> np.ndarray[Any, Any]:
    return np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype=np.float32)


def assert_same(first: Circuit, second: Circuit) -> None:
    """Two circuits are equal in every bit of every array, the sign of a zero included, and in all else."""
    for name in (*EDGE_FIELDS, *VALUE_FIELDS):
        left, right = getattr(first, name), getattr(second, name)
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes()), name
    for name in ("n_layers", "n_heads", "tokens", "answers", "outputs", "visible", "meta", "left"):
        assert getattr(first, name) == getattr(second, name), name
        assert repr(getattr(first, name)) == repr(getattr(second, name)), (
            name
        )  # 1 is not 1.0, nor a list a tuple
