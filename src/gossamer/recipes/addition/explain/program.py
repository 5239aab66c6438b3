"""What the head outputs of an adding model carry, as words for values, and the program that follows from them.

A *fact* is a function of the two operands:

    digit      the one operand digit at a position
    seen S     that digit if it is one of the values S, else silence: an edge that only S opens
    pair p     the sum of the two digits of place p, 0 .. 18
    step p     whether that sum is below 9, 9 or above: what place p does with a carry that comes in
    answer p   the digit of place p of the sum
    carry p    whether places 0 .. p together carry into place p + 1
    nothing    a constant

A *head output* is all that one head brings to one position: (layer, head, query). Its *message* names the
positions that it reads, its declared inputs beside the reader itself, and the facts that it hands over; none
is the empty message.

The program. Every position starts with its own digit. Layer by layer, each head output hands over the values of
its facts, as far as they can be worked out from what is known at its declared inputs, to the position that
reads. At the end the slot of place p answers (a_p + b_p + carry of p - 1) mod 10. Known facts are used by
these rules alone:

    digit     = the only value that agrees with all that was seen of it; silence tells, too
    pair p    = digit a_p + digit b_p                 step p = pair p below 9, 9, above 9
    carry p   = 0, carry p - 1, 1 by step p           carry below the units = 0
    answer p  = (pair p + carry p - 1) mod 10

What cannot be worked out, or is told in two ways, is an error of the messages and not guessed: the program has
then not explained that slot. A message is a function of its facts alone, so as a table it has one entry for each
combination of their values (`entries`); nothing else of the sum is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..task import Addition
from .facts import Fact, Knowledge, Truth, derive, in_words, place_name, pool, position_name, slot_of

HeadOutput = tuple[int, int, int]  # layer, head, query


class Message(NamedTuple):
    """What a head output reads and what it hands over: positions in order, and facts, none for nothing."""

    keys: tuple[int, ...]
    facts: tuple[Fact, ...]

    def words(self, task: Addition) -> str:
        """The facts in words."""
        return in_words(task, self.facts)


@dataclass(frozen=True)
class Program:
    """The messages of an adding model, to be executed.

    Attributes:
        task: the task.
        messages: head output -> message.
    """

    task: Addition
    messages: Mapping[HeadOutput, Message]

    def knowledge(
        self, truth: Truth, *, instead: Mapping[HeadOutput, np.ndarray] | None = None
    ) -> list[Knowledge]:
        """What every position knows after the last layer that has messages, on all sums.

        Args:
            instead: head output -> numbers (n_sums,) of the sums whose message it hands over instead of its own:
                an interchange.
        """
        states: list[Knowledge] = [{} for _ in range(self.task.length)]
        for position, (kind, place) in self.task.place.items():
            if kind == "digit":
                states[position][Fact("digit", place, position)] = truth.columns[:, position]
        for layer in sorted({head_output[0] for head_output in self.messages}):
            before = list(states)  # attention reads the layer below
            for head_output, message in self.messages.items():
                if head_output[0] != layer or not message.facts:
                    continue
                handed = self._handed(message, head_output, before, truth, (instead or {}).get(head_output))
                states[head_output[2]] = pool((states[head_output[2]], handed))
        return states

    def _handed(
        self,
        message: Message,
        head_output: HeadOutput,
        states: list[Knowledge],
        truth: Truth,
        others: np.ndarray | None,
    ) -> Knowledge:
        if others is not None:
            return {fact: truth.of(fact)[others] for fact in message.facts}
        inputs = pool(states[position] for position in (*message.keys, head_output[2]))
        return {fact: derive(self.task, inputs, fact, len(truth.columns)) for fact in message.facts}

    def run(self, truth: Truth, *, instead: Mapping[HeadOutput, np.ndarray] | None = None) -> np.ndarray:
        """(n_sums, digits + 1) the answer of every live slot, units first; below 0 where it does not
        follow. `instead` as in `knowledge`."""
        states, n = self.knowledge(truth, instead=instead), len(truth.columns)
        answers = [
            derive(self.task, states[slot_of(self.task, place)], Fact("answer", place), n)
            for place in range(self.task.digits + 1)
        ]
        return np.stack(answers, axis=1)

    def correct(self, truth: Truth) -> np.ndarray:
        """(n_sums,) bool: whether the program answers the whole sum rightly."""
        right = [truth.of(Fact("answer", place)) for place in range(self.task.digits + 1)]
        return (self.run(truth) == np.stack(right, axis=1)).all(1)

    def entries(self, truth: Truth) -> dict[HeadOutput, int]:
        """Table entries of every message: the combinations of values that its facts have."""
        return {head_output: truth.entries(message.facts) for head_output, message in self.messages.items()}

    def words(self) -> list[str]:
        """The algorithm: one sentence per position that others read, then one per answer slot, units first."""
        slots = [slot_of(self.task, place) for place in range(self.task.digits + 1)]
        others = sorted({b[2] for b, message in self.messages.items() if message.facts} - set(slots))
        text = [f"The {position_name(self.task, p)} reads {self._reads(p)}." for p in others]
        answers = [
            f"The {place_name(place)} slot reads {self._reads(slot)}, and answers {self._rule(place)}."
            for place, slot in enumerate(slots)
        ]
        return text + answers

    def _reads(self, position: int) -> str:
        """What one position is handed, layer by layer, with the heads that hand over the same."""
        heads: dict[tuple[int, str, str], list[str]] = {}
        for (layer, head, query), message in sorted(self.messages.items()):
            if query == position and message.facts:
                sources = " and ".join(position_name(self.task, key) for key in message.keys)
                heads.setdefault((layer, message.words(self.task), sources), []).append(str(head))
        steps = [
            f"in layer {layer} {words} (from the {sources}; head {', '.join(numbers)})"
            for (layer, words, sources), numbers in heads.items()
        ]
        return ", then ".join(steps) if steps else "nothing"

    def _rule(self, place: int) -> str:
        carry = f"the carry out of the {place_name(place - 1)}" if place else ""
        if place == self.task.digits:
            return carry
        return f"(the {place_name(place)} digits{' + ' + carry if carry else ''}) mod 10"
