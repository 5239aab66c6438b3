"""The one wording for bad input: what is wrong, what was expected, one fix.

Every error that a person can cause is a `GossamerError`, which is a `ValueError`; the command line prints its
one line and leaves with exit code 2. Anything else that escapes is a bug of ours: from Python it keeps its traceback,
and at the command line the traceback goes to a file, with exit code 70.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LONGEST = 300  # characters of a foreign error that are repeated


class GossamerError(ValueError):
    """Bad input, told in one line."""


class UnsupportedModel(GossamerError):
    """A model whose attention cannot be gated, or a gated attention asked for what it cannot do."""


class CheckpointError(GossamerError):
    """A folder that is not a checkpoint, is torn, is too new, or would run dense under a sparse name."""


class CeilingMissed(GossamerError):
    """A run that ended without one model under its ceiling; the message says by how much."""


class DivergedTraining(GossamerError):
    """NaN or infinity in the loss; the message names the step and what to lower."""


class GossamerWarning(UserWarning):
    """Something was skipped or degraded, and the person should know."""


def refuse(problem: str, expected: str, fix: str, kind: type[GossamerError] = GossamerError) -> GossamerError:
    """Build the error "problem: expected expected. Fix." for the caller to raise.

    Args:
        problem: what is wrong, with the value that was given.
        expected: what would have been right.
        fix: one thing to do, beginning with a verb.
    """
    return kind(f"{problem}: expected {expected}. {fix[:1].upper()}{fix[1:]}.")


def require_choice(name: str, got: object, choices: Iterable[object]) -> None:
    """Raise unless `got` is one of `choices`, naming all of them."""
    options = [str(choice) for choice in choices]
    if str(got) not in options:
        expected = ("one of " if len(options) > 1 else "") + ", ".join(options)
        raise refuse(f"{name}={got!r} is not known", expected, "choose one of them")


def require_range(name: str, got: float, low: float, high: float) -> None:
    """Raise unless `got` is a number with low <= got <= high (NaN fails)."""
    if not isinstance(got, numbers.Real) or isinstance(got, bool):
        raise refuse(f"{name}={got!r} is no number", f"{low} to {high}", "pass a value in that range")
    if not low <= got <= high:
        raise refuse(f"{name}={got!r} is out of range", f"{low} to {high}", "pass a value in that range")


# What PyTorch's allocators say; on the CPU it is a plain RuntimeError.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocator's."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)


def first_line(error: object) -> str:
    """What an error says, as part of one line: its first line, and what a colon there announces."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    line = " ".join(part.strip() for part in lines[: 2 if lines[0].endswith(":") else 1])
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


@contextmanager
def loading(
    what: object,
    expected: str,
    fix: str,
    kind: type[GossamerError] = CheckpointError,
    *,
    done: str = "loaded",
) -> Iterator[None]:
    """Turn whatever transformers, tokenizers, safetensors, peft and torch raise inside into one line with its cause.

    They document no errors for files that are damaged or lie, and what they raise has many types: the panics of
    tokenizers are not even `Exception`s. So the block holds their calls and nothing else.

    Args:
        done: what cannot be done, "loaded" or "made".
    """
    try:
        yield
    except (GossamerError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        said = str(error)
        bare = isinstance(error, KeyError) and said  # its text is the key alone
        cause = first_line(f"{type(error).__name__}: {said}" if bare else error)
        if isinstance(error, ImportError):
            expected, fix = "the packages that it needs", "install what is missing"
        if "ignore_mismatched_sizes" in said:  # transformers' advice is no way out of another model's weights
            cause = "its weights have other shapes than its config.json says"
        raise refuse(f"{what} cannot be {done} ({cause})", expected, fix, kind) from error
