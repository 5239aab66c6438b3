"""What a checkpoint of a run holds besides the Trainer's own: the gates with their parameters, the controller.

Parameters of gates are among the weights, as the Trainer saves and loads them; with adapters, of which it saves those
alone, they are in a file of their own.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import CheckpointError, refuse
from ..gates.gate_sets import GateSets
from ..models.attach import write_config
from ..models.config_file import holds_adapters
from ..models.gate_block import write_adapter_blocks
from ..models.gate_tensors import FILE, load_tensors, save_tensors
from .atomic_checkpoints import AtomicCheckpoints
from .budget import Budget
from .calibrate import Start
from .controller import Controller
from .resume import STATE_FILE, explain_damage, read_state


class GateCheckpoints(AtomicCheckpoints):
    """The part of `SparsityTrainer` that saves and loads."""

    gates: GateSets  # those that the run moves
    all_gates: GateSets  # and those of the model that stay as they are
    controller: Controller
    starts: dict[str, Start]
    fingerprint: str
    forwards: int
    budget: Budget | None
    _waiting: dict[str, list[Any]]

    def use_controller(self) -> None:
        """Give the gates the bias and the noise that the controller says."""
        self.gates.bias, self.gates.sampling = self.controller.bias, self.controller.sampling
        self.gates.slope_at_least(self.controller.least_slope)
        self.gates.let_parents_learn(self.controller.tightened >= self.controller.recipe.gate.parents_from)

    def state_dict(self) -> dict[str, Any]:
        """What must outlive this process besides the Trainer's own state, for a resume."""
        facts = {"seed": self.args.seed, "base": self.fingerprint, "gates": ",".join(self.gates.kinds)}
        kept = {"bias": self.gates.bias}  # of this model; checkpoint-0 is not where training starts
        kept |= {"reads": self.gates.reads, "starts": {name: asdict(x) for name, x in self.starts.items()}}
        kept |= {"blocks": {one.kind: one.state() for one in self.gates}}
        return {"controller": self.controller.state_dict(), "forwards": self.forwards, **kept, **facts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a saved state back.

        Raises: `CheckpointError` for the state of another run, and for one that is none.
        """
        with explain_damage("the trainer's state"):
            self._load_state_dict(state)

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        now = self.state_dict()
        for name in ("seed", "gates", "base"):
            if name in state and state[name] != now[name]:
                raise refuse(
                    f"{name} {now[name]} on a checkpoint made with {name} {state[name]}",
                    f"the same {name}",
                    "resume with what the run was started with, or start a new one in another folder",
                    CheckpointError,
                )
        self.gates.reads = state.get("reads", self.gates.reads)
        for one in self.gates:
            one.go_on(state.get("blocks", {}).get(one.kind, {}))
        self.starts = {name: Start(**x) for name, x in state.get("starts", {}).items()}
        self.controller.load_state_dict(state.get("controller", {}))
        self.use_controller()
        self.forwards = int(state["forwards"])

    def progress(self) -> dict[str, Any]:
        """As without gates, with the numbers that wait for the next log and the seconds of the budget that are gone."""
        found = super().progress()
        waiting = {name: [float(x) for x in numbers] for name, numbers in self._waiting.items()}
        if self.budget is not None and self.budget.is_spent:
            found["ended"] = False  # more minutes may be given
        return {**found, "waiting": waiting, "spent": 0.0 if self.budget is None else self.budget.gone}

    def go_on(self, progress: dict[str, Any], checkpoint: Path) -> None:
        """Put them back."""
        super().go_on(progress, checkpoint)
        self._waiting.update({name: list(numbers) for name, numbers in progress["waiting"].items()})
        if self.budget is not None:
            self.budget.begin(self.state.global_step, progress["spent"])
            self._over = self._over or self.budget.is_spent

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model with its gate bias in the config, and the controller beside it."""
        write_config(self.accelerator.unwrap_model(self.model))
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            path = Path(output_dir or self.args.output_dir) / STATE_FILE  # type: ignore[arg-type]
            path.parent.mkdir(parents=True, exist_ok=True)  # sharded weights come later, and make their own
            path.write_text(json.dumps(self.state_dict(), indent=2))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)  # type: ignore[arg-type]
        if self.args.should_save and holds_adapters(folder):
            write_adapter_blocks(self.all_gates, folder)  # without them `gossamer.load` would find no gates
            save_tensors(self.all_gates, folder, state_dict)

    def _load_apart(self, folder: str) -> None:
        """Read the parameters of gates that are not among the weights of a checkpoint."""
        if (Path(folder) / FILE).is_file():
            load_tensors(self.all_gates, Path(folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_apart(resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:  # first, for it says what of another run would not fit the optimizer
            self.load_state_dict(read_state(Path(checkpoint)))
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        folder = str(self.state.best_model_checkpoint)
        self._load_apart(folder)
        best = read_state(Path(folder))
        self.gates.bias = best.get("bias", best["controller"]["bias"])
        write_config(self.accelerator.unwrap_model(self.model))
