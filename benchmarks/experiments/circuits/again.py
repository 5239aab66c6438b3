"""What the second looks at the deciding experiment's models share: where the models are, and a record that goes on.

shrink.py and overlap.py measure models that run.py left under --out, one row after another, and
write each row as it comes, so that the same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from benchmarks.experiments.circuits.models import model_of
from benchmarks.experiments.circuits.run import RESULTS
from benchmarks.lib.record import Row, Rows
from gossamer.circuits.components.component_model import ComponentModel, components_of
from gossamer.errors import GossamerError
from gossamer.files import read_json


def arguments(doc: str, prompts: int) -> argparse.ArgumentParser:
    """The options that every second look has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where run.py left its models")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=prompts)
    return parser


def go_on(
    given: argparse.Namespace, name: str, keys: Iterable[Row], look: Callable[[ComponentModel, Row], Row]
) -> list[Row]:
    """Measure every key that the record `name` lacks, and return all its rows; a refusal is a row too.

    Args:
        keys: what a row is about; seed and variant say which model it is.
        look: what is found on that model, besides the key.
    """
    torch.set_num_threads(1)
    settings = read_json(given.out / "settings.json")
    size = "x".join(str(settings[part]) for part in ("layers", "heads", "width"))
    rows = Rows(given.results / f"{name}_{platform.machine()}_{size}.json")
    for key in keys:
        mine = key | {"prompts": given.prompts, "settings": settings}
        if not rows.lacks(mine):
            continue
        model = model_of(key["variant"], argparse.Namespace(out=given.out, **settings), key["seed"])
        found = rows.measure(mine, partial(_found, look, components_of(model), key))
        print({**key, **found}, flush=True)
    return rows.rows


def _found(look: Callable[[ComponentModel, Row], Row], components: ComponentModel, key: Row) -> Row:
    try:
        return look(components, key)
    except GossamerError as error:
        return {"refused": str(error)}
