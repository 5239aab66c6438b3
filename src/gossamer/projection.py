"""Where a layer's heads write into the residual stream: the output projection, found by following the data.

Letters: H heads, E width of a value, M width of the residual stream. A head's output o_h (E) enters the stream
as o_h W_h, with W_h (E, M) the head's slice of the projection's weight; the bias belongs to no head. Names of
modules differ from architecture to architecture, but the linear map whose input is what the attention has just
returned is the output projection in all of them. Norms that some architectures put behind it are not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .gates import AttentionCall, Gates
from .probe import evaluating, first_output, probe_inputs


def in_out(module: nn.Module) -> Tensor:
    """The (in, out) weight of a Linear or of GPT-2's Conv1D."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if isinstance(module, nn.Linear) else weight


def per_head(module: nn.Module, n_heads: int) -> Tensor:
    """(H, E, M): what each head's output is multiplied with."""
    return in_out(module).unflatten(0, (n_heads, -1))


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear | Conv1D]:
    return isinstance(module, nn.Linear | Conv1D)


def output_projections(model: PreTrainedModel, gates: Gates) -> dict[int, nn.Module]:
    """Layer -> its output projection, for the layers where one is found.

    A forward pass on a few tokens; what is looked for is the first linear module that reads what the layer's
    attention returned, heads side by side. A projection inside an adapter is not what the layer writes, and is
    left out: merge the adapter first.
    """
    returned: dict[int, Tensor] = {}
    found: dict[int, nn.Module] = {}
    adapted: set[int] = set()

    def note(call: AttentionCall) -> None:
        returned[call.layer] = call.out.transpose(1, 2).flatten(2)

    def look(module: nn.Module) -> Callable[[nn.Module, tuple], None]:
        def hook(_: nn.Module, given: tuple) -> None:
            for layer, out in returned.items():
                if given and isinstance(given[0], Tensor) and _same(given[0], out):
                    if hasattr(module, "base_layer"):
                        adapted.add(layer)
                    elif _is_linear(module):
                        found.setdefault(layer, module)

        return hook

    with ExitStack() as stack:
        for module in model.modules():
            if _is_linear(module) or hasattr(module, "base_layer"):
                stack.callback(module.register_forward_pre_hook(look(module)).remove)
        # Open gates, for a head that writes nothing could not be recognised.
        open_gates = gates.using(sampling=False, keep=None, bias=math.inf, renormalise=False)
        with evaluating(model), open_gates, gates.observing(note):
            first_output(model, probe_inputs(model))
    return {layer: module for layer, module in found.items() if layer not in adapted}


def _same(given: Tensor, out: Tensor) -> bool:
    return given.shape == out.shape and bool(torch.equal(given, out)) and bool(out.any())


class Writing:
    """How far a value moves the residual stream, per layer: |v W_h|.

    By the QR decomposition W_h^T = Q R the length is |R v|, without going through M.
    """

    def __init__(self, model: PreTrainedModel, gates: Gates) -> None:
        found = output_projections(model, gates)
        self.complete = len(found) == gates.n_layers
        self._factor = {
            layer: torch.linalg.qr(per_head(module, gates.n_heads).detach().float().transpose(1, 2)).R
            for layer, module in found.items()
        }  # layer -> (H, min(E, M), E)

    def lengths(self, layer: int, values: Tensor) -> Tensor:
        """(B, H, S): the length of what each key's value, (B, G, S, E), would add to the stream at weight 1."""
        factor = self._factor[layer]
        shared = factor.shape[0] // values.shape[1]
        return torch.einsum("bhse,hde->bhsd", values.float().repeat_interleave(shared, 1), factor).norm(
            dim=-1
        )
