"""Which kinds of gates there are: the classes that were defined, once every file of this folder is imported."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from pathlib import Path

from .gate_set import DEFINED, GateSet


def kinds() -> dict[str, type[GateSet]]:
    """Every kind by its name, in the order of their names."""
    _import_all()
    return {kind: cls for kind, cls in sorted(DEFINED.items()) if not inspect.isabstract(cls)}


@functools.cache
def _import_all() -> None:
    for found in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{found.name}")
