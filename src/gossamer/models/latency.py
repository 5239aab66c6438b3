"""How long a prompt and a token take, of several models in one run: interleaved rounds, medians."""

from __future__ import annotations

import inspect
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.prompts import positions_of
from .forward import device_of, evaluating, first_output, probe_inputs
from .same_function import generates

PROMPT, STEPS, ROUNDS = (
    128,
    8,
    5,
)  # tokens read, tokens written, how often (few: the ratio is what is asked for)


def latencies(models: Mapping[str, PreTrainedModel], *, rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Name -> milliseconds to read a prompt (`prefill_ms`) and to write a token after it (`decode_ms`).

    One row at a time; a model that writes no text has no `decode_ms`. Of a prompt the last token alone gets logits, as
    in `generate`. A round that does not count comes first.
    """
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            found = _once(model)
            for what, taken in found.items() if turn else ():
                times[name][what].append(taken)
    return {name: {what: statistics.median(x) for what, x in one.items()} for name, one in times.items()}


def _once(model: PreTrainedModel) -> dict[str, float]:
    inputs = {name: x[:1] for name, x in probe_inputs(model).items()}
    if "input_ids" in inputs:
        room = (positions_of(model) or 2 * PROMPT) - STEPS
        ids = inputs["input_ids"].repeat(1, PROMPT)[:, : min(PROMPT, room)]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with evaluating(model):
        if not generates(model):
            start = _now(model)
            first_output(model, inputs)
            return {"prefill_ms": _now(model) - start}
        return _read_and_write(model, inputs["input_ids"])


def _read_and_write(model: PreTrainedModel, ids: Tensor) -> dict[str, float]:
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    start = _now(model)
    out = model(input_ids=ids, use_cache=True, **last)
    read = _now(model)
    for _ in range(STEPS):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    return {"prefill_ms": read - start, "decode_ms": (_now(model) - read) / STEPS}


def _now(model: PreTrainedModel) -> float:
    """Milliseconds, once the device is done."""
    if device_of(model).type == "cuda":
        torch.cuda.synchronize(model.device)
    return 1e3 * time.perf_counter()
