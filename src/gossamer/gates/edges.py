"""Gates on attention edges: the first gate set, and what an observer sees of each attention call.

The gates have no parameters: one small object per model holds the bias c, the name of the noise, the interventions
and the observers. Everything that reads a model (penalty, counting, tracing, interventions) does so as an observer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, refuse, require_choice
from .attention import gated_attention, resolve
from .attention_call import AttentionCall
from .gate_set import GateSet
from .host import Host, Options
from .logit_penalty import logit_excess
from .noise import NoiseKey
from .openness import Count, Openness
from .reads import READS

LAYER = "edge_gate_layer"  # an attribute of each gated attention module, beside the gates


@dataclass(eq=False)
class EdgeGates(GateSet):
    """Gates on attention edges: the state that all gated attention modules of a model share.

    Attributes:
        bias: c in nats; +inf opens every gate.
        reads: what a gate adds c to: the `logit` s, or the log of the attention `weight`, s - lse(s).
        sampling: draw logistic noise on the gates while the model is in training mode.
        seed, step: name the noise of this forward pass; the trainer advances `step`.
        impl: which implementation of `gated_attention` runs; auto is resolved when the gates are attached.
        keep: per layer, a {0, 1} tensor broadcastable to (B, H, T, S) multiplied onto the gates; for interventions.
        renormalise: take closed edges out of the softmax denominator too; for the leak test.
        straight_through: pass the gradient of a gate to what it reads in evaluation mode too. Without it a model in
            evaluation mode has the derivative of what it computes, in which a hard gate is a constant.
        logit_limit, logit_weight: see `limit_logits`.
    """

    kind: ClassVar[str] = "edges"
    block: ClassVar[str] = "edge_gates"
    version: ClassVar[int] = 2  # 1 had no `reads`; its gates read the logit
    parent: ClassVar[str | None] = "heads"
    priced_by_layer: ClassVar[bool] = True
    has_least_slope: ClassVar[bool] = True

    bias: float = 0.0
    sampling: bool = True
    seed: int = 0
    step: int = 0
    impl: str = "eager"
    readings: ClassVar[tuple[str, ...]] = tuple(READS)
    reads: str = "logit"
    keep: dict[int, Tensor] | None = None
    renormalise: bool = False
    straight_through: bool = False
    least_slope: float = 0.0
    n_layers: int = 0
    layer_numbers: tuple[int, ...] = ()
    n_heads: int = 0
    price: float = 1.0
    logit_limit: float = 8.0
    logit_weight: float = 0.0
    _observers: list[Callable[[AttentionCall], None]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        require_choice("reads", self.reads, READS)

    @classmethod
    def made(cls, options: Options) -> Self:
        """Open gates that read what the run asks for, the logit by default."""
        reads = options.reads if options.reads in cls.readings else cls.reads
        return cls(bias=math.inf, impl=options.impl, reads=reads)

    def require(self, options: Options) -> None:
        """Raise if the gates read something else than the run asks for."""
        if options.reads in self.readings and options.reads != self.reads:
            raise refuse(
                f"gate.reads={options.reads} on a model whose gates read the {self.reads}",
                f"{self.reads}, or a dense model",
                "leave gate.reads out, or start from the base model",
            )

    def attach(self, host: Host) -> None:
        """Put the gates on every attention module, which then attends through them."""
        self.impl = resolve(self.impl, host.device)
        modules, self.n_layers = host.take_attention()
        self.layer_numbers, self.n_heads = tuple(modules), host.n_heads
        for layer, module in modules.items():
            setattr(module, self.block, self)
            setattr(module, LAYER, layer)

    def detach(self, host: Host) -> None:
        """Take the gates off again."""
        for module in host.model.modules():
            module.__dict__.pop(self.block, None)
            module.__dict__.pop(LAYER, None)
        host.give_attention_back()

    def weigh(self, host: Host) -> None:
        """An edge costs one product of a query with a key and one sum of a value."""
        first = next(iter(host.anatomy))
        self.price = float(first.k.width + first.v.width)

    def state(self) -> dict[str, Any]:
        """The block `edge_gates` of config.json: of version 1, which 0.1.0 can read, where that says it all."""
        state = super().state()
        return {**state, "version": 1} if self.reads == "logit" else {**state, "reads": self.reads}

    @classmethod
    def from_state(cls, state: Any, where: object, options: Options) -> Self:
        """The gates that a block describes."""
        made = super().from_state(state, where, options)
        made.reads = state.get("reads", "logit")
        if not isinstance(made.reads, str) or made.reads not in READS:
            raise refuse(
                f"{where}: gates that read {made.reads!r}",
                f"one of {', '.join(READS)}",
                "save it again",
                CheckpointError,
            )
        return made

    @property
    def lse_share(self) -> float:
        """a of g = s - a lse(s) + c."""
        return READS[self.reads]

    @contextmanager
    def observing(self, observer: Callable[[AttentionCall], None]) -> Iterator[None]:
        """Call `observer` after every attention call inside the `with` block."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    def limit_logits(self, limit: float, weight: float) -> None:
        """Pull logits that exceed `limit` nats back, at this weight in the objective; 0 leaves them alone."""
        self.logit_limit, self.logit_weight = limit, weight

    @contextmanager
    def recording(self) -> Iterator[Openness]:
        """Collect the expected open edges of every layer inside the `with` block, and how far logits exceed a limit.

        Non-reentrant gradient checkpointing runs layers again during backward; close the block before that.
        """
        seen = Openness(weight=self.logit_weight)

        def note(call: AttentionCall) -> None:
            seen.layers.append(call.layer)
            seen.expected.append(call.expected_open)
            seen.visible.append(call.visible)
            if self.logit_weight:
                reading = {"scale": call.scale, "softcap": call.softcap, "step": self.step}
                found = logit_excess(call.q, call.k, call.visibility, limit=self.logit_limit, **reading)
                seen.excess.append(found)

        with self.observing(note):
            yield seen

    @contextmanager
    def counting(self, add: Callable[[Count], None]) -> Iterator[None]:
        """Tell `add` every layer's visible, expected and hard open edges, (B, H), inside the `with` block."""

        def note(call: AttentionCall) -> None:
            hard = call.open_gates(call.logits(), self.bias).sum(dim=(-1, -2))
            add(
                Count(
                    self.kind,
                    self.price * self.emphasis,
                    call.layer,
                    call.visible,
                    call.expected_open,
                    hard,
                    call.visible_queries,
                )
            )

        with self.observing(note):
            yield

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

    def allowed(self, layer: int, q: Tensor, k: Tensor, **given: Any) -> Tensor | None:
        """What is multiplied onto the gates of a layer, {0, 1} and broadcastable to (B, H, T, S); None for nothing."""
        return None if self.keep is None else self.keep.get(layer)

    def _held(self, layer: int, keep: Tensor | None) -> Tensor | None:
        """`keep`, with every edge of a closed head closed."""
        opened = None if self.holder is None else self.holder.open_groups(layer)
        if opened is None or bool(opened.all()):
            return keep
        opened = opened[:, None, None]
        return opened if keep is None else keep * opened

    def attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
        """Run gated attention for one layer and tell the observers."""
        layer = getattr(module, LAYER)
        key = NoiseKey(self.seed, self.step, layer)
        noise = key if self.sampling and module.training else None
        keep = self.allowed(layer, q, k, **given)
        if not module.training:  # where a closed head needs its edges, to know whether to open again
            keep = self._held(layer, keep)
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
                lse_share=self.lse_share,
                straight_through=self.straight_through or module.training,
                least_slope=self.least_slope if module.training else 0.0,
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
                    lse_share=self.lse_share,
                    **shown,
                )
            )
        return result.out
