"""Records that go on: each result is written as it comes, and the same command continues where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gossamer.files import read_json, write_json

Row = dict[str, Any]


class Rows:
    """A JSON list of rows; each is a key, what was found for it, and the processor seconds that it took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = read_json(path) if path.is_file() else []

    def lacks(self, key: Row) -> bool:
        """Whether no row has every part of this key."""
        return not any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def measure(self, key: Row, look: Callable[[], Row]) -> Row:
        """Look, add the row, write the file, and return what was found."""
        started = time.process_time()
        found = look()
        self.rows.append({**key, **found, "cpu_seconds": round(time.process_time() - started, 2)})
        write_json(self.path, self.rows)
        return found


def named_runs(path: Path, environment: dict[str, Any], same: Iterable[str]) -> dict[str, Any]:
    """A record of runs by name, so far or new; one whose environment differs in one of `same` is refused."""
    if not path.is_file():
        return {"environment": environment, "runs": {}}
    results = read_json(path)
    before = results["environment"]
    for name in same:
        if before.get(name) != environment[name]:
            raise SystemExit(
                f"{path.name} was made with {name} {before.get(name)}, this run has {environment[name]}; "
                "possible: the same, or another --results; pass one of them"
            )
    return results
