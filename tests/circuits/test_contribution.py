"""What an edge adds to the residual stream: checked by closing edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.circuits.contribution import Writing
from gossamer.circuits.trace import trace
from gossamer.errors import GossamerWarning
from gossamer.models.anatomy import Anatomy
from gossamer.models.attach import attach
from gossamer.models.forward import evaluating
from helpers.zoo import DECODERS, ENCODERS, build, tiny


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_a_contribution_is_what_closing_the_edge_takes_away(family):
    model = build(family)
    gates = attach(model, bias=0.0, impl="eager")
    ids = torch.randint(3, 90, (1, 6), generator=torch.Generator().manual_seed(0))
    circuit = trace(model, ids)
    assert circuit.meta["contribution"] == "residual"
    module = Anatomy.of(model)[0].o.module
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda m, given, out: seen.append(out))
    first = np.flatnonzero(circuit.layer == 0)
    assert len(first) > 3, "an empty test"
    with evaluating(model):
        model(input_ids=ids)
        for number in first[:: max(1, len(first) // 8)]:
            keep = torch.ones(1, gates.n_heads, 6, 6, dtype=torch.bool)
            query = int(circuit.query[number])
            keep[0, circuit.head[number], query, circuit.key[number]] = False
            with gates.using(keep={0: keep}):
                model(input_ids=ids)
            change = seen[-1] - seen[0]
            assert float(change[0, query].norm()) == pytest.approx(
                float(circuit.contribution[number]), rel=1e-3, abs=1e-5
            )
            change[0, query] = 0
            assert float(change.abs().max()) < 1e-5, "another query was moved"
    handle.remove()


def test_lengths_are_those_of_the_products():
    model = build("llama")
    values = torch.randn(2, 2, 5, 8)
    weight = model.model.layers[1].self_attn.o_proj.weight.T.unflatten(0, (4, 8))
    expected = torch.einsum("bhse,hem->bhsm", values.repeat_interleave(2, 1), weight).norm(dim=-1)
    torch.testing.assert_close(Writing(model).lengths(1, values), expected)


def test_a_projection_inside_an_adapter_is_not_taken_for_what_is_written():
    class Adapter(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base_layer = base

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.base_layer(x)

    model = tiny("llama")
    attach(model, bias=0.0, impl="eager")
    layer = model.model.layers[1].self_attn
    layer.o_proj = Adapter(layer.o_proj)
    with pytest.warns(GossamerWarning, match="inside the heads"):
        circuit = trace(model, torch.arange(6)[None])
    assert circuit.meta["contribution"] == "head"
