"""One call of one layer's attention, as everything that reads a gated model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention.eager import attention_logits, gate_logits
from .attention.visibility import Visibility


@dataclass
class AttentionCall:
    """One call of one layer's attention, as an observer sees it; tensors are the live ones, detached by the reader.

    q (B, H, T, D), k (B, G, S, D), v (B, G, S, E); mask is bool, broadcastable to (B, H, T, S), or None; keep, if not
    None, is what an intervention multiplies onto the gates, broadcastable alike. `expected_open` is of the gates alone.
    """

    layer: int
    module: nn.Module
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    causal: bool
    scale: float
    softcap: float | None
    sinks: Tensor | None
    out: Tensor
    expected_open: Tensor
    keep: Tensor | None = None
    lse_share: float = 0.0

    @property
    def visibility(self) -> Visibility:
        """Which pairs of this call are visible."""
        return Visibility.of(self.q, self.k, mask=self.mask, causal=self.causal, window=None, segments=None)

    @property
    def visible(self) -> Tensor:
        """Visible pairs per row and head, (B, H) int64: from the mask, never from lengths alone."""
        return self.visibility.count_all().flatten(1, 2)

    @property
    def visible_queries(self) -> Tensor:
        """Queries that see at least one key, per row and head: (B, H) int64."""
        rows, heads, queries, _ = self.q.shape
        if self.mask is None:
            return torch.full((rows, heads), queries, dtype=torch.int64, device=self.q.device)
        return self.mask.any(-1).expand(-1, -1, queries).sum(-1).expand(rows, heads)

    def logits(self) -> Tensor:
        """s, (B, H, T, S)."""
        return attention_logits(self.q, self.k, scale=self.scale, softcap=self.softcap)

    def open_gates(self, logits: Tensor, bias: float) -> Tensor:
        """1[s - a lse(s) + c > 0] over visible pairs that no intervention closes, (B, H, T, S) bool."""
        visible = self.visibility.all_pairs()
        opened = gate_logits(logits, visible, self.sinks, self.lse_share) + bias > 0
        opened = opened if visible is None else opened & visible
        return opened if self.keep is None else opened & self.keep.bool()
