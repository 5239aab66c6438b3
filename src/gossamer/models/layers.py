"""Which layer of a model each attention module is: the number of its block, among blocks with attention and without.

A hybrid model has blocks that do not attend; its only attention may be layer 1 of 3.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from .interface import attention_modules


class Layers(NamedTuple):
    """The attention modules of a model by layer, in the order of execution, and how many layers there are."""

    attention: dict[int, nn.Module]
    count: int


def layers_of(model: nn.Module) -> Layers:
    """Number attention modules by their blocks; by their own order where no one list of blocks tells them apart."""
    modules = attention_modules(model)
    paths = {id(module): path for path, module in model.named_modules()}
    places = [_block(model, paths[id(module)]) for module in modules]
    stacks = {place[0] for place in places if place is not None}
    numbers = [place[1] for place in places if place is not None]
    if len(stacks) == 1 and len(set(numbers)) == len(modules):
        return Layers(dict(zip(numbers, modules, strict=True)), len(model.get_submodule(stacks.pop())))  # type: ignore[arg-type]
    return Layers(dict(enumerate(modules)), len(modules))


def _block(model: nn.Module, path: str) -> tuple[str, int] | None:
    """The outermost list of modules on a path, and where in it the path goes on."""
    parts = path.split(".")
    for depth in range(len(parts)):
        stack = ".".join(parts[:depth])
        if isinstance(model.get_submodule(stack), nn.ModuleList):
            return stack, int(parts[depth])
    return None
