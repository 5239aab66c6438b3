"""A sparse model's circuits on a language task or on one's own texts, proved prompt by prompt: what `gossamer verify`
calls with `--task` and `--prompt`.

Prompts have several lengths, and a proof is about prompts of one; counts are added over the lengths, and told with
Wilson's 95 % interval, for the prompts of a task are a sample. On addition the counts are exhaustive (`study.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..circuits.circuit import Circuit
from ..circuits.stability import Paraphrases, Stability, paraphrased, resampled, stable
from ..circuits.statistics import wilson
from ..circuits.subsets import joined
from ..circuits.trace import trace
from ..circuits.verify import Proof, all_claims_hold, prove
from ..data.prompts import Prompt, open_tokenizer, positions_of
from ..errors import refuse
from ..models.attach import gates_of
from ..models.forward import evaluating, first_output
from ..training.counted import counted
from .folders import open_others, open_pair, task_prompts

OWN = "own prompts"  # what a study calls itself where no task made its prompts


@dataclass(frozen=True)
class Part:
    """The prompts of one length.

    Attributes:
        right: prompts on which base and sparse model answer rightly; None where nobody says what is right.
        same: prompts on which both give the same top-1 token.
        stability: of the circuit under resampling of its prompts; None for a single prompt.
        others: how alike the circuits of further models are on these prompts; None without any.
    """

    circuit: Circuit
    proof: Proof
    right: tuple[int, int] | None
    same: int
    stability: Stability | None
    others: Stability | None


@dataclass(frozen=True)
class TaskStudy:
    """What interventions say about a sparse model on a task, or on `OWN` prompts."""

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
        known = [part.right for part in self.parts if part.right is not None]
        right = [_share(sum(one[i] for one in known), self.n) if known else None for i in range(2)]
        scopes = {name: sum(p.sufficient[name].same for p in proofs) for name in proofs[0].sufficient}
        tested = sum(len(p.necessity.broken) for p in proofs)
        edges = [sum(sizes) / self.n for sizes in zip(*map(_sizes, self.parts), strict=True)]
        return {
            "task": self.task,
            "base_right": right[0],
            "sparse_right": right[1],
            "same_answer": _share(sum(part.same for part in self.parts), self.n),
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
    pair = _Pair.opened(base, sparse)
    further = open_others(others, pair.gated)
    parts, templates = [], []
    for batch in counted(task_prompts(pair.gated, sparse, task, n, seed), "lengths of prompts"):
        circuit = trace(pair.gated, batch.clean, outputs=[-1])
        parts.append(pair.part(circuit, batch.clean, further, draws, accuracy=batch.accuracy, seed=seed))
        templates.append((circuit, batch.template.tolist()))
    return TaskStudy(task, tuple(parts), paraphrased(templates))


def study_prompts(
    base: Path | str,
    sparse: Path | str,
    texts: Sequence[str],
    *,
    others: Sequence[Path | str] = (),
    draws: int = 0,
) -> TaskStudy:
    """Prove a sparse model's circuits on texts, length by length: the answer is the token that comes after each.

    Args: as of `study_task`; the sparse model's folder holds the tokenizer.
    Raises: `GossamerError` for no text or an empty one, more tokens than positions, a dense model in place of the
        sparse one, a model that gives no next token, or no open edge at all.
    """
    pair = _Pair.opened(base, sparse)
    if not texts:
        raise refuse("no prompt", "one text or more", "pass --prompt TEXT")
    if not pair.gated.can_generate():
        raise refuse(
            f"prompts for a {type(pair.gated).__name__}, which gives no next token",
            "a model of language that generates",
            "trace the prompt, which needs no answer",
        )
    further = open_others(others, pair.gated)
    tokenizer, most = open_tokenizer(sparse), positions_of(pair.gated)
    lengths: dict[int, list[Prompt]] = {}
    for prompt in (Prompt.of(text, tokenizer, most=most) for text in texts):
        lengths.setdefault(len(prompt), []).append(prompt)
    parts = []
    for alike in counted(list(lengths.values()), "lengths of prompts"):
        ids = torch.cat([prompt.ids for prompt in alike])
        circuit = trace(pair.gated, ids, text=alike[0].spelled, outputs=[-1])
        parts.append(pair.part(circuit, ids, further, draws))
    return TaskStudy(OWN, tuple(parts), None)


@dataclass(frozen=True)
class _Pair:
    """A base and the sparse model that was made from it."""

    dense: PreTrainedModel
    gated: PreTrainedModel

    @classmethod
    def opened(cls, base: Path | str, sparse: Path | str) -> _Pair:
        """Both models of two folders, if they can be compared."""
        dense, gated = open_pair(base, sparse)
        gates_of(gated)
        return cls(dense, gated)

    def part(
        self,
        circuit: Circuit,
        ids: Tensor,
        further: Sequence[PreTrainedModel],
        draws: int,
        *,
        accuracy: Callable[[Tensor], float] | None = None,
        seed: int = 0,
    ) -> Part:
        """The proof of a circuit on the prompts that it was traced on, and what goes with it."""
        dense, gated = (_last(model, ids) for model in (self.dense, self.gated))
        theirs = [trace(model, ids, outputs=[-1]) for model in further]
        return Part(
            circuit=circuit,
            proof=prove(self.gated, circuit, ids, smallest=False, draws=draws),
            right=None if accuracy is None else (_hits(accuracy, dense), _hits(accuracy, gated)),
            same=int((dense.argmax(-1) == gated.argmax(-1)).sum()),
            stability=resampled(circuit, seed=seed) if len(ids) > 1 else None,
            others=stable([circuit, *theirs]) if theirs else None,
        )


def _hits(accuracy: Callable[[Tensor], float], logits: Tensor) -> int:
    return round(accuracy(logits) * len(logits))


def _last(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """(N, V) logits at the last position."""
    with evaluating(model):
        return first_output(model, {"input_ids": ids})[:, -1]
