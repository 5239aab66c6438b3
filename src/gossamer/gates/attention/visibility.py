"""Which keys a query may see: the one definition that all implementations share.

Letters: B batch row, G key-value head, R query heads per key-value head, H = G * R,
T query, S key.

Query t stands at position t + S - T among the keys, as the last T of S positions do in generation
with a cache.

    visible[b, h, t, s] = mask[b, h, t, s]
                          and s <= t + S - T                     if causal
                          and |t + S - T - s| < window           if window
                          and segments[b, t + S - T] == segments[b, s]   if segments (packing)

What nobody wrote down is never built: without a mask, a causal tile hides only its last few
columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import UnsupportedModel, refuse


class Span(NamedTuple):
    """Where a tile lies; the query heads of a key-value head stay together."""

    rows: slice  # of B
    groups: slice  # of G
    queries: slice  # of T
    keys: slice  # of S; starts at a multiple of 4, as the noise wants it

    def heads(self, groups: int) -> slice:
        """Of B * G: a span has one row or all key-value heads, so that they lie side by side."""
        last = self.rows.stop - 1
        return slice(self.rows.start * groups + self.groups.start, last * groups + self.groups.stop)


def length(cut: slice) -> int:
    """How many indices a slice of a span holds."""
    return cut.stop - cut.start


def cannot(impl: str, what: str, can: list[str]) -> UnsupportedModel:
    """The error for what an implementation cannot do; it names those which can."""
    error = refuse(
        f"impl={impl!r} cannot do {what}",
        f"{', '.join(can)}",
        f"pass impl={can[0]!r}",
        UnsupportedModel,
    )
    assert isinstance(error, UnsupportedModel)
    return error


def narrow(x: Tensor, span: Span) -> Tensor:
    """Cut (B, G, R, T, S), any axis of which may be 1 for broadcasting, to a span."""
    cuts = span.rows, span.groups, slice(None), span.queries, span.keys
    pairs = zip(cuts, x.shape, strict=True)
    return x[tuple(cut if size > 1 else slice(None) for cut, size in pairs)]


def five_axes(x: Tensor, heads: int, groups: int) -> Tensor:
    """View what broadcasts to (B, H, T, S) as what broadcasts to (B, G, R, T, S)."""
    x = x.view(*(1,) * (4 - x.dim()), *x.shape)
    return x.unsqueeze(2) if x.shape[1] == 1 else x.unflatten(1, (groups, heads // groups))


class Visibility(NamedTuple):
    """The visible pairs of one call, asked for span by span."""

    shape: tuple[int, int, int, int, int]  # B, G, R, T, S
    mask: Tensor | None  # bool, broadcastable to `shape`
    causal: bool
    window: int | None
    segments: Tensor | None  # integer (B, S)
    device: torch.device

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        *,
        mask: Tensor | None,
        causal: bool,
        window: int | None,
        segments: Tensor | None,
    ) -> Visibility:
        """Gather the arguments of `gated_attention`."""
        groups = k.shape[1]
        shape = (q.shape[0], groups, q.shape[1] // groups, q.shape[2], k.shape[2])
        if mask is not None:
            mask = five_axes(mask.bool(), q.shape[1], groups)
        return cls(shape, mask, causal, window, segments, q.device)

    @property
    def offset(self) -> int:
        """S - T: the position of query 0 among the keys."""
        return self.shape[4] - self.shape[3]

    @property
    def is_plain(self) -> bool:
        """Whether nothing is hidden, or the future alone."""
        return self.mask is None and self.segments is None and self.window is None

    def first_hidden(self, span: Span) -> int:
        """In a plain causal call, the column of a span before which its first query sees every key."""
        column = span.queries.start + self.offset + 1 - span.keys.start
        return min(max(0, column), length(span.keys))

    def key_range(self, start: int, stop: int) -> slice:
        """The keys that queries start .. stop - 1 may see: never empty, from a multiple of 4."""
        first, last, keys = start + self.offset, stop - 1 + self.offset, self.shape[4]
        low = 0 if self.window is None else max(0, first - self.window + 1)
        high = keys if self.window is None else min(keys, last + self.window)
        if self.causal:
            high = min(high, last + 1)
        low = max(0, min(low, keys - 1)) // 4 * 4
        return slice(low, max(high, low + 1))

    def hidden(self, span: Span) -> tuple[int, Tensor] | None:
        """The pairs of a span that may not be seen.

        Returns: None if all may be; else (column, bool) where the tensor broadcasts to (rows,
        groups, R, queries, keys from `column` of the span on), True where hidden; all columns
        before are visible.
        """
        if self.is_plain and not self.causal:
            return None
        parts: list[Tensor] = []
        column = self.first_hidden(span) if self.is_plain else 0
        at = torch.arange(span.queries.start, span.queries.stop, device=self.device) + self.offset
        keys = torch.arange(span.keys.start + column, span.keys.stop, device=self.device)
        if self.causal and len(keys):
            parts.append(keys > at[:, None])
        if self.window is not None:
            parts.append((keys - at[:, None]).abs() >= self.window)
        if self.segments is not None:
            segments = self.segments[span.rows]
            differs = segments[:, at, None] != segments[:, None, span.keys]
            parts.append(differs[:, None, None])
        if self.mask is not None:
            parts.append(~narrow(self.mask, span))
        if not parts:
            return None
        hidden = parts[0]
        for part in parts[1:]:
            hidden = hidden | part
        return column, hidden

    def count(self, span: Span) -> Tensor:
        """How many pairs of a span are visible, (rows, groups, R)."""
        found = self.hidden(span)
        heads = length(span.rows), length(span.groups), self.shape[2]
        pairs = length(span.queries) * length(span.keys)
        total = torch.full(heads, pairs, device=self.device)
        if found is None:
            return total
        # Summed before it is spread over heads: a causal triangle is the same for all of them.
        column, hidden = found
        hidden = hidden.view(*(1,) * (5 - hidden.dim()), *hidden.shape)
        repeats = (length(span.queries) // hidden.shape[3]) * (
            (length(span.keys) - column) // hidden.shape[4]
        )
        return total - hidden.sum(dim=(-1, -2)) * repeats

    def count_all(self) -> Tensor:
        """How many pairs are visible in all, (B, G, R)."""
        rows, groups, _, queries, keys = self.shape
        return self.count(Span(slice(0, rows), slice(0, groups), slice(0, queries), slice(0, keys)))

    def all_pairs(self) -> Tensor | None:
        """The visible pairs of the call, broadcastable to (B, H, T, S), or None where all are."""
        rows, groups, _, queries, keys = self.shape
        span = Span(slice(0, rows), slice(0, groups), slice(0, queries), slice(0, keys))
        found = self.hidden(span)
        if found is None:
            return None
        column, hidden = found
        hidden = torch.nn.functional.pad(hidden, (column, 0))
        hidden = hidden.view(*(1,) * (5 - hidden.dim()), *hidden.shape)
        if hidden.shape[1] == hidden.shape[2] == 1:
            return ~hidden[:, 0]
        return ~hidden.expand(-1, groups, self.shape[2], -1, -1).flatten(1, 2)
