"""How far an edge's value moves the residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..models.anatomy import Anatomy


class Writing:
    """How far a value moves the residual stream, per layer: |v W_h|, with W_h (E, M) the head's slice of o.

    By the QR decomposition W_h^T = Q R the length is |R v|, without going through M.

    Raises: `UnsupportedModel` where the output projection of a layer is not known, or has an adapter.
    """

    def __init__(self, model: nn.Module) -> None:
        # (H, min(E, M), E) each
        self._factors = {
            layer.number: torch.linalg.qr(layer.o.weights().detach().float().transpose(1, 2)).R
            for layer in Anatomy.of(model)
        }

    def lengths(self, layer: int, values: Tensor) -> Tensor:
        """(B, H, S): the length of what each key's value, (B, G, S, E), would add to the stream at weight 1."""
        factor = self._factors[layer]
        shared = factor.shape[0] // values.shape[1]
        return torch.einsum("bhse,hde->bhsd", values.float().repeat_interleave(shared, 1), factor).norm(
            dim=-1
        )
