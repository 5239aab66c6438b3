"""From folders to findings: what the verbs `trace`, `verify` and `compare` call.

A folder may hold a gated model or a dense one; which it is stands in its config.json and need not be said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from .checkpoint import load, load_dense, read_config
from .circuit import Circuit
from .components.attention_edges import needed_attention_edges
from .components.curve import Ablator, Curve, best_edges, head_curve, needed_edges
from .components.mib import to_mib
from .components.scores import score_edges
from .components.wiring import Wiring, wiring
from .errors import GossamerError, refuse
from .modeling import CONFIG_BLOCK, gates_of
from .stability import Stability, stable
from .tasks.addition import VOCABULARY, Addition, as_text
from .tasks.explanation import Explanation, explain
from .tasks.facts import slot_of
from .tasks.pairs import Batch, by_tokenizer
from .tasks.registry import batches, task_vocabulary
from .trace import trace
from .verify import Proof, Verification, prove, verify
from .viewer.carries import fingerprint

STEPS = 10  # of EAP-IG, twice its own: a gate is a step along the path, which five points may miss (LOG.md)


def open_model(folder: Path | str) -> PreTrainedModel:
    """The model of a folder with its gates, if it has any, on the eager implementation."""
    config = read_config(folder)
    return load(folder, impl="eager") if CONFIG_BLOCK in config.__dict__ else load_dense(folder)


def open_others(folders: Sequence[Path | str], like: PreTrainedModel) -> list[PreTrainedModel]:
    """Gated models whose circuits can be compared with those of `like`, checked before anything is computed.

    Raises: `GossamerError` for other counts of tokens, layers or heads; `UnsupportedModel` for a dense model.
    """
    shape = ("vocab_size", "num_hidden_layers", "num_attention_heads")
    found = []
    for folder in folders:
        model = open_model(folder)
        gates_of(model)
        theirs, ours = ([getattr(one.config, name) for name in shape] for one in (model, like))
        if theirs != ours:
            raise refuse(
                "{}: {} tokens, {} layers of {} heads".format(folder, *theirs),
                "possible: {} tokens, {} layers of {} heads, as the model it is compared with".format(*ours),
                "pass a model of another seed",
            )
        found.append(model)
    return found


def open_tokenizer(folder: Path | str) -> Any:
    """The tokenizer of a folder or hub id."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
    # transformers makes an empty tokenizer for a folder without one, and says nothing.
    if Path(folder).is_dir() and not any((Path(folder) / name).is_file() for name in names):
        raise refuse(
            f"{folder} has no tokenizer",
            f"possible: folders with tokenizer files, or models of the {len(task_vocabulary())} pieces of the tasks",
            "save the tokenizer there too",
        )
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise refuse(f"{folder}: {line}", "possible: a tokenizer that loads", "save it again") from error


def trace_sums(folder: Path | str, sums: list[str], *, digits: int = 2, **options: Any) -> Circuit:
    """The circuit of an adding model on some sums, as `36+28`; options as for `trace`."""
    task = Addition(digits)
    model = require_adding(open_model(folder), task)
    inputs, _ = task.encode(torch.tensor([task.parse(text) for text in sums]))
    slots = [slot_of(task, place) for place in range(task.digits + 1)]
    return trace(model, inputs, text=as_text, outputs=slots, **options)


def trace_prompt(folder: Path | str, prompt: str, **options: Any) -> Circuit:
    """The circuit of a model on one text, whose last position answers; the folder holds the tokenizer."""
    tokenizer = open_tokenizer(folder)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    if not ids.numel():
        raise refuse("an empty prompt", "possible: a text of one token or more", "write something")
    return trace(
        open_model(folder),
        ids,
        text=lambda row: tuple(tokenizer.convert_ids_to_tokens(row.tolist())),
        outputs=[-1],
        **options,
    )


def require_adding(model: PreTrainedModel, task: Addition) -> PreTrainedModel:
    """The model, if it is one for this task; one clear line otherwise."""
    size, length = model.config.vocab_size, getattr(model.config, "max_position_embeddings", 0)
    if size != len(VOCABULARY) or length < task.length:
        raise refuse(
            f"{type(model).__name__} with {size} tokens and {length} positions",
            f"possible: a model of {len(VOCABULARY)} tokens and at least {task.length} positions that adds",
            "make one with gossamer demo, or pass --prompt",
        )
    return model


@dataclass(frozen=True)
class AdditionStudy:
    """All that can be said about an adding model, on every sum there is."""

    verification: Verification
    proof: Proof
    explanation: Explanation
    precision: float
    recall: float
    others: Stability | None  # how alike the circuits of further models are
    weights: str  # fingerprint of the sparse model, so that what was found is told of no other

    def as_record(self) -> dict[str, Any]:
        """Plain numbers, lists and sentences."""
        return {
            "verification": self.verification.as_record(),
            "proof": self.proof.as_record(),
            "precision": self.precision,
            "recall": self.recall,
            "others": self.others and self.others.as_record(),
            "weights": self.weights,
            "explanation": self.explanation.as_record(),
        }


