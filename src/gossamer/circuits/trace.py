"""From a model and prompts to a circuit: every open edge with its logit, weight and contribution.

A gated model's edges are its open gates, s + c > 0. A dense model is traced through open gates, which repeat
it exactly and are taken off again; its edges are those whose softmax weight is at least `threshold`, or among
the `top_k` largest of its query and head. Edges that an intervention closes (`EdgeGates.keep`) are not edges, nor
are those of a closed head; the circuit names these heads, and says how many neurons are left. One layer of one
batch is looked at at a time, and what is kept grows with the open edges.

The contribution of an edge is the length of weight * v W_h, what it adds to the residual stream through its head's
slice W_h of the output projection, before any norm that may follow. Where that projection is not known (adapters
not merged, or attention that ends otherwise) it is the length of weight * v inside the head, with a warning;
`meta["contribution"]` says which: residual or head.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.prompts import Prompt
from ..errors import GossamerWarning, UnsupportedModel, refuse, require_range
from ..gates.attention.edge_list import EdgeList, is_open, open_edges, strong_edges
from ..gates.attention_call import AttentionCall
from ..gates.edges import EdgeGates
from ..gates.heads import HeadGates
from ..gates.neurons import NeuronGates
from ..models.attach import gated
from ..models.forward import evaluating, first_output, prompt_inputs
from ..models.inputs import require_inputs, require_memory
from ..models.remaining import units
from ..training.counted import counted
from .answers import answers_in_words
from .circuit import Circuit, UnitsLeft, concatenate
from .contribution import Writing


class Choice(NamedTuple):
    """Which of the open edges to list."""

    threshold: float
    top_k: int | None


def trace(
    model: PreTrainedModel,
    input_ids: Tensor,
    *,
    attention_mask: Tensor | None = None,
    text: Callable[[Tensor], tuple[str, ...]] | None = None,
    outputs: Sequence[int] | None = None,
    threshold: float = 0.0,
    top_k: int | None = None,
    batch_size: int = 1024,
) -> Circuit:
    """List the open attention edges of `model` on some prompts.

    Args:
        input_ids: (N, T) token ids, one prompt a row.
        attention_mask: (N, T), 0 at padding, on either side: each prompt is traced as it would be alone.
        text: turns (T,) token ids into T strings; by default the ids themselves.
        outputs: the positions that count as the answer; by default all T.
        threshold: smallest softmax weight that counts as an edge, in [0, 1]; mostly for dense models.
        top_k: count only the `top_k` largest softmax weights of each query and head, as a training-free
            control.
        batch_size: prompts per forward pass.
    Returns: a `Circuit` on N prompts.
    Raises: `GossamerError` on a threshold, `top_k`, output position or shape that means nothing.
    """
    if model.main_input_name != "input_ids":
        raise refuse(
            f"{type(model).__name__} reads {model.main_input_name}, and a circuit is named by its tokens",
            "models that read token ids",
            "choose one of them",
            UnsupportedModel,
        )
    require_range("threshold", threshold, 0.0, 1.0)
    if top_k is not None and top_k < 1:
        raise refuse(f"top_k={top_k}", "1 and above, or None", "pass one of them")
    require_inputs(model, input_ids, attention_mask)
    positions = output_positions(outputs, input_ids.shape[1])
    text = text or (lambda ids: tuple(str(i) for i in ids.tolist()))
    parts = []
    choice, left = Choice(threshold, top_k), units_left(model)
    with gated(model) as gates, evaluating(model):
        _require_memory(model, gates, min(batch_size, len(input_ids)), input_ids.shape[1], choice)
        writing = _writing(model)
        for start in counted(range(0, len(input_ids), batch_size), "batches traced"):
            rows = slice(start, start + batch_size)
            mask = None if attention_mask is None else attention_mask[rows]
            inputs = prompt_inputs(model, input_ids[rows], mask)
            parts.append(_trace_batch(model, gates, inputs, text, positions, choice, writing))
    return replace(concatenate(parts), left=left)


def units_left(model: nn.Module) -> UnitsLeft:
    """Which heads gates close, and how many neurons of each layer they leave."""
    heads, neurons = HeadGates.on(model), NeuronGates.on(model)
    closed = [
        (layer, head)
        for layer, row in enumerate(units(heads).per_group if heads else ())
        for head, opened in enumerate(row)
        if not opened
    ]
    left = units(neurons) if neurons else None
    per_layer = zip(left.per_group, left.of_layer, strict=True) if left else ()
    return UnitsLeft(tuple(closed), tuple((int(sum(groups)), whole) for groups, whole in per_layer))


def _require_memory(model: PreTrainedModel, gates: EdgeGates, rows: int, length: int, choice: Choice) -> None:
    """Raise where one forward pass on `rows` prompts of `length` tokens cannot fit into memory."""
    pairs = rows * gates.n_heads * length**2
    everything = math.isinf(gates.bias) and not choice.threshold
    listed = pairs // 2 if choice.top_k is None else rows * gates.n_heads * length * choice.top_k
    require_memory(
        pairs if gates.impl == "eager" else 0,
        gates.n_layers * listed if everything else 0,
        rows * length * model.config.get_text_config().vocab_size,
        f"a trace of {rows:,} prompts of {length:,} tokens at once",
    )


def trace_prompt(model: PreTrainedModel, prompt: Prompt, **options: Any) -> Circuit:
    """The circuit of one text, in its own pieces, into the positions that answer; options as for `trace`."""
    return trace(model, prompt.ids, text=prompt.spelled, outputs=prompt.outputs, **options)


def output_positions(outputs: Sequence[int] | None, length: int) -> tuple[int, ...]:
    """The output positions as numbers from 0, all of them by default; negative ones count from the end."""
    found = tuple(range(length)) if outputs is None else tuple(p + length if p < 0 else p for p in outputs)
    if not found or not all(0 <= position < length for position in found):
        raise refuse(f"outputs {outputs} of {length} tokens", f"0 to {length - 1}", "choose some of them")
    return found


def _writing(model: PreTrainedModel) -> Writing | None:
    """How far values move the residual stream; None, with a warning, where that cannot be known."""
    try:
        if any(weight.is_meta for weight in model.parameters()):
            raise UnsupportedModel("output projections are on the disk until they are used")
        return Writing(model)
    except UnsupportedModel as error:
        message = f"contributions are lengths inside the heads: {error}"
        warnings.warn(message, GossamerWarning, stacklevel=3)
        return None


def _trace_batch(
    model: PreTrainedModel,
    gates: EdgeGates,
    inputs: dict[str, Tensor],
    text: Callable[[Tensor], tuple[str, ...]],
    outputs: tuple[int, ...],
    choice: Choice,
    writing: Writing | None,
) -> Circuit:
    found: list[dict[str, np.ndarray]] = []
    ids = inputs["input_ids"]
    visible = torch.zeros(len(ids), dtype=torch.int64)

    def note(call: AttentionCall) -> None:
        found.append(_open_edges(call, gates, choice, writing))
        visible.add_(call.visible.sum(1).cpu())

    with gates.observing(note):
        output = first_output(model, inputs)
    edges = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return Circuit(
        n_layers=gates.n_layers,
        n_heads=gates.n_heads,
        tokens=tuple(text(row) for row in ids.cpu()),
        answers=answers_in_words(model, output, ids.shape[1], outputs, text),
        outputs=outputs,
        visible=tuple(visible.tolist()),
        meta={
            "model": type(model).__name__,
            "gate_bias": str(gates.bias),
            "gate_reads": gates.reads,
            **_as_meta(choice),
            **_mixing(gates),
            "contribution": "head" if writing is None else "residual",
        },
        **edges,  # type: ignore[arg-type]
    )


def _mixing(gates: EdgeGates) -> dict[str, Any]:
    """The layers of a hybrid model that have no attention: what they read from other positions is no edge."""
    other = sorted(set(range(gates.n_layers)) - set(gates.layer_numbers))
    return {"mixing_layers": other} if other else {}


def _as_meta(choice: Choice) -> dict[str, Any]:
    return {name: value for name, value in choice._asdict().items() if value is not None}


def _open_edges(
    call: AttentionCall, gates: EdgeGates, choice: Choice, writing: Writing | None
) -> dict[str, np.ndarray]:
    """One layer of one batch: the chosen open edges as columns."""
    row, head, query, key, logit, weight = _listed(call, gates.bias, choice)
    opened = is_open(logit, weight, gates.bias, call.lse_share) & (weight >= choice.threshold)
    if call.keep is not None:
        shape = (*call.q.shape[:3], call.k.shape[2])
        opened &= call.keep.bool().expand(shape)[row, head, query, key]
    if writing is None:
        lengths = call.v.norm(dim=-1).repeat_interleave(call.q.shape[1] // call.v.shape[1], 1)
    else:
        lengths = writing.lengths(call.layer, call.v)
    moved = weight * lengths[row, head, key]  # lengths: (B, H, S)
    columns = {"prompt": row, "head": head, "query": query, "key": key}
    columns |= {"layer": torch.full_like(row, call.layer)}
    columns |= {"logit": logit, "weight": weight, "contribution": moved.float()}
    return {name: column[opened].cpu().numpy() for name, column in columns.items()}


def _listed(call: AttentionCall, bias: float, choice: Choice) -> EdgeList:
    """The open edges, or those that `choice` prefers, before it and the gates are both applied."""
    options = {name: getattr(call, name) for name in ("scale", "mask", "causal", "softcap", "sinks")}
    if choice.top_k is not None:
        return strong_edges(call.q, call.k, top=choice.top_k, **options)
    if choice.threshold > 0:
        return strong_edges(call.q, call.k, threshold=choice.threshold, **options)
    return open_edges(call.q, call.k, bias=bias, lse_share=call.lse_share, **options)
