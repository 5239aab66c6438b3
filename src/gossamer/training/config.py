"""Every setting of a sparsifying run: `SparsityConfig`, a `transformers.TrainingArguments`."""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from ..errors import GossamerError, refuse, require_range
from .constraint import Ceiling, Multiplier
from .schedule import Schedule, between

# Recomputing activations in backward: the new name in transformers, and the one that goes away in its v6.
NAMES = ("activation_checkpointing", "gradient_checkpointing")
CHECKPOINTING = next(name for name in NAMES if name in TrainingArguments.__dataclass_fields__)

# Fields that may be None, and are numbers where they are not.
NUMBERS = ("gate_bias", "tight_min_multiplier", "tight_max_multiplier")
OPEN_START = (
    4.0  # nats; sigma(4) = 0.98, so nearly all gates are open (worked on addition; assumed elsewhere)
)


@dataclass
class SparsityConfig(TrainingArguments):
    """`TrainingArguments` plus what sparsity-regularised finetuning adds; one dial matters, the ceiling.

    Fields of ours are explained once, in their `help`. Changed defaults of transformers: evaluation and saving go by
    steps, the best model under the ceiling is what is left at the end, and nothing is reported to a service.
    Raises: `GossamerError` for settings that contradict each other.
    """

    ceiling: str = field(
        default="kl=0.01",
        metadata={
            "help": "What may be lost, as kind=value: kl, gap or cosine against the base model, or loss."
        },
    )
    min_agreement: float = field(
        default=0.0,
        metadata={"help": "Share of held-out tokens whose top-1 answer must be the base model's, 0 to 1."},
    )
    gate_bias: float | None = field(
        default=None,
        metadata={
            "help": "The gate bias c when training starts, in nats, below 0 for closed gates; it ends at 0. By default "
            "4 for open gates, and a gated model's own."
        },
    )
    bias_anneal: float = field(default=0.05, metadata={"help": "Share of the run over which c goes to 0."})
    bias_pace: str = field(
        default="feasible",
        metadata={
            "help": "Lower c while the ceiling holds (feasible), always (clock), or raise it again too (breathe)."
        },
    )
    loose: float = field(
        default=1.0, metadata={"help": "How many times the ceiling is allowed early in the run."}
    )
    tighten_from: float = field(
        default=0.6, metadata={"help": "Share of the run from which the ceiling tightens."}
    )
    tighten_until: float = field(
        default=0.9, metadata={"help": "Share of the run from which it is the one asked for."}
    )
    tighten_pace: str = field(
        default="feasible",
        metadata={
            "help": "Tighten while the present ceiling holds (feasible), slower if not (creep), or always (clock)."
        },
    )
    regrow: float = field(
        default=0.0,
        metadata={
            "help": "Gate bias from tighten_from on, falling to 0 as the ceiling tightens; 0 for none."
        },
    )
    depth_price: float = field(
        default=0.0,
        metadata={"help": "How much dearer an open edge is per layer, falling to 0 as the ceiling tightens."},
    )
    settle_from: float = field(
        default=1.0, metadata={"help": "Share of the run from which lambda may only rise, for a calm end."}
    )
    noise_until: float = field(
        default=1.0,
        metadata={"help": "Share of the run until which gates are sampled; deterministic afterwards."},
    )
    dual_rate: float = field(default=0.05, metadata={"help": "Largest change of log lambda in one step."})
    dual_decay: float = field(
        default=0.9, metadata={"help": "Decay of the moving average of the divergence."}
    )
    dual_gain: float = field(
        default=0.0, metadata={"help": "Proportional part of log lambda: its share of the present excess."}
    )
    initial_multiplier: float = field(
        default=1.0,
        metadata={"help": "lambda at the start; high where a pretrained model may not lose much at first."},
    )
    min_multiplier: float = field(
        default=1e-3,
        metadata={
            "help": "Where lambda is clamped from below: no edge goes that is worth its price at this rate."
        },
    )
    max_multiplier: float = field(default=1e4, metadata={"help": "Where lambda is clamped from above."})
    tight_min_multiplier: float | None = field(
        default=None, metadata={"help": "What min_multiplier has become when the ceiling is tight."}
    )
    tight_max_multiplier: float | None = field(
        default=None, metadata={"help": "What max_multiplier is from the moment when the ceiling is tight."}
    )
    logit_limit: float = field(
        default=8.0,
        metadata={"help": "How large an attention logit may be before it is pulled back, in nats."},
    )
    logit_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the mean squared excess over logit_limit; 0 leaves logits alone."},
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
        default=2, metadata={"help": "Checkpoints kept: the best and the last."}
    )
    report_to: str | list[str] | None = field(default="none", metadata={"help": "Trackers; none by default."})

    def __post_init__(self) -> None:
        if self.eval_strategy != "no" and self.save_strategy != "no":
            self.load_best_model_at_end = True
            self.metric_for_best_model = "score"
            self.greater_is_better = False
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        self._refuse_reentrant()
        super().__post_init__()
        require_range("min_agreement", self.min_agreement, 0.0, 1.0)
        for name in ("min_multiplier", "max_multiplier"):
            if (tight := getattr(self, f"tight_{name}")) is not None:
                require_range(f"tight_{name}", min(tight, getattr(self, name)), 1e-9, 1e9)
        require_range("logit_limit", self.logit_limit, 1.0, 1e3)
        require_range("logit_weight", self.logit_weight, 0.0, 1e3)
        Ceiling.parse(self.ceiling)
        self.schedule(steps=1)
        self._check_clamps()

    def _check_clamps(self) -> None:
        """Refuse clamps of lambda that cross, under the loose ceiling or under the tight one."""
        for tightened in (0.0, 1.0):
            self.bound(multiplier := self.multiplier(), tightened)
            require_range("max_multiplier", multiplier.high, multiplier.low, 1e9)

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
                "possible: use_reentrant=False",
                f"set {CHECKPOINTING}_kwargs={{'use_reentrant': False}}",
            )
        setattr(self, CHECKPOINTING, True)
        setattr(self, f"{CHECKPOINTING}_kwargs", {**given, "use_reentrant": False})

    def starting_bias(self, own: float) -> float:
        """The gate bias when training starts, of a model whose bias is `own` (+inf where its gates are open)."""
        if self.gate_bias is not None:
            return self.gate_bias
        return own if math.isfinite(own) else OPEN_START

    def schedule(self, steps: int, bias: float = OPEN_START) -> Schedule:
        """The run's schedule over `steps` optimizer steps, from a gate bias as `starting_bias` has it."""
        return Schedule(
            steps=steps,
            bias=bias,
            anneal=self.bias_anneal,
            pace=self.bias_pace,
            loose=self.loose,
            tighten_from=self.tighten_from,
            tighten_until=self.tighten_until,
            tighten_pace=self.tighten_pace,
            settle_from=self.settle_from,
            noise_until=self.noise_until,
            regrow=self.regrow,
            depth_price=self.depth_price,
        )

    def bound(self, multiplier: Multiplier, tightened: float) -> None:
        """Give lambda the clamps that it has when the ceiling is tightened this far, in [0, 1]."""
        multiplier.low = between(self.min_multiplier, self.tight_min_multiplier, tightened)
        tight = tightened >= 1 and self.tight_max_multiplier is not None
        multiplier.high = self.tight_max_multiplier if tight else self.max_multiplier  # type: ignore[assignment]

    def multiplier(self) -> Multiplier:
        """A fresh multiplier, at `initial_multiplier`."""
        return Multiplier(
            rate=self.dual_rate,
            gain=self.dual_gain,
            decay=self.dual_decay,
            low=self.min_multiplier,
            high=self.max_multiplier,
        ).starting_at(self.initial_multiplier)


def configured(given: dict[str, Any], settings: dict[str, Any]) -> SparsityConfig:
    """`SparsityConfig(**given)` with `settings` over it, which come from a person.

    Raises: `GossamerError` for a name that is no field, and for a value that its field cannot take.
    """
    known = {entry.name: entry.default for entry in fields(SparsityConfig)}
    for name, value in settings.items():
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known)) or "the fields of SparsityConfig"
            raise refuse(f"no setting {name!r}", f"possible: {near}", "check the name after --set")
        if isinstance(value, str) and (isinstance(known[name], int | float) or name in NUMBERS):
            raise refuse(f"{name}={value!r}", "possible: a number, true or false", "check what follows --set")
    try:
        return SparsityConfig(**{**given, **settings})
    except GossamerError:
        raise
    except (
        TypeError,
        ValueError,
        ImportError,
    ) as error:  # what TrainingArguments says of values it cannot take
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise refuse(f"settings that cannot be taken ({told})", "possible: values of the right kind",
                     "check what follows --set") from error  # fmt: skip
