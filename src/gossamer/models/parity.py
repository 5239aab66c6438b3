"""Proof that gates are there: each layer ran once, open gates repeat the base model, nothing sees the future."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from ..errors import UnsupportedModel, refuse
from ..gates.edges import EdgeGates
from ..gates.gate_set import GateSet
from ..gates.gate_sets import GateSets
from ..gates.quantised import of_quantising_library
from .forward import PROBE_TOKENS, evaluating, first_output, probe_inputs
from .head import is_causal_language_model
from .interface import attention_modules, sees_the_past_only

Run = Callable[[Any, dict[str, Tensor]], Tensor]
# Open gates repeat eager attention bit for bit in float32 on one thread count; half precision rounds the
# intermediate logits in an order of its own, so the bound there is a few units in the last place.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def eager_reference(
    model: PreTrainedModel, inputs: dict[str, Tensor] | None = None, run: Run = first_output
) -> Tensor:
    """The output for `inputs`, or the probe's, under the model's own eager attention; its own is put back."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        with evaluating(model):
            return run(model, probe_inputs(model) if inputs is None else inputs)
    finally:
        model.set_attn_implementation(before)  # type: ignore[arg-type]


def check_attached(model: PreTrainedModel, sets: GateSets, reference: Tensor) -> None:
    """Raise `UnsupportedModel` unless each layer ran once, open gates repeat `reference`, and nothing sees the future.

    A causal model must say the same with a static cache too, if it can have one.
    """
    name, inputs = type(model).__name__, probe_inputs(model)
    with evaluating(model), sets.opened(), sets.recording() as seen:
        output = first_output(model, inputs)
    for one, openness in zip(sets, seen, strict=True):
        _check_passes(name, one, Counter(openness.layers))
    error = (output - reference).abs().max().item()
    scale = max(1.0, reference.abs().max().item())
    if not error <= TOLERANCE.get(output.dtype, 5e-2) * scale:
        if _two_minds(model):
            raise refuse(
                f"{name} has is_causal=False in its attention modules and not in its config, so that eager attention "
                "is causal and sdpa is not",
                "one of the two in both",
                "set model.config.is_causal = False",
                UnsupportedModel,
            )
        if _quantised(model) and any(
            one.impl not in ("eager", "") for one in sets if isinstance(one, EdgeGates)
        ):
            raise refuse(
                f"{name} quantises its activations, which turns rounding into {error:.3g} under gated attention that "
                "sums in another order than its own",
                "an implementation that sums in the same order",
                'pass impl="eager"',
                UnsupportedModel,
            )
        raise refuse(
            f"{name} with open gates differs from its own eager attention by {error:.3g}",
            f"at most {TOLERANCE.get(output.dtype, 5e-2) * scale:.3g}",
            "report the architecture: its attention does more than softmax over masked logits",
            UnsupportedModel,
        )
    if "input_ids" in inputs and all(map(sees_the_past_only, attention_modules(model))):
        _check_causal(model, sets, inputs)
        _check_static_cache(model, sets, inputs, output)


def _quantised(model: PreTrainedModel) -> bool:
    """Whether layers compute in integers: those of bitsandbytes and torch, and the weights of torchao."""
    parts = (*model.modules(), *(weight.data for weight in model.parameters()))
    return any(map(of_quantising_library, parts))


def _two_minds(model: PreTrainedModel) -> bool:
    """Whether a decoder's modules were made bidirectional, and its config, which masks are made from, was not."""
    ours = [getattr(m, "is_causal", None) for m in attention_modules(model)]
    bidirectional = False in ours and getattr(model.config, "is_causal", True) is not False
    return bidirectional and is_causal_language_model(model)


