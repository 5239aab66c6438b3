"""Exports of circuits with hostile tokens: what has a reader comes back equal, what has a schema keeps it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.circuits.circuit import EDGE_FIELDS, VALUE_FIELDS, Circuit
from gossamer.circuits.components.graph import ComponentGraph
from gossamer.circuits.export import export
from gossamer.circuits.export.graphs import from_graphml, from_networkx, to_graphml, to_networkx
from gossamer.circuits.export.mib import from_mib, to_mib
from gossamer.circuits.export.neuronpedia import to_neuronpedia
from gossamer.circuits.export.record import from_record, load_circuit, save_circuit, to_record
from helpers.hostile import KNOWN, assert_same, circuits

SCHEMA = json.loads((Path(__file__).parents[1] / "helpers" / "neuronpedia.schema.json").read_text())
VALID = jsonschema.Draft7Validator(SCHEMA)


def one_token(text: str) -> Circuit:
    """The smallest circuit with this token: one position that reads itself."""
    record = {
        "schema": "gossamer-circuit",
        "version": 1,
        "model": {"n_layers": 1, "n_heads": 1},
        "outputs": [0],
        "prompts": [{"tokens": [text], "answers": [text], "visible": 1}],
        "edges": {name: [0] for name in (*EDGE_FIELDS, *VALUE_FIELDS)},
        "meta": {},
    }
    return from_record(record)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples: a function's own would be kept from one example to the next anyway."""
    return tmp_path_factory.mktemp("exports")


@given(circuits())
@settings(deadline=None, max_examples=60)
def test_a_saved_circuit_comes_back_equal(folder: Path, circuit: Circuit) -> None:
    save_circuit(circuit, folder / "circuit.json")
    assert_same(circuit, load_circuit(folder / "circuit.json"))


@given(circuits())
@settings(deadline=None, max_examples=60)
def test_a_record_is_whole_wherever_its_text_goes(circuit: Circuit) -> None:
    """Written by anyone's JSON, with or without escapes, in bytes of UTF-8 and back."""
    for plain in (True, False):
        text = json.dumps(to_record(circuit), ensure_ascii=plain, allow_nan=False)
        assert_same(circuit, from_record(json.loads(text.encode("utf-8").decode("utf-8"))))


@given(circuits())
@settings(deadline=None, max_examples=60)
def test_a_graph_of_networkx_comes_back_equal(circuit: Circuit) -> None:
    graph = to_networkx(circuit)
    assert_same(circuit, from_networkx(graph))
    for data in graph.nodes.values():
        prompt, position = data["prompt"], data["position"]
        row = (circuit.answers if data["is_output"] else circuit.tokens)[prompt]
        assert data["token"] == row[position]


@given(circuits())
@settings(deadline=None, max_examples=40)
def test_graphml_comes_back_equal(circuit: Circuit) -> None:
    assert_same(circuit, from_graphml(to_graphml(circuit)))


@pytest.mark.parametrize("text", ["\x00", "\x1b", "\ufffe", "\uffff"])
def test_graphml_comes_back_equal_with_what_xml_forbids(text: str) -> None:
    """Tokenizers that know all bytes have such tokens."""
    assert_same(one_token(text), from_graphml(to_graphml(one_token(text))))


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table as Python's own reader finds it."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@given(circuits())
@settings(deadline=None, max_examples=40)
def test_a_table_has_the_edges_and_the_tokens_at_both_ends(folder: Path, circuit: Circuit) -> None:
    rows = rows_of(export(circuit, folder / "table.csv", "csv"))
    assert len(rows) == len(circuit)
    for number, row in enumerate(rows):
        assert [int(row[name]) for name in EDGE_FIELDS] == [
            int(getattr(circuit, n)[number]) for n in EDGE_FIELDS
        ]
        tokens = circuit.tokens[int(row["prompt"])]
        ends = tokens[int(row["query"])], tokens[int(row["key"])]
        assert (row["query_token"], row["key_token"]) == ends


@pytest.mark.parametrize("text", ["\r", "a\rb"])
def test_a_table_keeps_carriage_returns(folder: Path, text: str) -> None:
    rows = rows_of(export(one_token(text), folder / "table.csv", "csv"))
    assert [row["key_token"] for row in rows] == [text]


@given(circuits(), st.data())
@settings(deadline=None, max_examples=60)
def test_an_attribution_graph_is_valid_and_keeps_its_tokens(circuit: Circuit, data: st.DataObject) -> None:
    prompt = data.draw(st.integers(0, circuit.n_prompts - 1))
    graph = to_neuronpedia(circuit, prompt=prompt)
    assert json.loads(json.dumps(graph, allow_nan=False)) == graph
    VALID.validate(graph)
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= set(ids)
    assert graph["metadata"]["prompt_tokens"] == list(circuit.tokens[prompt])
    assert sum(node["feature_type"] == "embedding" for node in graph["nodes"]) == len(circuit.tokens[prompt])


@pytest.mark.parametrize("form", ["json", "graphml", "csv", "neuronpedia"])
def test_every_format_is_text_for_every_known_token(folder: Path, form: str) -> None:
    for text in KNOWN:
        path = export(one_token(text), folder / f"one.{form}", form)
        assert path.read_bytes().decode("utf-8")


@st.composite
def component_circuits(draw: st.DrawFn) -> tuple[ComponentGraph, torch.Tensor, torch.Tensor]:
    """A graph of components, a score of any size for each of its edges, and some of them chosen."""
    graph = ComponentGraph(draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.booleans()))
    maker = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    scores = torch.randn(graph.exists.shape, generator=maker, dtype=torch.float64)
    scores = scores.mul(10.0 ** draw(st.integers(-300, 300))).masked_fill(~graph.exists, 0.0)
    return graph, scores, graph.exists & (torch.rand(scores.shape, generator=maker) < draw(st.floats(0, 1)))


@given(component_circuits(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_component_circuits_come_back_equal(
    given_: tuple[ComponentGraph, torch.Tensor, torch.Tensor], flip: bool
) -> None:
    graph, scores, edge_mask = given_
    record: Any = json.loads(
        json.dumps(to_mib(graph, scores, edge_mask, d_model=8, flip=flip), allow_nan=False)
    )
    again, found, chosen = from_mib(record)
    assert again == graph
    assert torch.equal(found, -scores if flip else scores)
    assert torch.equal(chosen, edge_mask)
    inside = {name for name, node in record["nodes"].items() if node["in_graph"]}
    ends = {end for name, edge in record["edges"].items() if edge["in_graph"] for end in parts_of(name)}
    assert ends <= inside


def parts_of(edge: str) -> tuple[str, str]:
    """The nodes at both ends of `a0.h1->a1.h0<q>`."""
    writer, _, reader = edge.partition("->")
    return writer, reader.partition("<")[0]
