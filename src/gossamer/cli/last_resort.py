"""What the command line says of an error that nothing foresaw: one line, and a file with the traceback."""

from __future__ import annotations

import tempfile
import traceback

from ..errors import first_line, out_of_memory

UNFORESEEN = 70  # EX_SOFTWARE of sysexits.h
BAD_INPUT = 2


def last_resort(error: BaseException) -> tuple[str, int]:
    """The line for an error that is none of ours, and its exit code; a bug leaves its traceback in a file."""
    name = type(error).__name__
    if out_of_memory(error):
        return (
            f"out of memory ({first_line(error)}): use a smaller model, a shorter prompt or fewer at a time",
            BAD_INPUT,
        )
    whole = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="gossamer-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(whole)
        place = f"its traceback is in {file.name}"
    except OSError as failed:
        place = f"its traceback cannot be written ({first_line(failed)})"
    return f"a bug of gossamer ({name}: {first_line(error)}); {place}: please report it", UNFORESEEN
