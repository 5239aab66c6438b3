"""Models and prompts from folders: what every verb opens first.

A folder may hold a gated model or a dense one; which it is stands in its config.json and need not be said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.frame import Frame
from ..data.pairs import Batch, by_tokenizer
from ..data.prompts import open_tokenizer
from ..data.registry import batches, task_vocabulary
from ..errors import refuse
from ..models.attach import gates_of
from ..models.checkpoint import load_dense, load_merged
from ..models.config_file import adapter_base, holds_adapters, holds_model
from ..models.declared import read_config
from ..models.gate_block import blocks_of
from ..models.inputs import require_inputs
from ..models.run_report import report_beside

PARTS = ("model", "sparse", "adapter")  # where `gossamer sparsify` and `gossamer demo` leave a sparse model


def model_in(place: Path) -> Path:
    """The folder of the sparse model itself, where `place` is the folder of the run that made it."""
    inside = (place / part for part in PARTS if holds_model(place / part))
    return place if holds_model(place) else next(inside, place)


def base_beside(folder: Path) -> Path | str:
    """The base model of the sparse model in `folder`: base/ beside it, what its run was given, or its adapters name.

    Raises: `GossamerError` where neither is known, or the run's model is not there any more.
    """
    report, beside = report_beside(folder), folder.resolve().parent / "base"
    if (beside / "config.json").is_file():
        return beside
    if report is None and holds_adapters(folder):
        return adapter_base(folder)
    if report is None or not report.model:
        raise refuse(
            f"{folder}, whose base model is not on record", "the base model too", "pass --base FOLDER"
        )
    if report.model in report.local and not Path(report.model).is_dir():
        raise refuse(f"{report.model}, the base model of {folder}, is not there", "the folder that the run read",
                     "pass --base FOLDER")  # fmt: skip
    return report.model


def pair_in(folder: Path, base: Path | None = None, sparse: Path | None = None) -> tuple[Path | str, Path]:
    """The base and the sparse model of a folder: base/ and sparse/ in it, or what the run in it read and made.

    Args:
        base, sparse: in place of either.
    Raises: `GossamerError` where a run's base model is not on record.
    """
    made = model_in(folder)
    is_run = sparse is None and holds_model(made) and not (folder / "base").is_dir()
    gated = sparse or (made if is_run else folder / "sparse")
    return base or (base_beside(gated) if is_run else folder / "base"), gated


def open_model(folder: Path | str) -> PreTrainedModel:
    """The model of a folder with its gates, if it has any, on the eager implementation; adapters are merged."""
    is_gated = holds_adapters(Path(folder)) or blocks_of(read_config(folder).__dict__, folder)
    return load_merged(folder, impl="eager") if is_gated else load_dense(folder)


def open_pair(base: Path | str, sparse: Path | str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A base and the model that was made from it; gates are not asked for.

    Raises: `GossamerError` for models of two vocabularies.
    """
    dense, gated = open_model(base), open_model(sparse)
    sizes = [getattr(model.config, "vocab_size", None) for model in (dense, gated)]  # a ViT has none
    if sizes[0] != sizes[1]:
        raise refuse(
            f"a base of {sizes[0]} tokens and a sparse model of {sizes[1]}",
            "two models of one vocabulary",
            "pass the base that the sparse model was made from",
        )
    return dense, gated


def open_others(folders: Sequence[Path | str], like: PreTrainedModel) -> list[PreTrainedModel]:
    """Gated models whose circuits can be compared with those of `like`, checked before anything is computed.

    Raises: `GossamerError` for other counts of tokens, layers or heads; `UnsupportedModel` for a dense model.
    """
    shape = ("vocab_size", "num_hidden_layers", "num_attention_heads")
    found = []
    for folder in folders:
        model = open_model(folder)
        gates_of(model)
        theirs, ours = ([getattr(one.config, name) for name in shape] for one in (model, like))
        if theirs != ours:
            raise refuse(
                "{}: {} tokens, {} layers of {} heads".format(folder, *theirs),
                "{} tokens, {} layers of {} heads, as the model it is compared with".format(*ours),
                "pass a model of another seed",
            )
        found.append(model)
    return found


def task_prompts(model: PreTrainedModel, folder: Path | str, task: str, n: int, seed: int) -> list[Batch]:
    """The task in the model's own tokens: word-level for models of the task vocabulary."""
    size = model.config.vocab_size
    own: dict[str, Any] = {}
    if size != len(task_vocabulary()):
        tokenizer = open_tokenizer(folder)
        own = {
            "tokenize": by_tokenizer(tokenizer),
            "before": Frame.of(tokenizer).before,
            "n_vocabulary": size,
        }
    found = batches(task, n, seed=seed, **own)
    for batch in found:
        require_inputs(model, torch.cat([batch.clean, batch.corrupt]))
    return found
