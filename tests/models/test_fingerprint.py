"""A fingerprint names the weights of a model and nothing else."""

from __future__ import annotations

import torch

from gossamer.models.fingerprint import fingerprint


def test_a_fingerprint_names_the_weights() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 3)
    before = fingerprint(model)
    assert before == fingerprint(model)
    with torch.no_grad():
        model.weight[-1, -1] += 1
    assert fingerprint(model) != before
