"""Circuits as networkx graphs, GraphML and pandas tables.

A node is the residual stream of one position below one layer: `p{prompt}.l{layer}.t{position}`; layer
n_layers is what the model reads its answer from. An attention edge of layer l goes from (l, key) to (l + 1,
query); an edge of kind `residual` joins a position's stream below and above a layer, so that paths are paths.
Attributes are scalars alone, since GraphML knows no lists; those of the whole circuit are JSON text in
`graph.graph["circuit"]`.
"""

from __future__ import annotations

import importlib
import json
import re
from io import BytesIO
from typing import Any

from ...errors import GossamerError, first_line, loading, refuse
from ...files import parse_json
from ..circuit import EDGE_FIELDS, VALUE_FIELDS, Circuit
from .record import from_record, require_size, to_record

# networkx keeps `key` for itself, and silently overwrites an attribute of that name.
RENAMED = {"key": "key_position", "query": "query_position"}


def _extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise refuse(
            f"{name} is not installed",
            "the extra gossamer[graphs]",
            "run pip install 'gossamer[graphs]'",
        ) from error


# Characters that XML 1.0 cannot hold, not even escaped; the tokens of byte-level tokenizers have some.
NOT_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def for_xml(token: str) -> str:
    """A token for display in a graph, with U+FFFD for what XML cannot hold; the circuit itself travels as JSON."""
    return NOT_XML.sub("\ufffd", token)


def for_utf8(token: str) -> str:
    """A token as text that a file can hold, with U+FFFD for a lone surrogate."""
    return token.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def to_dataframe(circuit: Circuit, *, limit: int | None = None) -> Any:
    """A pandas DataFrame with one row per edge: its place, its values, and the tokens at both ends."""
    pandas = _extra("pandas")
    if limit is not None:
        require_size(circuit, limit)
    table = pandas.DataFrame({name: getattr(circuit, name) for name in (*EDGE_FIELDS, *VALUE_FIELDS)})
    for end in ("query", "key"):
        places = zip(circuit.prompt, getattr(circuit, end), strict=True)
        table[f"{end}_token"] = [for_utf8(circuit.tokens[prompt][place]) for prompt, place in places]
    table["live"] = circuit.live_mask()
    return table


def node_name(prompt: int, layer: int, position: int) -> str:
    """The id of a residual stream below a layer."""
    return f"p{prompt}.l{layer}.t{position}"


def to_networkx(circuit: Circuit, *, limit: int | None = None) -> Any:
    """A networkx MultiDiGraph as in the module docstring, with nodes for every position of every prompt."""
    networkx = _extra("networkx")
    streams = sum(map(len, circuit.tokens)) * circuit.n_layers
    if limit is not None:
        require_size(circuit, limit, streams, "edges (residual ones included)")
    record = to_record(circuit)
    about = {name: record[name] for name in ("schema", "version", "model", "outputs", "prompts", "meta")}
    graph = networkx.MultiDiGraph(circuit=json.dumps(about))
    for prompt, tokens in enumerate(circuit.tokens):
        for position, token in enumerate(tokens):
            for layer in range(circuit.n_layers + 1):
                is_output = layer == circuit.n_layers and position in circuit.outputs
                graph.add_node(
                    node_name(prompt, layer, position), prompt=prompt, layer=layer, position=position,
                    token=circuit.answers[prompt][position] if is_output else token, is_output=is_output,
                )  # fmt: skip
                if layer:
                    graph.add_edge(
                        node_name(prompt, layer - 1, position), node_name(prompt, layer, position),
                        key="residual", kind="residual",
                    )  # fmt: skip
    live = circuit.live_mask()
    for number in range(len(circuit)):
        _add_edge(graph, circuit, number, bool(live[number]))
    return graph


def _add_edge(graph: Any, circuit: Circuit, number: int, live: bool) -> None:
    prompt, layer, head, query, key = (int(getattr(circuit, name)[number]) for name in EDGE_FIELDS)
    graph.add_edge(
        node_name(prompt, layer, key),
        node_name(prompt, layer + 1, query),
        key=f"head {head}",
        kind="attention",
        prompt=prompt,
        layer=layer,
        head=head,
        query_position=query,
        key_position=key,
        live=live,
        number=number,
        **{name: float(str(getattr(circuit, name)[number])) for name in VALUE_FIELDS},
    )


def from_networkx(graph: Any) -> Circuit:
    """The circuit that `to_networkx` made a graph of."""
    try:
        about = parse_json(graph.graph["circuit"], where="the graph's circuit")
        edges = [data for *_, data in graph.edges(data=True) if data["kind"] == "attention"]
        edges.sort(key=lambda data: data["number"])
        names = (*EDGE_FIELDS, *VALUE_FIELDS)
        about["edges"] = {name: [data[RENAMED.get(name, name)] for data in edges] for name in names}
    except (KeyError, TypeError) as error:
        raise refuse(
            f"a graph without {first_line(error)}", "graphs that gossamer made", "export the circuit again"
        ) from error
    return from_record(about, where="the graph")


def to_graphml(circuit: Circuit, *, limit: int | None = None) -> str:
    """The graph of `to_networkx` as GraphML."""
    graph = to_networkx(circuit, limit=limit)
    for _, node in graph.nodes(data=True):
        node["token"] = for_xml(node["token"])
    text = BytesIO()
    _extra("networkx").write_graphml(graph, text)
    return text.getvalue().decode("utf-8")


def from_graphml(text: str) -> Circuit:
    """The circuit in a GraphML file that gossamer wrote."""
    networkx = _extra("networkx")
    with loading("the GraphML", "a file that gossamer wrote", "check the file", GossamerError):
        graph = networkx.read_graphml(BytesIO(text.encode("utf-8")), force_multigraph=True)
    return from_networkx(graph)
