"""Gates on the neurons of MLPs, one per neuron; a closed one is not read by the second matrix."""

from __future__ import annotations

from typing import Any, ClassVar

from .contribution import ContributionGates


class NeuronGates(ContributionGates):
    """A gate for each neuron of each layer; a closed one's column of the MLP's second matrix is zero."""

    kind: ClassVar[str] = "neurons"
    block: ClassVar[str] = "neuron_gates"
    stream: ClassVar[int] = 3
    can_be_uniform: ClassVar[bool] = True

    def reader(self, layer: Any) -> Any:
        """The columns of the second matrix."""
        return layer.mlp.out

    def multiply_adds(self, layer: Any) -> float:
        """A row of the first matrix, one of its gate where there is one, and a column of the second."""
        mlp = layer.mlp
        return float(sum(x.across for x in (mlp.into, mlp.gate, mlp.out) if x is not None))
