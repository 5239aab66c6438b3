"""Clean and corrupt prompts with their right and wrong answers, and what to measure on them.

A prompt is a tuple of pieces; its text is the pieces joined. A word-level `Vocabulary` gives each piece one
id; any tokenizer of transformers may be used instead. The corrupt prompt is the same text with the one fact
changed that the answer depends on, so that exchanging activations between the two (interchange, "resample")
asks where that fact goes.

    logit_difference   mean logit of the right answers - mean logit of the wrong ones, at the last position
    probability_gap    p(right) - p(wrong), softmax over the whole vocabulary (Greater-Than as ACDC and MIB
    have it)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import refuse

Pieces = tuple[str, ...]
PAD = "<pad>"
METRICS = ("logit_difference", "probability_gap")


class Pair(NamedTuple):
    """One clean prompt, its corrupt twin, and the next pieces that are right and wrong for the clean one."""

    clean: Pieces
    corrupt: Pieces
    right: Pieces
    wrong: Pieces
    template: int


@dataclass(frozen=True)
class Batch:
    """Pairs of one length as tensors.

    Attributes:
        clean, corrupt: (N, T) int64.
        right, wrong: (N, V) bool, the tokens that count as an answer.
        metric: which of `METRICS`.
        task, template: where they came from; template is (N,) int64.
    """

    clean: Tensor
    corrupt: Tensor
    right: Tensor
    wrong: Tensor
    metric: str
    task: str
    template: Tensor

    def __len__(self) -> int:
        return len(self.clean)

    def measure(self, logits: Tensor) -> Tensor:
        """(N,) the task's metric of logits (N, T, V) or (N, V); its gradient flows."""
        last = logits[:, -1] if logits.dim() == 3 else logits
        if self.metric == "probability_gap":
            return (last.softmax(-1) * (self.right.to(last.dtype) - self.wrong.to(last.dtype))).sum(-1)
        return _mean_over(last, self.right) - _mean_over(last, self.wrong)

    def accuracy(self, logits: Tensor) -> float:
        """Share of prompts on which the best right answer beats the best wrong one."""
        last = logits[:, -1] if logits.dim() == 3 else logits
        best = [last.masked_fill(~mask, -torch.inf).amax(-1) for mask in (self.right, self.wrong)]
        return float((best[0] > best[1]).float().mean())

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        names = ("clean", "corrupt", "right", "wrong", "template")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def _mean_over(logits: Tensor, mask: Tensor) -> Tensor:
    return (logits * mask).sum(-1) / mask.sum(-1)


class Vocabulary:
    """One id per piece, in order of first appearance; id 0 pads."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self.pieces = (PAD, *dict.fromkeys(pieces))
        self.ids = {piece: number for number, piece in enumerate(self.pieces)}

    def __len__(self) -> int:
        return len(self.pieces)

    def __call__(self, pieces: Sequence[str]) -> list[int]:
        missing = [piece for piece in pieces if piece not in self.ids]
        if missing:
            raise refuse(f"piece {missing[0]!r}", f"{len(self)} known pieces", "build from the same tasks")
        return [self.ids[piece] for piece in pieces]

    def text(self, ids: Tensor) -> tuple[str, ...]:
        """(T,) ids as pieces."""
        return tuple(self.pieces[i] for i in ids.tolist())


def encode(
    pairs: Sequence[Pair],
    tokenize: Callable[[Pieces], list[int]],
    n_vocabulary: int,
    *,
    task: str,
    metric: str = "logit_difference",
    before: Sequence[int] = (),
) -> list[Batch]:
    """Pairs as tensors, one batch for each prompt length.

    Args:
        tokenize: pieces -> ids; a `Vocabulary`, or `by_tokenizer(...)`.
        n_vocabulary: V.
        before: tokens that every prompt begins with, as those that the model was trained on do.
    Raises: `GossamerError` where clean and corrupt differ in length, an answer is not one token of its own,
    or an
        answer is both right and wrong.
    """
    groups: dict[int, list[tuple[list[int], list[int], set[int], set[int], int]]] = defaultdict(list)
    for pair in pairs:
        clean, corrupt = ([*before, *tokenize(pieces)] for pieces in (pair.clean, pair.corrupt))
        if len(clean) != len(corrupt):
            raise refuse(
                f"{task}: the clean prompt has {len(clean)} tokens and the corrupt one {len(corrupt)}",
                "prompts of equal length",
                f"change {''.join(pair.corrupt)!r}, or take another tokenizer",
            )
        right, wrong = (_answer_ids(task, options, tokenize) for options in (pair.right, pair.wrong))
        if right & wrong:
            raise refuse(
                f"{task}: an answer that is right and wrong",
                "one of both",
                "take another tokenizer",
            )
        groups[len(clean)].append((clean, corrupt, right, wrong, pair.template))
    return [_stack(rows, n_vocabulary, metric, task) for _, rows in sorted(groups.items())]


def _answer_ids(task: str, options: Pieces, tokenize: Callable[[Pieces], list[int]]) -> set[int]:
    found = set()
    for option in options:
        ids = tokenize((option,))
        if len(ids) != 1:
            got = f"{task}: the answer {option!r} has {len(ids)} tokens"
            raise refuse(got, "answers of one token", "take another tokenizer or other words")
        found.add(ids[0])
    return found


def _stack(rows: list, n_vocabulary: int, metric: str, task: str) -> Batch:
    right, wrong = (torch.zeros(len(rows), n_vocabulary, dtype=torch.bool) for _ in range(2))
    for number, row in enumerate(rows):
        right[number, list(row[2])] = True
        wrong[number, list(row[3])] = True
    clean, corrupt, template = (torch.tensor([row[i] for row in rows]) for i in (0, 1, 4))
    return Batch(clean, corrupt, right, wrong, metric, task, template)


def by_tokenizer(tokenizer: Callable[..., dict]) -> Callable[[Pieces], list[int]]:
    """Tokenize the joined text with a tokenizer of transformers, without special tokens."""
    return lambda pieces: list(tokenizer("".join(pieces), add_special_tokens=False)["input_ids"])