def _check_passes(name: str, one: GateSet, passes: Counter[int]) -> None:
    """Every layer with gates must run, and once: passes through one layer are told apart by nobody who reads it."""
    missing = sorted(set(one.layer_numbers) - set(passes))
    if missing:
        n = len(one.layer_numbers)
        raise refuse(
            f"{name}: the gates on {one.kind} ran in {n - len(missing)} of {n} layers",
            "architectures that run all of them",
            f"choose another model; these layers were never run: {missing}",
            UnsupportedModel,
        )
    layer, times = passes.most_common(1)[0]
    if times > 1:
        raise refuse(
            f"{name} runs the attention of layer {layer} {times} times in one forward pass, with the same weights",
            "architectures in which each layer has attention of its own and runs once",
            "choose another model",
            UnsupportedModel,
        )


def _check_causal(model: PreTrainedModel, sets: GateSets, inputs: dict[str, Tensor]) -> None:
    edited = dict(inputs, input_ids=inputs["input_ids"].clone())
    config = model.config.get_text_config()
    pad = getattr(config, "pad_token_id", None)
    last = (edited["input_ids"][:, -1] + 1) % config.vocab_size
    edited["input_ids"][:, -1] = (
        torch.where(last == pad, (last + 1) % config.vocab_size, last) if pad is not None else last
    )
    with evaluating(model), sets.opened():
        output, changed = (_per_token(model, x) for x in (inputs, edited))
    leak, allowed = _change(changed, output), 0.0
    own, before = (
        (eager_reference(model, x, _per_token) for x in (edited, inputs)) if leak > 0 else (changed, changed)
    )
    if _change(own, before) > 0:
        # The model's own attention does it too: where experts work on the tokens sent to them, one token more sums
        # in another order, and dynamic int8 has one scale for all tokens. Then, and only then, what counts is that
        # the edited rows are those of its own attention, to rounding.
        leak = _change(changed, own)
        allowed = TOLERANCE.get(output.dtype, 5e-2) * max(1.0, output.abs().max().item())
    if leak > allowed:
        raise refuse(
            f"{type(model).__name__}: editing the last token changed earlier outputs by {leak:.3g}",
            "no change, as a causal model sees no future",
            "report the architecture: its causal mask did not reach the gates",
            UnsupportedModel,
        )


def _check_static_cache(
    model: PreTrainedModel, sets: GateSets, inputs: dict[str, Tensor], output: Tensor
) -> None:
    """With a static cache, whose keys go on behind the last query, the output must be the same as without."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return
    with sets.opened():
        ours = _with_static_cache(model, inputs)
    allowed = TOLERANCE.get(output.dtype, 5e-2) * max(1.0, output.abs().max().item())
    if ours is not None and _largest(ours, output) <= allowed:
        return
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        theirs = _with_static_cache(model, inputs)
    finally:
        model.set_attn_implementation(before)  # type: ignore[arg-type]
    if theirs is None:  # the architecture has no static cache
        return
    if ours is None or _largest(ours, theirs) > allowed:
        change = "fails" if ours is None else f"changes the output by {_largest(ours, theirs):.3g}"
        raise refuse(
            f"{type(model).__name__}: a static cache {change}",
            f"at most {allowed:.3g}, as without gates",
            "report the architecture: its mask did not reach the gates",
            UnsupportedModel,
        )


def _with_static_cache(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor | None:
    """The output with a static cache that has room for more tokens, or None where a model cannot have one."""
    try:
        config = model.config.get_text_config(decoder=True)
        cache = StaticCache(config=config, max_cache_len=2 * PROBE_TOKENS)
        with evaluating(model):
            return first_output(model, {**inputs, "past_key_values": cache, "use_cache": True})
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None


def _largest(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def _change(edited: Tensor, output: Tensor) -> float:
    """The largest change of an output before the last token."""
    return (edited[:, :-1] - output[:, :-1]).abs().max().item()


def _per_token(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """The model's first output, or the last hidden states of a head that answers once a row."""
    output = model(**inputs, output_hidden_states=True, return_dict=True)
    return output[0] if output[0].shape[:2] == inputs["input_ids"].shape else output["hidden_states"][-1]
