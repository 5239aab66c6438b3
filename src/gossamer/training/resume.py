"""Checkpoints that are whole or not there, so that a run killed at any moment goes on where one stands.

The Trainer writes a checkpoint file by file under its final name. Here it writes into `.saving` beside, then
a manifest of every file and its size, and then the folder is renamed: a reader sees all of it or nothing. A
folder whose manifest does not fit (killed while old ones were being deleted, a bad copy) is skipped with a
warning. The rest of what a run resumes from is the state of `SparsityTrainer`; noise needs only its counter.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from ..errors import CheckpointError, GossamerWarning, refuse
from ..files import cannot_write, read_json, replace

MANIFEST = "complete.json"
STAGING = ".saving"
STATE_FILE = "edge_gates_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")


class AtomicCheckpoints(Trainer):
    """A `Trainer` whose checkpoints appear under their names only when they are whole."""

    _staging: Path | None = None

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
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError) as error:
            raise _not_saved(final, error) from error
        finally:
            self._staging = None
        # The Trainer takes a best step of 0 for none.
        if self.state.best_metric is not None and self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(final / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._publish(final, name)
        self.accelerator.wait_for_everyone()

    def _publish(self, final: Path, name: str) -> None:
        """Give a finished checkpoint its name, and delete those that are too many."""
        folder = final / STAGING / name
        try:
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            write_manifest(folder)
            replace(folder, final / name)
            shutil.rmtree(final / STAGING, ignore_errors=True)
        except OSError as error:
            raise cannot_write(final, error) from error
        rotate_checkpoints(
            output_dir=str(final),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=False,
        )


def _not_saved(folder: Path, error: Exception) -> Exception:
    if isinstance(error, OSError):
        return cannot_write(folder, error)
    return refuse(f"no checkpoint in {folder} ({error})", "a disk with space", "free some, then --resume")


def write_manifest(folder: Path) -> None:
    """List every file of a checkpoint with its size, flushed to the disk."""
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    with open(folder / MANIFEST, "w", encoding="utf-8") as file:
        json.dump(sizes, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def is_whole(folder: Path) -> bool:
    """Whether every file that the manifest lists is there in its size."""
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def checkpoints(folder: Path | str) -> list[Path]:
    """The checkpoints in a run's folder, whole or torn, the newest first."""
    try:
        found = [(int(m[1]), p) for p in Path(folder).iterdir() if (m := _NAME.fullmatch(p.name))]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


def last_checkpoint(folder: Path | str) -> str | None:
    """The newest whole checkpoint in a run's folder, or None; torn ones are skipped with a warning."""
    for path in checkpoints(folder):
        if is_whole(path):
            return str(path)
        warnings.warn(f"{path} is torn and is skipped", GossamerWarning, stacklevel=2)
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """The controller's state in a checkpoint."""
    path = folder / STATE_FILE
    if not path.is_file():
        raise refuse(
            f"{folder} has no {STATE_FILE}",
            "checkpoints that SparsityTrainer wrote",
            "resume from another checkpoint",
            CheckpointError,
        )
    return read_json(path)
