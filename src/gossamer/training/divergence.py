"""What was lost: how far the sparse model's output is from the base model's, on the same batch.

Letters: B batch row, T position, V vocabulary, E embedding width. All divergences are means over the tokens that
count: those with a label where labels are given (shifted by one in a causal model), else the unpadded ones.

    kl      KL(base // sparse) = sum_v p_base log(p_base / p_sparse)      nats per token, >= 0
    delta_ce  CE(sparse) - CE(base)                                         nats per token
    loss    CE(sparse)                                                    nats per token
    cosine  1 - cos(pooled sparse, pooled base), mean-pooled over the unpadded tokens; per sequence

Source: kl, delta_ce and cosine are our choice (a ceiling measured on the same batch has almost no variance and cannot
be gamed by overfitting, DESIGN.md); loss is the ceiling of arXiv 2512.05865.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.sequences import IGNORED
from ..errors import refuse


class Counted(NamedTuple):
    """The predictions that count: logits (N, V), the row each is from (N,), and targets (N,) where there are labels."""

    logits: Tensor
    rows: Tensor
    targets: Tensor | None


class Items(NamedTuple):
    """One value (N,) per counted token, or per sequence, and the batch row (N,) it belongs to."""

    values: Tensor
    rows: Tensor


def counted(logits: Tensor, inputs: dict[str, Any], *, causal: bool) -> Counted:
    """Pick the predictions that count from logits (B, T, V); (B, V) logits count whole.

    Args:
        logits: model output.
        inputs: the batch; `labels` (B, T) with -100 where ignored, or `attention_mask` (B, T), are read.
        causal: position t predicts label t + 1.
    """
    labels, mask = inputs.get("labels"), inputs.get("attention_mask")
    if logits.dim() == 2:
        return Counted(logits, torch.arange(len(logits), device=logits.device), labels)
    if labels is None:
        kept = (
            torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
            if mask is None
            else mask.bool()
        )
    else:
        logits, labels = (logits[:, :-1], labels[:, 1:]) if causal else (logits, labels)
        kept = labels != IGNORED
    rows = torch.arange(logits.shape[0], device=logits.device)[:, None].expand(kept.shape)
    if bool(kept.all()):
        return Counted(logits.flatten(0, 1), rows.flatten(), None if labels is None else labels.flatten())
    return Counted(logits[kept], rows[kept], None if labels is None else labels[kept])


def count(kind: str, inputs: dict[str, Any], *, causal: bool) -> int:
    """How many items `per_item` will return for a batch, told from the batch alone."""
    labels, mask = inputs.get("labels"), inputs.get("attention_mask")
    first = next(x for x in inputs.values() if isinstance(x, Tensor))
    per_row = labels.dim() == 1 if labels is not None else "input_ids" not in inputs
    if kind == "cosine" or per_row:
        return len(first)
    if labels is not None:
        return int(((labels[:, 1:] if causal else labels) != IGNORED).sum())
    return inputs["input_ids"].numel() if mask is None else int(mask.sum())


def kl_per_token(base: Tensor, sparse: Tensor) -> Tensor:
    """KL(base || sparse) in nats, (N, V) logits twice -> (N,)."""
    log_base, log_sparse = F.log_softmax(base.float(), -1), F.log_softmax(sparse.float(), -1)
    return (log_base.exp() * (log_base - log_sparse)).sum(-1)


def cross_entropy_per_token(logits: Tensor, targets: Tensor | None) -> Tensor:
    """-log p(target) in nats, (N, V) and (N,) -> (N,)."""
    if targets is None:
        raise refuse("a batch without labels", "the kl or cosine ceiling, or labels", "add labels")
    return F.cross_entropy(logits.float(), targets, reduction="none")


def pooled(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, T, E) over the unpadded tokens: (B, E)."""
    if mask is None:
        return hidden.mean(1)
    weight = mask.to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def per_item(
    kind: str, sparse: Tensor, base: Tensor | None, inputs: dict[str, Any], *, causal: bool
) -> Items:
    """The divergence of every counted token (or sequence, for `cosine`), in nats or as 1 - cosine.

    Args:
        kind: one of `gossamer.training.constraint.KINDS`.
        sparse, base: model outputs on the same batch; `base` may be None for `loss` alone.
    """
    if kind != "loss" and base is None:
        raise refuse(f"ceiling {kind} without a base model", "the loss ceiling", "pass the base model")
    if kind == "cosine":
        mask = inputs.get("attention_mask")
        similarity = F.cosine_similarity(pooled(sparse.float(), mask), pooled(base.float(), mask), dim=-1)  # type: ignore[union-attr]
        return Items(1 - similarity, torch.arange(len(sparse), device=sparse.device))
    ours = counted(sparse, inputs, causal=causal)
    if kind == "loss":
        return Items(cross_entropy_per_token(ours.logits, ours.targets), ours.rows)
    theirs = counted(base, inputs, causal=causal)  # type: ignore[arg-type]
    if kind == "kl":
        return Items(kl_per_token(theirs.logits, ours.logits), ours.rows)
    delta_ce = cross_entropy_per_token(ours.logits, ours.targets) - cross_entropy_per_token(
        theirs.logits, theirs.targets
    )
    return Items(delta_ce, ours.rows)


def agreement(sparse: Tensor, base: Tensor, inputs: dict[str, Any], *, causal: bool) -> Items:
    """1.0 where both models' top-1 tokens are the same, per counted token."""
    ours, theirs = (counted(x, inputs, causal=causal) for x in (sparse, base))
    return Items((ours.logits.argmax(-1) == theirs.logits.argmax(-1)).float(), ours.rows)
