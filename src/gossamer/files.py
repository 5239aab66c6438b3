"""Nothing half-written under a final name: write beside, then rename.

A rename within one folder is atomic on every platform that Python supports, so a reader sees the old content, or
the new one, or nothing. Full disks and read-only folders become one clear line.
"""

from __future__ import annotations

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

from .errors import GossamerError, refuse


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the final name, on failure it is removed.

    Works for a file and for a folder: whatever the block creates at the temporary path is moved as a whole.
    Raises: `GossamerError` naming the path where it cannot be written (permissions, full disk).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield workshop / path.name
        replace(workshop / path.name, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def replace(source: Path, target: Path) -> None:
    """Move `source` to `target`; an old folder there steps aside first and is removed afterwards."""
    if source.is_dir() and target.exists():
        aside = source.parent / "old"
        os.replace(target, aside)
    os.replace(source, target)


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError) -> GossamerError:
    """The one line for a path that cannot be written."""
    reason = error.strerror or str(error)
    return refuse(
        f"{path} cannot be written ({reason})",
        "a writable folder with space",
        "choose another --out",
    )
