"""Addition as the tickets' subject: the base-training recipe of `gossamer demo`, and a mask from its sparse model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertForMaskedLM, TrainingArguments, set_seed

from gossamer.models.checkpoint import load, save_folder
from gossamer.recipes.addition.run import run_demo
from gossamer.recipes.addition.settings import ATTENTION_DROPOUT, BASE_BATCH, DemoSettings
from gossamer.recipes.addition.task import Addition
from gossamer.training.presets import PRESETS

from .masks import Mask, mask_of

TASK = Addition()
WIDTHS = range(8, 65, 4)


class AdditionSubject:
    """Two-digit sums of one seed; arms are judged on the 1,000 sums that neither training nor the search has seen."""

    name, kinds, every = "addition", ("heads", "neurons"), 20

    def __init__(self, work: Path, seed: int) -> None:
        self.folder, self.seed = work / f"seed{seed}", seed
        recipe = PRESETS["addition_structure"].recipe
        self.settings = DemoSettings(seed=seed, gates="edges,heads,neurons", recipe=recipe)
        train, held_out = TASK.split(seed)
        self.rows = TASK.encode(train)
        self.unseen = TASK.encode(held_out[len(held_out) // 2 :])

    def arguments(self) -> TrainingArguments:
        """Those of the demo's base."""
        return self.settings.base(self.folder / "work" / "arms")

    def fresh(self, seed: int, **size: Any) -> BertForMaskedLM:
        """The initialisation of a seed, as the demo draws it."""
        set_seed(seed)
        return BertForMaskedLM(TASK.model_config(attention_dropout=ATTENTION_DROPOUT, **size))

    def small(self, parameters: int, seed: int) -> BertForMaskedLM:
        """The dense model of four layers and four heads whose size is nearest to `parameters`."""
        sizes = {
            width: sum(x.numel() for x in self.fresh(seed, width=width).parameters()) for width in WIDTHS
        }
        return self.fresh(seed, width=min(sizes, key=lambda width: abs(sizes[width] - parameters)))

    def batch(self, step: int) -> dict[str, Tensor]:
        """The batch of a step: epochs of seeded permutations."""
        inputs, labels = self.rows
        epoch, place = divmod(step, len(inputs) // BASE_BATCH)
        draw = torch.Generator().manual_seed(10_000 * self.seed + epoch)
        pick = torch.randperm(len(inputs), generator=draw)[place * BASE_BATCH : (place + 1) * BASE_BATCH]
        return {"input_ids": inputs[pick], "labels": labels[pick]}

    @torch.no_grad()
    def evaluate(self, model: Any) -> tuple[float, float]:
        """(mean cross-entropy of all tokens, share of sums that are right in every token) of the unseen sums."""
        inputs, labels = self.unseen
        found = model(input_ids=inputs, labels=labels)
        return float(found.loss), float((found.logits.argmax(-1) == labels).all(1).float().mean())

    def mask(self, trained: BertForMaskedLM) -> tuple[Mask, dict[str, Any]]:
        """The heads and neurons that `gossamer demo --gates edges,heads,neurons` leaves of the dense arm."""
        if not (self.folder / "base" / "config.json").is_file():
            save_folder(trained.eval(), self.folder / "base")
        proof = run_demo(self.folder, self.settings).proof
        sparse = load(self.folder / "sparse", impl="eager")
        names = ("sparse_exact", "unseen_exact", "edges_mean", "precision")
        return mask_of(sparse), {name: proof[name] for name in names}
