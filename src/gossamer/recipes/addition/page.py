"""The page for addition: every sum of the sparse model as traced, and both models, which the page runs
itself.

Storing the base model's 1,936 edges of each of 10,000 sums would take 20 million weights. The models are
0.2 million parameters each, and one pass of one takes the browser a few milliseconds: so the page holds
them, in float32, and computes. The sparse circuits are stored all the same, since a gate whose logit is
within rounding of its threshold may fall the other way in another order of summation; a cut edge is always
computed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers import BertForMaskedLM, PreTrainedModel

from ...circuits.circuit import Circuit
from ...circuits.trace import trace, units_left
from ...errors import refuse
from ...gates.edges import EdgeGates
from ...gates.learned import LearnedGates
from ...models.attach import find_gate_sets
from ...viz.viewer import MOST_EDGES, Carries, left_of, page_data, panel, panel_data
from ...viz.viewer.pack import array
from ...viz.viewer.page import page
from .explain.facts import position_names
from .task import VOCABULARY, Addition, as_text

MOST_SUMS = 10_000  # whose sparse circuits are stored; beyond, the page computes both
MOST_PARAMETERS = 1_500_000  # of both models together: 8 MB of page


def view_addition(
    base: PreTrainedModel,
    sparse: PreTrainedModel,
    *,
    circuit: Circuit | None = None,
    start: str = "36+28",
    edge_findings: Carries | None = None,
    title: str = "Addition, before and after sparsity-regularised finetuning",
) -> str:
    """The page of a base and a sparse model of the addition task, as text to write to an .html file.

    Args:
        base, sparse: as `Addition.model_config` builds them; the sparse one with gates.
        circuit: the sparse model's circuit on all sums in order, where it is already traced.
        start: the sum that is shown first.
        carries: as for `gossamer.viz.viewer.view`.
    Raises: `GossamerError` for other models, or models too large for a page.
    """
    task = addition_of(base.config)
    if task is None or addition_of(sparse.config) != task:
        raise refuse("models that are not of one addition task", "those of gossamer demo", "use view()")
    if base.num_parameters() + sparse.num_parameters() > MOST_PARAMETERS:
        raise refuse(
            f"models of {base.num_parameters():,} and {sparse.num_parameters():,} parameters in one page",
            f"{MOST_PARAMETERS:,} together",
            "trace some prompts and use view()",
        )
    task.parse(start)
    panels = [_panel("base", "Base Model", base), _panel("sparse", "Sparse Model", sparse)]
    if circuit is None and task.n_sums <= MOST_SUMS:
        circuit = trace_all(task, sparse)
    if circuit is not None and len(circuit) <= MOST_EDGES:  # more would not fit; the page then computes both
        panels[1]["circuits"] = panel("sparse", "", [circuit])["circuits"]
    extra = {"digits": task.digits, "vocabulary": list(VOCABULARY)}
    data = page_data(
        "addition", panels, edge_findings=edge_findings, places=position_names(task), start=start, **extra
    )
    return page(data, title=title, left=left_of(data))


def trace_all(task: Addition, model: PreTrainedModel) -> Circuit:
    """A model's circuit on every sum, in the order of their numbers."""
    inputs, _ = task.encode(torch.arange(task.n_sums))
    slots = tuple(range(task.length - task.n_slots, task.length))
    return trace(model, inputs, text=as_text, outputs=slots)


def addition_of(config: Any) -> Addition | None:
    """The addition task that a model config was made for, or None."""
    n_digits, rest = divmod(getattr(config, "max_position_embeddings", 0) - 5, 3)
    kind = getattr(config, "model_type", ""), getattr(config, "vocab_size", 0)
    if kind != ("bert", len(VOCABULARY)) or rest or not 1 <= n_digits <= 4:
        return None
    return Addition(n_digits)


def _panel(name: str, title: str, model: PreTrainedModel) -> dict[str, Any]:
    assert isinstance(model, BertForMaskedLM)
    size = model.config.num_hidden_layers, model.config.num_attention_heads
    return panel_data(name, title, size, units_left(model), model=pack_bert(model))


def pack_bert(model: BertForMaskedLM) -> dict[str, Any]:
    """What `bert.js` needs to run the model: its sizes, its gate bias, its weights under short names."""
    config, gates = model.config, EdgeGates.on(model)
    if config.hidden_act != "gelu":
        raise refuse(
            f"hidden_act={config.hidden_act!r}",
            "gelu",
            "build the model with Addition.model_config",
        )
    state = {name: value.detach().float().cpu().numpy() for name, value in model.state_dict().items()}
    _close(model, state)
    tensors = {short: state[long] for short, long in bert_names(config.num_hidden_layers).items()}
    bias = math.inf if gates is None else gates.bias
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "epsilon": config.layer_norm_eps,
        "bias": bias if math.isfinite(bias) else None,
        "reads": "logit" if gates is None else gates.reads,
        "tensors": [{"name": name, "shape": list(value.shape)} for name, value in tensors.items()],
        "weights": array(np.concatenate([value.ravel() for value in tensors.values()])),
    }


def _close(model: BertForMaskedLM, state: dict[str, np.ndarray]) -> None:
    """Set the weights of closed units to zero, in place."""
    for one in find_gate_sets(model):
        if not isinstance(one, LearnedGates):
            continue
        for layer, masks in one.places.items():
            hard = one.hard(layer)
            for mask in masks:
                name = f"{mask.path}.weight"
                state[name] = state[name] * mask.spread(hard[mask.units]).cpu().numpy()


def bert_names(n_layers: int) -> dict[str, str]:
    """Short name -> name in the state dict of `BertForMaskedLM`."""
    names = {"words": "bert.embeddings.word_embeddings.weight", "words.bias": "cls.predictions.bias"}
    names |= {"places": "bert.embeddings.position_embeddings.weight"}
    names |= {"kinds": "bert.embeddings.token_type_embeddings.weight"}
    parts = {"norm": "bert.embeddings.LayerNorm"}
    parts |= {"head": "cls.predictions.transform.dense", "head.norm": "cls.predictions.transform.LayerNorm"}
    for layer in range(n_layers):
        inside = f"bert.encoder.layer.{layer}."
        parts |= {f"{layer}.{x}": f"{inside}attention.self.{y}" for x, y in zip("qkv", _QKV, strict=True)}
        parts |= {
            f"{layer}.o": f"{inside}attention.output.dense",
            f"{layer}.norm1": f"{inside}attention.output.LayerNorm",
        }
        parts |= {f"{layer}.up": f"{inside}intermediate.dense", f"{layer}.down": f"{inside}output.dense"}
        parts |= {f"{layer}.norm2": f"{inside}output.LayerNorm"}
    for short, long in parts.items():
        scale, shift = ("scale", "shift") if "norm" in short else ("weight", "bias")
        names |= {f"{short}.{scale}": f"{long}.weight", f"{short}.{shift}": f"{long}.bias"}
    return names


_QKV = ("query", "key", "value")
