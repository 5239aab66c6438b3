"""Finetune a transformer until only a fine web of its attention is left, and read what the web computes.

Names are loaded on first use: `import gossamer` itself pulls in neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Addition": "tasks.addition",
    "Ceiling": "ceiling",
    "Circuit": "circuit",
    "GossamerError": "errors",
    "Proof": "verify",
    "SparsityConfig": "config",
    "SparsityTrainer": "trainer",
    "attach": "modeling",
    "detach": "modeling",
    "draw": "draw",
    "explain": "tasks.explanation",
    "gated_attention": "attention",
    "gates_of": "modeling",
    "load": "checkpoint",
    "prove": "verify",
    "push_to_hub": "hub",
    "save": "checkpoint",
    "sparsify": "sparsify",
    "trace": "trace",
    "verify": "verify",
    "view": "notebook",
}
# What a notebook shows by itself: the module and the name of a type, and the function of `notebook` that shows it.
_SHOWN = {("circuit", "Circuit"): "bundle", ("verify", "Verification"): "verification_bundle"}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"gossamer has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


class _Front(ModuleType):
    """The package, in which a public name stays what it is when a module of the same name is loaded.

    Loading `gossamer.trace` would otherwise put the module where the function `trace` belongs.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Front


def __dir__() -> list[str]:
    return __all__


def _show_in_notebooks(shell: Any) -> None:
    """Tell a running IPython how circuits show themselves, by the names of their types: nothing is loaded for it."""
    for (home, name), how in _SHOWN.items():

        def show(found: Any, how: str = how) -> Any:
            return getattr(importlib.import_module(".notebook", __name__), how)(found)

        formatter = shell.display_formatter.mimebundle_formatter
        formatter.for_type_by_name(f"{__name__}.{home}", name, show)


if "IPython" in sys.modules and (_shell := sys.modules["IPython"].get_ipython()) is not None:
    _show_in_notebooks(_shell)
