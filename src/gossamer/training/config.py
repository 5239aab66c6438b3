"""Every setting of a sparsifying run: `SparsityConfig`, a `transformers.TrainingArguments`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from ..errors import GossamerError, refuse, require_choice
from ..gates.host import Options
from ..gates.kinds import kinds
from ..gates.learned import LearnedGates
from ..gates.reads import CONTRIBUTION
from .arguments import require_arguments, require_kinds, require_makeable
from .constraint import Ceiling
from .presets import DEFAULT, recipe_of
from .recipe import SETTINGS, Recipe, split_settings, unknown_setting

# Recomputing activations in backward: the new name in transformers, and the one that goes away in its v6.
NAMES = ("activation_checkpointing", "gradient_checkpointing")
CHECKPOINTING = next(name for name in NAMES if name in TrainingArguments.__dataclass_fields__)


@dataclass
class SparsityConfig(TrainingArguments):
    """`TrainingArguments` plus what sparsity-regularised finetuning adds; one dial matters, the ceiling.

    Fields of ours are explained once, in their `help`. Changed defaults of transformers: evaluation and saving go by
    steps, the best model under the ceiling is what is left at the end, and nothing is reported to a service.
    Raises: `GossamerError` for settings that contradict each other.
    """

    ceiling: Ceiling = field(  # or its text
        default=Ceiling("kl", 0.01),
        metadata={
            "help": "Maximum divergence from the base model on held-out data, as KIND=VALUE: kl (nats per token), "
            "delta_ce (increase in cross-entropy), loss (cross-entropy), cosine (embedding distance), pairwise (change "
            "of similarities), fvu (change of scores), the last two over the base's variance. Example: kl=0.02."
        },
    )
    min_agreement: float = field(
        default=0.0,
        metadata={"help": "Minimum share of held-out tokens whose top-1 answer is the base model's, 0 to 1."},
    )
    gates: str | list[str] = field(
        default="edges",
        metadata={
            "help": "Kinds of gates, a list or separated by commas: edges, heads, neurons, weights. Those that the "
            "model lacks are added, open; those that it has and that are not named stay as they are."
        },
    )
    recipe: Recipe = field(  # or the name of a preset, or a nested dict
        default=DEFAULT,
        metadata={
            "help": "How the run moves: a Recipe, the name of a preset (gossamer recipes), or a nested dict."
        },
    )
    max_minutes: float = field(
        default=0.0,
        metadata={
            "help": "Minutes that training may take, 0 for as long as its steps take; the recipe is fitted to them."
        },
    )
    pooling: str = field(
        default="",
        metadata={
            "help": "How a sentence encoder pools: mean, cls, max, lasttoken ...; by default as its folder says."
        },
    )
    impl: str = field(
        default="auto", metadata={"help": "Implementation of gated attention, or auto by device."}
    )

    eval_strategy: str = field(
        default="steps", metadata={"help": "Evaluate by steps: the best model is kept."}
    )  # type: ignore[assignment]
    eval_steps: float | None = field(default=100, metadata={"help": "Optimizer steps between evaluations."})
    save_steps: float = field(default=100, metadata={"help": "Optimizer steps between checkpoints."})
    save_total_limit: int | None = field(
        default=3, metadata={"help": "Checkpoints kept: the best and the last two."}
    )
    load_best_model_at_end: bool | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Leave the best model, not the last; by default where a run evaluates and saves."},
    )
    report_to: str | list[str] | None = field(default="none", metadata={"help": "Trackers; none by default."})

    def __post_init__(self) -> None:
        self.ceiling, self.recipe = Ceiling.of(self.ceiling), recipe_of(self.recipe)
        require_arguments(self)
        self._choose_best()
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        self._refuse_reentrant()
        super().__post_init__()
        require_makeable(self)
        self.gates = ",".join(kinds_in(self.gates))
        if self.recipe.gate.uniform and not any(kinds()[kind].can_be_uniform for kind in self.gate_kinds):
            raise refuse(f"gate.uniform with gates={self.gates}", "gates on heads or neurons, which have counts",
                         "add one of them to gates, or leave it out")  # fmt: skip

    def _choose_best(self) -> None:
        """Let the score choose the best model: by another metric a run could end outside its ceiling."""
        if self.load_best_model_at_end is None:
            self.load_best_model_at_end = self.eval_strategy != "no" and self.save_strategy != "no"
        for name, possible in (
            ("metric_for_best_model", (None, "score", "eval_score")),
            ("greater_is_better", (None, False)),
        ):
            if getattr(self, name) not in possible:
                raise refuse(
                    f"{name}={getattr(self, name)!r}",
                    "the score, the open share under the ceiling, of which less is better",
                    "leave it out; compute_metrics reports what else you measure",
                )
        if self.load_best_model_at_end:
            self.metric_for_best_model, self.greater_is_better = "score", False

    @property
    def gate_kinds(self) -> tuple[str, ...]:
        """The kinds in `gates`."""
        return kinds_in(self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the Trainer writes them to logs and trackers."""
        ours = {"ceiling": str(self.ceiling), "recipe": Recipe.as_dict(recipe_of(self.recipe))}
        return super().to_dict() | ours

    def _refuse_reentrant(self) -> None:
        """Make `use_reentrant=False` explicit, for an empty dict falls back to torch's reentrant default.

        The option has an old and a new name in transformers, each with arguments of its own; both are read.
        """
        new, old = (getattr(self, name, None) for name in NAMES)
        if not (old if new is None else new):
            return
        given: dict[str, Any] = {}
        for name in reversed(NAMES):
            arguments = getattr(self, f"{name}_kwargs", None) or {}
            given |= json.loads(arguments) if isinstance(arguments, str) else arguments
        if given.get("use_reentrant", False):
            raise refuse(
                "reentrant gradient checkpointing, which drops the penalty's gradient without a word",
                "use_reentrant=False",
                f"set {CHECKPOINTING}_kwargs={{'use_reentrant': False}}",
            )
        setattr(self, CHECKPOINTING, True)
        setattr(self, f"{CHECKPOINTING}_kwargs", {**given, "use_reentrant": False})


