"""All tasks by name, the vocabulary they share, and text made of them to train small models on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import require_choice, require_range
from .code import brackets, docstring, quotes
from .language import greater_than, induction, ioi, nonsense
from .pairs import Batch, Pair, Pieces, Vocabulary, encode

MOST_PROMPTS = 100_000  # assumed: they fit into memory, and no interval needs more


class Task(NamedTuple):
    """A generator of pairs and the metric that its literature uses."""

    pairs: Callable[[int, int], list[Pair]]  # (n, seed)
    metric: str


TASKS = {
    "induction": Task(induction, "logit_difference"),
    "ioi": Task(ioi, "logit_difference"),
    "greater_than": Task(greater_than, "probability_gap"),
    "docstring": Task(docstring, "logit_difference"),
    "quotes": Task(quotes, "logit_difference"),
    "brackets": Task(brackets, "logit_difference"),
    "nonsense": Task(nonsense, "logit_difference"),
}


@cache
def task_vocabulary() -> Vocabulary:
    """Every piece that any task can produce, in an order that never depends on a seed."""
    pieces = [f"{year:02d}" for year in range(100)]
    for task in TASKS.values():
        for pair in task.pairs(3000, 0):
            pieces += [*pair.clean, *pair.corrupt, *pair.right, *pair.wrong]
    return Vocabulary(sorted(set(pieces)))


def batches(
    name: str,
    n: int,
    *,
    seed: int = 0,
    tokenize: Callable[[Pieces], list[int]] | None = None,
    n_vocabulary: int | None = None,
    before: Sequence[int] = (),
) -> list[Batch]:
    """`n` pairs of a task as tensors, one batch per prompt length; word-level unless a tokenizer is given.

    Args:
        before: the tokens that the tokenizer puts before every prompt.
    """
    require_choice("task", name, TASKS)
    require_range("n_prompts", n, 1, MOST_PROMPTS)
    require_range("seed", seed, 0, 2**32)
    if tokenize is None:
        vocabulary = task_vocabulary()
        tokenize, n_vocabulary = vocabulary, len(vocabulary)
    assert n_vocabulary is not None, "a tokenizer comes with the size of its vocabulary"
    task = TASKS[name]
    return encode(task.pairs(n, seed), tokenize, n_vocabulary, task=name, metric=task.metric, before=before)


def training_rows(
    names: Sequence[str], n: int, *, seed: int, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor, Tensor]:
    """`n` prompts with one right answer each, tasks mixed evenly, for training small models.

    Returns: input_ids, labels (-100 at padding) and attention_mask, each (n, T) with padding on the right.
    """
    for name in names:
        require_choice("task", name, TASKS)
    rng = random.Random(seed)
    rows: list[list[int]] = []
    share = -(-n // len(names))
    for name in names:
        for pair in TASKS[name].pairs(share, rng.randrange(2**31)):
            rows.append(vocabulary((*pair.clean, rng.choice(pair.right))))
    rng.shuffle(rows)
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows[:n]])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows[:n]])
    return ids, ids.masked_fill(mask == 0, -100), mask
