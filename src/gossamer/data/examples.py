"""What a row is to a task: a text, two texts, a conversation, or words, with the label that it may have.

    lm, mlm     text, or messages: a conversation, which the tokenizer's chat template writes out
    embed       text, pair (each its own sentence), or messages
    classify    text and pair (one input together), or messages; label
    tokens      tokens, the words of a sentence, and label, one of each word; or text, without labels

These roles have the usual columns unless `--column ROLE=NAME` names another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import refuse, require_choice
from .tables import TAGS, TOKENS, Row

AUTO = "auto"  # the task that the head of a model says
# Task -> the roles that columns have in it.
ROLES = {
    "lm": ("text", "messages"),
    "mlm": ("text", "messages"),
    "embed": ("text", "pair", "messages"),
    "classify": ("text", "pair", "messages", "label"),
    "tokens": ("text", TOKENS, "label"),
}
USUAL = {
    "text": ("text",),
    "pair": (),
    "messages": ("messages", "conversations"),
    TOKENS: (TOKENS, "words"),
    "label": ("label", "labels"),
}
USUAL_TAGS = ("ner_tags", TAGS, "labels", "label")
CONTENT = (
    TOKENS,
    "text",
    "messages",
)  # a row has one of them; where it has more, the first that is named, or is here
SPOKEN = {"human": "user", "gpt": "assistant"}  # the roles of ShareGPT: {"from": "human", "value": "..."}

Chat = Callable[[list[dict[str, str]], str], str]  # a conversation and where it stands -> its text


class Example(NamedTuple):
    """One row: see the module docstring.

    Attributes:
        label: as the row has it, None without one; of words one each.
        where: the file and the row, for errors.
    """

    text: str
    pair: str = ""
    words: tuple[str, ...] = ()
    label: Any = None
    where: str = ""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read, and as what.

    Attributes:
        task: one of `ROLES`.
        names: role -> column, where it is not the usual one.
        chat: writes a conversation out.
    """

    task: str = "lm"
    names: Mapping[str, str] = field(default_factory=dict)
    chat: Chat | None = None

    def __post_init__(self) -> None:
        for role in self.names:
            if role not in ROLES[self.task]:
                raise refuse(
                    f"--column {role}={self.names[role]} under the task {self.task}",
                    f"a column for one of {', '.join(ROLES[self.task])}",
                    "leave it out, or pass another --task",
                )
        if len(both := [role for role in CONTENT if role in self.names]) > 1:
            raise refuse(
                f"--column {both[0]}=... beside --column {both[1]}=...", "one of them", "leave one out"
            )

    def examples(self, rows: Iterable[Row], source: str) -> Iterator[Example]:
        """The rows of one table; its first row says which of the usual columns are there."""
        found: dict[str, str] | None = None
        for number, row in enumerate(rows, 1):
            found = self.found(row) if found is None else found
            yield from self._of(_Cells(row, f"row {number}", source), found)

    def found(self, row: Row) -> dict[str, str]:
        """Role -> column, as named, and else the usual one that a row has."""
        usual = {**USUAL, "label": USUAL_TAGS} if self.task == "tokens" else USUAL
        usually = ((role, name) for role in ROLES[self.task] for name in usual[role] if name in row)
        found = {**dict(reversed(list(usually))), **self.names}
        read = [role for role in CONTENT if role in ROLES[self.task]]
        chosen = next((role for place in (self.names, found) for role in read if role in place), read[0])
        return {role: name for role, name in found.items() if role == chosen or role not in read}

    def _of(self, cells: _Cells, found: Mapping[str, str]) -> Iterator[Example]:
        label = cells.label(found["label"]) if "label" in found else None
        where = cells.where
        if TOKENS in found or (self.task == "tokens" and "text" not in found):
            words = cells.words(found.get(TOKENS, TOKENS))
            yield Example(" ".join(words), words=words, label=label, where=where)
            return
        one = (
            self._written(cells, found["messages"])
            if "messages" in found
            else cells.text(found.get("text", "text"))
        )
        two = cells.text(found["pair"]) if "pair" in found else ""
        if self.task == "embed" and "pair" in found:
            yield from (Example(one, where=where), Example(two, where=where))
        else:
            yield Example(one, two, label=label, where=where)

    def _written(self, cells: _Cells, name: str) -> str:
        turns = cells.turns(name)
        if self.chat is None:
            raise refuse(f"{cells.where} holds a conversation", "texts, where no tokenizer is at hand",
                         "write them out with the tokenizer's apply_chat_template")  # fmt: skip
        return self.chat(turns, cells.where)


class _Cells(NamedTuple):
    """The cells of one row, each read as what it must be."""

    row: Row
    number: str
    source: str

    @property
    def where(self) -> str:
        return f"{self.source}, {self.number}"

    def text(self, name: str) -> str:
        if not isinstance(self.row.get(name), str):
            raise self._lacks(name, "text")
        return self.row[name]

    def words(self, name: str) -> tuple[str, ...]:
        given = self.row.get(name)
        if (
            not isinstance(given, Sequence)
            or isinstance(given, str)
            or not all(isinstance(x, str) for x in given)
        ):
            raise self._lacks(name, "list of words")
        return tuple(given)

    def label(self, name: str) -> Any:
        if self.row.get(name) is None:
            raise self._lacks(name, "label")
        return self.row[name]

    def turns(self, name: str) -> list[dict[str, str]]:
        """The turns of a conversation, each {role, content}; those of ShareGPT are {from, value}."""
        given = self.row.get(name)
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise self._lacks(name, "list of turns")
        turns = []
        for turn in given:
            plain = turn if isinstance(turn, dict) else {}
            role = plain.get("role", SPOKEN.get(str(plain.get("from")), plain.get("from")))
            content = plain.get("content", plain.get("value"))
            if not isinstance(role, str) or not isinstance(content, str):
                raise refuse(f"{self.where} has a turn {str(turn)[:60]!r} in {name!r}",
                             "a role and a content in each turn, both text", "write such rows out as text")  # fmt: skip
            turns.append({"role": role, "content": content})
        return turns

    def _lacks(self, name: str, kind: str) -> Exception:
        """Why a row has no such thing: the column is another, holds something else, or holds nothing in this row."""
        columns = ", ".join(map(str, self.row)) or "none"
        problem = f"{self.source} has no {kind} in column {name!r}: {self.number}"
        role = {"text": "text", "label": "label", "list of words": TOKENS, "list of turns": "messages"}[kind]
        fix = f"name the column that holds it with --column {role}=NAME"
        if name not in self.row:
            return refuse(f"{problem} has no such column", columns, fix)
        found = self.row[name]
        what = "nothing (null)" if found is None else f"a {type(found).__name__}"
        fix = "remove such rows" if found is None else fix
        return refuse(f"{problem} holds {what} there", f"{kind} in every row (columns: {columns})", fix)


def parse_columns(given: Iterable[str]) -> dict[str, str]:
    """Role -> column, of `ROLE=NAME` each, or NAME alone for the text.

    Raises: `GossamerError` for a role that is not known, and for one that is named twice.
    """
    found: dict[str, str] = {}
    for one in given:
        role, sign, name = one.partition("=")
        role, name = (role.strip(), name.strip()) if sign else ("text", one.strip())
        require_choice("--column", role, USUAL)
        if not name or role in found:
            raise refuse(f"--column {one!r}", "ROLE=NAME, or the NAME of the text, each role once",
                         "pass for example --column text=review")  # fmt: skip
        found[role] = name
    return found
