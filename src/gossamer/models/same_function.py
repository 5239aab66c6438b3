"""Proof that one model computes what another does: on rows, on padded rows, and token by token with a cache."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import GossamerError, refuse
from .forward import evaluating, first_output, probe_inputs
from .interface import attention_modules
from .parity import TOLERANCE

NEW_TOKENS = 8  # generated in the proof (assumed: enough for the cache to be read and grown)


class Same(NamedTuple):
    """What was compared.

    Attributes:
        rows: of how many rows the outputs were.
        error, allowed: the largest difference of two outputs, and what rounding may make of it.
        generated: tokens that were generated with a cache, 0 for a model that generates none.
    """

    rows: int
    error: float
    allowed: float
    generated: int


def require_same(model: PreTrainedModel, other: PreTrainedModel, rows: Tensor | None = None) -> Same:
    """Raise unless `other` gives the outputs of `model` within 1e-5 of their size in float32.

    Args:
        rows: (N, T) token ids, held out; beside them probe rows are tried, whole and padded on the left.
    """
    worst, allowed, count = 0.0, 0.0, 0
    for inputs in _batches(model, rows):
        with evaluating(model), evaluating(other):
            ours, theirs = first_output(model, inputs), first_output(other, inputs)
        real = inputs.get("attention_mask")
        mask = real.bool() if real is not None and ours.shape[:2] == real.shape else slice(None)
        worst, allowed = _compare(ours[mask], theirs[mask], worst, allowed, "outputs")
        count += len(ours)
    generated = 0
    if generates(model):
        prompt = probe_inputs(model)
        one, two = (_generated(x, prompt) for x in (model, other))
        differ = (one.sequences != two.sequences)[:, prompt["input_ids"].shape[1] :].any(0).nonzero()
        same = (
            int(differ[0]) + 1 if len(differ) else len(one.logits)
        )  # later logits are those of another text
        ours, theirs = (torch.stack(x.logits[:same]) for x in (one, two))
        worst, allowed = _compare(ours, theirs, worst, allowed, "logits in generate with a cache")
        generated = same
    return Same(count, worst, allowed, generated)


def generates(model: PreTrainedModel) -> bool:
    """Whether a model writes text, token by token."""
    return model.can_generate() and all(getattr(x, "is_causal", False) for x in attention_modules(model))


def _batches(model: PreTrainedModel, rows: Tensor | None) -> Iterable[dict[str, Tensor]]:
    probe = probe_inputs(model)
    yield probe
    if "attention_mask" in probe:
        padded = probe["attention_mask"].clone()
        padded[0, :2] = 0
        yield {**probe, "attention_mask": padded}
    for part in () if rows is None else rows.split(8):
        yield {"input_ids": part, "attention_mask": torch.ones_like(part)}


def _compare(ours: Tensor, theirs: Tensor, worst: float, allowed: float, what: str) -> tuple[float, float]:
    scale = TOLERANCE[ours.dtype] * max(1.0, ours.abs().max().item())
    error = (ours - theirs).abs().max().item()
    if not error <= scale:
        raise _differs(what, error, scale)
    return max(worst, error), max(allowed, scale)


def _differs(what: str, error: float, allowed: float) -> GossamerError:
    return refuse(
        f"the small model's {what} differ from the gated model's by {error:.3g}",
        f"at most {allowed:.3g}",
        "take --level masked, and report the architecture; nothing was written",
    )


def _generated(model: PreTrainedModel, prompt: dict[str, Tensor]) -> Any:
    with evaluating(model):
        return model.generate(  # type: ignore[operator]
            **prompt,
            do_sample=False,
            num_beams=1,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            use_cache=True,
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=0,
        )
