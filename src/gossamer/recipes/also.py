"""How far a model is from its base on other data than its ceiling was enforced on: `gossamer compare --also DATA`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.prompts import open_tokenizer, positions_of
from ..data.sequences import TensorRows
from ..data.text import Corpus, as_rows, packed
from ..errors import UnsupportedModel, refuse
from ..models.forward import evaluating
from ..models.head import Head
from ..models.run_report import report_beside
from ..training.counted import counted
from ..training.divergence import Measure, agreement, per_item
from ..training.metrics import Tally
from .folders import open_pair

ROWS, LENGTH, BATCH = 64, 128, 16
POOL = 50  # rows that are read for each one that is taken, so that a sample is not the first file alone
KINDS = ("kl", "delta_ce")


def compare_also(
    base: Path | str, sparse: Path | str, data: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """The divergence of a model from its base on other texts, beside what its run reported of its ceiling's own.

    Args:
        base, sparse: folders of two language models of one tokenizer.
        data: texts, as `gossamer.data.text` reads them.
        seed: of the choice of rows.
    Returns: `ceiling`, `held` (what the run measured on its own held-out rows; None where no report is beside the
        model), and for each text its numbers with standard errors over rows.
    Raises: `GossamerError` for other vocabularies, no tokenizer, or a text that gives too little.
    """
    dense, gated = open_pair(base, sparse)
    report = report_beside(Path(sparse))
    names = (*(f"{name}{end}" for name in (*KINDS, "agreement") for end in ("", "_se")), "divergence")
    held = {name: report.held_out[name] for name in names if name in report.held_out} if report else {}
    return {
        "ceiling": report.ceiling if report else None,
        "held": held or None,
        "also": [
            {"data": one, **divergences(gated, dense, text_rows(one, sparse, base, gated, seed=seed))}
            for one in counted(data, "texts compared")
        ],
    }


def text_rows(
    data: str,
    folder: Path | str,
    other: Path | str,
    model: PreTrainedModel,
    *,
    seed: int = 0,
    length: int = LENGTH,
) -> TensorRows:
    """A seeded choice of packed rows of a text, in the tokens of a model's folder, or of another folder.

    Raises: `GossamerError` for no language model, no tokenizer, or fewer than two rows.
    """
    head = Head.of(model)
    if not head.language:
        raise refuse(
            f"{head.model}, which predicts no tokens",
            "a language model",
            "leave --also out",
            UnsupportedModel,
        )
    length, tokenizer = min(length, positions_of(model) or length), open_tokenizer(folder, other)
    if len(tokenizer) > (size := model.config.get_text_config().vocab_size):
        raise refuse(
            f"a tokenizer of {len(tokenizer)} tokens for a model of {size}",
            "a tokenizer and a model that belong together",
            "pass folders that hold both",
        )
    rows = list(islice(packed(Corpus(data).documents(), tokenizer, length), POOL * ROWS))
    if len(rows) < 2:
        raise refuse(f"{data} gives {len(rows)} rows of {length} tokens", "at least 2", "pass more text")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:ROWS]
    mask = None if head.causal else tokenizer.mask_token_id
    if mask is None and not head.causal:
        raise refuse(
            "a masked language model whose tokenizer has no mask token", "one", "set tokenizer.mask_token"
        )
    return as_rows([rows[i] for i in order.tolist()], mask_token=mask, seed=seed)


@torch.no_grad()
def divergences(model: PreTrainedModel, base: PreTrainedModel, rows: TensorRows) -> dict[str, Any]:
    """KL, delta_ce and agreement against the base, per token with standard errors over rows, and both losses."""
    measure, tally = Measure(Head.of(model)), Tally()
    with evaluating(model), evaluating(base):
        for start in range(0, len(rows), BATCH):
            batch = {name: column[start : start + BATCH] for name, column in rows.columns.items()}
            ours, theirs = (_logits(one, measure.head, batch) for one in (model, base))
            size = len(ours)
            for kind in (*KINDS, "loss"):
                tally.add_items(kind, per_item(kind, ours, theirs, batch, measure), size)
            tally.add_items("base_loss", per_item("loss", theirs, None, batch, measure), size)
            tally.add_items("agreement", agreement(ours, theirs, batch, head=measure.head), size)
    found = {name: float(f"{value:.6g}") for name, value in tally.summary().items()}
    length = rows.columns["input_ids"].shape[1]
    return {"rows": len(rows), "length": length, **found}


def _logits(model: PreTrainedModel, head: Head, batch: dict[str, Tensor]) -> Tensor:
    moved = {name: column.to(model.device) for name, column in batch.items()}
    return head.answer(head.run(model, moved)).cpu()
