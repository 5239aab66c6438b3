"""What was lost: how far the sparse model's output is from the base model's, on the same batch.

Letters: K classes, E embedding width. All divergences are means over the predictions that count, which the head of the
model says (`gossamer.models.head`): tokens, rows, or the two boundaries of an answer.

    kl      KL(base // sparse) = sum_k p_base log(p_base / p_sparse)      nats per prediction, >= 0
            of a head with several labels the sum over them, each a coin
    delta_ce  CE(sparse) - CE(base)                                         nats per prediction
    loss    CE(sparse); of numbers their squared error
    fvu     (sparse - base)^2 / variance of the base                      numbers: regression, a reranker's one score
    cosine  1 - cos(pooled sparse, pooled base), per sequence
    pairwise  (cos(sparse_i, sparse_j) - cos(base_i, base_j))^2 / variance of the base's; per sequence i, its mean
              over the others of its batch

Source: kl, delta_ce, fvu, cosine and pairwise are our choice (a ceiling measured on the same batch has almost no
variance and cannot be gamed by overfitting, DESIGN.md); loss is the ceiling of arXiv 2512.05865. The fraction of
variance unexplained (fvu) has no nats, so its unit is the base's own spread, measured once (`training/spread.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import refuse
from ..models.head import Head
from ..models.sentence_encoder import Pooling
from .constraint import SENTENCES, SPREAD


class Measure(NamedTuple):
    """How a batch is measured.

    Attributes:
        head: what a prediction is.
        pooling: how token states become an embedding.
        spread: the variance of the base's numbers, (K,), or of its cosines, (1,); None where the kind needs none.
    """

    head: Head
    pooling: Pooling = Pooling()
    spread: Tensor | None = None


class Counted(NamedTuple):
    """The predictions that count: logits (N, K), the row of each (N,), and targets (N, ...) where there are labels."""

    logits: Tensor
    rows: Tensor
    targets: Tensor | None


class Items(NamedTuple):
    """One value (N,) per counted prediction, and the batch row (N,) it belongs to."""

    values: Tensor
    rows: Tensor


def counted(logits: Tensor, inputs: dict[str, Any], *, head: Head) -> Counted:
    """Pick the predictions that count from the logits of a head, by the batch: see `Head.items`.

    Raises: `GossamerError` for classes of which there is one, whose probability is 1 whatever the model does.
    """
    kept, targets = head.items(inputs), head.targets(inputs)
    if head.per == "boundary" and (mask := head.unpadded(inputs)) is not None:
        logits = logits.masked_fill(
            ~mask[:, None], torch.finfo(logits.dtype).min
        )  # padding is no place for an answer
    logits = logits.reshape(*kept.shape, -1)
    if head.reads == "classes" and logits.shape[-1] == 1:
        raise refuse(
            f"{head.model} with one class, whose probability is always 1",
            "two classes or more, or a number",
            'set config.problem_type="regression", for a ceiling on fvu',
        )
    rows = torch.arange(len(kept), device=kept.device).reshape(-1, *[1] * (kept.dim() - 1)).expand(kept.shape)
    if bool(kept.all()):
        depth = kept.dim()
        flat = None if targets is None else targets.reshape(-1, *targets.shape[depth:])
        return Counted(logits.reshape(-1, logits.shape[-1]), rows.reshape(-1), flat)
    return Counted(logits[kept], rows[kept], None if targets is None else targets[kept])


def count(kind: str, inputs: dict[str, Any], *, head: Head) -> int:
    """How many items `per_item` will return for a batch, told from the batch alone."""
    kept = head.items(inputs)
    return 0 if kind == "pairwise" and len(kept) < 2 else int(kept.sum())


def kl_per_item(base: Tensor, sparse: Tensor, reads: str = "classes") -> Tensor:
    """KL(base || sparse) in nats, (N, K) logits twice -> (N,)."""
    base, sparse = base.float(), sparse.float()
    if reads == "labels":  # the two sides of each coin are two classes
        base, sparse = (torch.stack([x, torch.zeros_like(x)], -1) for x in (base, sparse))
    log_base, log_sparse = F.log_softmax(base, -1), F.log_softmax(sparse, -1)
    return (log_base.exp() * (log_base - log_sparse)).flatten(1).sum(-1)


def loss_per_item(logits: Tensor, targets: Tensor | None, reads: str = "classes") -> Tensor:
    """The head's own loss, (N, K) logits and targets -> (N,): cross-entropy in nats, or squared error."""
    if targets is None:
        raise refuse("a batch without labels", "the kl or cosine ceiling, or labels", "add labels")
    if reads == "classes":
        return F.cross_entropy(logits.float(), targets, reduction="none")
    each = F.mse_loss if reads == "values" else F.binary_cross_entropy_with_logits
    return each(logits.float(), targets.to(logits.device, torch.float32), reduction="none").mean(-1)


