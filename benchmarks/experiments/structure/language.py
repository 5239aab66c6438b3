"""A small GPT-2 with fewer heads and neurons, one count in every layer: what a ceiling leaves, and what needs no gates.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.structure.language --seeds 4 5 [--gates heads,neurons]

The base, its text and its rows are the frontier's. The arms of a seed:

    gates                   the recipe `structure`, or another, with `gate.uniform`
    checkpoints             what `shrink` makes of that, proved and timed beside the base
    found, untrained        the units that it closes, closed in the base; nothing trained
    magnitude, untrained    as many units of each layer, those with the largest weights
    magnitude, random       as many units of each layer, the largest or any, finetuned for as many steps of as many
                            tokens on the divergence from the base, at the same learning rate
    small dense             another width, as many multiply-adds in its blocks, trained on the text for the base's steps
                            and then for as many tokens as the finetuning saw

Written to results/language.{json,md}; what the record has is not repeated. The gates' model is chosen on held-out rows;
all arms are reported on others. Times are of one process, in turns, by the clock.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, set_seed

from benchmarks.experiments.frontier import data as source
from benchmarks.experiments.frontier.baselines import compare
from benchmarks.experiments.frontier.run import BATCH, RATE, split
from benchmarks.experiments.gate_reads.default import GPT2_BASE_STEPS, sparse_gpt2
from benchmarks.experiments.tickets.masks import Mask, close, hold, largest, mask_of, random, sizes
from benchmarks.lib.record import Row, Rows
from benchmarks.lib.training import imitation, train_on_rows
from gossamer.files import write_text
from gossamer.gates.host import Options
from gossamer.models.attach import attach_missing
from gossamer.models.checkpoint import load, save
from gossamer.models.latency import latencies
from gossamer.models.quiet import quiet
from gossamer.models.same_function import require_same
from gossamer.models.shrink import shrunk

from .cost import left_of_blocks, of_blocks
from .language_report import as_lines

RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).parents[3] / "runs" / "frontier"
CHANGES = {"gate.uniform": True}
LEVELS = {"uniform": None, "per-layer": "per-layer"}  # heads of a GPT-2 are zeros at the first
WIDTHS = range(64, 129, 4)  # of the small dense model, which has four heads
ROUNDS = 15  # of the latencies


class Subject:
    """The base, the rows and the sparse model of one recipe, ceiling and seed, with gates of some kinds."""

    def __init__(self, gates: str, recipe: str, ceiling: str, seed: int, work: Path) -> None:
        self.kinds, self.recipe, self.ceiling, self.seed, self.work = gates, recipe, ceiling, seed, work
        self.folder = work / "structure" / f"{gates}-{recipe}-{ceiling}-{seed}"
        self.base = source.base_model(work, GPT2_BASE_STEPS)
        data = source.data(work)
        self.train, self.report = data.train, split(data)[1].columns

    def gates(self) -> Row:
        """The run under the ceiling."""
        with quiet():
            outcome = sparse_gpt2(
                self.ceiling, self.seed, self.work, gates=self.kinds, recipe=self.recipe, changes=CHANGES
            )
        save(outcome.model, self.folder)
        model = load(self.folder, impl="eager")
        found = {"missed": outcome.missed, "best_step": outcome.step, "steps": outcome.steps}
        return {
            **found,
            **sizes(mask_of(model)),
            "left": left_of_blocks(model, self.base),
            **self.lost(model),
        }

    def checkpoints(self) -> Row:
        """What the run shrinks to at each level, proved, and how much faster that is than the base."""
        model = load(self.folder, impl="eager")
        small = {name: shrunk(model, level)[0] for name, level in LEVELS.items()}
        proofs = {
            name: require_same(model, one, self.report["input_ids"]).error for name, one in small.items()
        }
        times = latencies({"base": self.base, **small}, rounds=ROUNDS)
        return {
            name: {
                "multiply_adds": of_blocks(one) / of_blocks(self.base),
                "parameters": sum(x.numel() for x in one.parameters()),
                "error": proofs[name],
                **{f"faster_{what[:-3]}": times["base"][what] / times[name][what] for what in times[name]},
            }
            for name, one in small.items()
        }  # fmt: skip

    def mask(self) -> Mask:
        """The units that the run left."""
        return mask_of(load(self.folder, impl="eager"))

    def units_of_the_base(self, choose: Any) -> Mask:
        """As many units as the run left, chosen in the base."""
        model = copy.deepcopy(self.base)
        attach_missing(model, self.kinds.split(","), Options("eager", "logit"))
        return choose(model, self.mask())

    def masked(self, mask: Mask, *, steps: int) -> Row:
        """The base with units closed, finetuned to its own outputs for some steps."""
        shut = close if "heads" in mask else hold
        model = shut(copy.deepcopy(self.base).requires_grad_(True), mask)
        if steps:
            self.finetune(model, steps)
        return {"steps": steps, **sizes(mask), **self.lost(model)}

    def finetune(self, model: Any, steps: int) -> None:
        """The optimizer and the batches' size of the run, on the divergence from the base alone."""
        trained = [x for x in model.parameters() if x.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
        train_on_rows(
            model.train(), imitation(model, self.base), self.train.columns["input_ids"], optimizer,
            steps=steps, batch=BATCH, warmup=5, seed=self.seed, say_every=200,
        )  # fmt: skip

    def small_dense(self, steps: int, multiply_adds: float) -> Row:
        """The GPT-2 whose blocks cost what is left of the base's, trained on the text alone."""
        made = {n: self.dense(n) for n in WIDTHS}
        width = min(WIDTHS, key=lambda n: abs(of_blocks(made[n]) - multiply_adds * of_blocks(self.base)))
        set_seed(self.seed)
        model = self.dense(width)
        source.train_dense(model, self.train, GPT2_BASE_STEPS + steps * BATCH // 16)
        return {"width": width, "left": of_blocks(model) / of_blocks(self.base), **self.lost(model)}

    def dense(self, width: int) -> PreTrainedModel:
        """An untrained GPT-2 of the base's shape but for its width."""
        return GPT2LMHeadModel(GPT2Config(**{**source.model_config().to_diff_dict(), "n_embd": width}))

    def lost(self, model: Any) -> Row:
        """What a model loses on the rows that report."""
        found = compare(model, self.base, self.report)
        return {name: found[name] for name in ("loss", "delta_ce", "delta_ce_se", "kl", "kl_se", "agreement")}


def measure(rows: Rows, gates: str, recipe: str, ceiling: str, seed: int, work: Path) -> None:
    """Every arm of some kinds of gates, a recipe, ceiling and seed that the record lacks."""
    about: Row = {
        "gates": gates,
        "recipe": recipe,
        "ceiling": ceiling,
        "seed": seed,
        "torch": torch.__version__,
    }
    subject = Subject(gates, recipe, ceiling, seed, work)
    sparse = rows.of(about | {"arm": "gates"}, subject.gates)
    steps = sparse["steps"]
    arms = {
        "found, untrained": lambda: subject.masked(subject.mask(), steps=0),
        "magnitude, untrained": lambda: subject.masked(subject.units_of_the_base(largest), steps=0),
        "magnitude": lambda: subject.masked(subject.units_of_the_base(largest), steps=steps),
        "random": lambda: subject.masked(
            subject.units_of_the_base(lambda model, mask: random(model, mask, seed)), steps=steps
        ),
        "small dense": lambda: subject.small_dense(steps, sparse["left"]),
    }
    for arm, look in arms.items():
        found = rows.of(about | {"arm": arm}, look)
        print(f"{ceiling} seed {seed} {arm}: {found['delta_ce']:+.4f} nats", flush=True)
    rows.of(about | {"arm": "checkpoints"}, subject.checkpoints)


def main() -> None:
    """Make what the record lacks, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5])
    parser.add_argument("--ceilings", nargs="+", default=["kl=0.05"])
    parser.add_argument("--gates", default="heads,neurons")
    parser.add_argument("--recipe", default="structure")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(given.results / "language.json")
    for seed in given.seeds:
        for ceiling in given.ceilings:
            measure(rows, given.gates, given.recipe, ceiling, seed, given.work)
            write_text(given.results / "language.md", "\n".join(as_lines(rows.rows)) + "\n")


if __name__ == "__main__":
    main()
