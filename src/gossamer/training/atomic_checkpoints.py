"""Checkpoints that are whole or not there, so that a run killed at any moment goes on where one stands.

The Trainer writes a checkpoint file by file under its final name. Here it writes into `.saving` beside, then a
manifest, and then the folder is renamed: a reader sees all of it or nothing. The Trainer's state lacks what it has not
logged yet, and names the best checkpoint by a path that holds in one place only: both are in `progress-RANK.json`. The
rest of what a run resumes from is the state of `SparsityTrainer`; noise needs only its counter.
"""

from __future__ import annotations

import json
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from ..errors import GossamerWarning
from ..files import explain_failed_write, locked, read_json, replace
from .resume import explain_damage, newest_whole, require_whole, write_manifest

STAGING = ".saving"
PROGRESS = "progress-{}.json"


class AtomicCheckpoints(Trainer):
    """A `Trainer` that is the only writer in its folder, saves whole checkpoints, and goes on from one as if it had
    never stopped: the same weights, the same log, and no step beyond its end."""

    _staging: Path | None = None
    _resumed: Path | None = None
    _over = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_GoOn(self))

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """As the Trainer's, which with `True` goes on from the newest whole checkpoint.

        Raises: `CheckpointError` for a damaged checkpoint; `GossamerError` where another run writes in the folder.
        """
        folder = Path(str(self.args.output_dir))
        with locked(folder) if self.is_world_process_zero() else nullcontext():
            given = newest_whole(folder) if resume_from_checkpoint is True else resume_from_checkpoint or None
            self._resumed, self._over = None if given is None else Path(str(given)), False
            if self._resumed is not None:
                require_whole(self._resumed)
                with explain_damage(self._resumed):  # here, for the Trainer reads it outside of its methods
                    TrainerState.load_from_json(str(self._resumed / TRAINER_STATE_NAME))
            done = super().train(given, *args, **kwargs)
        return done._replace(training_loss=done.metrics["train_loss"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the mean loss over all steps of a run that was resumed."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
        super().log(logs, start_time)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self._over or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True  # the Trainer looks only after a step
            return
        super()._run_epoch(*args, **kwargs)

    def progress(self) -> dict[str, Any]:
        """What this process must remember besides the Trainer's state, as JSON values."""
        best = self.state.best_model_checkpoint
        return {
            "best": None if best is None else str(Path(best).absolute()),
            "ended": self.control.should_training_stop and self.state.global_step < self.state.max_steps,
            "loss": float(self._tr_loss),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
        }

    def go_on(self, progress: dict[str, Any], checkpoint: Path) -> None:
        """Put back what `progress` said when `checkpoint` was saved."""
        if progress["best"] is not None:
            self._find_best(Path(progress["best"]), checkpoint.parent)
        self._over = bool(progress["ended"])
        self._tr_loss += progress["loss"]
        self._total_loss_scalar = progress["total_loss"]
        self._globalstep_last_logged = progress["last_logged"]

    def _go_on(self) -> None:
        if (folder := self._resumed) is None:
            return
        path = folder / PROGRESS.format(self.args.process_index)
        if path.is_file():
            with explain_damage(path):
                self.go_on(read_json(path), folder)
        else:
            line = f"{folder} has no {path.name}: the losses that this process logs begin at the checkpoint"
            warnings.warn(line, GossamerWarning, stacklevel=2)

    def _find_best(self, saved: Path, folder: Path) -> None:
        """Go on with the best checkpoint: the one in `folder`, or where it was saved if it was not copied along."""
        for path in (folder / saved.name, saved):
            if path.is_dir():
                require_whole(path)
                self.state.best_model_checkpoint = str(path)
                return
        line = f"{saved}, the best checkpoint so far, is gone: the best of what is still to come is taken"
        warnings.warn(line, GossamerWarning, stacklevel=2)
        self.state.best_metric = self.state.best_global_step = None

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        final = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(final / STAGING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging = final / STAGING
        try:
            with explain_failed_write(final):
                super()._save_checkpoint(model, trial)
                # The Trainer takes a best step of 0 for none.
                if (
                    self.state.best_metric is not None
                    and self.state.best_global_step == self.state.global_step
                ):
                    self.state.best_model_checkpoint = str(final / name)
                self._write_progress(final / STAGING / name)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._publish(final, name)
        except BaseException:  # an interruption and a full disk leave no half of a checkpoint
            shutil.rmtree(final / STAGING, ignore_errors=True)
            raise
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()

    def _write_progress(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROGRESS.format(self.args.process_index)).write_text(json.dumps(self.progress(), indent=1))

    def _publish(self, final: Path, name: str) -> None:
        """Give a finished checkpoint its name, and delete those that are too many."""
        folder, best = final / STAGING / name, self.state.best_model_checkpoint
        self.state.best_model_checkpoint = None  # it is in the progress, by a name that holds in every folder
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self.state.best_model_checkpoint = best
        write_manifest(folder)
        replace(folder, final / name)
        shutil.rmtree(final / STAGING, ignore_errors=True)
        rotate_checkpoints(
            output_dir=str(final),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=best,
            use_mtime=False,
        )

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        with explain_damage(self._resumed):
            return super()._init_training_state(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with explain_damage(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with explain_damage(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with explain_damage(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with explain_damage(checkpoint):
            super()._load_rng_state(checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """As the Trainer's, but for weights that are tied to others: a file holds one of both."""
        tied = getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", None) or {}
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        require_whole(best)
        with explain_damage(best):
            super()._load_best_model()


class _GoOn(TrainerCallback):
    """Calls the trainer when its loop has been set up, which begins every count anew."""

    def __init__(self, trainer: AtomicCheckpoints) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._go_on()
