"""One prompt's circuit as the attribution graph that Neuronpedia and circuit-tracer read.

Their nodes are features, ours are heads at positions; a bare attention edge has no type of its own there. So

    token node      one per input position
    head node       one per (layer, head, query) that reads anything; feature_type `lorsa`, an attention
    feature;
                    its number as a feature is the head's
    logit node      one per output position
    link            u -> (layer, head, query) for every writer u of the stream that an open edge reads: the
    token
                    at the key and the heads below that write there; weight = the edge's contribution, summed
                    over the keys it comes by
    link            u -> logit for every writer of the output position; weight 1, as nothing was measured
    there

Weights are norms of what is moved, not attributions, and the metadata says so.

A head has as many links from a position as heads below write there, so links grow with the square of the depth:
14 tokens through 30 layers make over a million. Of a graph with more than `links` links, the edges with the largest
contribution are kept, as many as fit, of these the live ones; the metadata and a warning say how many.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from typing import Any

import numpy as np

from ... import __version__
from ...errors import GossamerWarning, refuse
from ..circuit import Circuit
from .record import require_size

LINKS = 20_000  # assumed: 3 MB, and more than a person looks at
FEATURE, TOKEN, LOGIT = "lorsa", "embedding", "logit"


def to_neuronpedia(
    circuit: Circuit,
    *,
    prompt: int = 0,
    model_id: str = "gossamer",
    slug: str = "circuit",
    token_ids: tuple[int, ...] | None = None,
    limit: int | None = None,
    links: int = LINKS,
) -> dict[str, Any]:
    """The graph of one prompt.

    Args:
        model_id: what `scan` says, the model's name there.
        token_ids: vocabulary ids of the input tokens, for node ids; by default positions.
        limit: most live edges of the prompt; more are refused.
        links: most links of the graph; of more, the strongest edges are kept.
    Raises: `GossamerError` for an unknown prompt, more than `limit` edges, and fewer links than one edge makes.
    """
    one = circuit.of_prompt(prompt).live()
    if limit is not None:
        require_size(one, limit)
    one, cut = _strongest(one, links)
    tokens = list(one.tokens[0])
    ids = tuple(range(len(tokens))) if token_ids is None else token_ids
    nodes = {("token", p): _token(ids[p], p, token) for p, token in enumerate(tokens)}
    weights: dict[tuple[tuple, tuple], float] = defaultdict(float)
    writers: dict[int, list[tuple]] = {p: [("token", p)] for p in range(len(tokens))}
    for layer in sorted(set(one.layer.tolist())):
        _add_layer(one, layer, nodes, writers, weights)
    for position in one.outputs:
        nodes["logit", position] = _logit(one, position)
        weights.update({(writer, ("logit", position)): 1.0 for writer in writers[position]})
    return {
        "metadata": _metadata(slug, model_id, tokens, cut),
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": list(nodes.values()),
        "links": [
            {"source": nodes[source]["node_id"], "target": nodes[target]["node_id"], "weight": weight}
            for (source, target), weight in weights.items()
        ],
    }


def _strongest(one: Circuit, links: int) -> tuple[Circuit, str]:
    """The live part of the strongest edges of a live circuit that make at most `links` links, and a sentence on it."""
    total = _links(one)
    if total <= links:
        return one, ""
    order = np.argsort(-one.contribution, kind="stable")
    low, high, kept = 0, len(order), one.select(order[:0])
    while low < high - 1:
        middle = (low + high) // 2
        part = one.select(np.sort(order[:middle])).live()
        low, high, kept = (middle, high, part) if _links(part) <= links else (low, middle, kept)
    if not len(kept):
        raise refuse(f"a graph of at most {links:,} links", "room for one edge", "allow more links")
    said = (
        f"{len(kept):,} of {len(one):,} live edges are kept, the strongest, as all would make {total:,} links"
    )
    warnings.warn(said, GossamerWarning, stacklevel=3)
    return kept, f" {said}."


def _links(one: Circuit) -> int:
    """How many links a live circuit on one prompt makes; a head that has two keys with one writer counts it twice."""
    writers, total = np.ones(len(one.tokens[0]), dtype=np.int64), 0
    for layer in range(one.n_layers):
        here = one.layer == layer
        total += int(writers[one.key[here]].sum())
        heads = np.unique(np.stack([one.head[here], one.query[here]]), axis=1)
        np.add.at(writers, heads[1], 1)
    return total + int(writers[list(one.outputs)].sum())


def _add_layer(
    one: Circuit,
    layer: int,
    nodes: dict[tuple, dict[str, Any]],
    writers: dict[int, list[tuple]],
    weights: dict[tuple[tuple, tuple], float],
) -> None:
    """Add the heads of a layer and what they read; they become writers after all of them have read."""
    fresh: dict[tuple, int] = {}
    for number in (one.layer == layer).nonzero()[0].tolist():
        head, query, key = (int(getattr(one, name)[number]) for name in ("head", "query", "key"))
        name = ("head", layer, head, query)
        nodes.setdefault(name, _head(layer, head, query, one.tokens[0][query]))
        fresh[name] = query
        for writer in writers[key]:
            weights[writer, name] += float(one.contribution[number])
    for name, query in fresh.items():
        writers[query].append(name)


def _node(
    node_id: str, js_id: str, kind: str, layer: str, feature: int | None, position: int, label: str
) -> dict:
    return {
        "node_id": node_id, "feature": feature, "layer": layer, "ctx_idx": position, "feature_type": kind,
        "jsNodeId": js_id, "clerp": label, "influence": None, "activation": None,
    }  # fmt: skip


def _token(vocabulary_id: int, position: int, token: str) -> dict[str, Any]:
    label = f"token {token!r}"
    return _node(
        f"E_{vocabulary_id}_{position}",
        f"E_{vocabulary_id}-{position}",
        TOKEN,
        "E",
        position,
        position,
        label,
    )


def _head(layer: int, head: int, position: int, token: str) -> dict[str, Any]:
    label = f"layer {layer} head {head} at {token!r}"
    feature = (layer + head) * (layer + head + 1) // 2 + head  # Cantor's pairing, as circuit-tracer has it
    return _node(
        f"{layer}_{head}_{position}", f"{layer}_{head}-0", FEATURE, str(layer), feature, position, label
    )


def _logit(one: Circuit, position: int) -> dict[str, Any]:
    level, token = one.n_layers + 1, one.answers[0][position]
    ids = f"{level}_{position}_{position}", f"L_{position}-{position}"
    node = _node(*ids, LOGIT, str(level), position, position,
                 f"output {token!r}")  # fmt: skip
    return {**node, "is_target_logit": True}


def as_text(graph: dict[str, Any]) -> str:
    """The graph as JSON without indentation, which would double it."""
    return json.dumps(graph, allow_nan=False, separators=(",", ":")) + "\n"


def _metadata(slug: str, model_id: str, tokens: list[str], cut: str) -> dict[str, Any]:
    return {
        "slug": slug,
        "scan": model_id,
        "prompt_tokens": tokens,
        "prompt": " ".join(tokens),
        "schema_version": 1,
        "info": {
            "description": f"Open attention edges; link weights are norms, not attributions.{cut}",
            "generator": {"name": "gossamer", "version": __version__, "url": ""},
        },
    }
