"""The documents of the project: README, DESIGN, CONTRIBUTING and the pages of the site; their code blocks and links.

A fence may say after its language why its block is not run, or how its last command ends:

    ```sh skip=gpu          not run: it needs a GPU. The reasons are in SKIPS.
    ```sh exit=1            every command ends with 0, the last one with 1.
    ```sh small=steps:20    the test runs it with --steps 20, whatever the page says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs"
SKIPS = {
    "gpu": "it needs a GPU, or more than one",
    "hub": "it needs the network",
    "install": "it changes the environment",
    "server": "it runs until it is stopped",
    "minutes": "it takes minutes; a test of its own runs it",
    "record": "it makes the record of an experiment, in hours",
    "extra": "it needs a package that is in no extra of ours",
    "shape": "it shows a form, and does nothing",
}
FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<info>[^`]*)$")


@dataclass(frozen=True)
class Block:
    """One code block: where it stands, its language, what its fence says, and its text."""

    page: Path
    line: int
    language: str
    marks: dict[str, str]
    text: str

    @property
    def place(self) -> str:
        """Where to look, as an editor takes it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README and the pages of the site, in a fixed order."""
    return [ROOT / "README.md", *sorted(SITE.rglob("*.md"))]


def fences(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, directives too."""
    ticks, info, start, text = "", "", 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        found = FENCE.match(line)
        if not ticks and found:
            ticks, info, start, text = found["ticks"], found["info"].strip(), number, []
        elif ticks and line.strip() == ticks:
            yield _block(page, start, info, text)
            ticks = ""
        elif ticks:
            text.append(line)
    assert not ticks, f"{page}:{start}: a fence that nothing closes"


def _block(page: Path, line: int, info: str, text: list[str]) -> Block:
    language, *words = info.split() or [""]
    marks = dict(word.split("=", 1) for word in words if "=" in word)
    return Block(page, line, language, marks, "\n".join(text) + "\n")


def code(page: Path) -> list[Block]:
    """The blocks of a page that somebody would type."""
    return [block for block in fences(page) if block.language in ("python", "sh")]


def prose(page: Path) -> str:
    """A page without its fenced blocks, line by line as it was."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in fences(page):
        size = block.text.count("\n") - (block.text == "\n")
        for number in range(block.line - 1, block.line + size + 1):
            lines[number] = ""
    return "\n".join(lines)


def commands(text: str) -> list[str]:
    """The commands of a shell block, continued lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [
        line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
