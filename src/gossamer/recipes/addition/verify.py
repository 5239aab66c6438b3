"""From folders to findings: what the verbs `trace`, `verify` and `compare` call.

A folder may hold a gated model or a dense one; which it is stands in its config.json and need not be said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ...circuits.circuit import Circuit
from ...circuits.stability import Stability, stable
from ...circuits.trace import trace
from ...circuits.verify import Proof, Verification, prove, verify
from ...errors import refuse
from ..folders import open_model, open_others
from .explain.explanation import Explanation, explain
from .explain.facts import slot_of
from .explain.findings import named_weights
from .task import VOCABULARY, Addition, as_text

# Sums that are proved and explained: all of two digits, which take minutes, and as many of more.
MOST_EXPLAINED = 10_000


def trace_sums(folder: Path | str, sums: list[str], *, digits: int = 2, **options: Any) -> Circuit:
    """The circuit of an adding model on some sums, as `36+28`; options as for `trace`."""
    task = Addition(digits)
    model = require_adding(open_model(folder), task)
    inputs, _ = task.encode(torch.tensor([task.parse(text) for text in sums]))
    slots = [slot_of(task, place) for place in range(task.digits + 1)]
    return trace(model, inputs, text=as_text, outputs=slots, **options)


def require_adding(model: PreTrainedModel, task: Addition) -> PreTrainedModel:
    """The model, if it is one for this task; one clear line otherwise."""
    size, length = model.config.vocab_size, getattr(model.config, "max_position_embeddings", 0)
    if size != len(VOCABULARY) or length < task.length:
        raise refuse(
            f"{type(model).__name__} with {size} tokens and {length} positions",
            f"a model of {len(VOCABULARY)} tokens and at least {task.length} positions that adds",
            "make one with gossamer demo, or pass --prompt",
        )
    return model


@dataclass(frozen=True)
class AdditionStudy:
    """All that can be said about an adding model, on the sums that were looked at."""

    verification: Verification
    proof: Proof
    explanation: Explanation
    precision: float
    recall: float
    others: Stability | None  # how alike the circuits of further models are
    n_sums: int  # that there are; `proof.n` of them were looked at
    weights: str  # fingerprint of the sparse model, so that what was found is told of no other

    def as_record(self) -> dict[str, Any]:
        """Plain numbers, lists and sentences."""
        return {
            "verification": self.verification.as_record(),
            "proof": self.proof.as_record(),
            "precision": self.precision,
            "recall": self.recall,
            "sums": self.n_sums,
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
    draws: int = 0,
    seed: int = 0,
) -> AdditionStudy:
    """Compare, prove and explain an adding model on all sums, or a sample of them, from two folders.

    Args:
        others: further sparse models, of other seeds; how alike their circuits are is told.
        draws: random subsets of the removed edges to close, see `gossamer.circuits.subsets`.
        seed: of the sample, where there are more sums than `MOST_EXPLAINED`.
    """
    task = Addition(digits)
    dense, gated = (require_adding(open_model(folder), task) for folder in (base, sparse))
    further = open_others(others, gated)
    looked = task.checked(seed, MOST_EXPLAINED)
    inputs, labels = task.encode(looked)
    slots = tuple(slot_of(task, place) for place in range(task.digits + 1))
    checked = verify(dense, gated, inputs, labels, text=as_text, outputs=slots)
    circuit = checked.circuit
    return AdditionStudy(
        verification=checked,
        proof=prove(gated, circuit, inputs, smallest=smallest, draws=draws, leaking=checked.leaking),
        explanation=explain(gated, task, circuit, sums=looked),
        precision=task.precision(circuit),
        recall=task.recall(circuit),
        others=stable([circuit, *(trace(model, inputs, outputs=slots) for model in further)])
        if further
        else None,
        n_sums=task.n_sums,
        weights=named_weights(gated),
    )
