"""Putting gates on a Hugging Face model, through its attention interface and never through a fork of its code.

`attach(model)` selects the attention and mask functions of `interface.py`, hands every attention module the model's
`EdgeGates`, and then proves on a probe input, before anything is trained, that

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
import warnings

from torch import nn
from transformers import PreTrainedModel

from ..errors import GossamerWarning, UnsupportedModel, refuse
from ..gates.attention import resolve
from ..gates.edges import LAYER, ON_MODULE, EdgeGates
from ..gates.gate_set import GateSets
from .interface import KEY

CONFIG_BLOCK = EdgeGates.block


def gates_of(model: nn.Module) -> EdgeGates:
    """The gates of a model that has some; an error for one that runs dense."""
    gates = find_gates(model)
    if gates is None:
        gated = CONFIG_BLOCK in getattr(model, "config", nn.Module()).__dict__
        hint = "it was saved with gates and would run dense here" if gated else "it is a dense model"
        do = "load it with gossamer.load(path)" if gated else "call gossamer.attach(model)"
        came = f" of {path}" if (path := getattr(model, "name_or_path", "")) else ""
        what = f"{type(model).__name__}{came} has no gates ({hint})"
        raise refuse(what, "a gated model", do, UnsupportedModel)
    return gates


def find_gates(model: nn.Module) -> EdgeGates | None:
    """The gates of a model, or None."""
    found = (getattr(module, ON_MODULE) for module in model.modules() if ON_MODULE in module.__dict__)
    return next(found, None)


def gate_sets_of(model: nn.Module) -> GateSets:
    """Every gate set of a model that has some; an error for one that runs dense."""
    return GateSets((gates_of(model),))


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The modules whose forward looks up an attention implementation, in the model's own order."""
    return [m for m in model.modules() if _calls_interface(type(m))]


def _calls_interface(cls: type) -> bool:
    try:
        return "ALL_ATTENTION_FUNCTIONS.get_interface" in inspect.getsource(cls.forward)
    except (OSError, TypeError):
        return False


def attach(
    model: PreTrainedModel,
    *,
    bias: float = math.inf,
    impl: str = "auto",
    check: bool = True,
    gates: EdgeGates | None = None,
    reads: str = "logit",
) -> EdgeGates:
    """Put gates on every attention edge of `model`, in place, and prove that they are really there.

    Args:
        model: any transformers model whose attention goes through the attention interface.
        bias: the gate bias c in nats; the default, +inf, leaves the model's function as it is.
        impl: implementation of the operation; auto is resolved here, once, by the model's device.
        check: run the probe (two or three forward passes on a few tokens).
        gates: gates of another rule, such as `TopKGates`; by default `EdgeGates(reads=reads)`.
        reads: what a gate adds the bias to, `logit` or `weight` (its logarithm); see `EdgeGates`.
    Returns: the model's `EdgeGates`, also reachable by `gates_of(model)`.
    Raises: `UnsupportedModel` naming what is wrong: an architecture that ignores the interface, a layer that was
        not called, open gates that do not repeat the base model, or a leak of the future.
    """
    from .parity import check_attached, eager_reference

    _notice_dense(model, bias)
    modules = attention_modules(model)
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise refuse(f"{name} is an encoder-decoder", "encoders and decoders", "choose one", UnsupportedModel)
    if not modules or not model._can_set_attn_implementation():
        raise refuse(
            f"{name} does not send its attention through the attention interface of transformers",
            "architectures that do, such as bert, gpt2, gpt_neox, llama, qwen3, gemma2",
            "choose one of those",
            UnsupportedModel,
        )
    if getattr(model.config, "output_attentions", False):
        raise refuse(
            f"{name} has output_attentions=True in its config",
            "False, as gossamer.trace lists the open edges with their weights",
            "set it to False",
            UnsupportedModel,
        )
    reference = eager_reference(model) if check else None
    before = model.config._attn_implementation
    gates = EdgeGates(reads=reads) if gates is None else gates
    gates.bias, gates.impl = bias, resolve(impl, model.device)
    gates.n_layers, gates.n_heads = len(modules), _query_heads(model)
    try:
        model.set_attn_implementation(KEY)
        for layer, module in enumerate(modules):
            setattr(module, ON_MODULE, gates)
            setattr(module, LAYER, layer)
        if reference is not None:
            check_attached(model, gates, modules, reference)
    except BaseException:
        _strip(model, before)
        raise
    write_config(model)
    return gates


def gates_reading(reads: str | None, model: PreTrainedModel, *, impl: str) -> EdgeGates:
    """The gates of a model, attached if it has none; an error if they read something else than `reads`.

    Args:
        reads: `logit` or `weight`; None for what the gates read that are there, and for the logit where there are none.
    """
    gates = find_gates(model)
    if gates is None:
        return attach(model, impl=impl, reads=reads or "logit")
    if reads not in (None, gates.reads):
        raise refuse(
            f"gate.reads={reads} on a model whose gates read the {gates.reads}",
            f"{gates.reads}, or a dense model",
            "leave gate.reads out, or start from the base model",
        )
    return gates


def _notice_dense(model: PreTrainedModel, bias: float) -> None:
    """Say that a model saved with gates came in without them, and so has been running dense."""
    block = model.config.__dict__.get(CONFIG_BLOCK)
    if (
        find_gates(model) is None
        and isinstance(block, dict)
        and math.isinf(bias)
        and block.get("bias") != "open"
    ):
        message = f"{type(model).__name__} was saved with gates but loaded without them, so it has been running DENSE; "
        warnings.warn(message + "load it with gossamer.load(path)", GossamerWarning, stacklevel=3)


def detach(model: nn.Module, *, implementation: str = "sdpa") -> None:
    """Take the gates off again, in place: the model runs dense, as its config then says."""
    gates_of(model)
    _strip(model, implementation)


def write_config(model: nn.Module) -> None:
    """Write the gates into the model's config, so that `save_pretrained` keeps what a reload needs.

    `attn_implementation` is there for a reader without us: plain transformers would build the model dense and say
    nothing, and refuses a name that nobody registered.
    """
    for one in gate_sets_of(model):
        setattr(model.config, one.block, one.state())
    model.config.attn_implementation = KEY  # type: ignore[union-attr]


def _query_heads(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    return int(getattr(config, "num_attention_heads", None) or getattr(config, "n_head", 0))


def _strip(model: nn.Module, implementation: str | None) -> None:
    for module in model.modules():
        module.__dict__.pop(ON_MODULE, None)
        module.__dict__.pop(LAYER, None)
    for inner in model.modules():
        if isinstance(inner, PreTrainedModel):
            inner.set_attn_implementation(implementation)  # type: ignore[arg-type]
            for name in (CONFIG_BLOCK, "attn_implementation"):
                inner.config.__dict__.pop(name, None)
            break
