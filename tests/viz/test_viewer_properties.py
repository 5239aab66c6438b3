"""Pages of hostile text: every word comes out as it went in, and none becomes an element or ends a script."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.circuits.circuit import Circuit
from gossamer.viz.notebook import as_frame
from gossamer.viz.viewer import page_data, view
from gossamer.viz.viewer.page import as_json, page
from helpers.hostile import TEXTS, circuits

# The page quantises non-negative values; what a circuit holds is weights and lengths.
SHOWN = circuits(values=st.floats(0, 1, width=32))
# What an HTML parser looks for inside a script: its end, and the comment in which a script may open another.
MARKS = r"(?i)</script|<script|<!--|]]>"


class Reader(HTMLParser):
    """The elements of a page in order, and the text in each kind of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.words: dict[str, list[str]] = defaultdict(list)
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))
        self.words[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.elements.append(("/" + tag, ()))

    def handle_data(self, data: str) -> None:
        if self.elements and self.words[self.elements[-1][0]]:
            self.words[self.elements[-1][0]][-1] += data


def tame(*circuits: Circuit) -> tuple[str, Reader]:
    """The page of the same circuits with nothing hostile in them, and what is in it."""
    said = [replace(one, tokens=_plain(one.tokens), answers=_plain(one.answers), meta={}) for one in circuits]
    titles = ("one", "other")[: len(said)]
    text = view(*said, title="Tame", titles=titles) if said else page(page_data("prompts", []), title="Tame")
    return text, Reader(text)


def _plain(rows: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(("a",) * len(row) for row in rows)


def assert_sealed(text: str, *circuits: Circuit) -> Reader:
    """A page has the elements and attributes of the tame one, its script, and no mark of a script more."""
    harmless, plain = tame(*circuits)
    found = Reader(text)
    assert found.elements == plain.elements
    assert found.words["script"][1] == plain.words["script"][1]
    assert re.findall(MARKS, text) == re.findall(MARKS, harmless)
    return found


def data_of(found: Reader) -> dict:
    return json.loads(found.words["script"][0])


@given(SHOWN, TEXTS, TEXTS, TEXTS, TEXTS)
@settings(deadline=None, max_examples=60)
def test_a_page_is_sealed_and_keeps_every_word(
    circuit: Circuit, title: str, name: str, found_out: str, where: str
) -> None:
    text = view(circuit, title=title, titles=(name,), edge_findings={(0, 0, 0): found_out}, places=(where,))
    found = assert_sealed(text, circuit)
    assert found.words["title"] == found.words["h1"] == [title]
    data = data_of(found)
    rows = [*circuit.tokens, *circuit.answers]
    assert data["panels"][0]["circuits"]["words"] == list(dict.fromkeys(word for row in rows for word in row))
    assert data["panels"][0]["title"] == name
    assert {"0,0,0": found_out} in data.values()
    assert data["places"] == [where]


@given(SHOWN, st.tuples(TEXTS, TEXTS))
@settings(deadline=None, max_examples=30)
def test_a_page_of_two_models_is_sealed_and_keeps_both_names(
    circuit: Circuit, titles: tuple[str, str]
) -> None:
    sparse = replace(circuit.select(circuit.layer > 0), answers=circuit.tokens)
    found = assert_sealed(view(circuit, sparse, titles=titles), circuit, sparse)
    assert tuple(panel["title"] for panel in data_of(found)["panels"]) == titles


@given(TEXTS, TEXTS)
@settings(deadline=None, max_examples=30)
def test_a_served_page_is_sealed_and_keeps_the_first_prompt(title: str, start: str) -> None:
    found = assert_sealed(page(page_data("server", [], start=start), title=title))
    assert data_of(found)["start"] == start


@given(TEXTS, TEXTS)
@settings(deadline=None, max_examples=30)
def test_a_frame_in_a_notebook_is_one_element_that_holds_the_page(title: str, start: str) -> None:
    text = page(page_data("server", [], start=start), title=title)
    (tag, attributes), end = Reader(as_frame(text)).elements
    assert (tag, end[0]) == ("iframe", "/iframe")
    assert dict(attributes)["srcdoc"] == text


NESTED = st.recursive(
    TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(NESTED)
@settings(deadline=None)
def test_json_for_a_page_has_no_sign_of_markup_and_says_the_same(value: object) -> None:
    text = as_json(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value