def similarities(embeddings: Tensor) -> Tensor:
    """(B, B) cosines between sentences from (B, E) embeddings."""
    unit = F.normalize(embeddings.float(), dim=-1)
    return unit @ unit.T


def others(matrix: Tensor) -> Tensor:
    """(B, B - 1): what stands off the diagonal."""
    n = len(matrix)
    return matrix[~torch.eye(n, dtype=torch.bool, device=matrix.device)].view(n, max(0, n - 1))


def per_item(
    kind: str, sparse: Tensor, base: Tensor | None, inputs: dict[str, Any], measure: Measure
) -> Items:
    """The divergence of every prediction that counts, in the unit of its kind.

    Args:
        kind: one of `gossamer.training.constraint.KINDS`, which the head allows.
        sparse, base: what both models answer on the same batch (`Head.answer`); `base` may be None for `loss` alone.
    """
    head = measure.head
    if kind != "loss" and base is None:
        raise refuse(f"ceiling {kind} without a base model", "the loss ceiling", "pass the base model")
    if kind in SENTENCES:
        return _per_sentence(kind, sparse, base, inputs, measure)  # type: ignore[arg-type]
    ours = counted(sparse, inputs, head=head)
    if kind == "loss":
        return Items(loss_per_item(ours.logits, ours.targets, head.reads), ours.rows)
    theirs = counted(base, inputs, head=head)  # type: ignore[arg-type]
    if kind == "kl":
        return Items(kl_per_item(theirs.logits, ours.logits, head.reads), ours.rows)
    if kind == "fvu":
        change = (ours.logits.float() - theirs.logits.float()) ** 2
        return Items((change / _spread(measure)).mean(-1), ours.rows)
    delta_ce = loss_per_item(ours.logits, ours.targets, head.reads) - loss_per_item(
        theirs.logits, theirs.targets, head.reads
    )
    return Items(delta_ce, ours.rows)


def _per_sentence(kind: str, sparse: Tensor, base: Tensor, inputs: dict[str, Any], measure: Measure) -> Items:
    mask = measure.head.unpadded(inputs)
    ours, theirs = (measure.pooling(x.float(), mask) for x in (sparse, base))
    rows = torch.arange(len(ours), device=ours.device)
    if kind == "cosine":
        return Items(1 - F.cosine_similarity(ours, theirs, dim=-1), rows)
    if len(ours) < 2:
        return Items(ours.new_zeros(0), rows[:0])
    change = others(similarities(ours) - similarities(theirs)) ** 2
    return Items(change.mean(-1) / _spread(measure), rows)


def _spread(measure: Measure) -> Tensor:
    assert measure.spread is not None, "measured by the trainer before it compares"
    return measure.spread


def agreement(sparse: Tensor, base: Tensor, inputs: dict[str, Any], *, head: Head) -> Items:
    """1.0 where both models' answers are the same, per prediction that counts: the top-1 class, or every label."""
    ours, theirs = (counted(x, inputs, head=head) for x in (sparse, base))
    if head.reads == "classes":
        same = ours.logits.argmax(-1) == theirs.logits.argmax(-1)
    else:
        same = ((ours.logits > 0) == (theirs.logits > 0)).all(-1)
    return Items(same.float(), ours.rows)


def accuracy(answer: Tensor, inputs: dict[str, Any], *, head: Head) -> Items:
    """1.0 where the top-1 class is the label's, per prediction that counts."""
    ours = counted(answer, inputs, head=head)
    return Items((ours.logits.argmax(-1) == ours.targets).float(), ours.rows)


def compared(
    kind: str, sparse: Tensor, base: Tensor | None, inputs: dict[str, Any], measure: Measure
) -> dict[str, Items]:
    """Everything that a batch allows to compare, `divergence` of the ceiling's own kind among it."""
    head = measure.head
    found: dict[str, Items] = {}
    for name in _kinds(kind, inputs, base, head):
        found[name] = per_item(name, sparse, base, inputs, measure)
    if base is not None and head.reads in ("classes", "labels"):
        found["agreement"] = agreement(sparse, base, inputs, head=head)
    if head.reads == "classes" and not head.language and head.targets(inputs) is not None:
        found["accuracy"] = accuracy(sparse, inputs, head=head)
        found |= {} if base is None else {"base_accuracy": accuracy(base, inputs, head=head)}
    return {**found, "divergence": found[kind]}


def _kinds(kind: str, inputs: dict[str, Any], base: Tensor | None, head: Head) -> list[str]:
    """The divergences that a batch allows, the ceiling's own among them."""
    if kind in SENTENCES:
        return ["cosine", *["pairwise"] * (kind == "pairwise")]
    labelled, numbers = head.targets(inputs) is not None, head.reads == "values"
    names = ["loss"] * labelled + ["delta_ce"] * (labelled and base is not None and not numbers)
    if base is not None:
        names += ["fvu"] * (kind in SPREAD) if numbers else ["kl"]
    return list(dict.fromkeys([kind, *names]))
