"""How far the base model's own numbers spread: the unit in which a change of them is measured.

A score has no nats, and a cosine between two sentences no scale of its own: encoders that were trained at a low
temperature have all of theirs near 1. So both are measured in units of the variance that the base has on a few
hundred rows, once and for all of a run: training, evaluation and report share one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from ..errors import refuse
from .divergence import Measure, counted, others, similarities

ROWS = 256  # assumed: a variance is then within a tenth of itself, two times in three


def numbers_of(kind: str, base: Tensor, inputs: dict[str, Any], measure: Measure) -> Tensor:
    """(N, K) numbers of the base whose variance is the unit: its scores, or its cosines between sentences."""
    if kind == "fvu":
        return counted(base, inputs, head=measure.head).logits.double()
    embeddings = measure.pooling(base.float(), measure.head.unpadded(inputs))
    return others(similarities(embeddings)).double().reshape(-1, 1)


def variance(parts: Iterable[Tensor], accelerator: Any) -> Tensor:
    """(K,) the variance of numbers that come in parts (N, K), over all processes.

    Raises: `GossamerError` where there are fewer than two, or all are the same.
    """
    kept = list(parts)
    total: Any = torch.tensor(0.0)
    if any(len(x) for x in kept):
        first = torch.cat(kept)
        sums = torch.stack([torch.ones_like(first), first, first**2]).sum(1)
        n, s, ss = accelerator.reduce(sums, reduction="sum")
        total = ss / n - (s / n) ** 2
    if not bool((total > 1e-12).all()):
        raise refuse(
            "a base model that says the same of every row",
            "numbers that differ, in whose spread a change can be measured",
            "pass more evaluation rows, in batches of two or more, or check the base model",
        )
    return total.float()


def with_spread(trainer: Any) -> Measure:
    """How a trainer measures, with its base's spread on the first evaluation rows, or training rows without them."""
    measure, kind, parts = trainer.measuring, trainer.ceiling.kind, []
    for batch in first_rows(trainer, ROWS):
        base = trainer._base_output(batch)
        if base is None:
            raise refuse(f"ceiling {kind} without a base model", "the loss ceiling", "pass the base model")
        parts.append(numbers_of(kind, base, batch, measure))
    return measure._replace(spread=variance(parts, trainer.accelerator))


def first_rows(trainer: Any, rows: int) -> Iterator[Any]:
    """Evaluation batches until so many rows are together, on the device; of every set, where there are several."""
    size = trainer.args.eval_batch_size * trainer.args.world_size
    sets = trainer.eval_dataset
    if sets is None:
        loaders = [trainer.get_train_dataloader()]
    else:
        loaders = [
            trainer.get_eval_dataloader(name) for name in (sets if isinstance(sets, dict) else (None,))
        ]
    with torch.random.fork_rng():  # a data loader draws a number when it begins
        for batch in islice(chain.from_iterable(loaders), max(1, rows // size)):
            yield trainer._prepare_inputs(batch)
