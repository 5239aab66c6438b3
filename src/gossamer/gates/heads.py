"""Gates on attention heads, one per query head; a closed head is not read by the output projection."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from .contribution import ContributionGates


class HeadGates(ContributionGates):
    """A gate for each query head of each layer; the columns of o that read a closed head are zero.

    A key-value head that several query heads share goes when all of them are closed (`models/cut.py`); until then
    its multiply-adds are shared out among them.
    """

    kind: ClassVar[str] = "heads"
    block: ClassVar[str] = "head_gates"
    stream: ClassVar[int] = 2
    one_by_one: ClassVar[bool] = True
    can_be_uniform: ClassVar[bool] = True

    def reader(self, layer: Any) -> Any:
        """The columns of o."""
        return layer.o

    def multiply_adds(self, layer: Any) -> float:
        """Those of a query head, of its columns of o, and of its share of the keys and values."""
        made = [x.count * x.width * x.across for x in (layer.q, layer.k, layer.v, layer.o)]
        return sum(made) / layer.n_heads

    def groups_of(self, layer: Any) -> int:
        """Those that share a key-value head."""
        return layer.n_kv_heads

    def open_groups(self, layer: int) -> Tensor:
        """(H,): 1 for the heads that hard gates leave open, for the edges inside."""
        return self.hard(layer)
