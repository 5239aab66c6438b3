"""Putting gates on a Hugging Face model, whatever their kind, and never through a fork of its code.

A kind of gate knows how to put itself on a model (`GateSet.attach`); what it needs of transformers it gets from
`ModelHost`. Then a probe input proves, before anything is trained, that

    1. every layer that has gates ran through them, and once,
    2. with open gates (c = +inf) the model's output is that of its own eager attention,
    3. in a causal model, editing the last token leaves every earlier output alone, and a static cache all of them.

Transformers accepts an unknown implementation name on architectures that ignore it, drops causality when the
mask function is missing, and reloads a gated checkpoint as a dense model, all without a word: hence the proof.

Several kinds may be on one model, each found by `GateSet.on`. What has to outlive the process is a block of each in
the model's config.json (`edge_gates` for edges), and the parameters of those that have some.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from ..errors import GossamerError, GossamerWarning, UnsupportedModel, refuse
from ..gates.edges import EdgeGates
from ..gates.gate_sets import GateSets
from ..gates.host import Options
from ..gates.kinds import kinds
from .gate_block import blocks_of
from .host import ModelHost
from .interface import KEY
from .parity import check_attached, eager_reference


def gates_of(model: nn.Module) -> EdgeGates:
    """The gates on the attention edges of a model; an error for a model without."""
    gates = EdgeGates.on(model)
    if gates is None:
        raise _no_gates(model)
    return gates


def find_gate_sets(model: nn.Module) -> GateSets:
    """Every gate set of a model, in the order of their kinds; empty for one that runs dense."""
    return GateSets(one for kind in kinds().values() if (one := kind.on(model)) is not None)


def gate_sets_of(model: nn.Module) -> GateSets:
    """Every gate set of a model; an error for one that runs dense."""
    sets = find_gate_sets(model)
    if not sets:
        raise _no_gates(model)
    return sets


def _no_gates(model: nn.Module) -> GossamerError:
    others = ", ".join(find_gate_sets(model).kinds)
    if others:
        hint = f"it has gates on {others}"
        do = f"run gossamer sparsify --gates edges,{others.replace(' ', '')}, or call gossamer.attach(model)"
    elif _saved_blocks(model):
        hint, do = "it was saved with gates and would run dense here", "load it with gossamer.load(path)"
    else:
        hint, do = "it is a dense model", "run gossamer sparsify, or call gossamer.attach(model)"
    came = f" of {path}" if (path := getattr(model, "name_or_path", "")) else ""
    what = f"{type(model).__name__}{came} has no gates{' on edges' * bool(others)} ({hint})"
    return refuse(what, "a gated model", do, UnsupportedModel)


def _saved_blocks(model: nn.Module) -> dict[str, object]:
    return blocks_of(getattr(model, "config", nn.Module()).__dict__, type(model).__name__)


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
        check: run the probe (two to four forward passes on a few tokens).
        gates: gates of another rule, such as `TopKGates`; by default `EdgeGates(reads=reads)`.
        reads: what a gate adds the bias to, `logit` or `weight` (its logarithm); see `EdgeGates`.
    Returns: the model's `EdgeGates`, also reachable by `gates_of(model)`.
    Raises: `UnsupportedModel` naming what is wrong: an architecture that ignores the interface, a layer that was
        not called or called twice, open gates that do not repeat the base model, a leak of the future, or a cache
        that changes the output.
    """
    if math.isinf(bias):
        _notice_dense(model)
    gates = EdgeGates(reads=reads) if gates is None else gates
    gates.bias, gates.impl = bias, impl
    put_on(model, GateSets((gates,)), check=check)
    return gates


def attach_missing(model: PreTrainedModel, wanted: Iterable[str], options: Options) -> GateSets:
    """Every gate set of a model, once there is one of each wanted kind: those that it lacks are added, open.

    Raises: `GossamerError` if a set that is there is not what the options ask for; and as `attach`.
    """
    there = find_gate_sets(model)
    for one in there:
        one.require(options)
    known = kinds()
    missing = GateSets(known[kind].made(options) for kind in wanted if kind not in there.kinds)
    if missing:
        _notice_dense(model)
        put_on(model, missing)
    return find_gate_sets(model)


def put_on(model: PreTrainedModel, sets: GateSets, *, check: bool = True) -> None:
    """Put gate sets on a model, in place, and prove that they are there; if they are not, it is left as it was."""
    host = ModelHost(model, attention=model.config._attn_implementation)
    host.require_gateable()
    with find_gate_sets(model).opened():
        reference = eager_reference(model) if check else None
    try:
        for one in sets:
            one.attach(host)
        _relate(host)
        if reference is not None:
            check_attached(model, find_gate_sets(model), reference)
    except BaseException:
        for one in sets:
            one.detach(host)
        _relate(host)
        raise
    write_config(model)


def _relate(host: ModelHost) -> None:
    """Tell each set of a model which other one holds it, and what its units cost beside those of others."""
    sets = find_gate_sets(host.model)
    for one in sets:
        one.holder = next((other for other in sets if other.kind == one.parent), None)
        if len(sets) > 1:
            one.weigh(host)


def _notice_dense(model: PreTrainedModel) -> None:
    """Say that a model saved with gates came in without them, and so has been running dense."""
    blocks = _saved_blocks(model).values()
    closed = any(isinstance(block, dict) and block.get("bias") != "open" for block in blocks)
    if closed and not find_gate_sets(model):
        message = f"{type(model).__name__} was saved with gates but loaded without them, so it has been running DENSE; "
        warnings.warn(message + "load it with gossamer.load(path)", GossamerWarning, stacklevel=3)


def detach(model: nn.Module, *, implementation: str = "sdpa") -> None:
    """Take all gates off again, in place: the model runs dense, as its config then says.

    Args:
        implementation: what runs the attention of a model whose edges had gates.
    """
    take_off(model, gate_sets_of(model), implementation)


def take_off(model: nn.Module, sets: GateSets, implementation: str) -> None:
    """Take some gate sets off a model."""
    host = ModelHost(model, attention=implementation)
    config = host.model.config.__dict__
    for one in sets:
        one.detach(host)
        config.pop(one.block, None)
    _relate(host)
    if not find_gate_sets(model):
        config.pop("attn_implementation", None)


@contextmanager
def gated(model: PreTrainedModel, *, check: bool = True) -> Iterator[EdgeGates]:
    """The gates on the edges of a model; a dense model runs with all gates open inside the `with` block."""
    gates = EdgeGates.on(model)
    if gates is not None:
        yield gates
        return
    before = str(model.config._attn_implementation)
    opened = attach(model, bias=math.inf, check=check)
    try:
        yield opened
    finally:
        take_off(model, GateSets((opened,)), before)


def write_config(model: nn.Module) -> None:
    """Write the gates into the model's config, so that `save_pretrained` keeps what a reload needs.

    `attn_implementation` is there for a reader without us: plain transformers would build the model dense and say
    nothing, and refuses a name that nobody registered.
    """
    for one in gate_sets_of(model):
        setattr(model.config, one.block, one.state())
    model.config.attn_implementation = KEY  # type: ignore[union-attr]
