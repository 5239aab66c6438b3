"""A fixed number of keys per query and head instead of a threshold: what a trained gate must beat.

Nothing is trained: of every query's visible keys the k with the largest logits, or k random ones, may be open, and
everything else about edge gates (counting, tracing, interventions) holds as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import require_range
from .attention.eager import attention_logits
from .attention.visibility import Visibility
from .edges import EdgeGates


@dataclass(eq=False)
class TopKGates(EdgeGates):
    """Gates that let at most `k` keys of every query be open; with `bias=inf` exactly so many.

    Attributes:
        k: keys per query and head; None for all of them.
        random: choose by random numbers instead of logits, drawn from torch's global generator.
    """

    k: int | None = 1
    random: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("k", self.k or 1, 1, 10**9)

    def opened(self) -> Any:
        """A context in which every gate is open: the base model."""
        return self.using(bias=torch.inf, k=None)

    def are_plain(self, module: Any, q: Tensor) -> bool:
        """Never: `one_query` knows thresholds only."""
        return False

    def allowed(self, layer: int, q: Tensor, k: Tensor, **given: Any) -> Tensor | None:
        """The chosen keys, besides what an intervention allows."""
        kept = super().allowed(layer, q, k, **given)
        if self.k is None:
            return kept
        logits = attention_logits(q, k, scale=given["scale"], softcap=given["softcap"])
        scores = torch.rand_like(logits) if self.random else logits
        seen = Visibility.of(q, k, mask=given["mask"], causal=given["causal"], window=None, segments=None)
        visible = seen.all_pairs()
        scores = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
        kth = scores.topk(min(self.k, scores.shape[-1]), dim=-1).values[..., -1:]
        chosen = ((scores >= kth) & (scores > -torch.inf)).to(q.dtype)
        return chosen if kept is None else chosen * kept
