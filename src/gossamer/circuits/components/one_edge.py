"""One edge patched per block of rows: what makes exact patching of thousands of edges affordable.

With a single edge (w, r) patched, all that runs before r is as in the clean run, so abl_w - out_w is known
beforehand and only reader r of those rows is computed again. Rows are (edge, prompt), edges slowest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...models.forward import first_output
from .component_model import ComponentModel
from .run import hooks


class OneEdgeEach:
    """A forward pass over E copies of N prompts; in copy e, edge `pairs[e]` carries its change.

    Args:
        pairs: (E, 2) writer and reader numbers.
        change: (W, N, T, M), broadcastable: abl_w - out_w.
    """

    def __init__(self, components: ComponentModel, pairs: Tensor, change: Tensor) -> None:
        self.components, self.change = components, change
        self.writers, self.readers = pairs.unbind(1)
        self.residual: Tensor

    def run(self, ids: Tensor) -> Tensor:
        """(E * N, V) logits at the last position of ids (E * N, T)."""
        with hooks(*self._handles()):
            return first_output(self.components.model, {"input_ids": ids, "logits_to_keep": 1})[:, -1]

    def _handles(self) -> list[Any]:
        components, graph = self.components, self.components.graph
        found = [
            *components.ungrouped(),
            components.anatomy.final_norm.register_forward_pre_hook(self._before(graph.n_readers - 1)),
        ]
        for layer, (norm, mlp_norm, _) in enumerate(one.stream for one in components.anatomy):
            found.append(norm.register_forward_pre_hook(self._note))
            for slot, reader in enumerate(components.readers[layer]):
                found.append(reader.module.register_forward_hook(self._attention(layer, slot)))
            # The norm is the MLP's alone, so what it reads may be changed in place of what the MLP reads.
            found.append(mlp_norm.register_forward_pre_hook(self._before(graph.into_mlp(layer))))
        return found

    def _note(self, module: nn.Module, given: tuple) -> None:
        self.residual = given[0]

    def _patched(self, x: Tensor, edges: Tensor) -> Tensor:
        """(edges, N, T, M): the residual stream of some copies with their edge's change added."""
        copies = x.unflatten(0, (len(self.writers), -1))
        return copies[edges] + self.change[self.writers[edges]]

    def _before(self, reader: int) -> Callable[[nn.Module, tuple], tuple | None]:
        edges = (self.readers == reader).nonzero()[:, 0]

        def hook(module: nn.Module, given: tuple) -> tuple | None:
            if not len(edges):
                return None
            x = given[0].clone()
            x.unflatten(0, (len(self.writers), -1))[edges] = self._patched(given[0], edges)
            return (x,)

        return hook

    def _attention(self, layer: int, slot: int) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        norm, reader = self.components.anatomy[layer].stream.norm, self.components.readers[layer][slot]
        columns = self.components.graph.into_slot(layer, slot)
        weights, biases = reader.weights(), reader.biases()
        here = [(self.readers == column).nonzero()[:, 0] for column in range(columns.start, columns.stop)]

        def hook(module: nn.Module, given: tuple, output: Tensor) -> Tensor:
            if not any(map(len, here)):
                return output
            output = output.clone()
            split = reader.split(output.unflatten(0, (len(self.writers), -1)))
            for head, edges in enumerate(here):
                if len(edges):
                    made = norm.forward(self._patched(self.residual, edges)) @ weights[head].T
                    split[edges, :, :, head] = made if biases is None else made + biases[head]
            return output

        return hook
