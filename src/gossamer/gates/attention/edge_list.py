"""The edges of one attention layer as a list, without ever holding a T x S matrix.

Letters: B batch row, H query head, G key-value head, T query, S key, D width, N edges found.

What. `open_edges` lists the pairs whose deterministic gate is open; `strong_edges` lists what a
base model leans on: weights from a threshold on, or the largest few of each query.
How. Tile by tile, twice: the first time only to count, so that the second can write into arrays of
the right size. Memory is one tile and N edges of 24 bytes (and 16 more each while they are put in
order).
Why not a matrix and `nonzero`. At T = 32,768 one head's logits alone are 4 GB.
Price. The logits of tiles with any edge are computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import refuse
from .settings import Settings, least_weight
from .tiles import Call, Inputs, logits_of, row_scale, row_top, sinks_of, spans
from .visibility import Span, Visibility, length
from .workspace import Workspace

Select = Callable[[Tensor, Tensor], Tensor]  # (s, weight), each (N, M, S), -> bool


class EdgeList(NamedTuple):
    """Edges of one layer in the order of row, head, query, key; all fields are (N,)."""

    row: Tensor  # int32: batch row
    head: Tensor  # int32: query head
    query: Tensor  # int32: index of the query, 0 .. T - 1
    key: Tensor  # int32: index of the key, 0 .. S - 1
    logit: Tensor  # float32: s, in nats, without the gate bias
    weight: Tensor  # float32: softmax(s) over all visible keys, gates not applied


def is_open(logit: Tensor, weight: Tensor, bias: float, lse_share: float) -> Tensor:
    """1[s - a lse + bias > 0], from s and the weight, exp(s - lse)."""
    if not lse_share:
        return logit + bias > 0
    if lse_share == 1:
        return weight > least_weight(bias)
    return (1 - lse_share) * logit + lse_share * weight.log() + bias > 0


def open_edges(
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    bias: float = 0.0,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    segments: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    lse_share: float = 0.0,
) -> EdgeList:
    """The visible pairs with s - a lse(s) + bias > 0, as deterministic gated attention opens them.

    Args: as in `gated_attention`; q (B, H, T, D), k (B, G, S, D).
    Returns: `EdgeList`; memory grows with the open edges, not with T * S.
    """
    settings = Settings(scale, torch.inf, None, mask, causal, window, segments, softcap, sinks)
    return _collect(q, k, settings, lambda s, weight: is_open(s, weight, bias, lse_share))


def strong_edges(
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    threshold: float | None = None,
    top: int | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    segments: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> EdgeList:
    """The visible pairs with softmax(s) >= threshold, or each query's `top` largest.

    Args: as in `gated_attention`, and exactly one of
        threshold: the smallest weight listed, above 0 and up to 1.
        top: how many keys of each query and head; ties go to either.
    Returns: `EdgeList`.
    Raises: `GossamerError` unless exactly one of the two is given and sensible.
    """
    if (threshold is None) == (top is None):
        got = f"threshold={threshold}, top={top}"
        raise refuse(got, "one of the two", "pass threshold=0.01, say, and no top")
    if threshold is not None and not 0 < threshold <= 1:
        raise refuse(f"threshold={threshold}", "above 0, up to 1", "pass a weight")
    if top is not None and top < 1:
        raise refuse(f"top={top}", "1 and above", "pass a number of keys")

    def select(s: Tensor, weight: Tensor) -> Tensor:
        if threshold is not None:
            return weight >= threshold
        assert top is not None  # one of the two, as checked above
        best = weight.topk(min(top, weight.shape[-1]), dim=-1).indices
        chosen = torch.zeros_like(weight, dtype=torch.bool).scatter_(-1, best, True)
        return chosen & (s > -torch.inf)

    settings = Settings(scale, torch.inf, None, mask, causal, window, segments, softcap, sinks)
    return _collect(q, k, settings, select)


def _tiles(inputs: Inputs, call: Call, cuts: list[Span]) -> Iterator[tuple[Tensor, Tensor]]:
    """s and weight of every tile, (N, M, S)."""
    workspace = Workspace(inputs.q)
    for span in cuts:
        s, _ = logits_of(inputs, span, call, workspace)
        sinks = sinks_of(inputs.sinks, span, call)
        e, r, _ = row_scale(workspace.buffer("weight", tuple(s.shape)).copy_(s), row_top(s, sinks), sinks)
        yield s, e.mul_(r)


@torch.no_grad()
def _collect(q: Tensor, k: Tensor, settings: Settings, select: Select) -> EdgeList:
    """Count what `select` picks, then write it down."""
    inputs = Inputs.of(q, k, k, settings.sinks)
    call = Call(settings, settings.visibility(q, k), wants_grad=False)
    cuts = spans(call.visibility)
    counts = [int(select(*tile).sum()) for tile in _tiles(inputs, call, cuts)]
    cuts = [span for span, count in zip(cuts, counts, strict=True) if count]
    places = torch.empty(4, sum(counts), dtype=torch.int32, device=q.device)
    values = torch.empty(2, sum(counts), dtype=torch.float32, device=q.device)
    start = 0
    for span, (s, weight) in zip(cuts, _tiles(inputs, call, cuts), strict=True):
        chosen = select(s, weight)
        part = slice(start, start + int(chosen.sum()))
        places[:, part] = _places(chosen, span, call.visibility.shape[2])
        values[0, part], values[1, part] = s[chosen], weight[chosen]
        start = part.stop
    order = _order(places, call.visibility)
    return EdgeList(*places[:, order], *values[:, order])


def _places(chosen: Tensor, span: Span, per_group: int) -> Tensor:
    """Row, head, query and key of the chosen pairs of a tile, (4, N)."""
    shape = length(span.rows), length(span.groups), per_group, length(span.queries), -1
    row, group, head, query, key = chosen.view(shape).nonzero(as_tuple=True)
    return torch.stack(
        [
            row + span.rows.start,
            (group + span.groups.start) * per_group + head,
            query + span.queries.start,
            key + span.keys.start,
        ]
    ).to(torch.int32)


def _order(places: Tensor, visibility: Visibility) -> Tensor:
    """The permutation that puts edges in the order of row, head, query, key."""
    _, groups, per_group, queries, keys = visibility.shape
    row, head, query, key = places
    flat = (row.long() * (groups * per_group) + head).mul_(queries).add_(query).mul_(keys)
    return flat.add_(key).argsort()
