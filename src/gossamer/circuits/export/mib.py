"""Component circuits as EAP-IG and MIB read them: one JSON object of `cfg`, `nodes` and `edges`.

Names are those of `graph.py`: input, a{L}.h{H}, m{L}, logits; edges into heads end in <q>, <k> or
<v>. `logits` is always in the graph. A score here is the change of the metric when the edge is ablated, so
that an edge which helps is negative; MIB ranks by |score| or by sign, and `flip` writes minus the score for
the latter.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import TypedDict

from ...files import require_shape
from ..components.graph import ComponentGraph

Size = Annotated[int, Ge(1), Le(1000)]  # assumed: the scores of all edges fit into memory


class _Config(TypedDict):
    n_layers: Size
    n_heads: Size
    parallel_attn_mlp: bool


class _Edge(TypedDict):
    score: float
    in_graph: bool


class _Record(TypedDict):
    cfg: _Config
    edges: dict[str, _Edge]


def to_mib(
    graph: ComponentGraph, scores: Tensor, edge_mask: Tensor, *, d_model: int, flip: bool = False
) -> dict[str, Any]:
    """The JSON object of a scored and chosen component circuit.

    Args:
        scores: (writers, readers).
        edge_mask: (writers, readers) bool, which edges are in the circuit.
        d_model: width of the residual stream.
        flip: write minus the scores.
    """
    graph.require_mask(edge_mask)
    sign = -1.0 if flip else 1.0
    edges = {
        f"{graph.writers[w]}->{graph.readers[r]}": {
            "score": sign * float(scores[w, r]),
            "in_graph": bool(edge_mask[w, r]),
        }
        for w, r in graph.exists.nonzero().tolist()
    }
    reads = torch.zeros(graph.n_writers + 1, dtype=torch.bool)
    reads.index_put_((graph.reader_of[edge_mask.any(0)],), torch.tensor(True))
    inside = edge_mask.any(1) | reads[:-1]
    nodes = {
        name: {"in_graph": bool(here)} for name, here in zip(graph.writers, inside.tolist(), strict=True)
    }
    return {
        "cfg": {
            "n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel_attn_mlp": graph.parallel,
            "d_model": d_model,
        },
        "nodes": {**nodes, "logits": {"in_graph": True}},
        "edges": edges,
    }  # fmt: skip


def from_mib(record: Any) -> tuple[ComponentGraph, Tensor, Tensor]:
    """The graph, scores and chosen edges of such an object; edges it does not list are not in the circuit.

    Raises: `GossamerError` for a missing part or an edge that the graph does not have.
    """
    require_shape(record, _Record, "the component circuit")
    cfg = record["cfg"]
    graph = ComponentGraph(cfg["n_layers"], cfg["n_heads"], cfg["parallel_attn_mlp"])
    scores = torch.zeros(graph.exists.shape, dtype=torch.float64)
    edge_mask = torch.zeros_like(graph.exists)
    for name, edge in record["edges"].items():
        place = graph.edge(name)
        scores[place], edge_mask[place] = edge["score"], edge["in_graph"]
    return graph, scores, edge_mask
