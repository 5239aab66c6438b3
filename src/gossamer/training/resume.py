"""The checkpoints in a run's folder: which are whole, which is the newest, what is wrong with one.

A manifest lists every file of a checkpoint with its size and checksum. A folder whose manifest does not fit (killed
while old ones were being deleted, a bad copy, bad blocks) is skipped with a warning, and refused where it is asked for
by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import CheckpointError, GossamerError, GossamerWarning, refuse
from ..files import read_json

MANIFEST = "complete.json"
STATE_FILE = "edge_gates_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")
# What reading a damaged file raises, here and in the libraries that read one.
DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, RuntimeError, SafetensorError,
          pickle.UnpicklingError)  # fmt: skip


@contextmanager
def explain_damage(what: Path | str | None) -> Iterator[None]:
    """Turn what reading a damaged checkpoint raises inside the `with` block into one line."""
    try:
        yield
    except (GossamerError, torch.OutOfMemoryError):
        raise
    except DAMAGE as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise refuse(
            f"{what} cannot be resumed from ({type(error).__name__}: {line})",
            "a checkpoint as it was saved",
            "delete it to go on from an older one, or start again in another folder",
            CheckpointError,
        ) from error


def write_manifest(folder: Path) -> None:
    """List every file of a checkpoint with its size and checksum, flushed to the disk."""
    files = {
        str(p.relative_to(folder)): p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p != folder / MANIFEST
    }
    found = {name: {"size": p.stat().st_size, "sha256": _checksum(p)} for name, p in files.items()}
    with open(folder / MANIFEST, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path) -> str:
    """The first thing that is wrong with a checkpoint, against its manifest; empty for a whole one."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, told in found.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if (folder / name).stat().st_size != told["size"] or _checksum(folder / name) != told["sha256"]:
                return f"{name} is not as it was saved"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"no {MANIFEST} that can be read"
    return ""


def is_whole(folder: Path) -> bool:
    """Whether every file that the manifest lists is there as it was saved."""
    return not damage(folder)


def require_whole(folder: Path) -> None:
    """Raise one clear line unless a checkpoint is as it was saved."""
    if wrong := damage(folder):
        raise refuse(
            f"{folder} is damaged ({wrong})",
            "a checkpoint as it was saved",
            "resume from another checkpoint, or start again in another folder",
            CheckpointError,
        )


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
        if not (wrong := damage(path)):
            return str(path)
        warnings.warn(f"{path} is torn and is skipped ({wrong})", GossamerWarning, stacklevel=2)
    if checkpoints(folder):
        line = f"{folder} has no whole checkpoint: the run begins again"
        warnings.warn(line, GossamerWarning, stacklevel=2)
    return None


def newest_whole(folder: Path) -> str:
    """As `last_checkpoint`, or one clear line where there is none."""
    if (last := last_checkpoint(folder)) is None:
        raise refuse(
            f"{folder} has no whole checkpoint",
            "one to resume from",
            "start a new run",
            CheckpointError,
        )
    return last


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
    return read_json(path, finite=False, kind=CheckpointError)  # a bias of open gates is infinite
