"""A sparse model's circuits on a language task, proved prompt by prompt: what `gossamer verify --task` calls.

Prompts of a task have several lengths, and a proof is about prompts of one; counts are added over the lengths, and told
with Wilson's 95 % interval, since these prompts are a sample. On addition the counts are exhaustive (`study.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..circuits.circuit import Circuit
from ..circuits.stability import Paraphrases, Stability, paraphrased, resampled, stable
from ..circuits.statistics import wilson
from ..circuits.subsets import joined
from ..circuits.trace import trace
from ..circuits.verify import Proof, all_claims_hold, prove
from ..errors import refuse
from ..models.attach import gates_of
from ..models.forward import evaluating, first_output
from ..training.counted import counted
from .folders import open_model, open_others, task_prompts


@dataclass(frozen=True)
class Part:
    """The prompts of one length.

    Attributes:
        right: prompts on which base and sparse model answer rightly, and on which both give the same top-1 token.
        stability: of the circuit under resampling of its prompts; None for a single prompt.
        others: how alike the circuits of further models are on these prompts; None without any.
    """

    circuit: Circuit
    proof: Proof
    right: tuple[int, int, int]
    stability: Stability | None
    others: Stability | None


@dataclass(frozen=True)
class TaskStudy:
    """What interventions say about a sparse model on a task."""

    task: str
    parts: tuple[Part, ...]
    paraphrases: Paraphrases | None

    @property
    def n(self) -> int:
        """Prompts."""
        return sum(part.proof.n for part in self.parts)

    @property
    def all_claims_hold(self) -> bool:
        """Whether every claim holds on every prompt, as `gossamer.circuits.verify.all_claims_hold` has it."""
        return all(all_claims_hold(part.proof) for part in self.parts)

    def as_record(self) -> dict[str, Any]:
        """Counts with their intervals, edges as means over prompts, and overlaps: by length, and between templates."""
        proofs = [part.proof for part in self.parts]
        base, sparse, same = (sum(part.right[i] for part in self.parts) for i in range(3))
        scopes = {name: sum(p.sufficient[name].same for p in proofs) for name in proofs[0].sufficient}
        tested = sum(len(p.necessity.broken) for p in proofs)
        edges = [sum(sizes) / self.n for sizes in zip(*map(_sizes, self.parts), strict=True)]
        return {
            "task": self.task,
            "base_right": _share(base, self.n),
            "sparse_right": _share(sparse, self.n),
            "same_answer": _share(same, self.n),
            "edges_a_prompt": dict(zip(("visible", "open", "live"), edges, strict=True)),
            "sufficient": {name: _share(hits, self.n) for name, hits in scopes.items()},
            "live_alone": _share(sum(p.live_alone.same for p in proofs), self.n),
            "necessary": _share(sum(int(p.necessity.broken.sum()) for p in proofs), tested),
            "redundant": sum(len(p.necessity.redundant) for p in proofs),
            "leaks": _share(sum(p.leaks for p in proofs), self.n),
            "stable": {len(p.circuit.tokens[0]): p.stability.as_record() for p in self.parts if p.stability},
            "others": {len(p.circuit.tokens[0]): p.others.as_record() for p in self.parts if p.others},
            "subsets": [joined(same).as_record() for same in zip(*(p.subsets for p in proofs), strict=True)],
            "paraphrases": self.paraphrases and self.paraphrases.as_record(),
            "all_claims_hold": self.all_claims_hold,
        }


def _share(hits: int, n: int) -> dict[str, Any]:
    return {"hits": hits, "n": n, "interval": wilson(hits, n)}


def _sizes(part: Part) -> tuple[int, int, int]:
    return sum(part.circuit.visible), len(part.circuit), int(part.circuit.live_mask().sum())


def study_task(
    base: Path | str,
    sparse: Path | str,
    task: str,
    *,
    n: int = 64,
    seed: int = 0,
    others: Sequence[Path | str] = (),
    draws: int = 0,
) -> TaskStudy:
    """Prove a sparse model's circuits on `n` prompts of a task, length by length.

    Args:
        others: further sparse models, of other seeds; how alike their circuits are on the same prompts is told.
        draws: random subsets of the removed edges to close, see `gossamer.circuits.subsets`.
    Raises: `GossamerError` for an unknown task, a dense model in place of the sparse one, or no open edge at all.
    """
    dense, gated = open_model(base), open_model(sparse)
    gates_of(gated)
    if dense.config.vocab_size != gated.config.vocab_size:
        raise refuse(
            f"a base of {dense.config.vocab_size} tokens and a sparse model of {gated.config.vocab_size}",
            "two models of one vocabulary",
            "pass the base that the sparse model was made from",
        )
    further = open_others(others, gated)
    parts, templates = [], []
    for batch in counted(task_prompts(gated, sparse, task, n, seed), "lengths of prompts"):
        circuit = trace(gated, batch.clean, outputs=[-1])
        logits = [_last(model, batch.clean) for model in (dense, gated)]
        right = [round(batch.accuracy(one) * len(batch)) for one in logits]
        same = int((logits[0].argmax(-1) == logits[1].argmax(-1)).sum())
        proof = prove(gated, circuit, batch.clean, smallest=False, draws=draws)
        steady = resampled(circuit, seed=seed) if len(batch) > 1 else None
        theirs = [trace(model, batch.clean, outputs=[-1]) for model in further]
        alike = stable([circuit, *theirs]) if theirs else None
        parts.append(Part(circuit, proof, (right[0], right[1], same), steady, alike))
        templates.append((circuit, batch.template.tolist()))
    return TaskStudy(task, tuple(parts), paraphrased(templates))


def _last(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """(N, V) logits at the last position."""
    with evaluating(model):
        return first_output(model, {"input_ids": ids})[:, -1]
