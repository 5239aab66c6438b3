"""Exports: lossless where promised, valid where there is a schema, refused where they are too large."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import networkx
import numpy as np
import pandas
import pytest
import torch

from gossamer.circuits.circuit import EDGE_FIELDS, VALUE_FIELDS, Circuit, UnitsLeft
from gossamer.circuits.components.graph import ComponentGraph
from gossamer.circuits.export import export
from gossamer.circuits.export.graphs import from_graphml, from_networkx, to_dataframe, to_graphml, to_networkx
from gossamer.circuits.export.mib import from_mib, to_mib
from gossamer.circuits.export.neuronpedia import to_neuronpedia
from gossamer.circuits.export.record import from_record, load_circuit, save_circuit, to_record
from gossamer.circuits.trace import trace
from gossamer.errors import GossamerError, GossamerWarning
from helpers.zoo import prompts, tiny_gated

SCHEMA = json.loads((Path(__file__).parents[1] / "helpers" / "neuronpedia.schema.json").read_text())


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    names = ("<", "&", "é", " x", '"', "\n", "a", "b", "c", "d", "e", "f", "g")
    return trace(
        tiny_gated(), prompts(n=3), text=lambda ids: tuple(names[i] for i in ids.tolist()), outputs=[-1]
    )


def same(first: Circuit, second: Circuit) -> None:
    for name in (*EDGE_FIELDS, *VALUE_FIELDS):
        left, right = getattr(first, name), getattr(second, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    for name in ("n_layers", "n_heads", "tokens", "answers", "outputs", "visible", "meta", "left"):
        assert getattr(first, name) == getattr(second, name)


def test_json_comes_back_as_it_went(circuit, tmp_path):
    same(circuit, from_record(json.loads(json.dumps(to_record(circuit), allow_nan=False))))
    path = tmp_path / "circuit.json"
    for place in (path, str(path)):
        save_circuit(circuit, place)
        same(circuit, load_circuit(place))
    empty = circuit.select(np.array([], dtype=int))
    same(empty, from_record(to_record(empty)))


def test_closed_heads_and_neurons_make_a_record_of_version_2(circuit, tmp_path):
    """Without them it is of version 1, which readers before them open, and which is opened still."""
    assert to_record(circuit)["version"] == 1
    assert set(to_record(circuit)["model"]) == {"n_layers", "n_heads"}
    assert from_record(to_record(circuit)).left == UnitsLeft()
    open_heads = circuit.select(circuit.head != 0)
    left = UnitsLeft(tuple((layer, 0) for layer in range(circuit.n_layers)), ((3, 8),) * circuit.n_layers)
    closed = replace(open_heads, left=left)
    record = to_record(closed)
    assert (record["version"], record["model"]["closed_heads"][1]) == (2, [1, 0])
    same(closed, from_record(json.loads(json.dumps(record))))
    same(closed, from_graphml(to_graphml(closed)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"closed_heads": [[9, 0]]}, "has closed head in layer 9 of 3: expected 0 to 2"),
        ({"closed_heads": [[0, 9]]}, "has closed head in head 9 of 2"),
        ({"closed_heads": [[0]]}, "closed_heads"),
        ({"closed_heads": [[0, 0]]}, "has edges in head 0.0, which is closed: expected edges of open heads"),
        ({"neurons": [[1, 2]]}, "has neurons .* of 3 layers"),
        ({"neurons": [[3, 2]] * 3}, "has neurons .* of 3 layers"),
        ({"neurons": [["many", 2]] * 3}, "neurons"),
    ],
)
def test_units_that_cannot_be_are_refused(circuit, changed, message):
    record = to_record(circuit)
    record |= {"version": 2, "model": record["model"] | changed}
    with pytest.raises(GossamerError, match=message):
        from_record(record)


def test_graphml_is_read_by_networkx_and_comes_back(circuit):
    text = to_graphml(circuit)
    graph = networkx.parse_graphml(text, force_multigraph=True)
    kinds = [data["kind"] for *_, data in graph.edges(data=True)]
    assert kinds.count("attention") == len(circuit)
    assert networkx.is_directed_acyclic_graph(graph)
    same(circuit, from_graphml(text))
    same(circuit, from_networkx(to_networkx(circuit)))


def test_live_edges_are_those_on_a_path_of_the_graph(circuit):
    graph = to_networkx(circuit)
    outputs = {f"p{prompt}.l3.t6" for prompt in range(3)}
    reach = set().union(*(networkx.ancestors(graph, node) | {node} for node in outputs))
    for _, target, data in graph.edges(data=True):
        if data["kind"] == "attention":
            assert data["live"] == (target in reach)


def test_a_table_has_a_row_per_edge(circuit):
    table = to_dataframe(circuit)
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == len(circuit)
    np.testing.assert_array_equal(table["weight"].to_numpy(), circuit.weight)
    assert (table["live"].to_numpy() == circuit.live_mask()).all()
    row = table.iloc[5]
    assert row["key_token"] == circuit.tokens[row["prompt"]][row["key"]]


@pytest.mark.parametrize("prompt", range(3))
def test_the_attribution_graph_is_valid_and_whole(circuit, prompt):
    graph = to_neuronpedia(circuit, prompt=prompt)
    jsonschema.validate(graph, SCHEMA)
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= set(ids)
    heads = [node for node in graph["nodes"] if node["feature_type"] == "lorsa"]
    one = circuit.of_prompt(prompt).live()
    assert len(heads) == len(set(zip(one.layer, one.head, one.query, strict=True)))
    levels = {node["node_id"]: -1 if node["layer"] == "E" else int(node["layer"]) for node in graph["nodes"]}
    assert all(levels[link["source"]] < levels[link["target"]] for link in graph["links"])


@pytest.mark.parametrize("links", [20, 60, 10**6])
def test_a_large_attribution_graph_is_cut_to_its_strongest_edges_and_says_so(circuit, links):
    one = circuit.of_prompt(0).live()
    whole = to_neuronpedia(circuit, links=10**9)
    if len(whole["links"]) <= links:
        assert to_neuronpedia(circuit, links=links) == whole
        return
    with pytest.warns(GossamerWarning, match=rf"\d+ of {len(one):,} live edges are kept"):
        graph = to_neuronpedia(circuit, links=links)
    jsonschema.validate(graph, SCHEMA)
    assert links / 3 < len(graph["links"]) <= links
    assert "live edges are kept" in graph["metadata"]["info"]["description"]
    ids = {node["node_id"] for node in graph["nodes"]}
    assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= ids
    weights = {(link["source"], link["target"]): link["weight"] for link in whole["links"]}
    assert all((link["source"], link["target"]) in weights for link in graph["links"])


def test_a_deep_model_s_attribution_graph_has_a_sane_size(tmp_path):
    """30 layers of 9 heads, 14 tokens, every edge open: the sizes of SmolLM2-135M."""
    places = np.array(
        [
            (0, layer, h, q, k)
            for layer in range(30)
            for h in range(9)
            for q in range(14)
            for k in range(q + 1)
        ]
    )
    values = np.random.default_rng(0).random((3, len(places)), dtype=np.float32)
    dense = Circuit(
        n_layers=30, n_heads=9, tokens=(("x",) * 14,), answers=(("y",) * 14,), outputs=(13,),
        visible=(len(places),), meta={}, **dict(zip(EDGE_FIELDS, places.astype(np.int32).T, strict=True)),
        **dict(zip(VALUE_FIELDS, values, strict=True)),
    )  # fmt: skip
    with pytest.warns(GossamerWarning, match="live edges are kept"):
        path = export(dense, tmp_path / "graph.json", "neuronpedia")
    assert path.stat().st_size < 5e6
    assert len(json.loads(path.read_text())["links"]) > 10_000


@pytest.mark.parametrize("form", ["json", "graphml", "csv", "neuronpedia"])
def test_every_format_writes_the_prompt_that_is_asked_for(circuit, form, tmp_path):
    asked = export(circuit, tmp_path / "asked", form, prompt=1).read_text()
    assert asked == export(circuit.of_prompt(1), tmp_path / "one", form).read_text()
    assert asked != export(circuit, tmp_path / "first", form, prompt=0).read_text()
    with pytest.raises(GossamerError, match="prompt 9: expected 0 to 2"):
        export(circuit, tmp_path / "none", form, prompt=9)


def test_the_schema_refuses_what_is_not_a_graph(circuit):
    graph = to_neuronpedia(circuit)
    for spoil in (
        lambda g: g.pop("links"),
        lambda g: g["nodes"][0].pop("clerp"),
        lambda g: g["metadata"].pop("scan"),
    ):
        broken = json.loads(json.dumps(graph))
        spoil(broken)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_component_circuits_in_the_form_of_mib():
    graph = ComponentGraph(2, 2)
    scores = torch.randn(graph.exists.shape, dtype=torch.float64) * graph.exists
    edge_mask = graph.exists & (scores > 0)
    record = json.loads(json.dumps(to_mib(graph, scores, edge_mask, d_model=16)))
    assert set(record) == {"cfg", "nodes", "edges"}
    assert set(record["cfg"]) == {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"}
    assert set(record["nodes"]) == {*graph.writers, "logits"}
    assert set(record["edges"]) == set(graph.edge_names())
    for name, edge in record["edges"].items():
        assert ("<" in name) == name.partition("->")[2].startswith("a")
        assert set(edge) == {"score", "in_graph"}
    again, found, chosen = from_mib(record)
    assert again == graph
    torch.testing.assert_close(found, scores)
    assert torch.equal(chosen, edge_mask)
    with pytest.raises(GossamerError, match="the component circuit has nothing at cfg"):
        from_mib({"edges": {}})
    record["edges"]["m1->a0.h0<q>"] = {"score": 1.0, "in_graph": True}
    with pytest.raises(GossamerError, match="Check its order"):
        from_mib(record)


@pytest.mark.parametrize("form", ["json", "graphml", "csv", "neuronpedia"])
def test_every_format_is_text_in_a_file(circuit, form, tmp_path):
    path = export(circuit, tmp_path / "out", form)
    assert path.read_text(encoding="utf-8")
    with pytest.raises(GossamerError, match=r"a graph of [\d,]+ edges.* expected up to 3\."):
        export(circuit, path, form, limit=3)


def test_bad_input_is_one_clear_line(circuit, tmp_path):
    record = to_record(circuit)
    with pytest.raises(GossamerError, match="is not a circuit"):
        from_record({"schema": "other"})
    with pytest.raises(GossamerError, match="has version 9 of gossamer-circuit: expected versions up to 2"):
        from_record({**record, "version": 9})
    with pytest.raises(GossamerError, match="head 1, query"):
        from_record({**record, "edges": {**record["edges"], "head": [1]}})
    with pytest.raises(GossamerError, match="has nothing at prompts: expected a value there"):
        from_record({name: part for name, part in record.items() if name != "prompts"})
    with pytest.raises(
        GossamerError, match="format='dot' is not known: expected one of json, graphml, csv, neuronpedia"
    ):
        export(circuit, tmp_path / "x", "dot")
    with pytest.raises(GossamerError, match="the GraphML cannot be loaded"):
        from_graphml("nothing")
    with pytest.raises(GossamerError, match="a graph without 'circuit'"):
        from_networkx(networkx.MultiDiGraph())
    with pytest.raises(GossamerError, match="cannot be read"):
        load_circuit(tmp_path / "missing.json")


def test_a_missing_extra_is_named(circuit, monkeypatch):
    real = builtins.__import__

    def without(name, *given, **options):
        if name in ("networkx", "pandas"):
            raise ImportError(name)
        return real(name, *given, **options)

    monkeypatch.setattr("gossamer.circuits.export.graphs.importlib.import_module", without)
    for use in (to_networkx, to_dataframe):
        with pytest.raises(GossamerError, match=r"expected the extra gossamer\[graphs\]"):
            use(circuit)
