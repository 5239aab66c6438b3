"""Progress of long loops that are no training run: what is under way, how far it is, how long it will take.

A loop counts its items by `counted`, whoever looks. A verb that may take long looks, by `told`: after five seconds, and
then every ten, a line says which loops are under way, from the outermost to the innermost, and how long the first of
them that has come far enough to tell is likely to take. A thread writes it, so that one long step does not silence it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console

FIRST_SECONDS, LINE_SECONDS = 5.0, 10.0  # assumed: a person wants a sign of life, not a flood
Item = TypeVar("Item")


@dataclass(eq=False)
class Loop:
    """One loop under way.

    Attributes:
        total: items in all; None where that shows only at the end.
    """

    title: str
    total: int | None
    done: int = 0
    begun: float = field(default_factory=lambda: time.monotonic())  # looked up when it is called

    def left(self) -> float | None:
        """Seconds that the other items take at the pace of those that are done; None where nothing tells."""
        if not self.total or not self.done:
            return None
        return (time.monotonic() - self.begun) / self.done * (self.total - self.done)

    def in_words(self) -> str:
        """The title, and how far it is."""
        if self.total is None:
            return f"{self.title} {self.done}" if self.done else self.title
        return f"{self.title} {self.done} of {self.total}"


_under_way: list[Loop] = []


@contextmanager
def under_way(title: str, total: int | None = None) -> Iterator[Loop]:
    """A loop whose `done` the block raises itself; without a total, a stage that holds other loops."""
    loop = Loop(title, total)
    _under_way.append(loop)
    try:
        yield loop
    finally:
        _under_way.remove(loop)


def counted(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """The items, counted while they are gone through.

    Args:
        total: how many there are, where they have no length.
    """
    known = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
    with under_way(title, known) as loop:
        for item in items:
            yield item
            loop.done += 1


def state() -> str:
    """The loops under way as one line, with what the first of them that can be judged still takes."""
    words, judged = [], False
    for loop in list(_under_way):
        left = None if judged else loop.left()
        words.append(loop.in_words() + ("" if left is None else f" (about {_as_time(left)} left)"))
        judged |= left is not None
    return ", ".join(words) or "loading"


def _as_time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


@contextmanager
def told(verb: str) -> Iterator[None]:
    """Say on standard error what is under way inside the block, if it takes longer than five seconds."""
    console, ended = Console(stderr=True, highlight=False, soft_wrap=True), threading.Event()

    def tell() -> None:
        wait = FIRST_SECONDS
        while not ended.wait(wait):
            console.print(f"{verb}: {state()}", markup=False)
            wait = LINE_SECONDS

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
