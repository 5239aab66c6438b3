"""Records: those that go on, written result by result and continued by the same command, and one a month."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from benchmarks.lib.machine import device_name
from gossamer.errors import refuse
from gossamer.files import read_json, read_yaml, write_json

Row = dict[str, Any]


class Rows:
    """A JSON list of rows; each is a key, what was found for it, and the processor seconds that it took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = read_json(path, list[dict[str, Any]]) if path.is_file() else []

    def lacks(self, key: Row) -> bool:
        """Whether no row has every part of this key."""
        return not self._having(key)

    def of(self, key: Row, look: Callable[[], Row]) -> Row:
        """The row that has every part of this key; measured if there is none."""
        there = self._having(key)
        return there[0] if there else self.measure(key, look)

    def _having(self, key: Row) -> list[Row]:
        return [row for row in self.rows if all(row.get(name) == value for name, value in key.items())]

    def measure(self, key: Row, look: Callable[[], Row]) -> Row:
        """Look, add the row, write the file, and return what was found."""
        started = time.process_time()
        found = look()
        self.rows.append({**key, **found, "cpu_seconds": round(time.process_time() - started, 2)})
        write_json(self.path, self.rows)
        return self.rows[-1]


def declare(rows: Rows, criterion: dict[str, Any]) -> None:
    """Write what counts as a difference into a new record; refuse a record that was made under another criterion."""
    if not rows.rows:
        rows.measure(
            {"arm": "criterion"}, lambda: {"criterion": criterion, "written": time.strftime("%F %R")}
        )
    if rows.rows[0].get("criterion") != criterion:
        raise refuse(
            f"{rows.path} was made under another criterion", "one for all rows", "pass another --results"
        )


class Progress:
    """Says after each row what came out, and how long the rest will take, by the mean of what this process did.

    Args:
        of: how many rows there will be.
        seeds: those of this run.
        rows: what is there already.
        arms: those of this run, where it can do without some; by default all.
    """

    def __init__(self, of: int, seeds: list[int], rows: Rows, arms: Collection[str] | None = None) -> None:
        self.started, self.done = time.monotonic(), 0
        there = (row for row in rows.rows if row.get("seed") in seeds)
        self.left = of - sum(arms is None or row.get("arm") in arms for row in there)

    def say(self, name: str, values: Row) -> None:
        """One line."""
        self.done, self.left = self.done + 1, self.left - 1
        rest = (time.monotonic() - self.started) / self.done * max(0, self.left) / 60
        print(f"{name}: {values}; {self.left} rows left, about {rest:.0f} minutes", flush=True)


def open_record(path: Path, criterion: Path, *, of: int, seeds: list[int]) -> tuple[Rows, Progress]:
    """A record of `of` rows that begins with the criterion in a YAML file, new or so far, and its progress.

    Raises: `GossamerError` for a record that was made under another criterion.
    """
    path.parent.mkdir(exist_ok=True)
    rows = Rows(path)
    declare(rows, read_yaml(criterion))
    return rows, Progress(of, seeds, rows)


def named_runs(path: Path, environment: dict[str, Any], same: Iterable[str]) -> dict[str, Any]:
    """A record of runs by name, so far or new; one whose environment differs in one of `same` is refused."""
    if not path.is_file():
        return {"environment": environment, "runs": {}}
    results = read_json(path)
    before = results["environment"]
    for name in same:
        if before.get(name) != environment[name]:
            raise SystemExit(
                f"{path.name} was made with {name} {before.get(name)}, this run has {environment[name]}: expected the "
                "same. Pass another --results."
            )
    return results


def save(folder: Path, kind: str, device: str, record: dict[str, Any], lines: list[str]) -> Path:
    """Write `<kind>_<device>_<year-month>.json` and `.md` into a folder; return the second."""
    folder.mkdir(exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    stem = f"{kind}_{slug}_{datetime.date.today():%Y-%m}"
    (folder / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    page = folder / f"{stem}.md"
    page.write_text("\n".join(lines) + "\n")
    return page
