"""How far an edge's value moves the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..gates.edges import EdgeGates
from ..models.anatomy import output_projections, per_head


class Writing:
    """How far a value moves the residual stream, per layer: |v W_h|.

    By the QR decomposition W_h^T = Q R the length is |R v|, without going through M.
    """

    def __init__(self, model: PreTrainedModel, gates: EdgeGates) -> None:
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
