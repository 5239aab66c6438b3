r"""Addition with gates on edges, heads and neurons, over seeds, beside what needs no gates on units.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.structure.addition --seeds 128 129 150 151 152 \
        --name addition_seeds_128-152

With `--config` all gates are in one run, as they were in the demo until 2026-11-28; the file has changes of the recipe
`addition_structure`, as `recipes/addition_70-74.yaml`. In the record of seeds 93 to 97 heads and neurons went first.
The arms of a seed share its base model:

    gates                   `gossamer demo --gates edges,heads,neurons --seed S --tries 1 --base-steps 700`, without
                            its pictures
    edges alone             `gossamer demo --seed S --tries 1 --base-steps 700`
    found, untrained        the units that the first arm closes, closed in the base; nothing trained
    magnitude, untrained    as many units of each layer, those with the largest weights
    magnitude, random       as many units of each layer, the largest or any, closed from the start; finetuned for as
                            many steps of as many sums on the divergence from the base; all edges stay
    small dense             another width, as many multiply-adds in its blocks, trained on the sums for the base's steps
                            and then for as many sums as the finetuning saw

Written to results/NAME.{json,md}, row by row; what the record has is not repeated. Multiply-adds are those of a
token in the blocks.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedModel, Trainer, set_seed

from benchmarks.experiments.tickets.masks import Mask, largest, mask_of, random, sizes
from benchmarks.lib.record import Progress, Row, Rows
from benchmarks.lib.training import imitation, train_on_rows
from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.files import read_yaml, write_text
from gossamer.gates.host import Options
from gossamer.models.anatomy import Anatomy
from gossamer.models.attach import attach_missing
from gossamer.models.checkpoint import load, load_dense, save
from gossamer.models.quiet import quiet
from gossamer.recipes.addition.outcome import read_outcome
from gossamer.recipes.addition.run import prove
from gossamer.recipes.addition.settings import ATTENTION_DROPOUT, BASE_BATCH, DemoSettings
from gossamer.recipes.addition.stages import make_models, rows, train_base
from gossamer.recipes.addition.task import Addition
from gossamer.training.base_model import without_dropout
from gossamer.training.presets import PRESETS
from gossamer.training.recipe import Recipe
from gossamer.training.sparsify import sparsify

from .addition_report import as_lines
from .cost import left_of_blocks, of_blocks

RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).parents[3] / "runs" / "structure"
TASK = Addition()
KINDS = ("heads", "neurons")
ONE: dict[str, Any] = {"tries": 1, "base_steps": 700}  # one seed, and a base as long as in the records
PROVED = ("sparse_exact", "same_row", "unseen_exact", "edges_mean", "precision", "recall")
WIDTHS = range(8, 65, 4)  # of the small dense model, which has four heads


class Subject:
    """The base model of a seed, its sums, and the arms."""

    def __init__(self, seed: int, work: Path, changes: dict[str, Any] | None = None) -> None:
        self.together = (
            None if changes is None else PRESETS["addition_structure"].recipe.with_settings(changes)
        )
        self.seed, self.folder, self.settings = seed, work / f"seed{seed}", DemoSettings(seed=seed, **ONE)
        if not (self.folder / "base" / "config.json").is_file():
            train_base(TASK, self.settings, self.folder, Console(stderr=True, quiet=True))
        self.base = load_dense(self.folder / "base")
        without_dropout(self.base)
        self.train, held_out = TASK.split(seed)
        self.choosing = torch.cat([self.train, held_out[: len(held_out) // 2]])

    def gates(self) -> Row:
        """The demo with gates on heads and neurons; its model is kept for the other arms."""
        if self.together is None:
            settings = DemoSettings(seed=self.seed, gates=",".join(("edges", *KINDS)), **ONE)
            with quiet():
                _, model = make_models(TASK, settings, self.folder, Console(stderr=True, quiet=True))
            run = read_outcome(self.folder)
            found = self.proved(settings, model, run) | {"seconds": run["seconds"]}
        else:
            model = copy.deepcopy(self.base)
            found = self.sparse(model, ",".join(("edges", *KINDS)), self.together)
            save(model, self.folder / "sparse")
        model = load(self.folder / "sparse", impl="eager")
        return {**found, **sizes(mask_of(model)), "multiply_adds": left_of_blocks(model, self.base)}

    def sparse(self, model: PreTrainedModel, gates: str, recipe: Recipe) -> Row:
        """Sparsify a model to the base's own outputs, and prove it on all sums."""
        settings = DemoSettings(seed=self.seed, recipe=recipe, **ONE)
        config = settings.sparsity(self.folder / "work")
        config.gates = gates  # in one run
        with quiet():
            outcome = sparsify(
                model.requires_grad_(True),
                rows(TASK, self.base, self.train),
                rows(TASK, self.base, self.choosing),
                config,
                base=self.base,
                data_collator=collate_rows,
            )
        run: Row = {"feasible": outcome.feasible, "missed": outcome.missed, "steps": outcome.steps,
               "best_step": outcome.step, "seconds": {}, "ended": outcome.ended,
               "chosen_on": outcome.metrics}  # fmt: skip
        return self.proved(settings, outcome.model.eval(), run)

    def proved(self, settings: DemoSettings, model: PreTrainedModel, run: Row) -> Row:
        """What a run came to, and its model on all sums."""
        proof = prove(TASK, settings, self.base, model, run).proof
        return {
            **{name: run[name] for name in ("feasible", "missed", "best_step", "steps")},
            **{name: proof[name] for name in PROVED},
        }

    def mask(self) -> Mask:
        """The heads and neurons that the first arm left."""
        return mask_of(load(self.folder / "sparse", impl="eager"))

    def units_of_the_base(self, choose: Callable[[Any, Mask], Mask]) -> Mask:
        """As many heads and neurons as the first arm left, chosen in the base."""
        model = copy.deepcopy(self.base)
        attach_missing(model, KINDS, Options("eager", "logit"))
        return choose(model, self.mask())

    def untrained(self, mask: Mask) -> Row:
        """The base with units closed."""
        return {**sizes(mask), "sparse_exact": exact(close(copy.deepcopy(self.base), mask))}

    def closed(self, mask: Mask, steps: int) -> Row:
        """The base with units closed from the start, finetuned to the base's outputs; nothing else closes."""
        model = close(copy.deepcopy(self.base), mask).requires_grad_(True)
        given = self.settings.sparsity(self.folder / "work")
        betas = (given.adam_beta1, given.adam_beta2)
        train_on_rows(
            model.train(), imitation(model, self.base), TASK.encode(self.train)[0],
            torch.optim.AdamW(model.parameters(), lr=given.learning_rate, betas=betas, weight_decay=0.0),
            steps=steps, batch=self.settings.batch_size, warmup=int(given.warmup_steps), seed=self.seed, say_every=500,
        )  # fmt: skip
        return {**sizes(mask), "steps": steps, "sparse_exact": exact(model.eval())}

    def small_dense(self, steps: int, multiply_adds: float) -> Row:
        """The BERT whose blocks cost what is left of the base's, trained on the sums alone."""
        whole = of_blocks(self.base)
        width = min(WIDTHS, key=lambda n: abs(of_blocks(self.dense(n)) - multiply_adds * whole))
        steps = (self.settings.base_steps or 0) + steps * self.settings.batch_size // BASE_BATCH
        arguments = DemoSettings(seed=self.seed, base_steps=steps).base(self.folder / "work" / "small")
        inputs, labels = TASK.encode(self.train)
        data, collate = TensorRows(input_ids=inputs, labels=labels), cast(Any, collate_rows)
        model = self.dense(width)
        with quiet():
            Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate).train()
        return {"width": width, "multiply_adds": of_blocks(model) / whole, "steps": steps,
                "sparse_exact": exact(model.eval())}  # fmt: skip

    def dense(self, width: int) -> BertForMaskedLM:
        """An untrained BERT of the base's shape but for its width, as the demo draws it."""
        set_seed(self.seed)
        return BertForMaskedLM(TASK.model_config(width=width, attention_dropout=ATTENTION_DROPOUT))


