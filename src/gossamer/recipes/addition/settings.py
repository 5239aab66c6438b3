"""The settings of the demo: every number of both trainings, in one place.

Where the numbers come from is in LOG.md (2026-11-22, 2026-11-24, 2026-11-27). In one sentence: a base that learnt under
attention dropout, gates that start closed, a ceiling so loose that the carry is given up and a price by which digits
are read in the first layer, and then, while the ceiling tightens, edges that grow back one by one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ...errors import refuse, require_range
from ...gates.edges import EdgeGates
from ...gates.kinds import kinds
from ...gates.neurons import NeuronGates
from ...training.config import SparsityConfig, kinds_in
from ...training.constraint import Ceiling
from ...training.presets import PRESETS
from ...training.recipe import Recipe
from .look import LOOK
from .task import MOST_CHECKED, Addition

# BERT's own default, on attention weights alone. Without it the tens slot of three bases in five reads the carry off
# the hundreds slot, and a sparse model keeps the wiring that its base has (measured by cutting base edges, LOG.md).
ATTENTION_DROPOUT = 0.1
BASE_BATCH = 256
# By digits. For two, 450 left one base of nine wrong on a sum, and 500 none of 48; a look finds it out (LOG.md).
# For three, 700 left 1 % of the sums wrong (LOG.md), and 2,000 are assumed.
BASE_STEPS = {1: 700, 2: 500, 3: 2000}


SEEDS = 2**31  # how many seeds there are
TRIES = 4  # by default, for gates on edges; two go on


@dataclass(frozen=True)
class DemoSettings:
    """What a demo run is: with the machine's arithmetic, these determine its result."""

    seed: int = 0
    digits: int = 2
    base_steps: int | None = (
        None  # by default as many as the digits need, which is what the settings then say
    )
    steps: int = 7000  # at most; a run is done when it has settled, mostly at less than half of them
    ceiling: Ceiling = Ceiling("kl", 0.0004)
    gates: str = "edges"
    batch_size: int = 64
    recipe: Recipe = PRESETS["addition"].recipe
    # With gates on heads or neurons two runs come before: one on edges, and one on edges and units.
    first: Recipe = PRESETS["addition_few_heads"].recipe
    units: Recipe = PRESETS["addition_units"].recipe
    tries: int | None = None  # seeds that are begun, of which the better half goes on and the best is kept
    restarts: int = 1  # seeds more, one after the other, where nothing that was trained held the ceiling

    def __post_init__(self) -> None:
        Addition(self.digits)
        base_steps = BASE_STEPS[self.digits] if self.base_steps is None else self.base_steps
        object.__setattr__(self, "base_steps", base_steps)
        # A look counts edges, which tell nothing of gates that close beside them.
        edges_first = self._run(self.first_stage)[1] == [EdgeGates.kind]
        tries = self.tries if self.tries is not None else TRIES if edges_first else 1
        object.__setattr__(self, "tries", tries)
        require_range("seed", self.seed, 0, SEEDS)
        require_range("tries", tries, 1, 100)
        require_range("restarts", self.restarts, 0, 100)
        require_range("base_steps", base_steps, 1, 10**7)
        require_range("steps", self.steps, 1, 10**7)
        if EdgeGates.kind not in kinds_in(self.gates):
            raise refuse(
                f"gates={self.gates} in a demo, whose proof lists every open edge of every sum",
                "edges among them",
                f"pass --gates edges,{self.gates}",
            )
        if NeuronGates.kind in kinds_in(self.gates) and Addition(self.digits).n_sums > MOST_CHECKED:
            raise refuse(
                f"gates={self.gates} with {self.digits} digits, where the proof closes each neuron on every sum",
                f"at most {MOST_CHECKED:,} sums",
                "pass --digits 2, or leave neurons out",
            )
        if earlier := set(self.unit_kinds) & set(self.recipe.gate.shares() or ()):
            raise refuse(
                f"gate.price of {', '.join(sorted(earlier))}, which go in a run before that of this recipe",
                "prices of the other kinds",
                "write units: {gate: {price: ...}} in a --config",
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as config.yaml and report.json hold them."""
        recipes = {name: getattr(self, name).as_dict() for name in ("recipe", "first", "units")}
        return {**asdict(self), "ceiling": str(self.ceiling), **recipes}

    @property
    def unit_kinds(self) -> tuple[str, ...]:
        """The kinds of gates that go before the last run: those on heads and neurons."""
        return tuple(kind for kind in kinds_in(self.gates) if kinds()[kind].can_be_uniform)

    @property
    def first_stage(self) -> str:
        """The run that begins with the base model, by the name of what it leaves."""
        return "edges" if self.unit_kinds else "sparse"

    @property
    def look_step(self) -> int:
        """The step at which tries that have begun are compared."""
        return max(1, round(LOOK * self.steps))

    def _run(self, stage: str) -> tuple[Recipe, list[str]]:
        """Recipe of a run, and its kinds of gates."""
        edges, units = [EdgeGates.kind], list(self.unit_kinds)
        last = [kind for kind in kinds_in(self.gates) if kind not in units]
        runs = {
            "edges": (self.first, edges),
            "units": (self.units, edges + units),
            "sparse": (self.recipe, last),
        }
        return runs[stage]

    def base(self, folder: Path) -> TrainingArguments:
        """The plain Trainer's arguments for the dense model."""
        assert self.base_steps is not None
        return TrainingArguments(
            output_dir=str(folder),
            max_steps=self.base_steps,
            per_device_train_batch_size=BASE_BATCH,
            learning_rate=2e-3,
            lr_scheduler_type="warmup_stable_decay",
            lr_scheduler_kwargs={"num_decay_steps": int(0.3 * self.base_steps), "decay_type": "linear"},
            warmup_steps=min(50, self.base_steps // 10),
            weight_decay=0.01,
            seed=self.seed,
            save_steps=max(1, self.base_steps // 4),
            save_total_limit=1,
            logging_steps=10,
            disable_tqdm=True,
            report_to="none",
            dataloader_pin_memory=False,
            remove_unused_columns=False,
        )

    def sparsity(self, folder: Path, stage: str = "sparse") -> SparsityConfig:
        """The recipe for addition; where each number comes from is in LOG.md.

        Args:
            stage: which run, by the name of what it leaves: sparse, or edges or units before it.
        """
        recipe, gates = self._run(stage)
        return SparsityConfig(
            output_dir=str(folder),
            max_steps=self.steps,
            ceiling=self.ceiling,
            gates=",".join(gates),
            min_agreement=1.0,
            recipe=recipe,
            learning_rate=1e-3,
            lr_scheduler_type="constant_with_warmup",  # from there the recipe lets it fall, with the ceiling
            warmup_steps=min(50, self.steps // 10),
            weight_decay=0.0,
            max_grad_norm=0.05,
            adam_beta2=0.99,
            per_device_train_batch_size=self.batch_size,
            per_device_eval_batch_size=1024,
            impl="blockwise",
            seed=self.seed,
            eval_steps=_every(self.steps),
            eval_delay=recipe.ceiling.tighten_until * self.steps,  # nothing is worth keeping before
            save_steps=_every(self.steps),
            logging_steps=min(10, max(1, self.look_step // 4)),
            disable_tqdm=True,
            remove_unused_columns=False,  # its wrapper would take a ready batch apart again
        )


def _every(steps: int) -> int:
    """Steps between evaluations: about thirty in a run, so that the best moment is not missed."""
    return max(1, steps // 30)
