"""`python -m helpers.run_killed PLACE HOW MORE WHEN ...`: a command that something happens to, and that then goes on.

PLACE holds `command.json`, the arguments of a command without --out; MORE, as JSON, is what it needs to go on. HOW is
what happens as a file event is about to take place:

    kill        SIGKILL
    interrupt   SIGINT, as Ctrl-C sends it
    full        from now on nothing can be written to a file

WHEN is the number of the event, from 1, or the end of its path; 0 is never, and lists the events in PLACE/events.json.
For each, a child runs the command in PLACE/WHEN/here with a relative --out, and another goes on from PLACE/WHEN/there.
What they end with is in PLACE/WHEN/ended.json. Children are forks, so that each costs no imports.

An event is one that Python tells of (https://docs.python.org/3/library/audit_events.html) and that changes something
below --out, or below the folder beside it in which it is made.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from gossamer.cli import main as gossamer

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


class Events:
    """Counts file events below a folder, and lets something happen at one of them, once."""

    def __init__(self, folder: Path, how: str, when: str) -> None:
        self.folder, self.how, self.when, self.seen = str(folder), how, when, list[str]()
        self.places = (str(folder), str(folder.parent / f".{folder.name}."))
        self.happened = when == "0"

    def __call__(self, event: str, about: tuple[Any, ...]) -> None:
        writes = event == "open" and bool(about[2] & (os.O_WRONLY | os.O_RDWR))
        if not (writes or event in CHANGES) or not isinstance(about[0], str | os.PathLike):
            return
        path = os.path.abspath(os.fspath(about[0]))
        if path.startswith(self.places):
            self.seen.append(f"{event} {os.path.relpath(path, self.folder)}")
            if not self.happened and (str(len(self.seen)) == self.when or path.endswith(f"/{self.when}")):
                self.happened = True
                self.happen()

    def happen(self) -> None:
        """What is to happen."""
        if self.how == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGINT)


def child(cwd: Path, out: str, more: list[str], how: str = "kill", when: str = "0") -> int:
    """Run the command in a fork; its exit code, minus the signal if one ended it."""
    cwd.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins by ignoring it
    os.chdir(cwd)
    command = json.loads((cwd.parents[1] / "command.json").read_text())
    events = Events(Path(out).resolve(), how, when)
    sys.addaudithook(events)
    warnings.simplefilter("ignore")
    code = gossamer([*command, "--out", out, *more])
    if when == "0" and not more:
        (cwd.parents[1] / "events.json").write_text(json.dumps(events.seen))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Everything that is named."""
    import torch

    import gossamer.recipes.addition.run
    import gossamer.recipes.text  # noqa: F401
    from gossamer.viz.monitor import TrainingPage

    torch.set_num_threads(1)
    # A page that is written as time passes makes the number of an event depend on how fast the machine is.
    defaults = TrainingPage.__init__.__kwdefaults__
    assert defaults is not None
    defaults["every"] = math.inf
    place, how, more = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    for when in sys.argv[4:]:
        where = place / when.replace("/", "_")
        codes = [child(where / "here", "out", [], how, when)]
        if when != "0" and codes != [0]:
            codes.append(child(where / "there", "../here/out", more))
        (where / "ended.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
