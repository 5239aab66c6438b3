"""Proof that gates are there: every layer ran, open gates repeat the base model, nothing sees the future."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UnsupportedModel, refuse
from ..gates.gate_set import GateSets
from .forward import evaluating, first_output, probe_inputs
from .interface import attention_modules

# Open gates repeat eager attention bit for bit in float32 on one thread count; half precision rounds the
# intermediate logits in an order of its own, so the bound there is a few units in the last place.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def eager_reference(model: PreTrainedModel, inputs: dict[str, Tensor] | None = None) -> Tensor:
    """The output for `inputs`, or the probe's, under the model's own eager attention; its own is put back."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        with evaluating(model):
            return first_output(model, probe_inputs(model) if inputs is None else inputs)
    finally:
        model.set_attn_implementation(before)  # type: ignore[arg-type]


def check_attached(model: PreTrainedModel, sets: GateSets, reference: Tensor) -> None:
    """Raise `UnsupportedModel` unless every layer ran, open gates repeat `reference`, and nothing sees the future."""
    name, inputs = type(model).__name__, probe_inputs(model)
    with evaluating(model), sets.opened(), sets.recording() as seen:
        output = first_output(model, inputs)
    for one, openness in zip(sets, seen, strict=True):
        missing = sorted(set(range(one.n_layers)) - set(openness.layers))
        if missing:
            raise refuse(
                f"{name}: the gates on {one.kind} ran in {one.n_layers - len(missing)} of {one.n_layers} layers",
                "architectures that run all of them",
                f"choose another model; these layers were never run: {missing}",
                UnsupportedModel,
            )
    error = (output - reference).abs().max().item()
    scale = max(1.0, reference.abs().max().item())
    if not error <= TOLERANCE.get(output.dtype, 5e-2) * scale:
        raise refuse(
            f"{name} with open gates differs from its own eager attention by {error:.3g}",
            f"at most {TOLERANCE.get(output.dtype, 5e-2) * scale:.3g}",
            "report the architecture: its attention does more than softmax over masked logits",
            UnsupportedModel,
        )
    if "input_ids" in inputs and all(getattr(m, "is_causal", False) for m in attention_modules(model)):
        _check_causal(model, sets, inputs, output, reference)


def _check_causal(
    model: PreTrainedModel, sets: GateSets, inputs: dict[str, Tensor], output: Tensor, reference: Tensor
) -> None:
    edited = dict(inputs, input_ids=inputs["input_ids"].clone())
    config = model.config.get_text_config()
    pad = getattr(config, "pad_token_id", None)
    last = (edited["input_ids"][:, -1] + 1) % config.vocab_size
    edited["input_ids"][:, -1] = (
        torch.where(last == pad, (last + 1) % config.vocab_size, last) if pad is not None else last
    )
    with evaluating(model), sets.opened():
        changed = first_output(model, edited)
    leak, allowed = _change(changed, output), 0.0
    if leak > 0 and _change(eager_reference(model, edited), reference) > 0:
        # The model's own attention does it too: where experts work on the tokens sent to them, one token more sums
        # in another order. Then, and only then, rounding is allowed.
        allowed = TOLERANCE.get(output.dtype, 5e-2) * max(1.0, output.abs().max().item())
    if leak > allowed:
        raise refuse(
            f"{type(model).__name__}: editing the last token changed earlier outputs by {leak:.3g}",
            "no change, as a causal model sees no future",
            "report the architecture: its causal mask did not reach the gates",
            UnsupportedModel,
        )


def _change(edited: Tensor, output: Tensor) -> float:
    """The largest change of an output before the last token."""
    return (edited[:, :-1] - output[:, :-1]).abs().max().item()
