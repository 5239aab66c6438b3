"""Putting gates on a Hugging Face model, through its attention interface and never through a fork of its code.

`attach(model)` registers one attention function and one mask function under the name `edge_gate`, hands every
attention module the model's `Gates`, and then proves on a probe input, before anything is trained, that

    1. every attention module that should call the interface was called,
    2. with open gates (c = +inf) the model's output is that of its own eager attention,
    3. in a causal model, editing the last token leaves every earlier output alone.

Transformers accepts an unknown implementation name on architectures that ignore it, drops causality when the
mask function is missing, and reloads a gated checkpoint as a dense model, all without a word: hence the proof.

The gates have no parameters. Their state is one small object per model, reached by `gates_of(model)`; what has
to outlive the process, the bias c, is a block `edge_gates` in the model's config.json.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from .attention import gated_attention
from .attention.eager import attention_logits
from .attention.visibility import Visibility
from .errors import UnsupportedModel, refuse
from .metrics import Tally
from .noise import NoiseKey

KEY = "edge_gate"  # must hold none of "flash", "sdpa", "flex_attention", "/" or "|": transformers reads those
CONFIG_BLOCK = "edge_gates"
SCHEMA_VERSION = 1
_GATES, _LAYER = "edge_gates", "edge_gate_layer"  # attributes on each gated attention module


@dataclass
class AttentionCall:
    """One call of one layer's attention, as an observer sees it; tensors are the live ones, detached by the reader.

    q (B, H, T, D), k (B, G, S, D), v (B, G, S, E); mask is bool, broadcastable to (B, H, T, S), or None.
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
        """1[s + c > 0] over visible pairs, (B, H, T, S) bool."""
        visible = self.visibility.all_pairs()
        opened = logits + bias > 0
        return opened if visible is None else opened & visible


@dataclass
class Record:
    """What the gates of one forward pass said: per layer in call order, (B, H) expected open and visible edges."""

    layers: list[int] = field(default_factory=list)
    expected_open: list[Tensor] = field(default_factory=list)
    visible: list[Tensor] = field(default_factory=list)

    def density(self) -> Tensor:
        """Expected open edges over visible pairs, all layers together: a scalar with a gradient."""
        opened = torch.stack([x.sum() for x in self.expected_open]).sum()
        return opened / self.total_visible()

    def total_visible(self) -> float:
        """How many visible (layer, row, head, query, key) there were."""
        return float(sum(int(x.sum()) for x in self.visible))


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
    def recording(self) -> Iterator[Record]:
        """Collect the expected open edges of every layer inside the `with` block.

        Non-reentrant gradient checkpointing runs layers again during backward; close the block before that.
        """
        record = Record()

        def note(call: AttentionCall) -> None:
            record.layers.append(call.layer)
            record.expected_open.append(call.expected_open)
            record.visible.append(call.visible)

        with self.observing(note):
            yield record

    @contextmanager
    def counting(self, tally: Tally) -> Iterator[None]:
        """Add every layer's visible, expected and hard open edges inside the `with` block to `tally`."""

        def note(call: AttentionCall) -> None:
            hard = call.open_gates(call.logits(), self.bias).sum(dim=(-1, -2))
            tally.add_edges(
                layer=call.layer,
                visible=call.visible,
                expected=call.expected_open,
                hard=hard,
                queries=float(call.visible_queries.sum()),
            )

        with self.observing(note):
            yield

    def attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
        """Run gated attention for one layer and tell the observers."""
        layer = getattr(module, _LAYER)
        key = NoiseKey(self.seed, self.step, layer)
        noise = key if self.sampling and module.training else None
        keep = None if self.keep is None else self.keep.get(layer)
        result = gated_attention(
            q,
            k,
            v,
            bias=self.bias,
            noise=noise,
            dropout_key=key,
            keep=keep,
            renormalise=self.renormalise,
            impl=self.impl,
            **given,
        )
        shown = {name: given[name] for name in ("mask", "causal", "scale", "softcap", "sinks")}
        for observer in self._observers:
            observer(AttentionCall(layer, module, q, k, v, out=result.out, expected_open=result.expected_open, **shown))
        return result.out


