"""The one trainer: `transformers.Trainer` with the Lagrangian of open units and divergence as its loss.

One optimizer step:

    1. name the noise of this forward pass, run the model, collect the expected open units    A
    2. run the frozen base on the same batch (or read its outputs from the batch)             D
       D is a mean over all items of the step, whichever micro-batch or rank they are in
    3. loss = (A + R + lambda D) / (1 + lambda)      R: the pull on logits beyond their limit, if the recipe has one
    4. before the optimizer steps: reduce D over micro-batches and ranks, refuse NaN, step the controller

Distribution, precision, accumulation, checkpoints and logging are the Trainer's own. A checkpoint holds
one file more, `edge_gates_state.json`: a resumed run has the same lambda.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from ..data.sequences import TensorRows, collate_rows
from ..errors import DivergedTraining, refuse
from ..gates.attention import resolve
from ..gates.openness import Openness
from ..models.attach import attach_missing, find_gate_sets
from ..models.fingerprint import fingerprint
from ..models.head import BASE_OUTPUT
from .arguments import warn_of_slow_bfloat16
from .base_model import frozen_base, make_comparable
from .budget import Budget
from .calibrate import Start
from .config import SparsityConfig, gate_options
from .control_steps import ControlSteps
from .controller import Controller
from .distributed import rank_seed, require_sharding
from .divergence import count, per_item
from .evaluation import Evaluation
from .pairs import SamePairs
from .user_options import measuring_of, require_honoured


class SparsityTrainer(Evaluation):
    """Finetune `model` to have few open units of each kind in `args.gates`, its divergence under `args.ceiling`.

    Args:
        model: a dense model or a gated one; gates of the kinds that it lacks are attached here. Those that it has of
            other kinds stay as they are.
        args: `SparsityConfig`.
        base: the frozen dense model to compare with; by default a copy of `model` as it comes. Batches with
            a `base_output` column need none.
        Dropout of `model` is turned off, with a warning: it would count as divergence.
        Everything else as for `transformers.Trainer`.
    Raises: `UnsupportedModel`, `GossamerError`; `DivergedTraining` on NaN.
    """

    # Our loss is a mean over the micro-batch; unset, the Trainer would take it as already divided.
    loss_is_scaled_for_ga = False
    args: SparsityConfig

    def __init__(
        self, model: PreTrainedModel, args: SparsityConfig, *, base: nn.Module | None = None, **kwargs: Any
    ) -> None:
        require_honoured(args, kwargs)
        warn_of_slow_bfloat16(args)
        if isinstance(
            kwargs.get("train_dataset"), TensorRows
        ):  # which are batched already, and hold what is needed
            kwargs.setdefault("data_collator", collate_rows)
            args.remove_unused_columns = False
        self.ceiling, self.measuring = args.ceiling, measuring_of(model, args)
        gated = bool(find_gate_sets(model))
        make_comparable(model, gated=gated)
        self.base = frozen_base(
            model, base, gated=gated, needed=self.ceiling.needs_base, use_cache=args.use_cache
        )
        self.same_pairs = SamePairs(sharded=bool(args.fsdp))
        self.all_gates = attach_missing(
            model, args.gate_kinds, gate_options(args, resolve(args.impl, args.device))
        )
        self.gates = self.all_gates.only(args.gate_kinds)
        self.gates.name_noise(seed=rank_seed(args.seed, args.process_index))
        for one in self.all_gates:
            one.require_whole(model)
        for one in self.gates:
            one.limit_logits(args.recipe.logits.limit, args.recipe.logits.weight)
        self.controller = Controller(
            args.ceiling, args.recipe, own_bias=self.gates.bias, reads=self.gates.reads
        )
        self.fingerprint = fingerprint(model)
        self.budget = Budget(args.max_minutes) if args.max_minutes else None
        self.starts: dict[str, Start] = {}  # by what gates could read, where a dense model was measured
        self.forwards, self.last_cut = 0, 0.0
        self._window: list[Tensor] = []  # of each micro-batch: divergence, open units
        self._share: float | None = None
        self._waiting: dict[str, list[Tensor | float]] = defaultdict(list)
        super().__init__(model=model, args=args, **kwargs)
        require_sharding(self.accelerator, asked=bool(args.fsdp))
        self.add_callback(ControlSteps(self))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if BASE_OUTPUT not in self._signature_columns:  # type: ignore[operator]
            self._signature_columns = [*self._signature_columns, BASE_OUTPUT]  # type: ignore[misc]

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """As the Trainer's, without the parameters of gates: decay would pull them to one half open."""
        own = {name for name, _ in self.all_gates.named_parameters()}
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith(tuple(own))] if own else names

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's optimizer, with the parameters of gates in a group of their own, at the recipe's rate."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        names = tuple(name for name, _ in self.gates.named_parameters())
        named: Any = self.model.named_parameters()  # type: ignore[union-attr]
        own = [p for name, p in named if names and name.endswith(names) and p.requires_grad]
        if fresh and own:
            ids = set(map(id, own))
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in ids]
            rate = self.args.recipe.gate.learning_rate
            optimizer.add_param_group({"params": own, "lr": rate, "weight_decay": 0.0})
        return optimizer

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of one step; their items are counted here, before any of them runs."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        mine = sum(count(self.ceiling.kind, batch, head=self.measuring.head) for batch in batches)
        total: Any = self.accelerator.reduce(
            torch.tensor(float(mine), device=self.args.device), reduction="sum"
        )
        # Gradients are averaged over micro-batches and ranks later; sum * share makes that a mean over items.
        self._share = len(batches) * self.accelerator.num_processes / max(1.0, float(total))
        return batches, items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The Lagrangian on one micro-batch."""
        if model.training:
            self.gates.name_noise(step=self.forwards)
            self.forwards += 1
        output, seen = self._forward(model, inputs)
        items = per_item(self.ceiling.kind, output, self._base_output(inputs), inputs, self.measure).values
        share = self._share if model.training and self._share else 1 / max(1, len(items))
        divergence = items.sum() * share
        openness = self.gates.penalty(seen)
        if model.training:
            self.gates.require_gradient(seen)
            self._window.append(torch.stack([divergence.detach(), openness.detach().to(divergence)]))
            self._wait(expected_density=openness.detach(), **self._expected(seen, len(output)))
        slopes = self.controller.price_slopes
        priced = self.gates.penalty(seen, slopes) if any(slopes) else openness
        loss = self.controller.lagrangian(priced + self.gates.pull(seen), divergence)
        return (loss, {"logits": output}) if return_outputs else loss

    def _forward(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, list[Openness]]:
        measuring = self.gates.measuring() if model.training else nullcontext()
        with self.gates.recording() as seen, measuring:
            output = self._answer(model, inputs)
        return output, seen

    def _answer(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        head = self.measuring.head
        return head.answer(head.run(model, inputs))

    def _expected(self, seen: list[Openness], rows: int) -> dict[str, Tensor]:
        """Expected open units a row, by kind."""
        kinds = zip(self.gates, seen, strict=True)
        return {f"expected_open_{one.kind}": x.total_expected().detach() / rows for one, x in kinds}

    @torch.no_grad()
    def _base_output(self, inputs: dict[str, Any]) -> Tensor | None:
        base = None if BASE_OUTPUT in inputs else self.base
        weight = next(base.parameters(), None) if base else None
        if base and weight is not None and weight.device != self.args.device:
            base.to(self.args.device)
        self.same_pairs.require(self.model, base, self.measuring.head.features(inputs))  # type: ignore[arg-type]
        if base is None:
            return inputs.get(BASE_OUTPUT)
        with self.accelerator.autocast():
            return self._answer(base, inputs)

    def control_step(self) -> None:
        """Step the controller, once per optimizer step, by the divergence and open units of its micro-batches."""
        means = torch.stack(self._window).mean(0)
        self._window.clear()
        measured, opened = self.accelerator.reduce(means, reduction="mean").tolist()  # type: ignore[union-attr]
        if not math.isfinite(measured):
            raise refuse(
                f"divergence became {measured} at step {self.state.global_step + 1}",
                "finite numbers only",
                f"lower learning_rate ({self.args.learning_rate:g}) or use fp32; checkpoints are intact",
                DivergedTraining,
            )
        self._wait(divergence=measured, enforced_ceiling=self.controller.enforced.value)
        self.controller.step(measured, opened)
        self.settle()
        self.use_controller()

    def settle(self) -> None:
        """Let gates that read what is measured take it in, from all processes."""
        self.gates.settle(lambda sums: self.accelerator.reduce(sums, reduction="sum"))  # type: ignore[arg-type,return-value]

    def _wait(self, **numbers: Tensor | float) -> None:
        """Keep numbers for the next log. Those on a device stay there until then: reading one waits for its stream."""
        for name, number in numbers.items():
            self._waiting[name].append(number)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with what waited in the buffer since the last log."""
        if "loss" in logs and self._waiting:
            logs.update(
                {name: sum(map(float, values)) / len(values) for name, values in self._waiting.items()}
            )
            self._waiting.clear()
            logs["multiplier"] = self.controller.multiplier
            logs["gate_bias"] = self.gates.bias
        super().log(logs, start_time)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The scheduler of the Trainer's arguments, times the controller's rate."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.args.recipe.rate.moves or self.budget:
            if not isinstance(scheduler, LambdaLR):
                raise refuse(
                    f"lr_scheduler_type={self.args.lr_scheduler_type} with recipe.rate or max_minutes",
                    "a schedule that is a factor of the step, such as constant_with_warmup",
                    "change lr_scheduler_type, or leave the others out",
                )
            clocks = scheduler.lr_lambdas
            scheduler.lr_lambdas = [self._rate(clock) for clock in clocks]
        return scheduler

    def _rate(self, clock: Callable[[Any], float]) -> Callable[[int], float]:
        """The learning rate's factor at a step: by a clock that runs as fast as the budget asks, and by the ceiling."""

        def factor(step: int) -> float:
            speed = (
                self.state.max_steps / self.controller.steps if self.budget and self.state.max_steps else 1
            )
            return clock(step * speed) * self.controller.rate

        return factor
