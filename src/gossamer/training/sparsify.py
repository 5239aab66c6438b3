"""One call: a model, its data and a ceiling in; the sparsest model that was seen to hold the ceiling out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_callback import PrinterCallback

from .calibrate import Start
from .config import SparsityConfig
from .ending import why_it_ended
from .last_cut import cut_once_more, leave_autocast
from .progress import Watching
from .resume import last_checkpoint
from .trainer import SparsityTrainer


@dataclass(frozen=True)
class Outcome:
    """What a sparsifying run left.

    Attributes:
        model: the best checkpoint, with its gates on: the sparsest one that held the ceiling when it was evaluated. At
            step 0 that is the untrained model (`training/start.py`), so that only a ceiling on the loss can leave one
            that misses it.
        feasible: whether the best checkpoint holds the ceiling and the agreement asked for, on the evaluation data.
        metrics: its evaluation, names without prefix, as in `gossamer.training.metrics`.
        per_group: kind of gate -> hard open units per row, [layer][group]; for edges a group is a head.
        step, steps: when the best checkpoint was seen, and how long the run was.
        history: everything that was logged.
        starts: where training could have started, by what gates could read; they read the first. Empty where
            nothing was measured.
        ended: why the run ended, in words, with its steps.
        missed: one line on what was missed, and by how much; empty if feasible.
        trainer: the finished trainer, to evaluate the best checkpoint on other data.
    """

    model: PreTrainedModel
    feasible: bool
    metrics: dict[str, float]
    per_group: dict[str, list[list[float]]]
    step: int
    steps: int
    history: list[dict[str, Any]]
    starts: dict[str, Start]
    missed: str
    ended: str
    trainer: SparsityTrainer = field(repr=False)


def sparsify(
    model: PreTrainedModel,
    train_dataset: Any,
    eval_dataset: Any,
    config: SparsityConfig,
    *,
    base: nn.Module | None = None,
    resume: bool = False,
    **trainer_options: Any,
) -> Outcome:
    """Finetune `model` until few units of each kind of gate are open and what it lost stays under `config.ceiling`.

    Args:
        model: a transformers model; it is changed in place, and its dropout turned off with a warning.
        train_dataset, eval_dataset: batches with input_ids, and attention_mask and labels where there are any.
        config: every setting of the run.
        base: the frozen model to compare with; by default a copy of `model` as it comes in.
        resume: continue from the last checkpoint in `config.output_dir`, if there is one.
        trainer_options: passed to `SparsityTrainer` (data_collator, processing_class, callbacks ...).
    Raises: as `SparsityTrainer`. A missed ceiling is told in the outcome, not raised.
    """
    trainer = SparsityTrainer(
        model, config, base=base, train_dataset=train_dataset, eval_dataset=eval_dataset, **trainer_options
    )
    if trainer_options.get("callbacks"):
        for callback in trainer_options["callbacks"]:
            if isinstance(callback, Watching):
                callback.watching(trainer)
        trainer.remove_callback(PrinterCallback)  # whoever brings callbacks shows progress in their own way
    checkpoint = last_checkpoint(str(config.output_dir)) if resume else None
    trainer.train(resume_from_checkpoint=checkpoint)
    leave_autocast(trainer)
    trainer.last_cut = cut_once_more(trainer)
    return outcome(trainer)


def outcome(trainer: SparsityTrainer) -> Outcome:
    """Evaluate the model that a finished trainer kept, and say what it is."""
    found = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    missed, kept = violation_message(trainer, found), trainer.state.best_global_step
    return Outcome(
        model=trainer.accelerator.unwrap_model(trainer.model),
        feasible=not missed,
        metrics=found,
        per_group={kind: trainer.tally.per_group(kind) for kind in trainer.tally.kinds()},
        step=trainer.state.global_step if kept is None else kept,
        steps=trainer.state.global_step,
        history=list(trainer.state.log_history),
        starts=dict(sorted(trainer.starts.items(), key=lambda one: one[0] != trainer.gates.reads)),
        missed=missed,
        ended=why_it_ended(trainer),
        trainer=trainer,
    )


def violation_message(trainer: SparsityTrainer, found: dict[str, float]) -> str:
    """One line on what held-out numbers miss of the ceiling and the agreement asked for; empty if nothing."""
    parts = []
    ceiling, divergence = trainer.ceiling, found["divergence"]
    if divergence > ceiling.value:
        over = divergence - ceiling.value
        parts.append(f"the ceiling {ceiling} is missed by {over:.3g} ({divergence:.3g} on held-out data)")
    agreement, wanted = found.get("agreement", 1.0), trainer.args.min_agreement
    if agreement < wanted:
        parts.append(f"agreement is {agreement:.6g} where {wanted:g} was asked for")
    return "; ".join(parts)
