"""Gates on the neurons of MLPs: one learned logit per neuron; a closed one is not read by the second matrix."""

from __future__ import annotations

from typing import Any, ClassVar

from .learned import LearnedGates
from .masks import Mask


class NeuronGates(LearnedGates):
    """g = l for each neuron of each layer; a closed one's column of the MLP's second matrix is zero."""

    kind: ClassVar[str] = "neurons"
    block: ClassVar[str] = "neuron_gates"
    stream: ClassVar[int] = 3
    can_be_uniform: ClassVar[bool] = True

    def masks(self, layer: Any) -> list[Mask]:
        """The columns of the second matrix."""
        out = layer.mlp.out
        return [Mask(out.path, out.module, slice(0, out.count), out.over)]

    def multiply_adds(self, layer: Any) -> float:
        """A row of the first matrix, one of its gate where there is one, and a column of the second."""
        mlp = layer.mlp
        return float(sum(x.across for x in (mlp.into, mlp.gate, mlp.out) if x is not None))
