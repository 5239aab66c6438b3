"""Addition of two n-digit numbers, all output tokens at once, as in Figure 1 of arXiv 2512.05865.

    input   3 6 + 2 8 = ? ? ? ? ?        n digits, +, n digits, =, then n + 3 mask tokens
    output  3 6 + 2 8 = 0 0 0 6 4        the same prefix, then the sum, zero-padded

n + 3 answer slots for n digits is the figure's own padding (five for two digits); n + 1 of them are live.

What addition needs. The answer slot of place p (units: 0) depends on the operand digits of every place <= p, the
lower ones through the carry alone. So a position pair (query, key) is *sound* if

    digit edge   an operand digit of place p is read by the answer slot of a place >= p, up to n
    carry edge   an answer slot of place p is read by the answer slot of a place > p, up to n

and nothing else is. A slot that reads a *higher* slot is no carry, yet it can hand on what that slot has
read: such a relay is counted apart (`precision(..., relays=True)` takes it as sound). A wiring is *complete*
if every digit of place <= p reaches the slot of place p along open edges, layer by layer. Precision is the
share of open edges that are sound; recall is the share of needed (digit, slot) dependencies that are reached.
The fewest edges of a complete wiring that is the same for all sums: 3 n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig

from ...circuits.circuit import Circuit
from ...errors import refuse, require_range

VOCABULARY = (*"0123456789", "+", "=", "?")
PLUS, EQUALS, MASK = 10, 11, 12
# BERT's own 0.02 left more edges in prototype runs, about 10 against 8 to 9 at 0.1 (LOG.md; not a controlled test).
INITIALIZER_RANGE = 0.1
MOST_DIGITS = 3  # all 10 ** (2 n) sums are held at once: a million for three, 100 million for four
MOST_CHECKED = 100_000  # sums that a proof looks at; where there are more, a sample of so many
PADDING = 3  # answer slots beyond n: the carry, and two zeros that the figure shows


@dataclass(frozen=True)
class Addition:
    """The task for operands of `digits` digits; there are 100 ** digits sums."""

    digits: int = 2

    def __post_init__(self) -> None:
        require_range("digits", self.digits, 1, MOST_DIGITS)

    @property
    def n_sums(self) -> int:
        """How many different sums there are, 10 ** (2 n)."""
        return 100**self.digits

    @property
    def n_slots(self) -> int:
        """Answer slots, zero-padding included."""
        return self.digits + PADDING

    @property
    def length(self) -> int:
        """Tokens per sum: 11 for two digits."""
        return 2 * self.digits + 2 + self.n_slots

    def operands(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The two operands of sum number `index` in [0, n_sums)."""
        return index // 10**self.digits, index % 10**self.digits

    def index(self, first: int, second: int) -> int:
        """The number of the sum first + second."""
        top = 10**self.digits - 1
        if not (0 <= first <= top and 0 <= second <= top):
            raise refuse(f"{first} + {second}", f"two numbers from 0 to {top}", "choose other operands")
        return first * 10**self.digits + second

    def parse(self, text: str) -> int:
        """The number of the sum written as `36+28`; spaces are allowed."""
        parts = [part.strip() for part in text.split("+")]
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise refuse(f"sum {text!r}", "two numbers and a plus sign", "write for example 36+28")
        if any(len(part) > self.digits for part in parts):
            raise refuse(
                f"sum {text!r}",
                f"operands of at most {self.digits} digits",
                "write for example 36+28",
            )
        return self.index(int(parts[0]), int(parts[1]))

    def encode(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the sums `index` (N,): two (N, length) int64 tensors."""
        first, second = self.operands(index)
        prefix = [*_places(first, self.digits), torch.full_like(first, PLUS)]
        prefix += [*_places(second, self.digits), torch.full_like(first, EQUALS)]
        blanks = [torch.full_like(first, MASK)] * self.n_slots
        answer = _places(first + second, self.n_slots)
        return torch.stack(prefix + blanks, dim=1), torch.stack(prefix + answer, dim=1)

    def split(self, seed: int, held_out: float = 0.2) -> tuple[Tensor, Tensor]:
        """Indices (train, held out) of a seeded split of all sums, both shuffled."""
        require_range("held_out", held_out, 0.0, 0.9)
        order = torch.randperm(self.n_sums, generator=torch.Generator().manual_seed(seed))
        cut = self.n_sums - int(self.n_sums * held_out)
        return order[:cut], order[cut:]

    def checked(self, seed: int, most: int | None = None) -> Tensor:
        """The sums that a proof looks at, in order: all of them, or a seeded sample of `most`, or `MOST_CHECKED`."""
        most = MOST_CHECKED if most is None else most
        if self.n_sums <= most:
            return torch.arange(self.n_sums)
        draw = torch.Generator().manual_seed(seed + 1)  # another draw than the split's
        return torch.randperm(self.n_sums, generator=draw)[:most].sort().values

    def model_config(
        self, *, width: int = 64, layers: int = 4, heads: int = 4, attention_dropout: float = 0.0
    ) -> BertConfig:
        """A BERT for this task, with `?` as its mask token and no dropout but on its attention weights, if asked."""
        return BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            initializer_range=INITIALIZER_RANGE,
            max_position_embeddings=self.length,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=attention_dropout,
            pad_token_id=None,
        )

    @cached_property
    def place(self) -> dict[int, tuple[str, int]]:
        """Position -> ("digit" | "slot", decimal place) for operand digits and answer slots."""
        n = self.digits
        found = {position: ("digit", n - 1 - position) for position in range(n)}
        found |= {n + 1 + i: ("digit", n - 1 - i) for i in range(n)}
        return found | {2 * n + 2 + i: ("slot", self.n_slots - 1 - i) for i in range(self.n_slots)}

    def is_sound(self, query: int, key: int, *, relays: bool = False) -> bool:
        """Whether addition can need `query` to read `key` (see the module docstring)."""
        if query not in self.place or key not in self.place or query == key:
            return False
        (reader, at), (source, of) = self.place[query], self.place[key]
        if reader != "slot" or at > self.digits or of > self.digits:
            return False
        return of <= at if source == "digit" else of < at or relays

    @cached_property
    def dependencies(self) -> set[tuple[int, int]]:
        """The (slot, digit) pairs in which the slot's value depends on the digit."""
        slots = [p for p, (kind, at) in self.place.items() if kind == "slot" and at <= self.digits]
        digits = [p for p, (kind, _) in self.place.items() if kind == "digit"]
        return {(s, d) for s in slots for d in digits if self.place[d][1] <= self.place[s][1]}

    def precision(self, circuit: Circuit, *, relays: bool = False) -> float:
        """Share of all open edges, over all prompts, that are sound; 1 for an empty circuit."""
        if not len(circuit):
            return 1.0
        positions = range(self.length)
        sound = np.array(
            [[self.is_sound(query, key, relays=relays) for key in positions] for query in positions]
        )
        return float(sound[circuit.query, circuit.key].mean())

    def recall(self, circuit: Circuit) -> float:
        """Share of the needed (slot, digit) dependencies that an open path connects, over all prompts together."""
        reached = np.eye(self.length, dtype=bool)  # [position, source], through the layers so far
        for layer in range(circuit.n_layers):
            here = circuit.layer == layer
            joined = np.zeros_like(reached)
            joined[circuit.query[here], circuit.key[here]] = True
            reached |= joined @ reached
        found = sum(bool(reached[slot, digit]) for slot, digit in self.dependencies)
        return found / len(self.dependencies)


def as_text(tokens: Tensor) -> tuple[str, ...]:
    """Token ids (T,) as text."""
    return tuple(VOCABULARY[i] for i in tokens.tolist())


def _places(number: Tensor, n: int) -> list[Tensor]:
    return [number // 10**place % 10 for place in reversed(range(n))]
