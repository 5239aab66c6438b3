"""Within the task: sums that the finetuning never saw, which the base was trained on like all others.

    sevens    every sum with a 7 in the tens place of an operand is left out of the finetuning
    random    as many sums, drawn by chance, are left out: what leaving out costs whatever is left out

What is compared is the model on the sums that were left out, and on held-out sums of the kind that it did see.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiments.tickets.addition import SEARCH, TASK, AdditionSubject, share_left
from benchmarks.experiments.tickets.run import dense_states
from gossamer.circuits.statistics import wilson
from gossamer.data.sequences import collate_rows
from gossamer.recipes.addition.stages import rows
from gossamer.training.base_model import without_dropout
from gossamer.training.divergence import kl_per_item
from gossamer.training.sparsify import sparsify

ARMS = ("base", "sevens", "sevens_finetuned", "random", "random_finetuned")
BATCH, RATE = 64, 1e-3  # of the finetuning without a penalty, as of the other one


def left_out(kind: str, seed: int) -> Tensor:
    """(10,000,) bool by the number of a sum."""
    first, second = TASK.operands(torch.arange(TASK.n_sums))
    sevens = (first // 10 == 7) | (second // 10 == 7)
    if kind == "sevens":
        return sevens
    order = torch.randperm(TASK.n_sums, generator=torch.Generator().manual_seed(300 + seed))
    return torch.zeros_like(sevens).index_fill_(0, order[: int(sevens.sum())], True)


def measured(work: Path, seed: int, arm: str) -> dict[str, Any]:
    """One arm's numbers on both kinds of sums, against the base."""
    subject = AdditionSubject(work, seed)
    kind, _, plain = arm.partition("_")
    gone = left_out("sevens" if kind == "base" else kind, seed)
    base = subject.fresh(seed)
    base.load_state_dict(dense_states(subject)[subject.arguments().max_steps])
    without_dropout(base.eval())
    model, about = copy.deepcopy(base), {}
    train = subject.train[~gone[subject.train]]
    kept = work / f"seed{seed}" / f"generality-{arm}.pt"
    if plain and kept.is_file():
        model.load_state_dict(torch.load(kept))
    elif plain:
        finetune(model, train, seed)
        torch.save(model.state_dict(), kept)
    elif kind != "base":
        model, about = made_sparse(subject, model, base, train, kept.with_suffix(""))
    unseen = subject.held_out[len(subject.held_out) // 2 :]
    seen_kind, never = unseen[~gone[unseen]], gone.nonzero()[:, 0]
    return {"left_out": compared(model, base, never), "seen_kind": compared(model, base, seen_kind), **about}


def made_sparse(
    subject: AdditionSubject, model: Any, base: Any, train: Tensor, work: Path
) -> tuple[Any, dict[str, Any]]:
    """Finetune under the demo's ceiling on some of the sums, and choose on them and held-out ones of their kind."""
    found = sparsify(
        model,
        rows(TASK, base, train),
        rows(TASK, base, train),
        subject.search(work),
        base=base,
        resume=work.is_dir(),
        data_collator=collate_rows,
    )
    about = {"missed": found.missed, "step": found.step, "multiply_adds": share_left(found.model)}
    return found.model.eval(), about


def finetune(model: Any, train: Tensor, seed: int) -> None:
    """As many steps without gates or ceiling, on the labels."""
    inputs, labels = TASK.encode(train)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(SEARCH):
        pick = torch.randint(len(train), (BATCH,), generator=draw)
        model(input_ids=inputs[pick], labels=labels[pick]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@torch.no_grad()
def compared(model: Any, base: Any, index: Tensor) -> dict[str, Any]:
    """Right answers with Wilson's interval, whole rows that are right, and KL a token of the answer slots.

    A whole row repeats the operands too, and an operand with a 7 may be what is lost.
    """
    inputs, labels = TASK.encode(index)
    ours, theirs = (torch.cat([one(input_ids=x).logits for x in inputs.split(1000)]) for one in (model, base))
    slots = slice(TASK.length - TASK.n_slots, None)
    right = ours.argmax(-1) == labels
    exact = int(right[:, slots].all(1).sum())
    kl = kl_per_item(theirs[:, slots].flatten(0, 1), ours[:, slots].flatten(0, 1)).mean()
    return {
        "exact": exact,
        "n": len(index),
        "interval": wilson(exact, len(index)),
        "whole_rows": int(right.all(1).sum()),
        "kl": float(f"{float(kl):.5g}"),
        "tokens_wrong": [
            float(f"{float(x):.4g}") for x in (ours.argmax(-1) != labels)[:, slots].float().mean(0)
        ],
    }
