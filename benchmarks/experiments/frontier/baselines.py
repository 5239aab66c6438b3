"""What a trained frontier must beat: top-k of the base, random gates, finetuning without the penalty."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiments.frontier import data as source
from gossamer.data.sequences import TensorRows
from gossamer.gates.top_k import TopKGates
from gossamer.models.attach import attach
from gossamer.models.head import Head
from gossamer.training.divergence import Measure, agreement, per_item
from gossamer.training.metrics import Tally, counting

MEASURE = Measure(Head(causal=True, language=True))
BATCH = 32


def choosing(base: Any, k: int, *, random: bool = False, renormalise: bool = False) -> tuple[Any, TopKGates]:
    """A copy of the base model that reads `k` keys per query and head, and its gates."""
    model, gates = copy.deepcopy(base).eval(), TopKGates(k=k, random=random, renormalise=renormalise)
    attach(model, gates=gates)
    return model, gates


def _chosen(
    base: Any, rows: dict[str, Tensor], k: int, *, random: bool = False, renormalise: bool = False
) -> dict[str, float]:
    """The numbers of a copy of the base model that reads `k` keys per query and head."""
    model, gates = choosing(base, k, random=random, renormalise=renormalise)
    tally = Tally()
    torch.manual_seed(0)
    with counting(gates, tally):
        found = compare(model, base, rows)
    return found | {"keys_per_query": round(tally.summary()["keys_per_query"], 4)}


def top_k(base: Any, rows: dict[str, Tensor], k: int, *, renormalise: bool = False) -> dict[str, float]:
    """The base model reading only its k strongest keys per query and head; nothing is trained."""
    return _chosen(base, rows, k, renormalise=renormalise)


def random_gates(base: Any, rows: dict[str, Tensor], k: int) -> dict[str, float]:
    """The base model reading k random keys per query and head."""
    return _chosen(base, rows, k, random=True)


def finetuned(
    base: Any, train: TensorRows, rows: dict[str, Tensor], steps: int, **options: Any
) -> dict[str, float]:
    """Finetuning with neither gates nor penalty: what the same steps alone do to the held-out loss."""
    model = copy.deepcopy(base).train()
    source.train_dense(model, train, steps, **options)
    keys = (source.LENGTH + 1) / 2
    return compare(model.eval(), base, rows) | {"keys_per_query": keys}


@torch.no_grad()
def compare(model: Any, base: Any, rows: dict[str, Tensor], *, size: int = BATCH) -> dict[str, float]:
    """Held-out loss, gap, KL and agreement of a model against the base, with standard errors over rows.

    Args:
        size: rows at a time.
    """
    tally = Tally()
    for start in range(0, len(rows["input_ids"]), size):
        batch = {name: column[start : start + size] for name, column in rows.items()}
        ours, theirs = (m.eval()(input_ids=batch["input_ids"]).logits for m in (model, base))
        found = {kind: per_item(kind, ours, theirs, batch, MEASURE) for kind in ("loss", "delta_ce", "kl")}
        found["base_loss"] = per_item("loss", theirs, None, batch, MEASURE)
        found["agreement"] = agreement(ours, theirs, batch, head=MEASURE.head)
        for kind, items in found.items():
            tally.add_items(kind, items, len(ours))
    return {name: float(f"{value:.6g}") for name, value in tally.summary().items()}
