"""The state that all gated attention modules of one model share, and what an observer sees of each call.

The gates have no parameters: one small object per model holds the bias c, the name of the noise, the interventions
and the observers. Everything that reads a model (penalty, counting, tracing, interventions) does so as an observer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import refuse
from .attention import gated_attention
from .attention.eager import attention_logits
from .attention.visibility import Visibility
from .logit_penalty import logit_excess
from .noise import NoiseKey

ON_MODULE, LAYER = "edge_gates", "edge_gate_layer"  # attributes on each gated attention module


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
        """1[s + c > 0] over visible pairs that no intervention closes, (B, H, T, S) bool."""
        visible = self.visibility.all_pairs()
        opened = logits + bias > 0
        opened = opened if visible is None else opened & visible
        return opened if self.keep is None else opened & self.keep.bool()


@dataclass
class Record:
    """What the gates of one forward pass said: per layer in call order, (B, H) expected open and visible edges.

    `excess` holds, where a logit limit was given, each layer's sum of squared excesses and how many pairs it is over.
    """

    layers: list[int] = field(default_factory=list)
    expected_open: list[Tensor] = field(default_factory=list)
    visible: list[Tensor] = field(default_factory=list)
    excess: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def density(self, depth_slope: float = 0.0) -> Tensor:
        """Expected open edges over visible pairs, all layers together: a scalar with a gradient.

        Args:
            depth_slope: an edge of layer l counts 1 + depth_slope * l times; 0 for the plain share.
        """
        counts = zip(self.layers, self.expected_open, strict=True)
        opened = torch.stack([x.sum() * (1 + depth_slope * layer) for layer, x in counts]).sum()
        return opened / self.total_visible()

    def logit_excess(self) -> Tensor:
        """Mean of max(0, |s| - limit)^2 over the visible pairs looked at: a scalar with a gradient."""
        sums, pairs = zip(*self.excess, strict=True)
        return torch.stack(sums).sum() / torch.stack(pairs).sum()

    def total_visible(self) -> Tensor:
        """How many visible (layer, row, head, query, key) there were: a scalar, left on the device."""
        return torch.stack([x.sum() for x in self.visible]).sum()

    def require_gradient(self) -> None:
        """Raise unless the penalty can train anything: a reentrant checkpoint or frozen layers would drop it."""
        if torch.is_grad_enabled() and self.expected_open and not self.expected_open[-1].requires_grad:
            raise refuse(
                "the penalty has no gradient",
                "possible: trainable query and key projections, non-reentrant gradient checkpointing",
                "unfreeze q and k (LoRA: target them), or set use_reentrant=False",
            )


@dataclass
class Gates:
    """The state that all gated attention modules of one model share.

    Attributes:
        bias: c in nats; +inf opens every gate.
        sampling: draw logistic noise on the gates while the model is in training mode.
        seed, step: name the noise of this forward pass; the trainer advances `step`.
        impl: which implementation of `gated_attention` runs.
        keep: per layer, a {0, 1} tensor broadcastable to (B, H, T, S) multiplied onto the gates; for interventions.
        renormalise: take closed edges out of the softmax denominator too; for the leak test.
    """

    bias: float = 0.0
    sampling: bool = True
    seed: int = 0
    step: int = 0
    impl: str = "eager"
    keep: dict[int, Tensor] | None = None
    renormalise: bool = False
    n_layers: int = 0
    n_heads: int = 0
    _observers: list[Callable[[AttentionCall], None]] = field(default_factory=list, repr=False)

    @contextmanager
    def using(self, **settings: Any) -> Iterator[Gates]:
        """Change settings inside a `with` block and put them back, whatever happens."""
        before = {name: getattr(self, name) for name in settings}
        try:
            for name, value in settings.items():
                setattr(self, name, value)
            yield self
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    @contextmanager
    def observing(self, observer: Callable[[AttentionCall], None]) -> Iterator[None]:
        """Call `observer` after every attention call inside the `with` block."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    @contextmanager
    def recording(self, logit_limit: float | None = None) -> Iterator[Record]:
        """Collect the expected open edges of every layer inside the `with` block, and how far logits exceed a limit.

        Non-reentrant gradient checkpointing runs layers again during backward; close the block before that.
        """
        record = Record()

        def note(call: AttentionCall) -> None:
            record.layers.append(call.layer)
            record.expected_open.append(call.expected_open)
            record.visible.append(call.visible)
            if logit_limit is not None:
                record.excess.append(
                    logit_excess(
                        call.q,
                        call.k,
                        call.visibility,
                        limit=logit_limit,
                        scale=call.scale,
                        softcap=call.softcap,
                        step=self.step,
                    )
                )

        with self.observing(note):
            yield record

    def are_plain(self, module: nn.Module, q: Tensor) -> bool:
        """Whether a call of this module needs nothing but hard gates, in float32 and by `blockwise`: no noise, no
        intervention, no observer and no gradient. `one_query` can then do it, if it is of one query."""
        return (
            self.impl == "blockwise"
            and q.dtype == torch.float32
            and self.keep is None
            and not (self.renormalise or self._observers)
            and not (self.sampling and module.training)
            and not (torch.is_grad_enabled() or torch.is_autocast_enabled(q.device.type))
            and not math.isnan(self.bias)  # refused on the whole way
        )

    def attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
        """Run gated attention for one layer and tell the observers."""
        layer = getattr(module, LAYER)
        key = NoiseKey(self.seed, self.step, layer)
        noise = key if self.sampling and module.training else None
        keep = None if self.keep is None else self.keep.get(layer)
        device = q.device.type
        # Autocast would put logits and gates in half precision; only what comes in and goes out may be.
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            result = gated_attention(
                q,
                k.to(q.dtype),
                v.to(q.dtype),
                bias=self.bias,
                noise=noise,
                dropout_key=key,
                keep=keep,
                renormalise=self.renormalise,
                count=torch.is_grad_enabled() or bool(self._observers),
                impl=self.impl,
                **given,
            )
        if not self._observers:
            return result.out
        shown = {name: given[name] for name in ("mask", "causal", "scale", "softcap", "sinks")}
        for observer in self._observers:
            observer(
                AttentionCall(
                    layer,
                    module,
                    q,
                    k,
                    v,
                    out=result.out,
                    expected_open=result.expected_open,
                    keep=keep,
                    **shown,
                )
            )
        return result.out
