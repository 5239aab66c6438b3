"""What people type and call, as text under version control: a change of either is seen in a diff, and meant.

`snapshots/help.txt` holds the `--help` of the command line and of every verb, `snapshots/signatures.txt` the
signature of everything in `gossamer.__all__`. After a change that is meant,

    UPDATE_SNAPSHOTS=1 python -m pytest tests/test_snapshots.py

writes both anew, to be looked at and committed with the change.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.rich_utils
from typer.testing import CliRunner

import gossamer
from gossamer.cli import VERBS, app

SNAPSHOTS = Path(__file__).parent / "snapshots"
UPDATE = "UPDATE_SNAPSHOTS"
WIDTH = 100  # columns
# What rich and typer ask about the terminal; None is for what must not be set.
TERMINAL: dict[str, str | None] = {
    "COLUMNS": str(WIDTH),
    "TERM": "dumb",
    "NO_COLOR": "1",
    "FORCE_COLOR": None,
    "TTY_COMPATIBLE": None,
    "TTY_INTERACTIVE": None,
}
# typer has asked for some of it, GITHUB_ACTIONS for one, while it was imported.
ASKED = {"MAX_WIDTH": WIDTH, "FORCE_TERMINAL": False, "COLOR_SYSTEM": None}
LAYOUT = ("typer", "rich")  # who lays out the help: another version may do it otherwise


def compare(name: str, text: str) -> None:
    """Fail, with the difference, where the stored text is another; or write it, where that is asked for."""
    path = SNAPSHOTS / name
    if os.environ.get(UPDATE) == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
        return
    stored = path.read_bytes().decode("utf-8") if path.exists() else ""
    if stored != text:
        pytest.fail(difference(name, stored, text), pytrace=False)


def difference(name: str, stored: str, text: str) -> str:
    """What to read where a snapshot does not hold."""
    lines = difflib.unified_diff(
        stored.splitlines(), text.splitlines(), f"tests/snapshots/{name}", "now", n=2, lineterm=""
    )
    advice = (
        f"tests/snapshots/{name} is not what the code says now. "
        "If the change is meant, write it anew and commit it:"
    )
    return "\n".join([advice, f"    {UPDATE}=1 python -m pytest tests/test_snapshots.py", *lines])


def versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in LAYOUT)


@pytest.fixture
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same terminal on every machine, whoever runs the tests and wherever their output goes."""
    for name, value in ASKED.items():
        monkeypatch.setattr(typer.rich_utils, name, value)


def helps() -> Iterator[str]:
    """The help of the command line, then of each verb, with the command that shows it."""
    names = [verb.__name__.rpartition(".")[2] for verbs in VERBS.values() for verb in verbs]
    for words in ([], *([name] for name in names)):
        shown = CliRunner().invoke(app, [*words, "--help"], env=TERMINAL, prog_name="gossamer")
        assert shown.exit_code == 0, shown.output
        # rich fills lines with spaces, which editors take away.
        lines = [line.rstrip() for line in shown.output.strip().splitlines()]
        yield "\n".join([" ".join(["$ gossamer", *words, "--help"]), "", *lines, ""])


@pytest.mark.usefixtures("plain_terminal")
def test_help_is_as_stored() -> None:
    path, here = SNAPSHOTS / "help.txt", f"# as laid out by {versions()}"
    stored = path.read_text(encoding="utf-8").partition("\n")[0] if path.exists() else here
    if stored != here and os.environ.get(UPDATE) != "1":
        pytest.skip(f"stored {stored[2:]}, here {here[2:]}: pip install -c constraints.txt typer rich")
    compare("help.txt", "\n".join([here, "", *helps()]))


@pytest.mark.usefixtures("plain_terminal")
def test_help_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's settings, and those of a build server, must not show in what is stored."""
    before = list(helps())
    for name, value in {"COLUMNS": "51", "TERM": "xterm-256color", "FORCE_COLOR": "1", "LINES": "9"}.items():
        monkeypatch.setenv(name, value)
    assert list(helps()) == before
    assert all("\x1b" not in text for text in before)
    assert max(len(line) for text in before for line in text.splitlines()) <= WIDTH


def test_every_verb_has_its_help() -> None:
    """The list of verbs here is the one that the command line has."""
    known = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    shown = {verb.__name__.rpartition(".")[2] for verbs in VERBS.values() for verb in verbs}
    assert known == shown


def signature_of(name: str) -> str:
    """A name of the front door and what it takes, one argument a line."""
    thing = getattr(gossamer, name)
    if isinstance(thing, type) and issubclass(thing, BaseException):
        # Python has no signature of an exception that takes whatever its base does.
        return f"class {name}({', '.join(base.__name__ for base in thing.__bases__)})"
    signature = inspect.signature(thing)
    lines = list(arguments(thing, signature))
    result = signature.return_annotation
    arrow = f" -> {result}" if isinstance(result, str) and not isinstance(thing, type) else ""
    return "\n".join([("class " if isinstance(thing, type) else "") + name + "(", *lines, ")" + arrow])


def arguments(thing: Any, signature: inspect.Signature) -> Iterator[str]:
    """The lines of a signature; of a record that inherits, what is ours: the rest moves with its library."""
    named = False
    for parameter in signature.parameters.values():
        if not is_ours(thing, parameter.name):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            named = True
        if parameter.kind is parameter.KEYWORD_ONLY and not named:
            named = True
            yield "    *,"
        yield f"    {re.sub(r' at 0x[0-9a-f]+', '', str(parameter))},"
        if parameter.kind is parameter.POSITIONAL_ONLY:
            yield "    /,"


def is_ours(thing: Any, name: str) -> bool:
    """Whether no other package's class says this field, or one of ours says it anew."""
    if not isinstance(thing, type):
        return True
    saying = [kind for kind in thing.__mro__ if name in inspect.get_annotations(kind)]
    return not saying or saying[0].__module__.partition(".")[0] == "gossamer"


def test_signatures_are_as_stored() -> None:
    compare("signatures.txt", "\n\n".join(map(signature_of, gossamer.__all__)) + "\n")


def test_the_front_door_has_what_it_lists() -> None:
    """Every name is loaded from the module that defines it, so that no signature here is that of an alias."""
    for name in gossamer.__all__:
        thing = getattr(gossamer, name)
        assert getattr(importlib.import_module(thing.__module__), name) is thing


def test_a_difference_is_shown_with_the_way_to_accept_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SNAPSHOTS", tmp_path)
    monkeypatch.setenv(UPDATE, "1")
    compare("x.txt", "one\ntwo\n")
    compare("x.txt", "one\r\ntwo\n")
    monkeypatch.delenv(UPDATE)
    compare("x.txt", "one\r\ntwo\n")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)UPDATE_SNAPSHOTS=1 python.*-two\n\+three"):
        compare("x.txt", "one\r\nthree\n")
    with pytest.raises(pytest.fail.Exception, match=r"\+new"):
        compare("missing.txt", "new\n")
