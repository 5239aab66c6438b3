"""Models of the zoo with gates of any kind in use, and with units closed."""

from __future__ import annotations

from typing import Any

import torch

from gossamer.gates.gate_sets import GateSets
from gossamer.gates.host import Options
from gossamer.gates.learned import OPEN, LearnedGates
from gossamer.models.attach import attach_missing, find_gate_sets
from helpers.zoo import build


def gated(name: str, *wanted: str) -> tuple[Any, GateSets]:
    """A model with gates of some kinds at the bias 0, and its sets."""
    model = build(name)
    attach_missing(model, wanted, Options("eager"))
    sets = find_gate_sets(model)
    sets.bias = 0.0
    return model, sets


def closing(name: str, *wanted: str) -> tuple[Any, GateSets]:
    """The same with heads 2 and on, and a third of the other units of each layer, closed."""
    model, sets = gated(name, *wanted)
    with torch.no_grad():
        for one in sets:
            for layer, logits in one.logits.items() if isinstance(one, LearnedGates) else ():
                if one.kind == "heads":
                    logits[2:] = -OPEN
                else:
                    logits[int(layer) + 1 :: 3] = -OPEN
    return model, sets
