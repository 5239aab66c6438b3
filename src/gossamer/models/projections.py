"""A linear layer cut into units: the heads of an attention, the neurons of an MLP.

Letters: N units, D features of a unit, F features of the side that is cut, M features of the other side. Unit n
owns the D features from start + n * step on. That says where a head is in a layer of its own (step = D), behind
the queries in a fused one (GPT-2: start = H * D), or between the other slots of its head (GPT-NeoX: step = 3 * D).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import UnsupportedModel, refuse
from ..gates.quantised import is_quantised


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear | Conv1D]:
    """Whether a module is a linear layer whose weight can be read: torch's, or GPT-2's Conv1D."""
    return isinstance(module, nn.Linear | Conv1D)


def weight_of(module: nn.Module) -> Tensor:
    """The (out, in) weight of a linear layer, a view: a Conv1D stores it as (in, out).

    Raises: `UnsupportedModel` for a weight that is quantised.
    """
    weight: Tensor = module.weight  # type: ignore[assignment]
    if is_quantised(weight):
        raise refuse(
            f"the weights of {type(module).__name__} layers are quantised",
            "weights in floating point",
            "load the model without quantisation",
            UnsupportedModel,
        )
    return weight.T if isinstance(module, Conv1D) else weight


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """(out, in): the features that a linear layer makes and reads, as its weight has them, or says that it has."""
    if is_quantised(module.weight):
        return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]
    out, into = weight_of(module).shape
    return out, into


@dataclass(frozen=True)
class Projection:
    """The units that one linear layer makes (side "out") or reads (side "in").

    Attributes:
        path, module: the linear layer; several projections may share one.
        side: of the (out, in) weight, the one that is cut: units are rows of "out" and columns of "in".
        count, width, start, step: N and D, and where the units lie.
    """

    path: str
    module: nn.Module = field(repr=False)
    side: Literal["out", "in"]
    count: int
    width: int
    start: int
    step: int

    @classmethod
    def whole(cls, path: str, module: nn.Module, side: Literal["out", "in"], width: int) -> Projection:
        """Units in a row, from the first feature of a side to its last."""
        return cls(path, module, side, sizes_of(module)[side == "in"] // width, width, 0, width)

    @property
    def features(self) -> int:
        """F: the features of the side that is cut, whoever owns them."""
        return sizes_of(self.module)[self.side == "in"]

    @property
    def across(self) -> int:
        """M: the features of the other side."""
        return sizes_of(self.module)[self.side == "out"]

    def over(self, values: Tensor) -> Tensor:
        """(N,) -> what to multiply the stored weight by: one number for each unit, 1 for what no unit owns."""
        whole = values.new_ones(self.features)
        if self.count * self.width == self.features and self.step == self.width:
            whole = values.repeat_interleave(self.width)
        else:
            self.split(whole).copy_(values[:, None])
        by_row = (self.side == "out") != isinstance(self.module, Conv1D)
        return whole[:, None] if by_row else whole[None, :]

    def of(self, unit: int) -> slice:
        """The features of one unit: rows of the (out, in) weight, or columns, by `side`."""
        first = range(self.start, self.start + self.count * self.step, self.step)[unit]
        return slice(first, first + self.width)

    def split(self, x: Tensor) -> Tensor:
        """(..., F) -> (..., N, D), a view."""
        reach = (self.count - 1) * self.step + self.width
        return x.narrow(-1, self.start, reach).unfold(-1, self.width, self.step)

    def weights(self) -> Tensor:
        """(N, D, M): what ties each feature of each unit to the other side, a view."""
        weight = weight_of(self.module)
        return self.split(weight.T if self.side == "out" else weight).movedim(0, -1)

    def biases(self) -> Tensor | None:
        """(N, D); None without a bias, and for side "in", where the bias belongs to no unit."""
        bias = self.module.bias
        return self.split(bias) if self.side == "out" and isinstance(bias, Tensor) else None
