"""Shift on text: the frontier's small GPT-2, made sparse on source code by the default recipe, read on other text.

Texts are of the held-out files of the standard library, so that they are on every machine: `source` as it is trained
on; `documentation`, the docstrings of these files; `corrupted`, the source with one token in ten exchanged; `long`,
rows of 128 tokens for models that were made sparse on rows of 64.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.frontier import data as source
from benchmarks.experiments.frontier.baselines import choosing
from benchmarks.experiments.frontier.run import RATE
from benchmarks.experiments.frontier.run import settings as frontier_settings
from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.data.text import as_rows, packed
from gossamer.models.attach import find_gate_sets
from gossamer.models.checkpoint import load, save
from gossamer.recipes.also import divergences
from gossamer.training.metrics import Tally, counting
from gossamer.training.presets import DEFAULT
from gossamer.training.sparsify import sparsify

SHORT, CORRUPTED = 64, 0.1
CEILINGS = ("kl=0.05", "kl=0.2", "kl=0.02", "kl=0.1", "kl=0.5")
BASE_STEPS, STEPS = 1600, 400


def docstrings() -> Iterator[str]:
    """The docstrings of each held-out file as one document."""
    for text in source.CORPUS.held_out():
        try:
            nodes = list(ast.walk(ast.parse(text)))
        except (SyntaxError, ValueError):
            continue  # a few files of the library are wrong on purpose
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found = [ast.get_docstring(node) for node in nodes if isinstance(node, kinds)]
        yield "\n\n".join(text for text in found if text)


def texts(work: Path, rows: int = 64) -> dict[str, TensorRows]:
    """Rows of each text."""
    held_out = source.data(work).held_out.columns["input_ids"]
    words = source.tokenizer(work)
    prose = list(packed((text for text in docstrings() if text.strip()), words, SHORT))
    order = torch.randperm(len(prose), generator=torch.Generator().manual_seed(0))[:rows]
    short = held_out[-rows:, :SHORT]
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand(short.shape, generator=draw) < CORRUPTED
    other = torch.randint(1, source.VOCABULARY, short.shape, generator=draw)
    ids = {
        "source": short,
        "documentation": torch.tensor([prose[i] for i in order.tolist()]),
        "corrupted": torch.where(noise, other, short),
        "long": held_out[-rows:],
    }
    return {name: as_rows(x.tolist(), mask_token=None, seed=0) for name, x in ids.items()}


def variants() -> tuple[str, ...]:
    """Every model, in the order of its worth."""
    first = CEILINGS[0]
    rest = [f"{kind}@{ceiling}" for ceiling in CEILINGS[1:] for kind in ("sparse", "topk")]
    return ("base", f"sparse@{first}", "finetuned", f"topk@{first}", *rest)


def model_of(variant: str, work: Path, seed: int) -> Any:
    """Load a variant, or make it."""
    kind, _, ceiling = variant.partition("@")
    base, folder = source.base_model(work, BASE_STEPS), work / "generality" / f"{variant}-{seed}"
    train = TensorRows(**{name: x[:, :SHORT] for name, x in source.data(work).train.columns.items()})
    if kind == "base":
        return base
    if kind == "topk":
        keys = keys_per_query(model_of(f"sparse@{ceiling}", work, seed), work)
        return choosing(base, max(1, round(keys)))[0]
    if kind == "finetuned":
        model = copy.deepcopy(base).train()
        source.train_dense(model, train, STEPS, batch=16, peak=RATE)
        return model
    if not (folder / "config.json").is_file():
        config = frontier_settings(ceiling, seed, STEPS, folder.with_name(f"{folder.name}-work"))
        config.recipe = DEFAULT
        choose = TensorRows(
            **{name: x[:64, :SHORT] for name, x in source.data(work).held_out.columns.items()}
        )
        model: Any = copy.deepcopy(base).requires_grad_(True)
        found = sparsify(model, train, choose, config, base=base, resume=True, data_collator=collate_rows)
        save(found.model, folder)
    return load(folder, impl="eager")


def keys_per_query(model: Any, work: Path) -> float:
    """Open keys per query and head on source."""
    tally = Tally()
    with torch.no_grad(), counting(find_gate_sets(model), tally):
        model.eval()(input_ids=texts(work)["source"].columns["input_ids"])
    return tally.summary()["keys_per_query"]


def measured(work: Path, seed: int, variant: str) -> dict[str, Any]:
    """One model on every text, against the base."""
    model, base = (model_of(name, work, seed) for name in (variant, "base"))
    look = partial(divergences, model, base)
    keys = None if variant in ("base", "finetuned") else keys_per_query(model, work)
    return {"texts": {name: look(rows) for name, rows in texts(work).items()}, "keys_per_query": keys}
