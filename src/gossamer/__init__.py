"""Finetune a transformer until only a fine web of its attention is left, and read what the web computes.

Names are loaded on first use: `import gossamer` itself pulls in neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "Addition": "recipes.addition.task",
    "Ceiling": "training.constraint",
    "Circuit": "circuits.circuit",
    "GossamerError": "errors",
    "Proof": "circuits.verify",
    "Recipe": "training.recipe",
    "RunReport": "models.run_report",
    "SparsityConfig": "training.config",
    "SparsityTrainer": "training.trainer",
    "attach": "models.attach",
    "detach": "models.attach",
    "draw": "viz.figure",
    "draw_model": "recipes.draw",
    "explain": "recipes.addition.explain.explanation",
    "gated_attention": "gates.attention",
    "gates_of": "models.attach",
    "load": "models.checkpoint",
    "load_data": "training.tasks",
    "prove": "circuits.verify",
    "push_to_hub": "models.hub",
    "save": "models.checkpoint",
    "shrink": "recipes.shrink",
    "sparsify": "training.sparsify",
    "trace": "circuits.trace",
    "verify": "circuits.verify",
    "view": "viz.notebook",
}
# What a notebook shows by itself: the module and the name of a type, and the function of `viz.notebook` that shows it.
_SHOWN = {
    ("circuits.circuit", "Circuit"): "bundle",
    ("circuits.verify", "Verification"): "verification_bundle",
    ("models.run_report", "RunReport"): "run_report_bundle",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"gossamer has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _show_in_notebooks(shell: Any) -> None:
    """Tell a running IPython how circuits show themselves, by the names of their types: nothing is loaded for it."""
    for (home, name), how in _SHOWN.items():

        def show(found: Any, how: str = how) -> Any:
            return getattr(importlib.import_module(".viz.notebook", __name__), how)(found)

        formatter = shell.display_formatter.mimebundle_formatter
        formatter.for_type_by_name(f"{__name__}.{home}", name, show)


if "IPython" in sys.modules and (_shell := sys.modules["IPython"].get_ipython()) is not None:
    _show_in_notebooks(_shell)
