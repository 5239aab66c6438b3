"""nnsight traces a gated model like any other and reads its gates; skipped until nnsight is installed."""

from __future__ import annotations

import pytest
import torch

from gossamer.models.attach import gates_of
from gossamer.models.forward import evaluating, first_output
from helpers.zoo import prompts, tiny_gated

nnsight = pytest.importorskip(
    "nnsight", reason="nnsight is not installed; pip install nnsight runs this test"
)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_nnsight_reads_the_gates_and_changes_nothing(kind):
    model, ids = tiny_gated(kind), prompts(2)
    gates = gates_of(model)
    expected: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    with evaluating(model), gates.observing(lambda c: expected.append(c.open_gates(c.logits(), gates.bias))):
        plain = first_output(model, {"input_ids": ids})
    wrapped = nnsight.NNsight(model)
    # nnsight rewrites the body of its own `with`, so that one stands alone.
    with torch.no_grad(), gates.observing(lambda c: seen.append(c.open_gates(c.logits(), gates.bias))):  # noqa: SIM117
        with wrapped.trace(ids):
            logits = wrapped.output.logits.save()
    assert torch.equal(logits, plain)
    assert len(seen) == len(expected) == gates.n_layers
    assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))
    assert 0 < float(torch.stack(seen).float().mean()) < 1, "an empty test"
