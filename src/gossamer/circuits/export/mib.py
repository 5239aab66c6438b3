"""Component circuits as EAP-IG and MIB read them: one JSON object of `cfg`, `nodes` and `edges`.

Names are those of `graph.py`: input, a{L}.h{H}, m{L}, logits; edges into heads end in <q>, <k> or
<v>. `logits` is always in the graph. A score here is the change of the metric when the edge is ablated, so
that an edge which helps is negative; MIB ranks by |score| or by sign, and `flip` writes minus the score for
the latter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import refuse
from ..components.graph import ComponentGraph


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
    try:
        cfg, edges = record["cfg"], record["edges"]
        graph = ComponentGraph(int(cfg["n_layers"]), int(cfg["n_heads"]), bool(cfg["parallel_attn_mlp"]))
        scores = torch.zeros(graph.exists.shape, dtype=torch.float64)
        edge_mask = torch.zeros_like(graph.exists)
        for name, edge in edges.items():
            place = graph.edge(name)
            scores[place], edge_mask[place] = edge["score"], edge["in_graph"]
    except (KeyError, TypeError) as error:
        raise refuse(
            f"a component circuit without {error}",
            "cfg, nodes and edges as EAP-IG writes them",
            "check it",
        ) from error
    return graph, scores, edge_mask
