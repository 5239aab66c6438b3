"""Finetune a transformer until only a fine web of its attention is left, and read what the web computes.

Names are loaded on first use: `import gossamer` itself pulls in neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Addition": "tasks.addition",
    "Ceiling": "ceiling",
    "Circuit": "circuit",
    "GossamerError": "errors",
    "SparsityConfig": "config",
    "SparsityTrainer": "trainer",
    "attach": "modeling",
    "detach": "modeling",
    "draw": "draw",
    "gated_attention": "attention",
    "gates_of": "modeling",
    "load": "checkpoint",
    "save": "checkpoint",
    "sparsify": "sparsify",
    "trace": "trace",
    "verify": "verify",
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
