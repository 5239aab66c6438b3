"""Tasks on Python code: the next argument of a docstring, the quote that closes, and brackets still open.

docstring   def load(self, size, path, mode): ... :param size: ... :param path: ... :param -> mode
                                                        corrupt: another third argument
quotes      say = ' red stone                -> ', not "     corrupt: opened by the other quote
brackets    f ( [ 1 , 2 ]                    -> ), not end of line
                                                        corrupt: f = [ 1 , 2 ], nothing left open
"""

from __future__ import annotations

import random

from .language import WORDS
from .pairs import Pair

FUNCTIONS = ("load", "save", "send", "read", "open", "sort", "move", "copy", "draw", "scan")
ARGUMENTS = (" size", " path", " mode", " name", " file", " host", " port", " text", " data", " kind")
DOC = " " + '"' * 3
QUOTES = ("'", '"')
DIGITS = tuple(f" {digit}" for digit in range(10))
OPENERS, CLOSERS = (" (", " [", " {"), (" )", " ]", " }")


def docstring(n: int, seed: int = 0) -> list[Pair]:
    """The third argument of a documented function; the description in between varies in length."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        template = rng.randrange(2)
        first, second, third, other = rng.sample(ARGUMENTS, 4)
        name, note = rng.choice(FUNCTIONS), tuple(rng.sample(WORDS, 2 + template))
        one, two = (tuple(rng.sample(WORDS, 1 + template)) for _ in range(2))
        tail = (" )", ":", DOC, *note, " :param", first, ":", *one, " :param", second, ":", *two, " :param")
        head = ("def", f" {name}", " (", " self", ",", first, ",", second, ",")
        found.append(Pair((*head, third, *tail), (*head, other, *tail), (third,), (other,), template))
    return found


def quotes(n: int, seed: int = 0) -> list[Pair]:
    """A string of one to four words; it is closed by what opened it."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        opened, other = rng.sample(QUOTES, 2)
        length = rng.randint(1, 4)
        words = tuple(rng.sample(WORDS, length))
        target = rng.choice(ARGUMENTS)
        clean, corrupt = ((target, " =", quote, *words) for quote in (opened, other))
        found.append(Pair(clean, corrupt, (opened,), (other,), length - 1))
    return found


def brackets(n: int, seed: int = 0) -> list[Pair]:
    """One or two lists inside something that is, or is not, a bracket still open; three kinds of bracket."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        kind, inner, lists = rng.randrange(3), rng.randrange(3), rng.randint(1, 2)
        body: tuple[str, ...] = ()
        for number in range(lists):
            first, second = rng.choice(DIGITS), rng.choice(DIGITS)
            body += (" ,",) * (number > 0) + (OPENERS[inner], first, " ,", second, CLOSERS[inner])
        name, outer = rng.choice(ARGUMENTS), [(OPENERS[kind], CLOSERS[kind]), (" =", "\n")]
        rng.shuffle(outer)
        (opened, right), (other, wrong) = outer
        found.append(Pair((name, opened, *body), (name, other, *body), (right,), (wrong,), lists - 1))
    return found
