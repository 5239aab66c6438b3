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
from functools import cache
from typing import Annotated, Any

import typer
from rich.console import Console

from .. import __version__
from ..errors import CeilingMissed, GossamerError, GossamerWarning, first_line, refuse
from . import compare, demo, draw, export, info, recipes, schema, serve, shrink, sparsify, trace, verify, view
from .last_resort import last_resort

# Newer typer brings its own copy of click, so the base of all its complaints is found by kinship, not by import.
ClickException: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

INTERRUPTED = 130
CONTINUED = {"demo": "run the same command again", "sparsify": "run the same command again with --resume"}
AS_PYTHON = warnings.formatwarning
MAY_BE_EMPTY = ("--auth-token", "--prompt", "--sum")  # none, or an empty text, which has a line of its own

VERBS = {
    "Start": (demo, sparsify, shrink, recipes, info, schema),
    "Circuits": (trace, verify, compare, export),
    "View": (draw, view, serve),
}

app = typer.Typer(
    name="gossamer",
    help="Finetune a transformer until only a fine web of its attention is left, and read what the web computes.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gossamer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Finetune a transformer until only a fine web of its attention is left, and read what the web computes."""


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
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _require_no_empty(given)
        # The name is that of the command, which is what a shell completes, however Python was started.
        code = int(_command()(args=given, prog_name="gossamer", standalone_mode=False) or 0)
        if code == INTERRUPTED:  # newer typer turns the interruption into an exit code of its own
            raise KeyboardInterrupt
        return code
    except CeilingMissed as error:
        _say(error)
        return 1
    except GossamerError as error:
        _say(error)
        return 2
    except ClickException as error:
        error.show()
        return 2
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say(f"interrupted{_how_to_continue(given)}")
        return INTERRUPTED
    except Exception as error:  # the last resort, which nothing known may reach
        if _is_full(error):
            raise
        line, code = _unusable(error) or last_resort(error)
        _say(line)
        return code


@cache
def _command() -> Any:
    """The command with all of its verbs; typer makes it from their signatures, which takes as long as a short verb."""
    return typer.main.get_command(app)


def _say(line: object) -> None:
    """Print one line, whatever it repeats of what a person or a file gave: signs that cannot be seen are escaped."""
    shown = "".join(x if x.isprintable() else repr(x)[1:-1] for x in f"gossamer: {line}")
    Console(stderr=True, highlight=False, soft_wrap=True).print(shown, markup=False)


def _unusable(error: Exception) -> tuple[str, int] | None:
    """The line for a file or folder that the system refuses by its name, as one that is too long or not ours."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    line = refuse(
        f"{first_line(error.filename)} cannot be used ({error.strerror})",
        "a file or folder that can be",
        "check the path",
    )
    return str(line), 2


def _require_no_empty(given: Sequence[str]) -> None:
    """Raise for an empty argument, which a shell makes of a variable that is not set: as a path it is this folder."""
    for before, argument in zip(("", *given), given, strict=False):
        if not argument and before not in MAY_BE_EMPTY:
            raise refuse(
                f"an empty argument{f' after {before}' * bool(before)}",
                "a value",
                "write one, or leave it out",
            )
        option, sign, value = argument.partition("=")
        if option.startswith("--") and sign and not value and option not in MAY_BE_EMPTY:
            raise refuse(f"{option} without a value", "a value", "write one, or leave it out")


def _how_to_continue(given: Sequence[str]) -> str:
    """What continues a verb that leaves something to continue."""
    fix = CONTINUED.get(given[0] if given else "")
    return f"; {fix} to continue" if fix else ""


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
    if sys.argv[1:2] == ["serve"]:  # has nothing to write, and on a busy machine Python takes seconds to end
        os._exit(code)
    sys.exit(code)