def study_addition(
    base: Path | str,
    sparse: Path | str,
    *,
    digits: int = 2,
    smallest: bool = False,
    others: Sequence[Path | str] = (),
) -> AdditionStudy:
    """Compare, prove and explain an adding model on all sums, from two folders.

    Args:
        others: further sparse models, of other seeds; how alike their circuits are is told.
    """
    task = Addition(digits)
    dense, gated = (require_adding(open_model(folder), task) for folder in (base, sparse))
    further = open_others(others, gated)
    inputs, labels = task.encode(torch.arange(task.n_sums))
    slots = tuple(slot_of(task, place) for place in range(task.digits + 1))
    checked = verify(dense, gated, inputs, labels, text=as_text, outputs=slots)
    circuit = checked.circuit
    return AdditionStudy(
        verification=checked,
        proof=prove(gated, circuit, inputs, smallest=smallest, leaking=checked.leaking),
        explanation=explain(gated, task, circuit),
        precision=task.precision(circuit),
        recall=task.recall(circuit),
        others=stable([circuit, *(trace(model, inputs, outputs=slots) for model in further)])
        if further
        else None,
        weights=fingerprint(gated),
    )


@dataclass(frozen=True)
class Comparison:
    """What two models need for 90 % of a task's effect, under one ablation.

    Attributes:
        task, ablation, n: the settings.
        effects: m(all) - m(none) of each model.
        heads, edges, attention_edges: a curve for each model; for attention edges the reason, where attention alone
            has no effect to explain.
    """

    task: str
    ablation: str
    n: int
    effects: tuple[float, float]
    heads: tuple[Curve, Curve]
    edges: tuple[Curve, Curve]
    attention_edges: tuple[Curve | str, Curve | str]

    def as_record(self) -> dict[str, Any]:
        """Counts of both models, edges without dead ends, and their ratios where both reached 90 %."""
        found: dict[str, Any] = {
            "task": self.task,
            "ablation": self.ablation,
            "n": self.n,
            "effects": self.effects,
        }
        for kind, counted in (("heads", "kept"), ("edges", "edges"), ("attention_edges", "kept")):
            curves = getattr(self, kind)
            points = [None if isinstance(curve, str) else curve.needed() for curve in curves]
            counts = [None if point is None else getattr(point, counted) for point in points]
            of = [None if isinstance(curve, str) else curve.of for curve in curves]
            found[kind] = {"base": counts[0], "sparse": counts[1], "of": of[0] or of[1]}
            found[f"{kind}_ratio"] = counts[0] / counts[1] if counts[0] and counts[1] else None
        refused = [curve for curve in self.attention_edges if isinstance(curve, str)]
        return found | ({"attention_edges_refused": refused[0]} if refused else {})


def compare(
    base: Path | str, sparse: Path | str, task: str, *, ablation: str = "resample", n: int = 64, seed: int = 0
) -> Comparison:
    """What two models need for 90 % of the effect of one task: heads, edges between components, attention edges.

    Edges between components are ranked by EAP-IG on `n` prompts and measured on `n` others; heads are ranked by exact
    ablation; attention edges by EAP-IG, prompt by prompt.
    Raises: `GossamerError` for an unknown task, a model that does not know it, or another architecture.
    """
    effects, heads, edges, attention = [], [], [], []
    for folder in (base, sparse):
        model = open_model(folder)
        wires = wiring(model)
        scored, fresh = (task_prompts(model, folder, task, n, seed + offset) for offset in (0, 1))
        ablator = Ablator(wires, fresh, ablation)
        heads.append(head_curve(ablator))
        edges.append(needed_edges(ablator, score_edges(wires, scored, ablation=ablation, steps=STEPS)))
        attention.append(_attention_edges(wires, fresh, ablation))
        effects.append(ablator.effect)
    both = [(found[0], found[1]) for found in (effects, heads, edges, attention)]
    return Comparison(task, ablation, n, *both)


def _attention_edges(wires: Wiring, prompts: list[Batch], ablation: str) -> Curve | str:
    """The curve, or the line that says why there is none: a task may be done by what no attention edge carries."""
    try:
        return needed_attention_edges(wires, prompts, ablation=ablation)
    except GossamerError as error:
        return str(error)


def component_circuit(
    folder: Path | str,
    task: str,
    *,
    edges: int | None = None,
    ablation: str = "resample",
    n: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """A model's component circuit for one task, as EAP-IG and MIB read it.

    Args:
        edges: the best so many by EAP-IG, dead ends left out; by default as many as give 90 % of the effect.
        n, seed: prompts to score on, and as many others to measure on.
    Raises: `GossamerError` as for `compare`, for `edges` below 1, and where no size reaches 90 %.
    """
    if edges is not None and edges < 1:
        raise refuse(f"edges={edges}", "possible: 1 and above, or None", "pass one of them")
    model = open_model(folder)
    wires = wiring(model)
    scored, fresh = (task_prompts(model, folder, task, n, seed + offset) for offset in (0, 1))
    scores = score_edges(wires, scored, ablation=ablation, steps=STEPS)
    if edges is None:
        best = needed_edges(Ablator(wires, fresh, ablation), scores).needed()
        if best is None:
            raise refuse(f"no circuit of {task} has 90 % of its effect", "possible: a size", "pass --edges")
        edges = best.kept
    kept = best_edges(wires, scores, edges)
    return to_mib(wires.graph, scores.edges, kept, d_model=wires.out_weight(0).shape[-1])


def task_prompts(model: PreTrainedModel, folder: Path | str, task: str, n: int, seed: int) -> list[Batch]:
    """The task in the model's own tokens: word-level for models of the task vocabulary."""
    size = model.config.vocab_size
    if size == len(task_vocabulary()):
        return batches(task, n, seed=seed)
    tokenizer = open_tokenizer(folder)
    return batches(task, n, seed=seed, tokenize=by_tokenizer(tokenizer), n_vocabulary=size)
