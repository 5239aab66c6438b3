"""Reference pages that are made while the site is built, from what the code says of itself.

    gossamer-verbs      every verb of the command line with its arguments and options, from typer
    gossamer-settings   every setting of a recipe with its default and its range, from the help of its field
    gossamer-fields     the fields that SparsityConfig adds to TrainingArguments
    gossamer-presets    the named recipes, each with its record and what it changes

They write definition lists, which a narrow window can show; a table of three columns is cut off there.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gossamer.cli import VERBS, app
from gossamer.training.config import SparsityConfig
from gossamer.training.presets import PRESETS
from gossamer.training.recipe import HELP, PARTS, Recipe

WORDS = {str: "TEXT", Path: "PATH", int: "N", float: "X"}
PLAIN_SECTIONS = ("Returns", "Raises", "Source")


def entry(term: str, *paragraphs: str) -> Iterator[str]:
    """One entry of a definition list in Markdown."""
    yield term
    for i, paragraph in enumerate(paragraphs):
        yield (": " if i == 0 else "\n  ") + " ".join(paragraph.split())
    yield ""


def verbs() -> Iterator[str]:
    """The whole command line."""
    commands: Any = typer.main.get_command(app)
    for panel, modules in VERBS.items():
        yield f"## {panel}\n"
        for module in modules:
            name = module.__name__.rpartition(".")[2]
            yield from verb(name, commands.commands[name])


def verb(name: str, command: Any) -> Iterator[str]:
    """One verb: how it is called, what it does, and what it takes."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    words = [one.name.upper() if one.required else f"[{one.name.upper()}]" for one in arguments]
    yield f"### gossamer {name}\n"
    yield " ".join(["```text\ngossamer", name, *words, "[OPTIONS]\n```\n"])
    yield inspect.cleandoc(command.help) + "\n"
    for one in command.params:
        yield from entry(called(one), one.help or "")


def called(parameter: Any) -> str:
    """An argument or an option as it is typed, with its default."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    value = "" if parameter.is_flag else f" {parameter.metavar or word_for(parameter)}"
    names = ", ".join(f"`{name}{value}`" for name in reversed(parameter.opts))
    names += "".join(f", `{name}`" for name in parameter.secondary_opts)
    return names + default_of(parameter)


def word_for(parameter: Any) -> str:
    """What stands for the value of an option: its kind."""
    kind = parameter.type_descriptor.annotation
    return WORDS.get((*typing.get_args(kind), kind)[0], "VALUE")


def default_of(parameter: Any) -> str:
    """What holds where an option is left out, if that says something."""
    if parameter.required:
        return " (required)"
    shown = None if callable(parameter.default) else parameter.default
    if parameter.is_flag or shown in (None, "", []) or "unset" in repr(shown).lower():
        return ""
    return f", default `{shown}`"


def settings() -> Iterator[str]:
    """Every setting of the recipe, by part."""
    default = Recipe()
    for part, kind in PARTS.items():
        yield f"## {part}\n"
        yield inspect.cleandoc(kind.__doc__ or "").splitlines()[0] + "\n"
        for name, value in dataclasses.asdict(getattr(default, part)).items():
            shown = (
                "" if value is None else f", default `{list(value) if isinstance(value, tuple) else value}`"
            )
            yield from entry(f"`{part}.{name}`{shown}", HELP[f"{part}.{name}"])


def config_fields() -> Iterator[str]:
    """The fields of SparsityConfig that are ours, or whose default is."""
    ours = inspect.get_annotations(SparsityConfig)
    for field in dataclasses.fields(SparsityConfig):
        if field.name in ours:
            shown = "" if field.default in (None, "") else f", default `{plain(field.default)}`"
            yield from entry(f"`{field.name}`{shown}", field.metadata["help"])


def plain(value: Any) -> str:
    """A default as a person writes it."""
    return next((name for name, preset in PRESETS.items() if preset.recipe == value), str(value))


def presets() -> Iterator[str]:
    """The named recipes."""
    for name, preset in PRESETS.items():
        changes = ", ".join(f"`{setting}={value}`" for setting, value in preset.recipe.changes().items())
        path, _, rest = preset.record.partition("; ")
        record = f"Record: `{path}`" + (f"; {rest}." if rest else ".")
        yield from entry(
            f"`{name}`", f"{preset.purpose[0].upper()}{preset.purpose[1:]}.", record,
            f"It changes {changes}." if changes else "It is the default recipe.",
        )  # fmt: skip


class Made(SphinxDirective):
    """A part of a page that is made from the code."""

    makers: ClassVar[dict[str, Any]] = {
        "gossamer-verbs": verbs,
        "gossamer-settings": settings,
        "gossamer-fields": config_fields,
        "gossamer-presets": presets,
    }

    def run(self) -> list[nodes.Node]:
        lines: Iterable[str] = self.makers[self.name]()
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def shorter_signature(
    _app: Sphinx, what: str, _name: str, thing: Any, _options: Any, signature: str | None, result: str | None
) -> tuple[str | None, str | None] | None:
    """SparsityConfig takes a hundred arguments, most of them the Trainer's: the page on settings has ours."""
    return ("(...)", None) if thing is SparsityConfig else (signature, result)


def as_rst(_app: Sphinx, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: set apart what stands in one line behind its name, and write stars as stars."""
    found: list[str] = []
    for line in lines:
        name, colon, rest = line.partition(": ")
        if colon and name in PLAIN_SECTIONS:
            found += ["", f"**{name}:** {escaped(rest)}"]
        elif found and found[-1].startswith("**") and line.startswith("    "):
            found[-1] += " " + escaped(line.strip())
        else:
            found.append(escaped(line))
    lines[:] = found


def escaped(line: str) -> str:
    """Stars outside of backticks are multiplications and unpackings, never emphasis."""
    return "`".join(
        part.replace("*", r"\*") if i % 2 == 0 else part for i, part in enumerate(line.split("`"))
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx about the directives."""
    for name in Made.makers:
        app.add_directive(name, Made)
    app.connect("autodoc-process-signature", shorter_signature)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon, which reads Args
    return {"parallel_read_safe": True}
