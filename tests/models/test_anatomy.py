"""Where the output projection of each layer is: found in every architecture, and the one that is known by name."""

from __future__ import annotations

import pytest

from gossamer.circuits.components.wiring import wiring
from gossamer.models.anatomy import output_projections, per_head
from gossamer.models.attach import attach
from helpers.families import ALL, build
from helpers.gated_models import tiny


@pytest.mark.parametrize("family", ALL)
def test_every_layer_of_every_architecture_has_its_output_projection(family):
    model = build(family)
    gates = attach(model, impl="eager")
    found = output_projections(model, gates)
    assert sorted(found) == list(range(gates.n_layers))
    assert len({id(module) for module in found.values()}) == gates.n_layers
    for module in found.values():
        assert per_head(module, gates.n_heads).shape[0] == gates.n_heads


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama"])
def test_it_is_the_one_that_component_circuits_know_by_name(kind):
    model = tiny(kind)
    blocks = wiring(model).blocks
    found = output_projections(model, attach(model, impl="eager"))
    assert [found[layer] for layer in range(len(blocks))] == [block.out for block in blocks]
