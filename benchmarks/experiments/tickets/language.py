"""A small GPT-2 on the standard library's text as the tickets' subject: the frontier's data and model, fewer steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments, set_seed

from benchmarks.experiments.frontier import data as source
from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.training.config import SparsityConfig
from gossamer.training.constraint import Ceiling
from gossamer.training.presets import PRESETS
from gossamer.training.sparsify import sparsify

from .masks import Mask, mask_of

STEPS, BATCH, PEAK = 300, 16, 3e-3
SEARCH, CEILING = 400, Ceiling("kl", 0.1)
WIDTHS = range(32, 129, 8)


class LanguageSubject:
    """Next-token prediction; arms are judged on half of the held-out rows, the search chooses on the other half."""

    name, kinds, every = "language", "heads,neurons", 25

    def __init__(self, work: Path, seed: int) -> None:
        self.folder, self.seed = work / f"seed{seed}", seed
        work.mkdir(parents=True, exist_ok=True)
        self.data = source.data(work)
        columns, half = self.data.held_out.columns, len(self.data.held_out) // 2
        self.choose = TensorRows(**{name: column[:half] for name, column in columns.items()})
        self.unseen = columns["input_ids"][half:]

    def arguments(self) -> TrainingArguments:
        """The frontier's: AdamW, a warm-up and a linear decay."""
        return TrainingArguments(
            output_dir=str(self.folder / "work"),
            max_steps=STEPS,
            learning_rate=PEAK,
            lr_scheduler_type="linear",
            warmup_steps=100,
            adam_beta2=0.95,
            weight_decay=0.1,
            seed=self.seed,
            report_to="none",
            use_cpu=True,
        )

    def fresh(self, seed: int, **size: Any) -> GPT2LMHeadModel:
        """The initialisation of a seed."""
        set_seed(seed)
        config: dict[str, Any] = source.model_config().to_diff_dict() | size
        return GPT2LMHeadModel(GPT2Config(**config))

    def small(self, parameters: int, seed: int) -> GPT2LMHeadModel:
        """The dense model of four layers and four heads whose size is nearest to `parameters`."""
        sizes = {n: sum(x.numel() for x in self.fresh(seed, n_embd=n).parameters()) for n in WIDTHS}
        return self.fresh(seed, n_embd=min(sizes, key=lambda n: abs(sizes[n] - parameters)))

    def batch(self, step: int) -> dict[str, Tensor]:
        """The batch of a step: epochs of seeded permutations."""
        rows = self.data.train.columns["input_ids"]
        epoch, place = divmod(step, len(rows) // BATCH)
        draw = torch.Generator().manual_seed(10_000 * self.seed + epoch)
        ids = rows[torch.randperm(len(rows), generator=draw)[place * BATCH : (place + 1) * BATCH]]
        return {"input_ids": ids, "labels": ids}

    @torch.no_grad()
    def evaluate(self, model: Any) -> tuple[float, float]:
        """(held-out loss in nats a token, minus the same)."""
        losses = [float(model(input_ids=ids, labels=ids).loss) for ids in self.unseen.split(32)]
        return sum(losses) / len(losses), -sum(losses) / len(losses)

    def mask(self, trained: GPT2LMHeadModel) -> tuple[Mask, dict[str, Any]]:
        """The heads and neurons that are left of the dense arm under a ceiling, on text that no arm is judged on."""
        config = SparsityConfig(
            output_dir=str(self.folder / "search"),
            ceiling=CEILING,
            gates=self.kinds,
            recipe=PRESETS["default"].recipe.with_settings(
                {"gate.reads": "logit"}
            ),  # as the record's search was
            max_steps=SEARCH,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=32,
            learning_rate=3e-4,
            eval_steps=SEARCH // 8,
            save_steps=SEARCH // 8,
            seed=self.seed,
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        )
        model = copy.deepcopy(trained).requires_grad_(True)
        resume = (self.folder / "search").is_dir()
        found = sparsify(
            model, self.data.train, self.choose, config, resume=resume, data_collator=collate_rows
        )
        return mask_of(found.model), {
            "ceiling": str(CEILING),
            "missed": found.missed,
            "best_step": found.step,
        }