def close(model: Any, mask: Mask) -> Any:
    """Give the matrices that read heads and neurons zeros for the closed ones, so that nothing of them is learned."""
    for layer in Anatomy.of(model):
        for kind, reader in (("heads", layer.o), ("neurons", layer.mlp.out)):
            z = mask[kind][layer.number]
            shut = z.repeat_interleave(reader.width)
            reader.module.register_forward_pre_hook(lambda _, given, shut=shut: (given[0] * shut,))
    return model


@torch.no_grad()
def exact(model: Any) -> int:
    """How many of all sums a model gets right in every token."""
    inputs, labels = TASK.encode(torch.arange(TASK.n_sums))
    outputs: list[Tensor] = [model(input_ids=ids).logits.argmax(-1) for ids in inputs.split(1000)]
    return int((torch.cat(outputs) == labels).all(1).sum())


ARMS = (
    "gates",
    "edges alone",
    "found, untrained",
    "magnitude, untrained",
    "magnitude",
    "small dense",
    "random",
)


def measure(found: Rows, subject: Subject, progress: Progress, arms: Sequence[str] = ARMS) -> None:
    """Every arm of a seed that is asked for and that the record lacks; the gates' in any case."""
    seed = subject.seed
    about: Row = {"seed": seed, "torch": torch.__version__}

    def arm(name: str, look: Callable[[], Row]) -> Row:
        key = about | {"arm": name}
        if name not in arms:
            return {}
        lacked, row = found.lacks(key), found.of(key, look)
        if lacked:
            progress.say(
                f"seed {seed} {name}", {one: row[one] for one in ("sparse_exact", "edges_mean") if one in row}
            )
        return row

    arms = ("gates", *arms)
    sparse = arm("gates", subject.gates)
    arm("edges alone", lambda: subject.sparse(copy.deepcopy(subject.base), "edges", subject.settings.recipe))
    arm("found, untrained", lambda: subject.untrained(subject.mask()))
    arm("magnitude, untrained", lambda: subject.untrained(subject.units_of_the_base(largest)))
    arm("magnitude", lambda: subject.closed(subject.units_of_the_base(largest), sparse["steps"]))
    arm("small dense", lambda: subject.small_dense(sparse["steps"], sparse["multiply_adds"]))
    drawn = partial(random, seed=seed)
    arm("random", lambda: subject.closed(subject.units_of_the_base(drawn), sparse["steps"]))


def main() -> None:
    """Make what the record lacks, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", default="addition")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[128, 129, 150, 151, 152])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    changes = read_yaml(given.config) if given.config else None
    found = Rows(given.results / f"{given.name}.json")
    arms = {"gates", *given.arms}
    progress = Progress(len(arms) * len(given.seeds), given.seeds, found, arms)
    for seed in given.seeds:
        measure(found, Subject(seed, given.work, changes), progress, given.arms)
        write_text(given.results / f"{given.name}.md", "\n".join(as_lines(found.rows)) + "\n")


if __name__ == "__main__":
    main()
