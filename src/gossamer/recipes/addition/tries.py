"""Several seeds of a demo: all are begun, the better half goes on after a look, and the best is kept.

What a web reads is mostly decided by the base model that a seed gives (LOG.md, 2026-11-28), so another seed is another
draw, and a second core of the machine has nothing else to do. Each try is what `gossamer demo --seed` with its seed
trains: one thread, in a folder of its own. As many processes as there are cores share the tries: this one, and
`python -m gossamer.recipes.addition.tries FOLDER ...`, which ends when this one does. What is kept does not depend on
how many there are.

Of some thirty seeds one ended with nothing that holds the ceiling but the model that it began with (LOG.md,
2026-11-28). Where the better half does so, there is another try, with the next seed.

    OUT/tries.json      what came of each try, the one that was kept first
    OUT/tries/SEED/     base/, sparse/ and work/ of a try, and log.txt; gone once the best is in OUT
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ...errors import GossamerError, refuse
from ...files import locked, read_json, write_json, writing
from ...models.quiet import quiet
from ...training.progress import LINE_SECONDS
from ..run_config import FILE, read_config, write_config
from .look import look, read_look, worth, write_look
from .outcome import OUTCOME, least_step, read_outcome
from .report import looks_in_words, tries_in_words
from .settings import SEEDS, DemoSettings
from .stages import begin, choosing, make_models, one_thread
from .task import Addition

FOLDER, GONE, RECORD, LOG = "tries", ".tries", "tries.json", "log.txt"
APART = 1_000_003  # between the seeds of the tries: far from the small ones that people give
KEPT = (
    "base",
    "edges",
    "units",
    OUTCOME,
    "edges.html",
    "units.html",
    "training.html",
    "film.gif",
    "sparse",
)  # a folder that has `sparse` is complete


def seeds_of(settings: DemoSettings) -> list[int]:
    """The seeds of the tries that there may be, restarts last: seed + 1,000,003 n, for n from 0."""
    assert settings.tries is not None
    return [(settings.seed + n * APART) % SEEDS for n in range(settings.tries + settings.restarts)]


def keep_best(
    out: Path, settings: DemoSettings, console: Console, film: str | None = None
) -> list[dict[str, Any]]:
    """Train every try that is not complete, and put the best one's models into `out`.

    Args:
        film: the sum to film while a sparse model is made, or None.
    Returns: what came of each try, the one that was kept first; of a single one that is not complete, nothing.
    Raises: `GossamerError` where a try ends with an error; run again, the others are continued.
    """
    if not (out / RECORD).is_file():
        if settings.tries == 1:
            return []
        write_json(out / RECORD, _train(out, settings, console, film))
    found = _adopted(out)
    console.print(tries_in_words(found), highlight=False)
    return found


def restart(
    out: Path, settings: DemoSettings, console: Console, film: str | None = None
) -> list[dict[str, Any]]:
    """Train with the next seeds, one after the other, while nothing that was trained holds the ceiling.

    `out` has the models of the tries so far, and gets those of a better one.

    Returns: what came of each try, the one that was kept first; nothing where no seed more was tried.
    """
    found = _adopted(out) if (out / RECORD).is_file() else [_told(out, settings.seed)]
    before = len(found)
    for seed in seeds_of(settings)[len(found) :]:
        if not _found_nothing(found[0]):
            break
        console.print(
            f"nothing that was trained with seed {found[0]['seed']} held the ceiling with less open than it began "
            f"with: once more, with seed {seed}",
            highlight=False,
        )
        folder = out / FOLDER / str(seed)
        write_config(folder, "demo", replace(settings, seed=seed, tries=1, restarts=0))
        run_try(folder, console, film)
        write_json(out / RECORD, sorted([*found, _told(folder, seed)], key=_worth))
        found = _adopted(out)
        console.print(tries_in_words(found), highlight=False)
    return found if len(found) > before else []


def _adopted(out: Path) -> list[dict[str, Any]]:
    """Put the models of the best try on record into `out`, if they are not there yet; returns the record."""
    found = read_json(out / RECORD, list[dict[str, Any]])
    best, gone = out / FOLDER / str(found[0]["seed"]), out / GONE
    if best.is_dir():
        for name in KEPT:
            if (best / name).exists():
                with writing(out / name) as temporary:
                    (shutil.copytree if (best / name).is_dir() else shutil.copyfile)(best / name, temporary)
    shutil.rmtree(gone, ignore_errors=True)
    if (out / FOLDER).is_dir():
        (out / FOLDER).rename(gone)  # at once: what is half gone must not be taken for a try
    shutil.rmtree(gone, ignore_errors=True)
    return found


def _found_nothing(told: dict[str, Any]) -> bool:
    """Whether a try ended outside its ceiling, or a run that was to close something with what it began with."""
    return not told["feasible"] or told.get("best_step") == 0


def _train(out: Path, settings: DemoSettings, console: Console, film: str | None) -> list[dict[str, Any]]:
    """Begin every try, look, and go on with the better half; returns what came of each, the best first."""
    seeds = seeds_of(settings)[: settings.tries]
    folders = [out / FOLDER / str(seed) for seed in seeds]
    for folder, seed in zip(folders, seeds, strict=True):
        write_config(folder, "demo", replace(settings, seed=seed, tries=1, restarts=0))
    half = (len(seeds) + 1) // 2
    console.print(
        f"{len(seeds)} tries begin, with seeds {', '.join(map(str, seeds))}; after a look at step "
        f"{settings.look_step:,} the better {half} {'goes' if half == 1 else 'go'} on",
        highlight=False,
    )
    _side_by_side(folders, console, begin=True)
    seen = {folder: read_look(folder) or {} for folder in folders}
    order = sorted(folders, key=lambda folder: worth(seen[folder]))
    console.print(looks_in_words({folder.name: seen[folder] for folder in order}, half), highlight=False)
    _side_by_side(order[:half], console, film=film)
    ended = [_told(folder, int(folder.name)) | {"look": seen[folder]} for folder in order[:half]]
    left = [{"seed": int(folder.name), "look": seen[folder]} for folder in order[half:]]
    return sorted(ended + left, key=_worth)


def _side_by_side(
    folders: list[Path], console: Console, *, begin: bool = False, film: str | None = None
) -> None:
    """Make tries, or begin them, on all cores: the first of them in this process, whose progress is shown."""
    cores = min(os.cpu_count() or 1, len(folders))
    shares = [folders[core::cores] for core in range(cores)]
    with ExitStack() as started:
        others = [started.enter_context(_started(share, film, begin)) for share in shares[1:]]
        _one_by_one(shares[0], console, film, begin)
        for share, process in zip(shares[1:], others, strict=True):
            _wait(share, process, console)


def _one_by_one(folders: list[Path], console: Console, film: str | None, begin: bool) -> None:
    for folder in folders:
        console.print(f"seed {folder.name}:", highlight=False)
        (begin_try(folder, console) if begin else run_try(folder, console, film))


def begin_try(folder: Path, console: Console) -> None:
    """Make the base model of a try and the first steps of its first run, and look at both."""
    if read_look(folder) is not None:
        return
    settings = DemoSettings(**read_config(folder / FILE, "demo", DemoSettings))
    task = Addition(settings.digits)
    with locked(folder), quiet(), one_thread():
        base = begin(task, settings, folder, console)
        run = folder / "work" / settings.first_stage
        write_look(folder, look(task, base, choosing(task, settings.seed), run, settings.look_step))


def run_try(folder: Path, console: Console, film: str | None = None) -> None:
    """Make the models of a try, as its config.yaml says; a film begins with the first step, not where a look was."""
    settings = DemoSettings(**read_config(folder / FILE, "demo", DemoSettings))
    task = Addition(settings.digits)
    begun = folder / "work" / settings.first_stage / f"checkpoint-{settings.look_step}"
    if film is not None and begun.is_dir() and settings.first_stage == "sparse":
        shutil.rmtree(begun.parent)
    with locked(folder), quiet(), one_thread():
        make_models(task, settings, folder, console, None if film is None else task.parse(film))


@contextmanager
def _started(folders: list[Path], film: str | None, begin: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A process that makes tries, one after the other, until it is done or this block, or this process, ends."""
    command = [sys.executable, "-m", __name__, *map(str, folders), *(["--begin"] if begin else [])]
    command += [] if film is None else ["--film", film]
    with (folders[0] / LOG).open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()  # it ends at once, if it has not
        process.wait()


