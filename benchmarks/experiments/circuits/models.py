"""The models of the deciding experiment: a base, and from it one finetuned and one made sparse.

All three learn the same text: prompts of the tasks, each with its answer. Labels stand on the answers alone, in
training and under the ceiling, so that what is promised of the sparse model is what is measured of it: under a ceiling
over all tokens, losing the answer token of one task costs less than the ceiling allows (LOG.md, 2026-11-22).

The size follows what is compared: a finetuned model needs many edges if many heads can do the same thing, as in the
paper's models of 144 heads and more. Eight heads a layer missed the goal and sixteen, all else the same, reach it; both
records are kept, for how the answer grows with the size is part of the answer (LOG.md, 2026-11-24).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from gossamer.data.registry import task_vocabulary, training_rows
from gossamer.data.sequences import IGNORED, TensorRows, collate_rows
from gossamer.files import read_yaml, write_json
from gossamer.models.checkpoint import load, load_dense, save, save_folder
from gossamer.training.config import configured
from gossamer.training.presets import DEFAULT
from gossamer.training.recipe import Recipe
from gossamer.training.sparsify import sparsify

TEXT = ("ioi", "greater_than", "quotes", "brackets", "nonsense")
VARIANTS = ("base", "finetuned", "sparse")
# Sparse models, each with its recipe; None is the record's, whose gates read the logit. The other two differ in what
# gates read and in nothing else.
SPARSE: dict[str, Recipe | None] = {
    "sparse": None,
    "weight": DEFAULT.with_settings({"gate.reads": "weight"}),
    "logit": DEFAULT.with_settings({"gate.reads": "logit"}),
}
BASE_RATE, RATE = 2e-3, 1e-3  # learning rates: from scratch, and of both finetunings


def data(n: int, seed: int, tasks: tuple[str, ...] = TEXT) -> TensorRows:
    """`n` prompts, tasks mixed evenly, with labels on their answers alone."""
    ids, _, mask = training_rows(tasks, n, seed=seed, vocabulary=task_vocabulary())
    answer = torch.zeros_like(mask).scatter_(1, mask.sum(1, keepdim=True) - 1, 1)
    return TensorRows(input_ids=ids, labels=ids.masked_fill(answer == 0, IGNORED), attention_mask=mask)


def shared(folder: Path, steps: int, seed: int, rate: float) -> dict[str, Any]:
    """Training arguments that all three runs share."""
    return {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": 64,
        "learning_rate": rate, "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "warmup_steps": 50, "adam_beta2": 0.99,
        "weight_decay": 0.0, "seed": seed, "report_to": "none", "disable_tqdm": True, "logging_steps": 100,
        "dataloader_pin_memory": False, "remove_unused_columns": False,
    }  # fmt: skip


def plain(model: GPT2LMHeadModel, folder: Path, train: TensorRows, **how: Any) -> None:
    """Ordinary training on the text."""
    settings = TrainingArguments(save_strategy="no", **shared(folder, **how))
    Trainer(model, settings, train_dataset=train, data_collator=collate_rows).train()
    save_folder(model.eval(), folder)


def sparse(
    model: GPT2LMHeadModel,
    given: argparse.Namespace,
    folder: Path,
    seed: int,
    tasks: tuple[str, ...] = TEXT,
    recipe: Recipe | None = None,
) -> Any:
    """Sparsity-regularised finetuning: a loose ceiling first, tightened as the model follows, and a calm end.

    Args:
        recipe: another one, which knows nothing of `given.loose` and `given.most`.
    """
    every = max(1, given.steps // 20)
    known = {"ceiling.initial_factor": given.loose, "control.lambda_bounds": (1e-3, given.most)}
    config = configured(
        {
            **shared(folder.parent / f"work-{folder.name}", given.steps, seed, RATE),
            **read_yaml(Path(__file__).parent / "configs" / "finetuning.yaml"),
            "ceiling": given.ceiling,
            "eval_steps": every,
            "save_steps": every,
            **({} if recipe is None else {"recipe": recipe}),
        },
        known if recipe is None else {},
    )
    found = sparsify(
        model,
        data(given.rows, seed, tasks),
        data(2048, seed + 1000, tasks),
        config,
        data_collator=collate_rows,
    )
    save(found.model, folder)
    numbers = {name: value if math.isfinite(value) else None for name, value in found.metrics.items()}
    promise = {"metrics": numbers, "missed": found.missed, "step": found.step}
    write_json(folder.parent / f"{folder.name}.json", promise)
    return found.model


def untrained(given: argparse.Namespace) -> GPT2LMHeadModel:
    """The architecture, with weights drawn now."""
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=len(task_vocabulary()), n_positions=32, n_embd=given.width, n_layer=given.layers,
        n_head=given.heads, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        pad_token_id=0,
    ))  # fmt: skip


def model_of(variant: str, given: argparse.Namespace, seed: int) -> Any:
    """Load a variant, or make it."""
    folder = given.out / f"seed{seed}" / variant
    if (folder / "config.json").is_file():
        return load(folder, impl="eager") if variant in SPARSE else load_dense(folder)
    set_seed(seed)
    if variant == "base":
        model = untrained(given)
        plain(model, folder, data(given.rows, seed), steps=given.base_steps, seed=seed, rate=BASE_RATE)
        return model
    model = load_dense(given.out / f"seed{seed}" / "base")
    if variant == "finetuned":
        train = data(given.rows, seed + 1000)
        plain(model, folder, train, steps=given.steps, seed=seed + 1000, rate=RATE)
        return model
    return sparse(model, given, folder, seed + 1000, recipe=SPARSE[variant])
