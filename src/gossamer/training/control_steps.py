"""When the trainer's controller moves, in the Trainer's loop: its start, its steps, its verdicts and its budget."""

from __future__ import annotations

from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from .distributed import require_agreement
from .start import begin_inside, price_kinds


class ControlSteps(TrainerCallback):
    """Calls the trainer's control step when the gradients of all micro-batches are there.

    DDP copies the weights of rank 0 to all, so what the ranks must agree on is compared as they came in.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        facts = {
            "the ceiling": trainer.ceiling,
            "the seed": args.seed,
            "the number of steps": state.max_steps,
        }
        facts |= {"the base model": trainer.fingerprint, "lambda": trainer.controller.multiplier}
        require_agreement(trainer.accelerator, facts)
        trainer.controller.begin(state.max_steps)
        if trainer.budget and trainer._resumed is None:  # whose minutes are not gone yet
            trainer.budget.begin(0)
        price_kinds(trainer)
        if state.global_step == 0 and state.best_metric is None:
            begin_inside(trainer)
            if trainer.budget:
                trainer.budget.prepared()
        trainer.use_controller()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        controller, can_judge = self.trainer.controller, self.trainer.eval_dataset is not None
        spent = self._spend(state)
        counted = controller.holds and controller.falling.steps % (controller.patience or 1) == 0
        again = controller.has_stalled and counted
        if controller.is_settled or spent or again:
            control.should_evaluate = control.should_save = can_judge
        if controller.is_settled or spent:
            control.should_training_stop = control.should_training_stop or spent or not can_judge

    def _spend(self, state: Any) -> bool:
        """Fit the recipe to the minutes that are left, by the clock of the first process; whether none are."""
        budget = self.trainer.budget
        if budget is None:
            return False
        steps, spent = broadcast_object_list(
            [budget.steps(state.global_step, state.max_steps), budget.is_spent]
        )
        self.trainer.controller.begin(steps)
        return spent

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        controller, found = self.trainer.controller, metrics or {}
        if (
            not self.trainer.is_in_train or "eval_divergence" not in found
        ):  # one of several sets, not all of them
            return
        if state.global_step:
            controller.aim_by(found["eval_divergence"], found["eval_divergence_se"])
        if controller.is_settled and state.global_step:
            controller.judge(found["eval_score"] <= 1)
            control.should_training_stop = control.should_training_stop or controller.done
        if controller.has_stalled and (found["eval_score"] <= 1 or self._keeps_one(state)):
            control.should_training_stop = True

    @staticmethod
    def _keeps_one(state: Any) -> bool:
        """Whether the best checkpoint so far holds the ceiling, and is not the dense beginning."""
        return state.best_metric is not None and state.best_metric <= 1 and bool(state.best_global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.control_step()
