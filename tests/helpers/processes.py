"""The environment of programs that tests run beside them, as `python -m helpers.NAME`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from gossamer.files import locked
with locked(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def environment(**more: str) -> dict[str, str]:
    """This one, one thread, and tests/ where modules are looked for."""
    places = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places), **more}


@contextmanager
def another_writer(folder: Path) -> Iterator[None]:
    """Another process is the only writer in `folder` inside the `with` block; at its end it is killed."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        yield
    finally:
        other.kill()
        other.communicate()
