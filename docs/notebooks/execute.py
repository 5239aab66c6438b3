"""Run the notebooks beside this file and keep what they put out: `make notebooks`, or with names for some of them.

A notebook runs from top to bottom, offline, on one thread, in an empty folder of its own. What is kept holds no times
and no places of the machine, so that a notebook that runs twice on one machine does not change. A notebook is refused,
and its file left as it was, where a cell fails or warns, and where the whole takes longer than two minutes of one core.

A core that others use too can be half as fast as it is alone. So seconds are those of an idle core, of the machine of
LOG.md: before and after a notebook a few steps of the demo's base model are timed, which took `IDLE_STEP` there.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from transformers import BertForMaskedLM

from gossamer.recipes.addition.settings import ATTENTION_DROPOUT, BASE_BATCH
from gossamer.recipes.addition.stages import one_thread
from gossamer.recipes.addition.task import Addition

HERE = Path(__file__).parent
MOST_SECONDS = 120.0  # of one idle core
IDLE_STEP = 0.1  # seconds; 700 took 70 (LOG.md, 2026-11-27, `make demo` alone on two cores)
STEPS_TIMED = 10
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # the bars of transformers too: they show times
    "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm, where widgets are not installed
}
# How long a cell trains: the steps of a Trainer, of a schedule, of a loop that counts nothing else, or the rows that it
# makes, and the prompts that it tests. Numbers of two digits are pauses between steps, and shapes.
STEPS = re.compile(r'(\b(?:max_|total_)?steps ?= ?|\bfor _ in range\(|\bbatches\("\w+", )(\d{3,})\b')
# What differs from machine to machine, or from run to run: folders of people and of temporary files, and addresses.
PLACE = re.compile(r"(?<![\w/.])/(?:home|root|Users|tmp|private|var/folders)/|\b[A-Z]:\\|\bat 0x[0-9a-f]{6,}")


def execute(path: Path, steps: float = 1.0) -> tuple[Any, float]:
    """Run a notebook; returns it with what it put out, and the seconds of an idle core that it would take.

    Args:
        steps: the share of its training steps that are taken; of fewer than all, nothing should be kept, and the
            seconds are those of the machine as it is.
    Raises: `CellExecutionError` where a cell fails.
    """
    book = shortened(nbformat.read(path, as_version=4), steps)
    os.environ.update(ENVIRONMENT)  # the kernel inherits it
    # On a part of a notebook, timing the machine would take a tenth of the time.
    timed = slowness if steps == 1 else lambda: 1.0
    before, slower = _children(), timed()
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(book, timeout=1800, record_timing=False, resources=place).execute()
    return clean(book), (_children() - before) / ((slower + timed()) / 2)


def shortened(book: Any, steps: float) -> Any:
    """A notebook that trains for a share of its steps.

    Raises: `ValueError` where nothing in it says how long it trains.
    """
    found = 0
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.source, times = STEPS.subn(lambda m: f"{m[1]}{round(int(m[2]) * steps)}", cell.source)
            found += times
    if not found:
        raise ValueError(f"no cell has steps: {STEPS.pattern}")
    return book


def slowness() -> float:
    """How many times as long as on an idle core of LOG.md's machine a step of the demo's base model takes now.

    Never below 1: a faster machine does not make a notebook longer.
    """
    with one_thread():
        task = Addition()
        model = BertForMaskedLM(task.model_config(attention_dropout=ATTENTION_DROPOUT)).train()
        optimizer = torch.optim.AdamW(model.parameters())
        inputs, labels = task.encode(torch.arange(BASE_BATCH))
        started = 0.0
        for number in range(1 + STEPS_TIMED):
            model(input_ids=inputs, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if not number:  # the first one pays for what torch prepares
                started = time.process_time()
        return max(1.0, (time.process_time() - started) / (STEPS_TIMED * IDLE_STEP))


def clean(book: Any) -> Any:
    """Leave out what says when and by whom a notebook was run, and in how many pieces its prints arrived."""
    book.metadata = nbformat.from_dict(METADATA)
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    return book


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell with prints that follow one another as one."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == "stream" and output.name == found[-1].get("name"):
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def problems(book: Any) -> list[str]:
    """What keeps an executed notebook from being published, in words; empty if nothing."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    numbers = [cell.execution_count for cell in code]
    found = [] if numbers == list(range(1, len(code) + 1)) else [f"cells were run in the order {numbers}"]
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {number} fails: {output.ename}")
            if output.get("name") == "stderr":
                found.append(f"cell {number} warns: {output.text.strip()[:200]}")
            for text in texts_of(output):
                found += [
                    f"cell {number} tells {text[m.start() : m.start() + 60]!r}" for m in PLACE.finditer(text)
                ]
    return found


def texts_of(output: Any) -> Iterator[str]:
    """All that an output says in letters; pictures in base64 say nothing."""
    yield output.get("text", "")
    yield from output.get("traceback", [])
    yield from (text for kind, text in output.get("data", {}).items() if not kind.startswith("image/png"))


def write(book: Any, path: Path) -> None:
    """Write a notebook as Jupyter does: keys sorted, and one line of text a line."""
    nbformat.validate(book)
    nbformat.write(book, path)


def _children() -> float:
    """Processor seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Run notebooks, all of them by default; 1 where one is refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="notebooks, without .ipynb")
    names = parser.parse_args().names or sorted(path.stem for path in HERE.glob("*.ipynb"))
    refused = 0
    for name in names:
        try:
            book, seconds = execute(HERE / f"{name}.ipynb")
        except CellExecutionError as error:
            wrong, seconds = [f"a cell fails with {error.ename}: {error.evalue}"], 0.0
        else:
            wrong = problems(book)
            wrong += [f"it takes {seconds:.0f} seconds of an idle core"] if seconds > MOST_SECONDS else []
        if not wrong:
            write(book, HERE / f"{name}.ipynb")
        refused += bool(wrong)
        print(f"{name}: {'; '.join(wrong) or f'kept, {seconds:.0f} s of an idle core'}", flush=True)
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
