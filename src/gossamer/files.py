"""Nothing half-written under a final name: write beside, then rename. One writer in a folder.

A rename within one folder is atomic on every platform that Python supports, so a reader sees the old content, or
the new one, or nothing. Full disks and read-only folders become one clear line, and so does a second writer. Links and
devices are never replaced.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from .errors import GossamerError, refuse

LOCK = ".lock"
ROOM = 2**20  # bytes that must fit before long work begins (assumed: more than most records take)
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TORCH_WRITER = re.compile("inline_container|PytorchStreamWriter")  # torch.save hides the system's own words


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the final name, on failure it is removed.

    Works for a file and for a folder: whatever the block creates at the temporary path is moved as a whole.
    Raises: `GossamerError` naming the path where it cannot be written (permissions, full disk, a device, a link).
    """
    require_replaceable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with explain_failed_write(path):
            yield workshop / path.name
            replace(workshop / path.name, path)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def replace(source: Path, target: Path) -> None:
    """Move `source` to `target`; an old folder there steps aside first and is removed afterwards."""
    if source.is_dir() and target.exists():
        if not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        aside = source.parent / "old"
        os.replace(target, aside)
    os.replace(source, target)


def require_replaceable(path: Path) -> None:
    """Raise one clear line unless `path` is absent, a plain file or a folder; a link is none of these."""
    if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
        raise refuse(
            f"{path} is {'a link' if path.is_symlink() else 'a device, a pipe or a socket'}",
            "a new name, a plain file or a folder",
            "choose another path",
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, or raise one clear line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refuse(f"{path} cannot be read ({error})", "a whole JSON file", "check it") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values, or raise one clear line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise refuse(f"{path} cannot be read ({cause})", "a YAML file", "check it") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-4 for a text; here it is the number that a person means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def require_writable(folder: Path) -> None:
    """Raise one clear line unless files can be made in `folder`, which is created."""
    with explain_failed_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)


def require_room(path: Path) -> None:
    """Raise one clear line unless a file can be written at `path`; nothing is made."""
    require_replaceable(path)
    with explain_failed_write(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _probe(next(folder for folder in path.absolute().parents if folder.exists()))


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(ROOM))
        probe.flush()
        os.fsync(probe.fileno())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer in `folder`, which is created, until the block ends or the process does.

    The system holds the lock, so a killed process does not leave it behind. A thread that has it may take it again.
    Raises: `GossamerError` where another process or thread has it.
    """
    with explain_failed_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / LOCK, is_singleton=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise refuse(
                f"another process writes in {folder}",
                "one run in a folder",
                "wait until it has ended, or choose another --out",
            ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it opens a new one
        lock.release()


@contextmanager
def explain_failed_write(path: Path) -> Iterator[None]:
    """Turn what a failed write raises inside the `with` block into the one line for `path`."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not TORCH_WRITER.search(str(error)):
            raise
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: Exception) -> GossamerError:
    """The one line for a path that cannot be written."""
    said = (str(error) or type(error).__name__).splitlines()[0]
    reason = getattr(error, "strerror", None) or (
        "no more could be written" if TORCH_WRITER.search(said) else said
    )
    return refuse(
        f"{path} cannot be written ({reason})",
        "a writable folder with space",
        "free some space, or choose another --out",
    )
