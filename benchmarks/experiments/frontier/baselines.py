"""What a trained frontier must beat: top-k of the base, random gates, finetuning without the penalty."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.experiments.frontier import data as source
from gossamer.data.sequences import TensorRows
from gossamer.gates.attention.eager import attention_logits
from gossamer.gates.attention.visibility import Visibility
from gossamer.gates.edges import Gates
from gossamer.models.attach import attach, attention_modules
from gossamer.training.divergence import agreement, per_item
from gossamer.training.metrics import Tally

BATCH = 32


class Chosen(Gates):
    """Gates that keep `k` keys of every query: those of the largest logits, or of random numbers."""

    k = 1
    random = False
    opened = 0.0
    queries = 0.0

    @property
    def keys_per_query(self) -> float:
        """Open keys per query and head, over every call so far."""
        return round(self.opened / self.queries, 4)

    def attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
        """Choose among the visible keys, then attend through the chosen ones."""
        logits = attention_logits(q, k, scale=given["scale"], softcap=given["softcap"])
        scores = torch.rand_like(logits) if self.random else logits
        visible = Visibility.of(
            q, k, mask=given["mask"], causal=given["causal"], window=None, segments=None
        ).all_pairs()
        scores = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
        kth = scores.topk(min(self.k, scores.shape[-1]), dim=-1).values[..., -1:]
        keep = (scores >= kth) & (scores > -torch.inf)
        self.opened += float(keep.sum())
        self.queries += float(keep.any(-1).sum())
        with self.using(keep={module.edge_gate_layer: keep.to(q.dtype)}):
            return super().attend(module, q, k, v, **given)


def choosing(
    base: Any, k: int, *, random: bool = False, renormalise: bool = False, seed: int = 0
) -> tuple[Any, Chosen]:
    """A copy of the base model that reads `k` keys per query and head, and the gates that choose and count them."""
    model: Any = copy.deepcopy(base).eval()
    gates = Chosen(bias=torch.inf, renormalise=renormalise, n_heads=attach(model).n_heads)
    gates.k, gates.random = k, random
    for layer, module in enumerate(attention_modules(model)):
        module.edge_gates, module.edge_gate_layer = gates, layer  # type: ignore[assignment]
    torch.manual_seed(seed)
    return model, gates


def _chosen(base: Any, rows: dict[str, Tensor], k: int, **how: Any) -> dict[str, float]:
    model, gates = choosing(base, k, **how)
    return compare(model, base, rows) | {"keys_per_query": gates.keys_per_query}


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
def compare(model: Any, base: Any, rows: dict[str, Tensor]) -> dict[str, float]:
    """Held-out loss, gap, KL and agreement of a model against the base, with standard errors over rows."""
    tally = Tally()
    for start in range(0, len(rows["input_ids"]), BATCH):
        batch = {name: column[start : start + BATCH] for name, column in rows.items()}
        ours, theirs = (m.eval()(input_ids=batch["input_ids"]).logits for m in (model, base))
        size = len(ours)
        for kind in ("loss", "gap", "kl"):
            tally.add_items(kind, per_item(kind, ours, theirs, batch, causal=True), size)
        tally.add_items("base_loss", per_item("loss", theirs, None, batch, causal=True), size)
        tally.add_items("agreement", agreement(ours, theirs, batch, causal=True), size)
    return {name: float(f"{value:.6g}") for name, value in tally.summary().items()}
