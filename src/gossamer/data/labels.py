"""Labels as people write them, as the numbers that a head is compared with.

    classes   a name of the model's config, or the number of a class             -> its number
    labels    a list of them, or a 0 or 1 for each label of the model            -> K of 0 and 1
    values    a number, or a list of K                                           -> K numbers

Text is stripped; a name is found whatever its case, where that leaves one; a list in a cell of CSV is JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import refuse
from .sequences import IGNORED

SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Labels:
    """The labels that a model knows.

    Attributes:
        names: of its K classes, labels or values, in the order of its outputs.
        reads: how its logits are read: classes, labels or values, as in `models.head.Head`.
    """

    names: tuple[str, ...]
    reads: str = "classes"

    def number(self, given: Any, where: str) -> int | list[float]:
        """The label of one row: the number of its class, or K numbers.

        Raises: `GossamerError` for none, and for one that the model does not know.
        """
        if given == "":
            raise refuse(f"{where} has no label", "one in every row, or in none", "remove such rows")
        if self.reads == "classes":
            return self._class(given, where)
        many = _listed(given)
        if self.reads == "values":
            return self._values(many, where)
        if len(many) == len(self.names) and all(_is_number(x) and float(x) in (0, 1) for x in many):
            return [float(x) for x in many]
        chosen = {self._class(x, where) for x in many}
        return [float(i in chosen) for i in range(len(self.names))]

    def numbers(self, given: Any, words: Sequence[str], where: str) -> list[int]:
        """The classes of the words of a sentence; -100 for a word that has none."""
        many = _listed(given)
        if len(many) != len(words):
            raise refuse(
                f"{where} has {len(many)} labels of {len(words)} words", "one of each word", "check the row"
            )
        return [IGNORED if str(x) == str(IGNORED) else self._class(x, where) for x in many]

    def _class(self, given: Any, where: str) -> int:
        word = str(given).strip()
        if word in self.names:
            return self.names.index(word)
        alike = [i for i, name in enumerate(self.names) if name.casefold() == word.casefold()]
        if len(alike) == 1:
            return alike[0]
        number = float(given) if _is_number(given) else -1.0
        if not number.is_integer() or not 0 <= number < len(self.names):
            names = ", ".join([*self.names[:SHOWN], *["..."] * (len(self.names) > SHOWN)])
            raise refuse(
                f"{where} has the label {word[:60]!r}, which the model does not have",
                f"0 to {len(self.names) - 1}, or one of {names}",
                "name the model's labels in id2label of its config.json, or take the column with --column label=NAME",
            )
        return int(number)

    def _values(self, many: list[Any], where: str) -> list[float]:
        if len(many) != len(self.names) or not all(map(_is_number, many)):
            raise refuse(
                f"{where} has the label {str(many)[:60]}",
                f"{len(self.names)} finite numbers",
                "check the row",
            )
        return [float(x) for x in many]


def _listed(given: Any) -> list[Any]:
    """A label as a list: one by itself, or the list that a cell of CSV holds as JSON."""
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return [given]
    return list(given) if isinstance(given, list | tuple) else [given]


def _is_number(given: Any) -> bool:
    try:
        return math.isfinite(float(given))
    except (TypeError, ValueError, OverflowError):
        return False
