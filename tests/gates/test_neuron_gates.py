"""Gates on neurons: which matrices a neuron has, gated or plain, and a layer without any."""

from __future__ import annotations

import pytest
import torch

from gates.test_learned import output
from helpers.closed_units import gated


@pytest.mark.parametrize(
    ("name", "matrices"), [("gpt2", 2), ("opt", 2), ("bert", 2), ("llama", 3), ("gemma2", 3)]
)
def test_a_neuron_is_a_row_of_each_first_matrix_and_a_column_of_the_second(name: str, matrices: int) -> None:
    model, sets = gated(name, "neurons")
    assert sets.of_kind("neurons").price == matrices * model.config.hidden_size


def test_a_layer_without_neurons_is_carried_by_the_residual_stream() -> None:
    model, sets = gated("llama", "neurons")
    with torch.no_grad():
        sets.of_kind("neurons").logits["1"].fill_(-1.0)  # type: ignore[attr-defined]
    closed = output(model)
    base, _ = gated("llama", "heads")
    with torch.no_grad():
        base.model.layers[1].mlp.down_proj.weight.zero_()
    assert torch.equal(closed, output(base))
