"""Facts about two operands, in words and as values, and what follows from knowing some of them.

What the facts are and the rules by which one follows from others stand in `algorithm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..task import Addition

UNKNOWN, CONFLICT = -1, -2  # not told; told in two ways. Values are 0 and above.
SILENT = 10  # what `seen` says of a digit outside its values
RADIX = 20  # above every value of a fact: the largest is 9 + 9


class Fact(NamedTuple):
    """A value that may be handed over; `place` counts from the units, `position` is for digit and seen only."""

    name: str  # digit, seen, pair, step, answer, carry or nothing
    place: int = 0
    position: int = -1
    values: tuple[int, ...] = ()  # of seen: the digits that are told

    def words(self, task: Addition) -> str:
        """The fact in words."""
        if self.name == "nothing":
            return "nothing that matters"
        place = place_name(self.place)
        if self.name in ("digit", "seen"):
            operand = "first" if self.position < task.digits else "second"
            digit = f"the {place} digit of the {operand} number"
            return digit if self.name == "digit" else f"{digit} if it is {listed(self.values)}"
        return {
            "pair": f"the sum of the two {place} digits",
            "step": f"whether the two {place} digits make less than 9, 9 or more",
            "answer": f"the {place} digit of the answer",
            "carry": f"the carry out of the {place}",
        }[self.name]


def listed(values: Sequence[int]) -> str:
    """`1, 2 or 5`."""
    words = [str(value) for value in values]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


PLACES = ("units", "tens", "hundreds", "thousands", "ten thousands")


def place_name(place: int) -> str:
    """`units`, `tens` ..."""
    return PLACES[place] if place < len(PLACES) else f"10^{place}"


def position_name(task: Addition, position: int) -> str:
    """What stands at a token position: `tens digit of the first number`, `units slot`, `the plus sign` ..."""
    if position in task.place:
        kind, place = task.place[position]
        if kind == "slot":
            return f"{place_name(place)} slot"
        return f"{place_name(place)} digit of the {'first' if position < task.digits else 'second'} number"
    return "the plus sign" if position == task.digits else "the equals sign"


def position_names(task: Addition) -> list[str]:
    """The name of every token position, in order; reports, pages and proofs take their words from here."""
    return [position_name(task, position) for position in range(task.length)]


class Truth:
    """All facts of the sums that are looked at, as arrays in their order.

    Args:
        sums: (n_sums,) their numbers; by default all that the task has.

    Attributes:
        task: the task.
        n_sums: how many sums are looked at.
        columns: (n_sums, positions) the digit at each operand position.
    """

    def __init__(self, task: Addition, sums: Tensor | None = None) -> None:
        self.task, self.sums = task, torch.arange(task.n_sums) if sums is None else sums
        self.n_sums, index, top = len(self.sums), self.sums.numpy(), 10**task.digits
        self.columns = np.zeros((self.n_sums, task.length), dtype=np.int64)
        for position, (kind, place) in self.task.place.items():
            if kind == "digit":
                operand = index // top if position < self.task.digits else index % top
                self.columns[:, position] = operand // 10**place % 10

    def encode(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the sums, as `Addition.encode`."""
        return self.task.encode(self.sums)

    def of(self, fact: Fact) -> np.ndarray:
        """(n_sums,) the value of a fact."""
        known = {
            Fact("digit", place, position): self.columns[:, position]
            for position, (kind, place) in self.task.place.items()
            if kind == "digit"
        }
        return derive(self.task, known, fact, len(self.columns))

    def classes(self, facts: Sequence[Fact]) -> np.ndarray:
        """(n_sums,) the number of the combination of values that a sum has, 0 .. entries - 1."""
        if not facts:
            return np.zeros(len(self.columns), dtype=np.int64)
        code = np.zeros(len(self.columns), dtype=np.int64)
        for fact in facts:
            code = code * RADIX + self.of(fact)
        return np.unique(code, return_inverse=True)[1]

    def entries(self, facts: Sequence[Fact]) -> int:
        """How many combinations of values there are: the size of a table of them."""
        return int(self.classes(facts).max()) + 1


