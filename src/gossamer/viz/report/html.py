"""Pieces of a page without script, from values to escaped HTML; what has no value leaves nothing behind."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def bullets(items: Iterable[str]) -> str:
    kept = [f"<li>{item}</li>" for item in items if item]
    return f"<ul>{''.join(kept)}</ul>" if kept else ""


def phrase(form: str, value: Any) -> str:
    """A phrase with a value in it, or nothing where there is none."""
    return "" if value is None or value == "" else form.format(number(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, escaped: bool = False) -> str:
    show = str if escaped else text
    kept = [list(row) for row in rows]
    sides = [' class="number"' if _is_numbers(column) else "" for column in zip(*kept, strict=True)]
    names = "".join(
        f'<th scope="col"{side}>{text(name)}</th>' for name, side in zip(head, sides, strict=True)
    )
    cells = [
        "".join(f"<td{side}>{show(cell)}</td>" for cell, side in zip(row, sides, strict=True)) for row in kept
    ]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_numbers(column: Iterable[str]) -> bool:
    """Whether a column holds numbers, which stand flush right, and nothing else."""
    said = [cell for cell in column if cell]
    return bool(said) and all(re.fullmatch(r"[\d,.]+( %)?", cell) for cell in said)


DARK, PALE = "var(--accent,#08519c)", "color-mix(in srgb,var(--accent,#08519c) 22%,transparent)"


def _block(width: float, color: str) -> str:
    # All of its style is its own: a notebook's cell has no style sheet of ours.
    style = f"display:inline-block;height:0.7em;background:{color};width:{width:.0f}px"
    return f'<span style="{style}"></span>' if width else ""


def _bar(part: float) -> str:
    return _block(max(1, 200 * part) if part else 0, DARK)


def parts(title: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """(name, what is left, the whole) as bars on one scale: the whole pale, what is left of it dark."""
    most = max((whole for _, _, whole in rows), default=0.0) or 1.0
    lines = []
    for name, left, whole in rows:
        dark = max(1, round(200 * left / most)) if left else 0
        bar = _block(dark, DARK) + _block(max(0, round(200 * whole / most) - dark), PALE)
        words = f"{left:,.0f} of {whole:,.0f}"
        lines.append(f'<tr><th scope="row">{text(name)}</th><td>{bar} {words}</td></tr>')
    return f"<table><caption>{text(title)}</caption><tbody>{''.join(lines)}</tbody></table>" if rows else ""


def grid(title: str, rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """A square for each unit of each row: dark where it is open, pale where it is closed."""
    lines = []
    for name, units in rows:
        squares = "".join(
            f'<span title="{text(name)}, head {i}: {"open" if x else "closed"}" style="display:inline-block;'
            f'width:0.8em;height:0.8em;margin:1px;background:{DARK if x else PALE}"></span>'
            for i, x in enumerate(units)
        )
        words = f"{sum(1 for x in units if x)} of {len(units)}"
        lines.append(f'<tr><th scope="row">{text(name)}</th><td>{squares} {words}</td></tr>')
    return f"<table><caption>{text(title)}</caption><tbody>{''.join(lines)}</tbody></table>" if rows else ""


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Numbers as bars on one scale; all may be zero."""
    most = max((value for _, value in values), default=0.0) or 1.0
    rows = [
        f'<tr><th scope="row">{text(name)}</th><td>{_bar(value / most)} {number(value)}</td></tr>'
        for name, value in values
    ]
    return f"<table><caption>{text(title)}</caption><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def share(value: Any) -> str | None:
    return f"{100 * value:.2f} %" if isinstance(value, int | float) else None


def number(value: Any) -> str:
    """A value for people: thousands separated, four significant digits where there are decimals."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    if isinstance(value, int) or abs(value) >= 10:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return f"{Decimal(f'{value:.4g}' if abs(value) > 1e-4 else f'{value:.2g}'):f}"  # 0.0000037, not 3.7e-06


def text(value: Any) -> str:
    return html.escape(str(value))
