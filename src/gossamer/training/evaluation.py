"""How a trainer evaluates: what it compares, and the score that chooses the best model.

Several evaluation sets are measured one by one, and all their rows together; the latter choose the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .config import SparsityConfig
from .constraint import SPREAD, Ceiling
from .distributed import reduced
from .divergence import Measure, compared
from .gate_checkpoints import GateCheckpoints
from .metrics import Tally, counting
from .spread import with_spread
from .user_options import predictions


class Evaluation(GateCheckpoints):
    """The part of `SparsityTrainer` that evaluates."""

    args: SparsityConfig
    ceiling: Ceiling
    measuring: Measure
    tally: Tally
    _base_output: Callable[[dict[str, Any]], Tensor | None]

    @property
    def measure(self) -> Measure:
        """How batches are compared; the base's spread is measured when it is first asked for."""
        if self.ceiling.kind in SPREAD and self.measuring.spread is None:
            self.measuring = with_spread(self)
        return self.measuring

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Any, Any]:
        """One evaluation batch on deterministic gates; its numbers go to the tally, its answers to who asks."""
        inputs, head = self._prepare_inputs(inputs), self.measuring.head  # type: ignore[assignment]
        with torch.no_grad(), counting(self.gates, self.tally):
            output = head.run(model, inputs)
        answer = head.answer(output)
        found = compared(self.ceiling.kind, answer, self._base_output(inputs), inputs, self.measure)
        self.tally.sums["rows"] += len(answer)
        for name, items in found.items():
            self.tally.add_items(name, items, len(answer))
        values = found["divergence"].values
        loss = values.sum() / max(1, len(values))
        if prediction_loss_only:
            return loss, None, None
        config: Any = getattr(self.model, "config", None)
        ignored = ignore_keys or getattr(config, "keys_to_ignore_at_inference", ["past_key_values"])
        return loss, *predictions(output, inputs, self.label_names, ignored)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The Trainer's evaluation; of several sets also that of all their rows together, which chooses the model."""
        sets = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(sets, dict):
            return super().evaluate(eval_dataset, *args, **kwargs)
        prefix, whole, metrics = kwargs.pop("metric_key_prefix", "eval"), Tally(), {}
        for name, rows in sets.items():
            given = name if eval_dataset is None else rows
            metrics |= super().evaluate(given, *args, metric_key_prefix=f"{prefix}_{name}", **kwargs)  # type: ignore[arg-type]
            whole.merge(self.tally)
        self.tally = whole
        together = self._summary(prefix)
        self.log(together)
        metrics |= together
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _summary(self, prefix: str) -> dict[str, float]:
        found = self.tally.summary()
        found["score"] = self.score(found)
        return {f"{prefix}_{name}": value for name, value in found.items()}

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's loop, with density, divergence and agreement among its metrics."""
        self.tally, prefix = Tally(), kwargs.get("metric_key_prefix", "eval")
        result = super().evaluation_loop(dataloader, description, *args, **kwargs)
        if self.args.world_size > 1:
            self.tally = reduced(self.tally, self.accelerator)
        assert result.metrics is not None
        result.metrics.update(self._summary(prefix))
        return result

    def score(self, found: dict[str, float]) -> float:
        """What `load_best_model_at_end` minimises: density if feasible, else 1 + how far the model misses.

        Feasible is who holds the ceiling with a margin for other rows than these, and the agreement.
        """
        reached = found["divergence"] + self.ceiling.margin(found["divergence_se"])
        excess = max(0.0, self.ceiling.excess(reached))
        short = max(0.0, self.args.min_agreement - found.get("agreement", 1.0))
        return found["density"] if excess == 0 and short == 0 else 1 + excess + short