def edge_gate_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    output_attentions: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer: (B, H, T, D) in, (B, T, H, E) out, no weights.

    Other keyword arguments of the attention interface (position ids, cache flags, the sliding window, which is
    already in the mask) are informational and are not used.
    """
    gates = getattr(module, _GATES, None)
    if gates is None:
        raise refuse(
            f"{type(module).__name__} runs attn_implementation={KEY!r} but has no gates",
            "possible: a model with gates attached",
            "call gossamer.attach(model) or load it with gossamer.load(path)",
            UnsupportedModel,
        )
    if position_bias is not None:
        raise refuse(
            f"{type(module).__name__} adds a position bias to its logits",
            "possible: models without one",
            "choose another architecture",
            UnsupportedModel,
        )
    if output_attentions or getattr(module.config, "output_attentions", False):
        raise refuse(
            "output_attentions=True on a gated model",
            "possible: gossamer.trace, which lists the open edges with their weights",
            "drop output_attentions",
            UnsupportedModel,
        )
    out = gates.attend(
        module,
        query,
        key,
        value,
        mask=as_visible(attention_mask),
        causal=attention_mask is None and bool(getattr(module, "is_causal", False)) and query.shape[-2] > 1,
        scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        softcap=softcap,
        sinks=s_aux,
        dropout=dropout,
    )
    return out.transpose(1, 2).contiguous(), None


def as_visible(mask: Tensor | None) -> Tensor | None:
    """A bool mask, True where an edge may exist, from a bool mask or an additive one of zeros and -large."""
    if mask is None or mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        return mask != 0
    visible = mask == 0
    if not bool((visible | (mask <= torch.finfo(mask.dtype).min / 2)).all()):
        raise refuse(
            "an additive attention mask with values between 0 and -inf",
            "possible: masks that only say where an edge may exist",
            "pass a bool mask, True where it may",
            UnsupportedModel,
        )
    return visible


def edge_gate_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """The visible pairs, (B, 1, T, S) bool, or None where `is_causal` or full attention says it all.

    Rows of padded queries are emptied: they are not edges, and nothing that counts reads them.
    """
    mask = sdpa_mask(*args, **kwargs)
    tokens, offset = kwargs.get("attention_mask"), kwargs.get("q_offset", 0)
    if mask is None or tokens is None or tokens.dim() != 2:
        return mask
    positions = torch.arange(mask.shape[-2], device=tokens.device) + offset
    if int(positions[-1]) >= tokens.shape[-1]:
        return mask
    return mask & tokens[:, positions].bool()[:, None, :, None]


AttentionInterface.register(KEY, edge_gate_attention)
AttentionMaskInterface.register(KEY, edge_gate_mask)


def gates_of(model: nn.Module) -> Gates:
    """The gates of a model that has some; an error for one that runs dense."""
    gates = find_gates(model)
    if gates is None:
        gated = CONFIG_BLOCK in getattr(model, "config", nn.Module()).__dict__
        hint = "it was saved with gates and would run dense here" if gated else "it is a dense model"
        do = "load it with gossamer.load(path)" if gated else "call gossamer.attach(model)"
        raise refuse(f"{type(model).__name__} has no gates ({hint})", "possible: a gated model", do, UnsupportedModel)
    return gates


def find_gates(model: nn.Module) -> Gates | None:
    """The gates of a model, or None."""
    found = (getattr(module, _GATES) for module in model.modules() if _GATES in module.__dict__)
    return next(found, None)


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The modules whose forward looks up an attention implementation, in the model's own order."""
    return [m for m in model.modules() if _calls_interface(type(m))]


def _calls_interface(cls: type) -> bool:
    try:
        return "ALL_ATTENTION_FUNCTIONS.get_interface" in inspect.getsource(cls.forward)
    except (OSError, TypeError):
        return False


def attach(model: PreTrainedModel, *, bias: float = math.inf, impl: str = "eager", check: bool = True) -> Gates:
    """Put gates on every attention edge of `model`, in place, and prove that they are really there.

    Args:
        model: any transformers model whose attention goes through the attention interface.
        bias: the gate bias c in nats; the default, +inf, leaves the model's function as it is.
        impl: implementation of the operation.
        check: run the probe (two or three forward passes on a few tokens).
    Returns: the model's `Gates`, also reachable by `gates_of(model)`.
    Raises: `UnsupportedModel` naming what is wrong: an architecture that ignores the interface, a layer that was
        not called, open gates that do not repeat the base model, or a leak of the future.
    """
    from .probe import check_attached, eager_reference

    modules = attention_modules(model)
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise refuse(f"{name} is an encoder-decoder", "possible: encoders and decoders", "choose one", UnsupportedModel)
    if not modules or not model._can_set_attn_implementation():
        raise refuse(
            f"{name} does not send its attention through the attention interface of transformers",
            "possible: architectures that do, such as bert, gpt2, gpt_neox, llama, qwen3, gemma2",
            "choose one of those",
            UnsupportedModel,
        )
    reference = eager_reference(model) if check else None
    before = model.config._attn_implementation
    gates = Gates(bias=bias, impl=impl, n_layers=len(modules), n_heads=_query_heads(model))
    try:
        model.set_attn_implementation(KEY)
        for layer, module in enumerate(modules):
            setattr(module, _GATES, gates)
            setattr(module, _LAYER, layer)
        if reference is not None:
            check_attached(model, gates, modules, reference)
    except BaseException:
        _strip(model, before)
        raise
    write_config(model)
    return gates


def detach(model: nn.Module, *, implementation: str = "sdpa") -> None:
    """Take the gates off again, in place: the model runs dense, as its config then says."""
    gates_of(model)
    _strip(model, implementation)


def write_config(model: nn.Module) -> None:
    """Write the gates into the model's config, so that `save_pretrained` keeps what a reload needs."""
    bias = gates_of(model).bias
    block = {"version": SCHEMA_VERSION, "bias": bias if math.isfinite(bias) else "open"}
    model.config.edge_gates = block  # type: ignore[union-attr]


def _query_heads(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    return int(getattr(config, "num_attention_heads", None) or getattr(config, "n_head", 0))


def _strip(model: nn.Module, implementation: str) -> None:
    for module in model.modules():
        module.__dict__.pop(_GATES, None)
        module.__dict__.pop(_LAYER, None)
    for inner in model.modules():
        if isinstance(inner, PreTrainedModel):
            inner.set_attn_implementation(implementation)
            inner.config.__dict__.pop(CONFIG_BLOCK, None)
            break
