"""A small local web app: type a prompt, see both circuits and both next-token distributions, cut, look again.

`Session` holds the two models and answers one question; `app` puts it behind HTTP; `run` gives it an address.
"""

from __future__ import annotations

from .app import app
from .run import run
from .session import Limits, Session

__all__ = ["Limits", "Session", "app", "run"]
