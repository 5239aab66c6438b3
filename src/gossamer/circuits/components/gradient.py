"""Which gradient attribution takes through a gate: a step, whose derivative is 0 wherever it has one.

straight-through   that of the gate's probability, as in training: a closed gate that could open is heard
true               the derivative of what the model computes: a gate that is not crossed is a constant
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from ...errors import require_choice
from ...models.attach import find_gate_sets

GRADIENTS = ("straight-through", "true")


@contextmanager
def through_gates(model: nn.Module, gradient: str) -> Iterator[None]:
    """Gradients of the model, in evaluation mode, are of this kind inside the `with` block.

    Raises: `GossamerError` for a kind that is none of `GRADIENTS`.
    """
    require_choice("gradient", gradient, GRADIENTS)
    with ExitStack() as stack:
        for one in find_gate_sets(model):
            stack.enter_context(one.using(straight_through=gradient == "straight-through"))
        yield
