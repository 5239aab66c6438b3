"""Every code block of README and the site runs, in the order of its page; those that cannot run here say why.

The Quickstart comes first: it trains a small GPT-2 in `my-gpt2` and makes it sparse in `run`, and every other page
works on these two folders, as its reader would. So the whole path of the README is walked here, command by command.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from transformers import BertForMaskedLM

from gossamer.circuits.trace import trace
from gossamer.cli import app, main
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save, save_folder
from gossamer.recipes.addition.task import Addition
from helpers.documents import ROOT, SITE, SKIPS, Block, code, commands, pages

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]
QUICKSTART = SITE / "quickstart.md"
OTHERS = [page for page in pages() if page != QUICKSTART and code(page)]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the Quickstart was done, and the demo is there, untrained."""
    folder = tmp_path_factory.mktemp("docs")
    adders(folder / "demo")
    run_page(QUICKSTART, folder)
    return folder


def adders(folder: Path) -> None:
    """What `gossamer demo` leaves, but of models that do not add: it trains for minutes, and has tests of its own."""
    task = Addition()
    torch.manual_seed(0)
    base, sparse = (BertForMaskedLM(task.model_config()).eval() for _ in range(2))
    save_folder(base, folder / "base")
    gates = attach(sparse, check=False)
    inputs, _ = task.encode(torch.arange(0, 10_000, 101))
    gates.bias = -float(np.quantile(trace(sparse, inputs).logit, 0.99))  # about 19 edges stay open
    save(sparse, folder / "sparse")


def run_page(page: Path, folder: Path) -> None:
    """Run the blocks of a page in one namespace and one folder."""
    here, names = Path.cwd(), {"__name__": "__main__"}
    os.chdir(folder)
    try:
        for block in code(page):
            if "skip" not in block.marks:
                run_block(block, names)
    finally:
        os.chdir(here)


def run_block(block: Block, names: dict[str, Any]) -> None:
    """Run one block; what goes wrong names the page and the line."""
    if block.language == "python":
        exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)
        return
    lines = commands(smaller(block))
    for i, line in enumerate(lines):
        expected = int(block.marks.get("exit", 0)) if i == len(lines) - 1 else 0
        words = shlex.split(line, comments=True)
        assert words[0] == "gossamer", f"{block.place}: {words[0]} cannot be run here; mark the fence"
        assert main(words[1:]) == expected, f"{block.place}: {line}"


def smaller(block: Block) -> str:
    """The text of a block with the one option that its fence makes smaller for the test."""
    if "small" not in block.marks:
        return block.text
    option, _, value = block.marks["small"].partition(":")
    text, times = re.subn(rf"(--{option}) \S+", rf"\1 {value}", block.text)
    assert times == 1, f"{block.place}: {times} times --{option}"
    return text


def test_the_quickstart_runs(workspace: Path) -> None:
    """The path from a model of one's own to its sparse version, a figure and a circuit that was put to the test."""
    for name in ("my-gpt2", "run/model", "run/report.html", "figure.pdf", "proof.json"):
        assert (workspace / name).exists(), name


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, workspace: Path) -> None:
    run_page(page, workspace)


@pytest.mark.parametrize("page", [page for page in pages() if code(page)], ids=lambda page: page.stem)
def test_a_block_that_is_not_run_says_why_and_could_be_typed(page: Path) -> None:
    for block in code(page):
        assert set(block.marks) <= {"skip", "exit", "small"}, block.place
        assert block.marks.get("skip", "gpu") in SKIPS, block.place
        if block.language == "python":
            compile(block.text, str(block.page), "exec")
        elif block.marks.get("skip") != "shape":
            for line in commands(block.text):
                require_typeable(block, shlex.split(line, comments=True))


def require_typeable(block: Block, words: list[str]) -> None:
    """A command names a verb that is there, with options that it has; make, a target that is there."""
    if words[0] == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(f"\n{word}:" in targets for word in words[1:] if "=" not in word), block.place
    if "gossamer" not in words or words[0] == "pip":
        return
    verb, *rest = words[words.index("gossamer") + 1 :]
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if verb.startswith("-"):
        return
    assert verb in known, f"{block.place}: no verb {verb}"
    options = {name for one in known[verb].params for name in (*one.opts, *one.secondary_opts)}
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert given <= options | {"--help"}, f"{block.place}: {sorted(given - options)}"


def test_what_is_not_run_is_the_smaller_part() -> None:
    """A page whose blocks are all marked teaches something that nobody has tried."""
    blocks = [block for page in pages() for block in code(page)]
    run = [block for block in blocks if "skip" not in block.marks]
    assert len(run) > len(blocks) / 2, f"{len(run)} of {len(blocks)}"
