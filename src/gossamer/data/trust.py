"""Whether code that comes with a model or its tokenizer may run: only where a person has said so, and nothing asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ..errors import CheckpointError, GossamerError, refuse

_TRUSTED = ContextVar("_TRUSTED", default=False)


@contextmanager
def trusting(trust_remote_code: bool) -> Iterator[None]:
    """Let code that comes with models run inside the block, or not."""
    before = _TRUSTED.set(trust_remote_code)
    try:
        yield
    finally:
        _TRUSTED.reset(before)


def trusted() -> bool:
    """Whether a person has said here that code which comes with models may run."""
    return _TRUSTED.get()


def untrusted(path: Path | str, what: str = "a model") -> GossamerError:
    """The error for a folder or hub id whose code would have to run."""
    return refuse(
        f"{path} is {what} whose code comes with it",
        "trust_remote_code=True, from a person who has read that code",
        "pass --trust-remote-code, or call gossamer.load(path, trust_remote_code=True)",
        CheckpointError,
    )
