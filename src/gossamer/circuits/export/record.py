"""A circuit as JSON, without loss: the schema `gossamer-circuit`, version 1.

    schema    "gossamer-circuit"          version   1
    model     {n_layers, n_heads}         outputs   output positions
    prompts   [{tokens, answers, visible}]
    edges     {prompt, layer, head, query, key, logit, weight, contribution}: columns of one length
    meta      JSON values

A number is written with as many digits as float32 needs to come back as itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError, refuse
from ...files import read_json, write_json
from ..circuit import EDGE_FIELDS, VALUE_FIELDS, Circuit

SCHEMA, VERSION = "gossamer-circuit", 1
COLUMNS = (*EDGE_FIELDS, *VALUE_FIELDS)


def require_size(circuit: Circuit, limit: int, extra: int = 0, what: str = "edges") -> None:
    """Raise, before anything is built, if a graph has more than `limit` edges."""
    if len(circuit) + extra > limit:
        raise refuse(
            f"a graph of {len(circuit) + extra:,} {what} on {circuit.n_prompts:,} prompts",
            f"up to {limit:,}",
            "choose fewer prompts, a higher threshold, the live part, or raise the limit",
        )


def to_record(circuit: Circuit) -> dict[str, Any]:
    """The circuit in the form of the module docstring."""
    rows = zip(circuit.tokens, circuit.answers, circuit.visible, strict=True)
    columns = {name: getattr(circuit, name) for name in COLUMNS}
    bad = [name for name in VALUE_FIELDS if not np.isfinite(columns[name]).all()]
    if bad:
        raise refuse(f"{bad[0]} with infinite or missing values", "finite numbers", "trace again")
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "model": {"n_layers": circuit.n_layers, "n_heads": circuit.n_heads},
        "outputs": list(circuit.outputs),
        "prompts": [{"tokens": list(t), "answers": list(a), "visible": v} for t, a, v in rows],
        "edges": {name: _plain(column) for name, column in columns.items()},
        "meta": circuit.meta,
    }


def _plain(column: np.ndarray) -> list[int] | list[float]:
    # The shortest decimal of a float32, not of the double that it widens to.
    return [float(str(value)) for value in column] if column.dtype.kind == "f" else column.tolist()


def from_record(record: Any, *, where: str = "the record") -> Circuit:
    """A circuit from its JSON.

    Raises: `CheckpointError` for another schema, a newer version, or parts that do not fit together.
    """
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise refuse(
            f"{where} is not a circuit",
            f"JSON with schema {SCHEMA!r}",
            "check the file",
            CheckpointError,
        )
    if record.get("version") != VERSION:
        raise refuse(
            f"{where} has version {record.get('version')!r} of {SCHEMA}",
            f"version {VERSION}",
            "upgrade gossamer",
            CheckpointError,
        )
    try:
        return _built(record)
    except (KeyError, TypeError, ValueError) as error:
        raise refuse(
            f"{where} is torn ({type(error).__name__}: {error})", "a whole file", "export it again",
            CheckpointError,
        ) from error  # fmt: skip


def _built(record: dict[str, Any]) -> Circuit:
    kinds = dict.fromkeys(EDGE_FIELDS, np.int32) | dict.fromkeys(VALUE_FIELDS, np.float32)
    prompts = record["prompts"]
    return Circuit(
        n_layers=int(record["model"]["n_layers"]),
        n_heads=int(record["model"]["n_heads"]),
        tokens=tuple(tuple(row["tokens"]) for row in prompts),
        answers=tuple(tuple(row["answers"]) for row in prompts),
        outputs=tuple(record["outputs"]),
        visible=tuple(row["visible"] for row in prompts),
        meta=dict(record["meta"]),
        **{name: np.array(record["edges"][name], dtype=kind) for name, kind in kinds.items()},
    )


def save_circuit(circuit: Circuit, path: Path, *, limit: int | None = None) -> None:
    """Write a circuit as JSON."""
    if limit is not None:
        require_size(circuit, limit)
    write_json(path, to_record(circuit))


def load_circuit(path: Path) -> Circuit:
    """Read a circuit that `save_circuit` wrote."""
    return from_record(read_json(path), where=str(path))