def digits_of(task: Addition, place: int) -> list[int]:
    """The positions of the operand digits of a place."""
    return [position for position, found in task.place.items() if found == ("digit", place)]


def slot_of(task: Addition, place: int) -> int:
    """The position of the answer slot of a place."""
    return next(position for position, found in task.place.items() if found == ("slot", place))


def in_words(task: Addition, facts: Sequence[Fact]) -> str:
    """Facts in words, the two digits of a place together."""
    rest = list(facts)
    found = []
    for place in range(task.digits):
        both = [fact for fact in rest if fact.name == "digit" and fact.place == place]
        if len(both) == 2:
            rest = [fact for fact in rest if fact not in both]
            found.append(f"both {place_name(place)} digits")
        seen = [fact for fact in rest if fact.name == "seen" and fact.place == place]
        if len(seen) == 2 and seen[0].values == seen[1].values:
            rest = [fact for fact in rest if fact not in seen]
            found.append(f"each {place_name(place)} digit that is {listed(seen[0].values)}")
    return " and ".join([*found, *(fact.words(task) for fact in rest)]) or Fact("nothing").words(task)


Knowledge = dict[Fact, np.ndarray]


def derive(task: Addition, known: Knowledge, fact: Fact, n: int) -> np.ndarray:
    """(n,) the value of `fact` by the rules of `algorithm`, below 0 where they do not reach."""
    if fact.name == "nothing":
        return np.zeros(n, dtype=np.int64)
    if fact.name == "digit":
        return _digit(known, fact.position, n)
    found = _by_rule(task, known, fact, n)
    return both(known[fact], found) if fact in known else found


def _by_rule(task: Addition, known: Knowledge, fact: Fact, n: int) -> np.ndarray:
    """A fact from others, whatever was told of it directly."""
    if fact.name == "seen":
        digit = _digit(known, fact.position, n)
        return np.where((digit < 0) | np.isin(digit, fact.values), digit, SILENT)
    if fact.name == "pair":
        if fact.place >= task.digits:
            return np.zeros(n, dtype=np.int64)
        return _sum([_digit(known, position, n) for position in digits_of(task, fact.place)])
    before = derive(task, known, Fact("carry", fact.place - 1), n) if fact.place else np.zeros(n, np.int64)
    if fact.name == "carry":
        step = derive(task, known, Fact("step", fact.place), n)
        return np.select([step < 0, step == 0, step == 1], [step, 0, before], default=1)
    pair = derive(task, known, Fact("pair", fact.place), n)
    if fact.name == "step":
        return np.where(pair < 0, pair, 1 + np.sign(pair - 9))
    total = _sum([pair, before])
    return np.where(total < 0, total, total % 10)


def both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What two sources say of one fact: the one that says something, or a conflict."""
    differs = np.where(first == second, first, CONFLICT)
    return np.select([first == UNKNOWN, second == UNKNOWN], [second, first], default=differs)


def _sum(parts: list[np.ndarray]) -> np.ndarray:
    lowest = np.min(parts, axis=0)  # CONFLICT below UNKNOWN below every value
    return np.where(lowest < 0, lowest, np.sum(parts, axis=0))


def _digit(known: Knowledge, position: int, n: int) -> np.ndarray:
    """The only value that agrees with everything told about the digit at a position."""
    possible = np.ones((n, 10), dtype=bool)
    for fact, value in known.items():
        if fact.position != position:
            continue
        agrees = value[:, None] == np.arange(10)
        if fact.name == "seen":
            agrees |= (value[:, None] == SILENT) & ~np.isin(np.arange(10), fact.values)
        possible &= agrees | (value[:, None] == UNKNOWN)
    left = possible.sum(1)
    return np.where(left == 1, possible.argmax(1), np.where(left == 0, CONFLICT, UNKNOWN))


def pool(states: Iterable[Knowledge]) -> Knowledge:
    """What several positions know together; two values of one fact are a conflict."""
    found: Knowledge = {}
    for state in states:
        for fact, value in state.items():
            found[fact] = both(found[fact], value) if fact in found else value
    return found
