"""A whole run as a YAML file: written into the folder of each run, and read back by `--config` to repeat it.

    verb: sparsify            which command it is of
    model: gpt2               each field of the verb's settings, as its options are named
    recipe: language_model    the name of a preset, or nested: {control: {kp: 0.3}}

What is given on the command line goes before the file, and the file before the defaults.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Protocol, TypeVar

import yaml

from .. import __version__
from ..errors import GossamerError, first_line, refuse
from ..files import read_yaml, write_text
from ..training.constraint import Ceiling
from ..training.presets import recipe_of
from ..training.recipe import MOVED, SETTINGS, Recipe, split_settings, unknown_setting

FILE = "config.yaml"


class Settings(Protocol):
    """The settings of a verb: a dataclass whose fields are of the kinds that `_KINDS` reads."""

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for YAML."""
        ...


Kind = TypeVar("Kind", bound=Settings)


def settings_of(
    kind: type[Kind],
    verb: str,
    *,
    config: Path | None = None,
    given: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Kind:
    """The settings of one run, from a file, options, the name of a preset and single settings, in this order.

    Args:
        kind: the dataclass of the verb's settings.
        given: fields that were named on the command line.
        recipe: a preset, which replaces the file's recipe.
        changes: settings of the recipe, as `{"control.kp": 0.3}`; any other goes to `settings`, if `kind` has it.
    Raises: `GossamerError` for an unknown name, with the nearest one, and for a value of another kind.
    """
    values = read_config(config, verb, kind) if config else {}
    kinds = typing.get_type_hints(kind)
    values |= {name: _value(name, value, kinds[name]) for name, value in (given or {}).items()}
    if recipe is not None:
        values["recipe"] = recipe_of(recipe)
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    of_recipe, more = split_settings(changes or {})
    if more and "settings" not in names:
        raise unknown_setting(next(iter(more)), SETTINGS)
    others = {**values.pop("settings", {}), **more}
    start = values.pop("recipe", None) or kind.__dataclass_fields__["recipe"].default
    values["recipe"] = start.with_settings(of_recipe)
    if others:
        values["settings"] = others
    missing = [n for n, entry in kind.__dataclass_fields__.items() if _is_required(entry) and n not in values]
    if missing:
        raise refuse(
            f"no {missing[0].upper()}", f"one on the command line, or as {missing[0]} in a --config",
            f"name the {missing[0]}"
        )  # fmt: skip
    return kind(**values)


def write_config(folder: Path, verb: str, settings: Settings) -> None:
    """Write config.yaml, from which `gossamer VERB --config` repeats the run."""
    head = f"# gossamer {verb} --config {FILE} --out ANOTHER_FOLDER repeats this run.\n"
    whole = {"verb": verb, "gossamer": __version__, **settings.as_dict()}
    write_text(folder / FILE, head + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))


def read_config(path: Path, verb: str, kind: type[Settings]) -> dict[str, Any]:
    """The fields that a YAML file gives, each of its own kind.

    Raises: `GossamerError` for what is no such file, another verb's, an unknown key, or a value of another kind.
    """
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise refuse(f"{path} holds no settings", "lines of name: value", f"take the {FILE} of a run")
    found.pop("gossamer", None)
    if found.get("verb", verb) != verb:
        raise refuse(f"{path} is of gossamer {found['verb']}", f"one of gossamer {verb}",
                     f"run gossamer {found['verb']} --config {path}")  # fmt: skip
    found.pop("verb", None)
    kinds = typing.get_type_hints(kind)
    values = {}
    for name, value in found.items():
        if name not in kinds:
            raise _unknown_line(path, str(name), value, kinds)
        try:
            values[name] = _value(name, value, kinds[name])
        except GossamerError as error:
            raise type(error)(f"{path}: {error}") from error
    return values


# Lines of older files: what they are now, and how they are written.
RENAMED = {"field": ("columns", "columns: {{text: {value}}}")}


def _unknown_line(path: Path, name: str, value: Any, known: Mapping[str, Any]) -> Exception:
    """The error for a line that there is not: where it is now and how it is written, or the nearest name."""
    shown = first_line(yaml.safe_dump(value, default_flow_style=True))
    if name in RENAMED and RENAMED[name][0] in known:
        new, form = RENAMED[name]
        return refuse(
            f"{path}: setting {name!r} is now {new!r}", "the new name", f"write {form.format(value=shown)}"
        )
    place = MOVED.get(name, name)
    if place in SETTINGS and "recipe" in known:
        part, _, entry = place.partition(".")
        says = f"setting {name!r} is now {place!r}" if name in MOVED else f"setting {name!r} at the top"
        return refuse(
            f"{path}: {says}", "the setting in its recipe", f"write recipe: {{{part}: {{{entry}: {shown}}}}}"
        )
    return unknown_setting(name, known)


def _value(name: str, value: Any, kind: Any) -> Any:
    if isinstance(kind, UnionType):  # of a kind and None, which is left to what is usual
        if value is None:
            return None
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if isinstance(value, Ceiling | Recipe | Path) and isinstance(value, kind):
        return value
    if kind is Ceiling and isinstance(value, str):
        return Ceiling.parse(value)
    if kind is Recipe and isinstance(value, str | Mapping):
        return recipe_of(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    if typing.get_origin(kind) is dict and isinstance(value, dict) and all(isinstance(n, str) for n in value):
        return value
    raise refuse(f"{name}: {value!r}", f"{_KINDS.get(kind, 'name: value pairs')}", "write one")


_KINDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path",
    Ceiling: "a ceiling, as kl=0.02", Recipe: "the name of a preset, or nested settings",
}  # fmt: skip


def _is_required(entry: Any) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING
