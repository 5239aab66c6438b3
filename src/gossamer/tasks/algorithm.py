"""What the edges of an adding model carry, as words for values, and the program that follows from them.

A *fact* is a function of the two operands, and an edge is labelled with the facts that it transports:

    digit      the one operand digit at the position that is read
    pair p     the sum of the two digits of place p, 0 .. 18
    answer p   the digit of place p of the sum
    carry p    whether places 0 .. p together carry into place p + 1
    nothing    a constant

The program. Every position starts with its own digit. Layer by layer, each labelled edge hands the value of
its fact from the position that is read, if that position can work it out from what it knows, to the one that
reads. At the end the slot of place p answers (a_p + b_p + carry of p - 1) mod 10. Known facts are used by
these rules alone:

    pair p    = digit a_p + digit b_p                  carry p = 1[pair p + carry p - 1 >= 10], 0 below the
    units answer p  = (pair p + carry p - 1) mod 10          carry p = 0 / 1 already if pair p < 9 / > 9

What cannot be worked out is an error of the labels, not guessed: the program has then not explained that
slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..circuit import Edge
from .addition import Addition

UNKNOWN = -1


class Fact(NamedTuple):
    """A value that an edge may carry; `place` counts from the units, `position` is used for digits only."""

    name: str  # digit, pair, answer, carry or nothing
    place: int = 0
    position: int = -1

    def words(self, task: Addition) -> str:
        """The fact in words."""
        if self.name == "nothing":
            return "nothing that matters"
        place = place_name(self.place)
        if self.name == "digit":
            operand = "first" if self.position < task.digits else "second"
            return f"the {place} digit of the {operand} number"
        return {
            "pair": f"the sum of the two {place} digits",
            "answer": f"the {place} digit of the answer",
            "carry": f"the carry out of the {place}",
        }[self.name]


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


@dataclass
class Truth:
    """All facts of all sums, as arrays over sum numbers."""

    task: Addition
    columns: np.ndarray = field(init=False)  # (n_sums, positions) the digit at each operand position

    def __post_init__(self) -> None:
        index = np.arange(self.task.n_sums)
        top = 10**self.task.digits
        self.columns = np.zeros((len(index), self.task.length), dtype=np.int64)
        for position, (kind, place) in self.task.place.items():
            if kind == "digit":
                operand = index // top if position < self.task.digits else index % top
                self.columns[:, position] = operand // 10**place % 10

    def of(self, fact: Fact) -> np.ndarray:
        """(n_sums,) the value of a fact."""
        if fact.name == "nothing":
            return np.zeros(len(self.columns), dtype=np.int64)
        if fact.name == "digit":
            return self.columns[:, fact.position]
        if fact.name == "pair":
            return self.columns[:, digits_of(self.task, fact.place)].sum(1)
        carry = np.zeros(len(self.columns), dtype=np.int64)
        for place in range(fact.place + (fact.name == "carry")):
            carry = (self._pair(place) + carry >= 10).astype(np.int64)
        return carry if fact.name == "carry" else (self._pair(fact.place) + carry) % 10

    def _pair(self, place: int) -> np.ndarray:
        if place >= self.task.digits:
            return np.zeros(len(self.columns), dtype=np.int64)
        return self.of(Fact("pair", place))


def digits_of(task: Addition, place: int) -> list[int]:
    """The positions of the operand digits of a place."""
    return [position for position, found in task.place.items() if found == ("digit", place)]


def slot_of(task: Addition, place: int) -> int:
    """The position of the answer slot of a place."""
    return next(position for position, found in task.place.items() if found == ("slot", place))


Knowledge = dict[Fact, np.ndarray]


def derive(task: Addition, known: Knowledge, fact: Fact, n: int) -> np.ndarray:
    """(n,) the value of `fact` by the rules of the module docstring, `UNKNOWN` where they do not reach."""
    if fact.name == "nothing":
        return np.zeros(n, dtype=np.int64)
    if fact in known:
        return known[fact]
    unknown = np.full(n, UNKNOWN)
    if fact.name == "digit":
        return unknown
    if fact.name == "pair":
        if fact.place >= task.digits:
            return np.zeros(n, dtype=np.int64)
        parts = [known.get(Fact("digit", fact.place, p), unknown) for p in digits_of(task, fact.place)]
        return np.where(np.min(parts, axis=0) == UNKNOWN, UNKNOWN, np.sum(parts, axis=0))
    pair = derive(task, known, Fact("pair", fact.place), n)
    before = _carry_into(task, known, fact.place, n)
    total = np.where((pair == UNKNOWN) | (before == UNKNOWN), UNKNOWN, pair + before)
    if fact.name == "answer":
        return np.where(total == UNKNOWN, UNKNOWN, total % 10)
    found = np.where(total == UNKNOWN, UNKNOWN, total // 10)
    settled = np.where(pair > 9, 1, 0)
    return np.where((found == UNKNOWN) & (pair != UNKNOWN) & (pair != 9), settled, found)


def _carry_into(task: Addition, known: Knowledge, place: int, n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.int64) if place == 0 else derive(task, known, Fact("carry", place - 1), n)


@dataclass(frozen=True)
class Program:
    """The labelled edges of an adding model, to be executed.

    Attributes:
        task: the task.
        labels: edge -> fact.
    """

    task: Addition
    labels: Mapping[Edge, Fact]

    def run(self, truth: Truth, *, instead: tuple[Edge, np.ndarray] | None = None) -> np.ndarray:
        """(n_sums, digits + 1) the answer of every live slot, units first; `UNKNOWN` where it does not
        follow.

        Args:
            instead: an edge and the values (n_sums,) that it hands over instead of its own: an interchange.
        """
        n = len(truth.columns)
        states: dict[int, Knowledge] = {p: {} for p in range(self.task.length)}
        for position, (kind, place) in self.task.place.items():
            if kind == "digit":
                states[position][Fact("digit", place, position)] = truth.columns[:, position]
        for layer in sorted({edge[0] for edge in self.labels}):
            self._layer(layer, states, instead, n)
        slots = [(place, states[slot_of(self.task, place)]) for place in range(self.task.digits + 1)]
        return np.stack(
            [derive(self.task, known, Fact("answer", place), n) for place, known in slots], axis=1
        )

    def _layer(
        self, layer: int, states: dict[int, Knowledge], instead: tuple[Edge, np.ndarray] | None, n: int
    ) -> None:
        arriving: list[tuple[int, Fact, np.ndarray]] = []
        for edge, fact in self.labels.items():
            if edge[0] != layer or fact.name == "nothing":
                continue
            value = derive(self.task, states[edge[3]], fact, n)
            if instead is not None and instead[0] == edge:
                value = instead[1]
            arriving.append((edge[2], fact, value))
        for query, fact, value in arriving:  # after all were read: attention reads the layer below
            before = states[query].get(fact)
            states[query][fact] = value if before is None else np.where(value == UNKNOWN, before, value)

    def correct(self, truth: Truth) -> np.ndarray:
        """(n_sums,) bool: whether the program answers the whole sum rightly."""
        right = [truth.of(Fact("answer", place)) for place in range(self.task.digits + 1)]
        return (self.run(truth) == np.stack(right, axis=1)).all(1)

    def words(self) -> list[str]:
        """The algorithm, one sentence per answer slot, the units first."""
        return [self._slot_in_words(place) for place in range(self.task.digits + 1)]

    def _slot_in_words(self, place: int) -> str:
        slot = slot_of(self.task, place)
        into = ((e, f) for e, f in self.labels.items() if e[2] == slot and f.name != "nothing")
        read = sorted(
            {(edge[0] + 1, fact.words(self.task), position_name(self.task, edge[3])) for edge, fact in into}
        )
        steps = [f"in layer {layer} {words} (from the {source})" for layer, words, source in read]
        reads = ", then ".join(steps) if steps else "nothing"
        return f"The {place_name(place)} slot reads {reads}, and answers {self._rule(place)}."

    def _rule(self, place: int) -> str:
        carry = f"the carry out of the {place_name(place - 1)}" if place else ""
        if place == self.task.digits:
            return carry
        return f"(the {place_name(place)} digits{' + ' + carry if carry else ''}) mod 10"
