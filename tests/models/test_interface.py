"""A mask of one's own, (B, 1, T, S): two sequences packed into one row are two sequences, edge for edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gossamer import attach
from gossamer.errors import GossamerError
from gossamer.models.interface import edge_gate_attention
from gossamer.training.metrics import Tally, counting
from helpers import zoo

LONG, SHORT = 7, 5
# A mask of four axes is all that a layer looks at, so these have no window.
FAMILIES = [*(f for f in zoo.DECODERS if "sliding_window" not in zoo.DECODERS[f][2]), "bert"]


def packed(causal: bool) -> torch.Tensor:
    """Who may see whom, (1, 1, T, T) bool, in a row of two sequences."""
    part = torch.tensor([0] * LONG + [1] * SHORT)
    same = part[:, None] == part[None, :]
    return (same.tril() if causal else same)[None, None]


def gated(family: str) -> tuple[Any, Any]:
    model = zoo.build(family)
    return model, attach(model, bias=0.3)


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_sequences_are_the_sequences(family: str, additive: bool) -> None:
    model, gates = gated(family)
    mask = packed(causal=family != "bert")
    given = torch.where(mask, 0.0, torch.finfo(torch.float32).min) if additive else mask
    ids = torch.randint(4, 60, (1, LONG + SHORT), generator=torch.Generator().manual_seed(0))
    places = torch.cat([torch.arange(LONG), torch.arange(SHORT)])[None]
    alone, together = Tally(), Tally()
    with torch.no_grad():
        with counting(gates, alone):
            parts = [model(input_ids=x).logits for x in ids.split((LONG, SHORT), dim=1)]
        with counting(gates, together):
            both = model(input_ids=ids, attention_mask=given, position_ids=places).logits
    torch.testing.assert_close(both, torch.cat(parts, dim=1), rtol=1e-4, atol=1e-4)
    assert together.sums["edges/visible"] == alone.sums["edges/visible"]
    assert together.sums["edges/hard"] == alone.sums["edges/hard"] > 0
    assert together.sums["edges/hard"] < together.sums["edges/visible"]


@pytest.mark.parametrize(("mask", "message"), [
    (torch.full((1, 1, 12, 12), -0.5), "an additive attention mask with values between 0 and -inf"),
    (torch.ones(1, 1, 12, 9, dtype=torch.bool), r"mask \(1, 1, 12, 9\): expected broadcastable to \(B, H, T, S\)"),
    (torch.ones(1, 3, 12, 12, dtype=torch.bool), r"mask \(1, 3, 12, 12\): expected broadcastable"),
])  # fmt: skip
def test_a_mask_that_says_something_else_is_one_line(mask: torch.Tensor, message: str) -> None:
    model, _ = gated("llama")
    with pytest.raises(GossamerError, match=message) as error:
        model(input_ids=torch.full((1, 12), 5), attention_mask=mask)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("family", "says"), [("llama", False), ("bert", True)])
def test_a_call_that_says_whether_it_is_causal_is_heard(family: str, says: bool) -> None:
    """As transformers' own attention hears it, where there is no mask."""
    model, gates = gated(family)
    gates.bias = torch.inf
    module, maker = (
        next(m for m in model.modules() if hasattr(m, "edge_gates")),
        torch.Generator().manual_seed(0),
    )
    q, k, v = (torch.randn(1, 4, 6, 8, generator=maker) for _ in range(3))
    found, _ = edge_gate_attention(module, q, k, v, None, scaling=0.3, is_causal=says)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=says, scale=0.3)
    torch.testing.assert_close(found, expected.transpose(1, 2))
    own, _ = edge_gate_attention(module, q, k, v, None, scaling=0.3)
    assert not torch.allclose(own, found)