def kinds_in(gates: str | Iterable[str]) -> tuple[str, ...]:
    """The kinds of gates that a text or a list names, each once, in the order of their names.

    Raises: `GossamerError` for one that is not known, and for none.
    """
    names = gates.split(",") if isinstance(gates, str) else gates
    if isinstance(gates, bool | int | float | None):
        raise refuse(f"gates={gates!r}", "kinds, separated by commas", "pass for example edges")
    found = tuple(sorted({str(name).strip() for name in names}))
    for kind in found or ("",):
        require_choice("gates", kind, kinds())
    return found


def gate_options(config: SparsityConfig, impl: str) -> Options:
    """What a run asks of its gates: units that can go by their contribution do, unless the recipe has a reading, or a
    bias, which is one of a reading.

    Args:
        impl: implementation of gated attention.
    """
    gate, known = config.recipe.gate, kinds()
    unsaid = gate.reads is None and gate.bias is None
    measured = unsaid and any(CONTRIBUTION in known[kind].readings for kind in config.gate_kinds)
    return Options(impl, CONTRIBUTION if measured else gate.reads, gate.uniform)


def _learns(config: SparsityConfig) -> bool:
    """Whether the gates of a run on a dense model have logits of their own that are trained."""
    options, known = gate_options(config, "eager"), kinds()
    return any(
        isinstance(one, LearnedGates) and one.learns
        for one in (known[x].made(options) for x in config.gate_kinds)
    )


def configured(given: dict[str, Any], settings: dict[str, Any]) -> SparsityConfig:
    """`SparsityConfig(**given)` with `settings` over it, which come from a person.

    Args:
        settings: fields of `SparsityConfig`, and settings of the recipe, as `control.kp`.
    Raises: `GossamerError` for a name that is neither, and for a value that it cannot take.
    """
    of_recipe, settings = split_settings(settings)
    known = [entry.name for entry in fields(SparsityConfig)]
    for name in settings:
        if name not in known:
            raise unknown_setting(name, [*SETTINGS, *known])
    require_kinds(SparsityConfig, settings)
    whole = {**given, **settings}
    recipe = recipe_of(whole.get("recipe", DEFAULT))
    whole["recipe"] = recipe.with_settings(of_recipe)
    try:
        made = SparsityConfig(**whole)
        if made.recipe.gate.learning_rate != recipe.gate.learning_rate and not _learns(made):
            raise refuse(f"gate.learning_rate with gates={made.gates}, which learn no logit here",
                         "gates on weights, or heads and neurons with gate.reads=logit", "leave it out")  # fmt: skip
        return made
    except GossamerError:
        raise
    except (
        TypeError,
        ValueError,
        ImportError,
    ) as error:  # what TrainingArguments says of values it cannot take
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise refuse(f"settings that cannot be taken ({message})", "values of the right kind",
                     "check what follows --set") from error  # fmt: skip
