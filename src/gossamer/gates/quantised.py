"""Which weights are kept in integers, whatever their class says of them."""

from __future__ import annotations

from torch import Tensor

LIBRARIES = ("bitsandbytes", "quantized", "torchao")  # torch's own modules are in torch.ao.nn.quantized


def is_quantised(weight: object) -> bool:
    """Whether a weight cannot be read as numbers: it is packed integers, or of a library that calls these floats."""
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return True
    return of_quantising_library(weight.data)


def of_quantising_library(part: object) -> bool:
    """Whether the class of a module or of a tensor is of a library that keeps weights in integers."""
    return any(name in type(part).__module__ for name in LIBRARIES)
