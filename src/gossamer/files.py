"""Nothing half-written under a final name: write beside, then rename. One writer in a folder.

A rename within one folder is atomic on every platform that Python supports, so a reader sees the old content, or
the new one, or nothing. Full disks and read-only folders become one clear line, and so does a second writer. Links and
devices are never replaced.
"""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import re
import reprlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from .errors import GossamerError, first_line, refuse

DEEPEST = 100  # levels of lists and objects in a file; assumed: no file of ours or of transformers has ten

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


def read_json(
    path: Path, shape: Any = dict[str, Any], *, finite: bool = True, kind: type[GossamerError] = GossamerError
) -> Any:
    """Read a JSON file whose content is of a declared shape, or raise one clear line; as `parse_json`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error, "a whole JSON file", kind) from error
    return parse_json(text, shape, where=path, finite=finite, kind=kind)


def parse_json(
    text: str | bytes,
    shape: Any = dict[str, Any],
    *,
    where: object,
    finite: bool = True,
    kind: type[GossamerError] = GossamerError,
) -> Any:
    """The plain values in a JSON text, as they stand there.

    Args:
        shape: a type that they must be of, as pydantic reads types; a JSON object by default.
        where: what the text is called in an error.
        finite: refuse NaN and infinity, which some configs of transformers have.
    Raises: `kind` for what is no JSON, is nested deeper than `DEEPEST`, or is of another shape.
    """
    try:
        found = json.loads(text)
        _require_plain(found, finite)
    except (ValueError, RecursionError) as error:
        raise _cannot_read(where, error, "a whole JSON file", kind) from error
    require_shape(found, shape, where, kind)
    return found


def require_shape(
    found: object, shape: Any, where: object, kind: type[GossamerError] = GossamerError
) -> None:
    """Raise one clear line unless plain values are of a type; nothing is converted, so "1" and True are no 1."""
    from pydantic import ValidationError  # here, for it takes a tenth of a second

    try:
        _adapter(shape).validate_python(found, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(_path(found, wrong["loc"]))
        got = "nothing" if wrong["type"] == "missing" else reprlib.repr(wrong["input"])
        expected = wrong["msg"].removeprefix("Input should be ").replace("Field required", "a value there")
        at = f" at {place}" if place else ""
        raise refuse(f"{where} has {got}{at}", expected, "check it, or make it again", kind) from error


def _path(found: Any, places: Iterable[Any]) -> Iterator[str]:
    """The keys and indices among the places of an error, which names the alternatives of a type as well."""
    for place in places:
        if isinstance(found, dict) and not str(place).endswith(("-int", "-float", "]")):
            yield str(place)
            found = found.get(place)
        elif isinstance(found, list) and isinstance(place, int):
            yield str(place)
            found = found[place]


@functools.cache
def _adapter(shape: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _require_plain(found: object, finite: bool) -> None:
    """Raise ValueError for nesting beyond `DEEPEST`, and for numbers that are not finite."""
    seen, waiting = {0}, [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
        if finite and isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the number {value} is not finite")
        if isinstance(value, dict | list) and id(value) not in seen:  # YAML may hold one list twice
            seen.add(id(value))
            waiting += [
                (inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)
            ]


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values, or raise one clear line."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        _require_plain(found, finite=True)
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise _cannot_read(path, error, "a YAML file", GossamerError) from error
    return found


def _cannot_read(where: object, error: Exception, expected: str, kind: type[GossamerError]) -> GossamerError:
    cause = " ".join(str(error).split()) or type(error).__name__
    return refuse(f"{where} cannot be read ({first_line(cause)})", expected, "check it", kind)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-4 for a text; here it is the number that a person means. No name stands there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"{twice} stands there twice")
        return super().construct_mapping(node, deep)


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
