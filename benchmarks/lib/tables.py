"""Tables in Markdown, line by line."""

from __future__ import annotations


def head(*names: str) -> list[str]:
    """The names of the columns, and the rule under them."""
    return [line(*names), "|---" * len(names) + "|"]


def line(*cells: object) -> str:
    """One row."""
    return f"| {' | '.join(map(str, cells))} |"