def _wait(folders: list[Path], process: subprocess.Popen[bytes], console: Console) -> None:
    """Show the last line of a process until it has ended."""
    shown = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        if time.monotonic() - shown > LINE_SECONDS:
            shown = time.monotonic()
            console.print(f"beside it: {_last_line(folders[0])}", highlight=False)
    if process.returncode:
        raise refuse(
            f"the process that trains {' and '.join(map(str, folders))} ended with exit code {process.returncode}: "
            f"{_last_line(folders[0])}",
            "a run that ends with a model",
            f"read {folders[0] / LOG}, and run again: what is complete is reused",
            GossamerError,
        )


def _last_line(folder: Path) -> str:
    return next(
        reversed((folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]), "begins"
    )


def _told(folder: Path, seed: int) -> dict[str, Any]:
    """Seed of a try and what came of it, on the sums that chose its best checkpoint."""
    run = read_outcome(folder)
    metrics = {name: run["chosen_on"].get(name) for name in ("divergence", "density", "open_edges")}
    return {
        "seed": seed,
        **{name: run[name] for name in ("feasible", "missed", "seconds")},
        "best_step": least_step(run),
        **metrics,
    }


def _worth(told: dict[str, Any]) -> tuple[Any, ...]:
    """Inside its ceiling the sparsest goes first, if it found something; outside it the one that misses it least.

    What a look left behind goes last, the better ones first.
    """
    if "feasible" not in told:
        return (True, *worth(told["look"]))
    measure = told["density" if told["feasible"] else "divergence"]
    return False, not told["feasible"], _found_nothing(told), measure


def _end_with_parent() -> None:
    """End this process when the other end of its standard input is closed, as it is when its parent ends."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Make tries, or begin them, in a process of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--begin", action="store_true")
    parser.add_argument("--film")
    given = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _one_by_one(given.folders, Console(width=200), given.film, given.begin)


if __name__ == "__main__":
    main()
