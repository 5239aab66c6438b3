"""Edges as lists: the same as the whole matrices would give, in memory that does not see T x S."""

from __future__ import annotations

import pytest
import torch

from gossamer.errors import GossamerError
from gossamer.gates.attention import __name__ as package
from gossamer.gates.attention import edge_list as edges_module
from gossamer.gates.attention import tiles as tiles_module
from gossamer.gates.attention.eager import attention_logits, attention_weights
from gossamer.gates.attention.edge_list import open_edges, strong_edges
from gossamer.gates.attention.visibility import Visibility
from helpers.attention_cases import FEATURES, B, H, S, T, inputs

VISIBLE = ("mask", "causal", "window", "segments")
NAMES = ["plain", "causal", "padding", "mask of heads", "window", "segments", "softcap", "sinks"]


@pytest.fixture(params=[None, 50], ids=["one tile", "many tiles"])
def tiles(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(f"{package}.tiles.TILE", request.param)


def matrices(q, k, feature):
    """s, softmax(s) and the visible pairs as whole matrices, and the arguments that gave them."""
    given = {**dict.fromkeys(VISIBLE), "causal": False, **FEATURES[feature]}
    visible = Visibility.of(q, k, **{name: given[name] for name in VISIBLE}).all_pairs()
    visible = torch.ones(1, 1, 1, 1, dtype=torch.bool) if visible is None else visible
    logits = attention_logits(q, k, scale=0.7, softcap=given.get("softcap"))
    weights = attention_weights(logits, visible, given.get("sinks"))
    names = (*VISIBLE, "softcap", "sinks")
    return logits, weights, visible, {n: x for n, x in given.items() if n in names}


def check(edges, chosen, logits, weights):
    where = chosen.expand(logits.shape).nonzero().T
    assert torch.equal(torch.stack(edges[:4]).long(), where)
    torch.testing.assert_close(edges.logit, logits[tuple(where)].float())
    torch.testing.assert_close(edges.weight, weights[tuple(where)].float())


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("groups", [H, 2])
@pytest.mark.parametrize("feature", NAMES)
def test_open_edges_are_the_open_gates(feature, groups):
    q, k, _ = inputs((B, H, groups, T, S, 5, 3))
    logits, weights, visible, arguments = matrices(q, k, feature)
    edges = open_edges(q, k, scale=0.7, bias=-0.5, **arguments)
    check(edges, (logits - 0.5 > 0) & visible, logits.detach(), weights.detach())
    everything = open_edges(q, k, scale=0.7, bias=torch.inf, **arguments)
    assert len(everything.key) == visible.expand(logits.shape).sum()


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("feature", NAMES)
def test_strong_edges_are_the_large_weights(feature):
    q, k, _ = inputs((B, H, 2, T, S, 5, 3))
    logits, weights, visible, arguments = matrices(q, k, feature)
    edges = strong_edges(q, k, scale=0.7, threshold=0.2, **arguments)
    check(edges, weights >= 0.2, logits.detach(), weights.detach())
    edges = strong_edges(q, k, scale=0.7, top=3, **arguments)
    floor = weights.topk(3, dim=-1).values[..., -1:]
    check(edges, (weights >= floor) & visible, logits.detach(), weights.detach())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "expected one of the two"),
        ({"threshold": 0.1, "top": 2}, "expected one of the two"),
        ({"threshold": 0.0}, "threshold=0.0: expected above 0, up to 1"),
        ({"top": 0}, "top=0: expected 1 and above"),
    ],
)
def test_strong_edges_want_one_sensible_limit(arguments, words):
    q, k, _ = inputs((1, 1, 1, 2, 2, 4, 4))
    with pytest.raises(GossamerError, match=words):
        strong_edges(q, k, scale=1.0, **arguments)


def test_no_edge_is_an_empty_list():
    q, k, _ = inputs((1, 1, 1, 3, 3, 4, 4))
    edges = open_edges(q, k, scale=1.0, bias=-1e6)
    assert [len(x) for x in edges] == [0] * 6
    assert edges.key.dtype == torch.int32


def test_a_long_prompt_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(f"{package}.tiles.TILE", 1 << 18)
    largest = 0

    def watched(*arguments):
        nonlocal largest
        s, slope = tiles_module.logits_of(*arguments)
        largest = max(largest, s.numel())
        return s, slope

    monkeypatch.setattr(edges_module, "logits_of", watched)
    maker = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 8192, 4, generator=maker) * 3 for _ in range(2))
    edges = open_edges(q, k, scale=0.5, bias=-60.0, causal=True)
    assert largest <= 1 << 18
    assert 0 < len(edges.key) < 10_000
    assert (edges.logit > 60).all()
    assert (edges.key <= edges.query).all()
