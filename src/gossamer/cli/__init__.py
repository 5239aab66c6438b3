"""The command line: every verb is one library call, bad input is one line, and `--help` loads no torch.

Each verb lives in a module of its own here, which imports what it needs inside the command. `VERBS` is the whole
list, by panel of the help. Exit codes: 0 done; 1 a claim that was checked and does not hold; 2 bad input; 70 a
bug, whose traceback is in the file that the one line names; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import typer
from rich.console import Console

from ..errors import CeilingMissed, GossamerError, GossamerWarning
from . import compare, demo, export, info, recipes, serve, shrink, sparsify, trace, verify, view
from .last_resort import last_resort

# Newer typer brings its own copy of click, so the base of all its complaints is found by kinship, not by import.
ClickException: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

INTERRUPTED = 130
AS_PYTHON = warnings.formatwarning

VERBS = {
    "Start": (demo, sparsify, shrink, recipes, info),
    "Circuits": (trace, verify, compare, export),
    "View": (view, serve),
}

app = typer.Typer(
    name="gossamer",
    help="Finetune a transformer until only a fine web of its attention is left, and read what the web computes.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Keep the verbs as subcommands, even while there is only one."""


for _panel, _verbs in VERBS.items():
    for _verb in _verbs:
        _verb.register(app, _panel)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return _main(arguments)
    except OSError as error:
        if not _is_full(error):
            raise
        return _cannot_print(error)


def _is_full(error: Exception) -> bool:
    """Whether it is a stream, and no file by its name, that found no room."""
    from ..files import FULL

    return isinstance(error, OSError) and error.errno in FULL and error.filename is None


def _cannot_print(error: OSError) -> int:
    """Say that what a command prints found no room; the error stream may be as full."""
    with suppress(OSError):
        line = (
            f"gossamer: standard output cannot be written ({error.strerror}): expected a place with space. "
        )
        print(line + "Free some space, or write to another place.", file=sys.stderr, flush=True)  # noqa: T201
    return 2


def _main(arguments: Sequence[str] | None) -> int:
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        code = int(app(args=None if arguments is None else list(arguments), standalone_mode=False) or 0)
        if code == INTERRUPTED:  # newer typer turns the interruption into an exit code of its own
            raise KeyboardInterrupt
        return code
    except CeilingMissed as error:
        errors.print(f"gossamer: {error}", markup=False)
        return 1
    except GossamerError as error:
        errors.print(f"gossamer: {error}", markup=False)
        return 2
    except ClickException as error:
        error.show()
        return 2
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        errors.print("gossamer: interrupted; run the same command again to continue", markup=False)
        return INTERRUPTED
    except Exception as error:  # the last resort, which nothing known may reach
        if _is_full(error):
            raise
        line, code = last_resort(error)
        errors.print(f"gossamer: {line}", markup=False)
        return code


def one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None
) -> str:
    """A warning of ours as a line for the person, without the place in our code; any other as Python has it."""
    if issubclass(category, GossamerWarning):
        return f"gossamer: warning: {message}\n"
    return AS_PYTHON(message, category, filename, lineno, line)


def run() -> None:
    """Console-script entry point."""
    warnings.formatwarning = one_line
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = code or _cannot_print(error)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes again as it ends
    sys.exit(code)
