"""What a tokenizer puts around a text: rows to train on begin as prompts begin, and none begins twice.

A beginning-of-sequence token is where many heads of a decoder rest, so a row without it is another input than any that
the model is used on. A text from a chat template carries its own already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import refuse

PROBES = ("a", "0", "the")


class Frame(NamedTuple):
    """The special tokens before and after every text of a tokenizer."""

    before: list[int]
    after: list[int]

    @classmethod
    def of(cls, tokenizer: Any) -> Frame:
        """Read them off what it makes of a short text."""
        for probe in PROBES:
            whole = list(tokenizer(probe)["input_ids"])
            plain = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
            for start in range(len(whole) - len(plain) + 1) if plain else ():
                if whole[start : start + len(plain)] == plain:
                    return cls(whole[:start], whole[start + len(plain) :])
        raise refuse(
            f"{type(tokenizer).__name__}, which changes a text by its special tokens",
            "a tokenizer that puts them before and after it",
            "take another one",
        )

    def doubled(self, ids: Sequence[int], at: int = 0) -> int:
        """How many tokens from `at` on a text brings itself of those that come before it."""
        n = len(self.before)
        return n if n and list(ids[at : at + n]) == self.before else 0

    def once(self, ids: list[int]) -> list[int]:
        """The tokens of a text that a tokenizer has framed, without those before it that the text brings itself."""
        return ids[self.doubled(ids, len(self.before)) :]

    def width(self, length: int) -> int:
        """How many tokens of a text are in a row of `length`."""
        return length - len(self.before) - len(self.after)

    def around(self, ids: Sequence[int], length: int | None = None) -> list[int]:
        """The tokens of a text in its frame, cut to `length`."""
        body = list(ids[self.doubled(ids) :])
        return [*self.before, *(body if length is None else body[: self.width(length)]), *self.after]
