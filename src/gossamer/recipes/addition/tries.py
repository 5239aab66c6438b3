"""Runs of a demo with other seeds: several side by side, or another where one found nothing; the best is kept.

What a web reads is mostly decided by the base model that a seed gives (LOG.md, 2026-11-28), so another seed is another
draw, and a second core of the machine has nothing else to do. Each try is what `gossamer demo --seed` with its seed
trains: one thread, in a folder of its own. This process makes the first one, and starts one for each of the others
(`python -m gossamer.recipes.addition.tries FOLDER`), which ends when this one does.

Of some thirty seeds one ended with nothing that holds the ceiling but the model that it began with (LOG.md,
2026-11-28). Then there is another try, with the next seed, when the first ones have ended.

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
from .outcome import OUTCOME, least_step, read_outcome
from .report import tries_in_words
from .settings import SEEDS, DemoSettings
from .stages import make_models, one_thread
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
        folders = _train(out, settings, console, film)
        write_json(out / RECORD, sorted((_told(folder, int(folder.name)) for folder in folders), key=_worth))
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


def _train(out: Path, settings: DemoSettings, console: Console, film: str | None) -> list[Path]:
    """Make the first try here and the others in processes of their own, all at once."""
    seeds = seeds_of(settings)[: settings.tries]
    folders = [out / FOLDER / str(seed) for seed in seeds]
    cores = os.cpu_count() or 1
    console.print(
        f"{len(seeds)} tries side by side, with seeds {', '.join(map(str, seeds))}; the first is shown"
        + (f". They share {cores} cores and take the longer" if len(seeds) > cores else ""),
        highlight=False,
    )
    for folder, seed in zip(folders, seeds, strict=True):
        write_config(folder, "demo", replace(settings, seed=seed, tries=1, restarts=0))
    with ExitStack() as started:
        others = [started.enter_context(_started(folder, film)) for folder in folders[1:]]
        run_try(folders[0], console, film)
        for folder, process in zip(folders[1:], others, strict=True):
            _wait(folder, process, console)
    return folders


def run_try(folder: Path, console: Console, film: str | None = None) -> None:
    """Make the models of a try, as its config.yaml says."""
    settings = DemoSettings(**read_config(folder / FILE, "demo", DemoSettings))
    task = Addition(settings.digits)
    with locked(folder), quiet(), one_thread():
        make_models(task, settings, folder, console, None if film is None else task.parse(film))


@contextmanager
def _started(folder: Path, film: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that makes a try until it is done or this block, or this process, ends."""
    command = [sys.executable, "-m", __name__, str(folder), *([] if film is None else ["--film", film])]
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()  # it ends at once, if it has not
        process.wait()


def _wait(folder: Path, process: subprocess.Popen[bytes], console: Console) -> None:
    """Show the last line of a try until it has ended."""
    shown = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        if time.monotonic() - shown > LINE_SECONDS:
            shown = time.monotonic()
            console.print(f"seed {folder.name}: {_last_line(folder)}", highlight=False)
    if process.returncode:
        raise refuse(
            f"the try in {folder} ended with exit code {process.returncode}: {_last_line(folder)}",
            "a run that ends with a model",
            f"read {folder / LOG}, and run again: what is complete is reused",
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


def _worth(told: dict[str, Any]) -> tuple[bool, bool, float]:
    """Inside its ceiling the sparsest goes first, if it found something; outside it the one that misses it least."""
    return not told["feasible"], _found_nothing(told), told["density" if told["feasible"] else "divergence"]


def _end_with_parent() -> None:
    """End this process when the other end of its standard input is closed, as it is when its parent ends."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Make one try, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--film")
    given = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run_try(given.folder, Console(width=200), given.film)


if __name__ == "__main__":
    main()
