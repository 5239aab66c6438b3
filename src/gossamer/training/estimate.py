"""What a run will take, before it starts: memory by arithmetic, time by one forward pass on the machine.

Letters: P parameters, P' trainable ones, L layers, H heads, E width, V vocabulary, b rows per micro-batch,
T tokens per row; w bytes of a weight, a bytes of an activation.

    weights      w P       and w P again for a separate base model
    training     4 P' gradients + 8 P' AdamW moments + 4 P' where weights are half precision
    activations  a b T (34 E / 2) per layer (Korthikanti et al. 2022, eq. 2, without the attention matrices);
                 with checkpointing a b T E per layer, plus one layer in full
    attention    4 * 6 b H T^2 per layer for impl eager; nothing lasting for the others
    logits       4 * 6 b T V: both models', their log-softmax, and the gradient

It is an estimate: allocators, workspaces and the collectives of several ranks come on top (assumed 20 %).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import GossamerError, GossamerWarning, out_of_memory, refuse
from ..models.forward import evaluating, first_output
from ..models.inputs import available

OVERHEAD = 1.2  # assumed
GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """The sizes that the estimate needs."""

    parameters: int
    trainable: int
    layers: int
    heads: int
    width: int
    vocabulary: int
    rows: int
    length: int
    weight_bytes: int = 4
    activation_bytes: int = 4
    separate_base: bool = True
    checkpointing: bool = False
    eager: bool = False

    @classmethod
    def of(cls, model: nn.Module, *, rows: int, length: int, **settings: Any) -> Shape:
        """Read them off a model."""
        config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
        weights = list(model.parameters())
        width = int(getattr(config, "hidden_size", None) or config.n_embd)
        return cls(
            parameters=sum(p.numel() for p in weights),
            trainable=sum(p.numel() for p in weights if p.requires_grad),
            layers=int(getattr(config, "num_hidden_layers", None) or config.n_layer),
            heads=int(getattr(config, "num_attention_heads", None) or config.n_head),
            width=width,
            vocabulary=int(getattr(config, "vocab_size", 0)),
            rows=rows,
            length=length,
            weight_bytes=max(p.element_size() for p in weights),
            **settings,
        )


def memory(shape: Shape) -> dict[str, float]:
    """Bytes per process, by part, and their `total` with overhead."""
    tokens = shape.rows * shape.length
    copy = 0 if shape.weight_bytes == 4 else 4
    per_layer = shape.activation_bytes * tokens * 17 * shape.width
    squares = 24.0 * shape.rows * shape.heads * shape.length**2 if shape.eager else 0.0
    if shape.checkpointing:
        activations = shape.activation_bytes * tokens * shape.width * shape.layers + per_layer + squares
    else:
        activations = (per_layer + squares) * shape.layers
    parts = {
        "weights": float(shape.weight_bytes * shape.parameters),
        "base model": float(shape.weight_bytes * shape.parameters * shape.separate_base),
        "gradients and optimizer": float((12 + copy) * shape.trainable),
        "activations": float(activations),
        "logits": 24.0 * tokens * shape.vocabulary,
    }
    return parts | {"total": OVERHEAD * sum(parts.values())}


def seconds_per_step(
    model: nn.Module, batch: dict[str, Any], *, accumulation: int, checkpointing: bool
) -> float:
    """Time one forward pass and multiply: the base's, and forward and backward of the sparse model.

    A backward is taken as two forwards, gates and noise as half a one (assumed; measured in benchmarks/).
    """
    with evaluating(model):
        first_output(model, batch)
        begin = time.perf_counter()
        first_output(model, batch)
    forward = time.perf_counter() - begin
    return forward * accumulation * (4.5 + checkpointing)


def what_to_lower(shape: Shape) -> str:
    """Which setting frees most, by the estimate."""
    parts = memory(shape)
    parts.pop("total")
    largest = max(parts, key=lambda name: parts[name])
    fewer = "lower --batch and raise --accumulate" if shape.rows > 1 else "shorten --length"
    lora = shape.trainable < shape.parameters
    advice = {
        "weights": "choose a smaller model, or load it in half precision from Python",
        "base model": "use --lora 16, which needs no second copy",
        "gradients and optimizer": "lower --lora" if lora else "use --lora 16, which trains few weights",
        "activations": fewer if shape.checkpointing else f"use --checkpointing, or {fewer}",
        "logits": fewer,
    }
    return f"{largest} need {parts[largest] / GIB:.2f} GiB: {advice[largest]}"


def describe(shape: Shape, seconds: float, steps: int, max_minutes: float = 0.0) -> str:
    """The estimate in one line, with a warning if it does not fit.

    Args:
        seconds: of a step.
        max_minutes: a budget that may end the run before its steps, 0 for none.
    """
    total, free = memory(shape)["total"], available()
    if total > free:
        message = (
            f"about {total / GIB:.2f} GiB are needed and {free / GIB:.2f} are free; {what_to_lower(shape)}"
        )
        warnings.warn(message, GossamerWarning, stacklevel=2)
    share = 100 * shape.trainable / max(1, shape.parameters)
    minutes = seconds * steps / 60
    length = f"{minutes:.1f} minutes for {steps} steps"
    if max_minutes and minutes > max_minutes:
        fit = int(60 * max_minutes / seconds)  # and evaluations take of the minutes too
        length = f"so at most {fit} of {steps} steps in {max_minutes:g} minutes"
    return (
        f"{shape.parameters:,} parameters, {share:.1f} % of them trained; about {total / GIB:.2f} GiB per "
        f"process; about {seconds:.2f} s a step, {length}"
    )


@contextmanager
def explain_oom(batch: int, length: int, lower: str) -> Iterator[None]:
    """Turn an allocator's error inside the `with` block into a `GossamerError` that says what to lower.

    Args:
        batch, length: rows of a micro-batch, and their tokens.
        lower: what takes most by the estimate, and what to do about it (`estimate.what_to_lower`).
    """
    try:
        yield
    except GossamerError:
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise refuse(
            f"out of memory at {batch} rows of {length} tokens",
            "less at a time; the last checkpoint is intact",
            f"by the estimate {lower}; then --resume, or a new --out if the model, --length or --lora changed",
        ) from error
