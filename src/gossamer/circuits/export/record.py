"""A circuit as JSON, without loss: the schema `gossamer-circuit`, versions 1 and 2.

    schema    "gossamer-circuit"          version   1, or 2 where gates close heads or neurons
    model     {n_layers, n_heads}         outputs   output positions
              version 2: closed_heads [[layer, head]] and neurons [[left, of]], one per layer or none
    prompts   [{tokens, answers, visible}]
    edges     {prompt, layer, head, query, key, logit, weight, contribution}: columns of one length
    meta      JSON values

Version 1, which 0.1.0 reads, is written where it says it all. A number is written with as many digits as float32 needs
to come back as itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from annotated_types import Ge, Le, Len
from typing_extensions import TypedDict

from ...errors import CheckpointError, refuse
from ...files import parse_json, read_json, require_shape, write_json
from ..circuit import EDGE_FIELDS, VALUE_FIELDS, Circuit, UnitsLeft

SCHEMA, VERSION = "gossamer-circuit", 2
COLUMNS = (*EDGE_FIELDS, *VALUE_FIELDS)

Size = Annotated[int, Ge(1), Le(10_000)]  # of a model; assumed: ten times the largest there is
Place = Annotated[int, Ge(0), Le(2**31 - 1)]
Value = Annotated[float, Ge(-3.4028235e38), Le(3.4028235e38)]  # what float32 holds; NaN and infinity fail
_Pair = Annotated[list[Place], Len(2, 2)]


class _Model(TypedDict):
    n_layers: Size
    n_heads: Size
    closed_heads: NotRequired[list[_Pair]]
    neurons: NotRequired[list[_Pair]]


class _Prompt(TypedDict):
    tokens: list[str]
    answers: list[str]
    visible: Annotated[int, Ge(0), Le(2**63 - 1)]


_Edges = TypedDict(
    "_Edges",
    dict.fromkeys(EDGE_FIELDS, list[Place]) | dict.fromkeys(VALUE_FIELDS, list[Value]),  # type: ignore[misc]
)


class Record(TypedDict):
    schema: Literal["gossamer-circuit"]
    version: Literal[1, 2]
    model: _Model
    outputs: list[Place]
    prompts: list[_Prompt]
    edges: _Edges
    meta: dict[str, Any]


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
        "version": VERSION if any(circuit.left) else 1,
        "model": {"n_layers": circuit.n_layers, "n_heads": circuit.n_heads, **_left_record(circuit.left)},
        "outputs": list(circuit.outputs),
        "prompts": [{"tokens": list(t), "answers": list(a), "visible": v} for t, a, v in rows],
        "edges": {name: _plain(column) for name, column in columns.items()},
        "meta": circuit.meta,
    }


def _left_record(left: UnitsLeft) -> dict[str, list[list[int]]]:
    return {name: [list(pair) for pair in pairs] for name, pairs in left._asdict().items() if any(left)}


def _plain(column: np.ndarray) -> list[int] | list[float]:
    # The shortest decimal of a float32, not of the double that it widens to.
    return [float(str(value)) for value in column] if column.dtype.kind == "f" else column.tolist()


def from_record(record: Any, *, where: str = "the record") -> Circuit:
    """A circuit from its JSON.

    Raises: `CheckpointError` for another schema, a newer version, a value of another kind, one that is not finite, and
        an index that is out of range.
    """
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise refuse(
            f"{where} is not a circuit",
            f"JSON with schema {SCHEMA!r}",
            "check the file",
            CheckpointError,
        )
    if record.get("version") not in (1, VERSION):
        raise refuse(
            f"{where} has version {record.get('version')!r} of {SCHEMA}",
            f"versions up to {VERSION}",
            "upgrade gossamer",
            CheckpointError,
        )
    require_shape(record, Record, where, CheckpointError)
    _require_columns(record["edges"], where)
    circuit = _built(record)
    _require_inside(circuit, where)
    return circuit


def _built(record: dict[str, Any]) -> Circuit:
    kinds = dict.fromkeys(EDGE_FIELDS, np.int32) | dict.fromkeys(VALUE_FIELDS, np.float32)
    prompts = record["prompts"]
    return Circuit(
        n_layers=record["model"]["n_layers"],
        n_heads=record["model"]["n_heads"],
        tokens=tuple(tuple(row["tokens"]) for row in prompts),
        answers=tuple(tuple(row["answers"]) for row in prompts),
        outputs=tuple(record["outputs"]),
        visible=tuple(row["visible"] for row in prompts),
        meta=dict(record["meta"]),
        left=UnitsLeft(
            *(tuple(map(tuple, record["model"].get(name, ()))) for name in UnitsLeft._fields)  # type: ignore[arg-type]
        ),
        **{name: np.array(record["edges"][name], dtype=kind) for name, kind in kinds.items()},
    )


def _require_columns(edges: dict[str, list[Any]], where: str) -> None:
    lengths = {name: len(edges[name]) for name in COLUMNS}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise refuse(f"{where} has edges of {told} values", "one of each per edge", "export it again",
                     CheckpointError)  # fmt: skip


def _require_inside(circuit: Circuit, where: str) -> None:
    """Raise unless every prompt answers each of its tokens, and every index is one of the model or of its prompt."""
    lengths = np.array([len(row) for row in circuit.tokens], dtype=np.int64)
    for number, (tokens, answers) in enumerate(zip(circuit.tokens, circuit.answers, strict=True)):
        if len(tokens) != len(answers):
            raise refuse(f"{where} has {len(answers)} answers to {len(tokens)} tokens in prompt {number}",
                         "one for each token", "export it again", CheckpointError)  # fmt: skip
    _require_below(where, "outputs", np.array(circuit.outputs, dtype=np.int64), lengths.min(initial=2**31))
    _require_mixing(circuit, where)
    _require_below(where, "prompt", circuit.prompt, circuit.n_prompts)
    _require_below(where, "layer", circuit.layer, circuit.n_layers)
    _require_below(where, "head", circuit.head, circuit.n_heads)
    _require_left(circuit, where)
    for end in ("query", "key"):
        _require_below(where, end, getattr(circuit, end), lengths[circuit.prompt])


def _require_left(circuit: Circuit, where: str) -> None:
    """Raise unless closed heads and layers are those of the model, and no edge is in a closed head."""
    closed, neurons = circuit.left
    for place, (name, size) in enumerate((("layer", circuit.n_layers), ("head", circuit.n_heads))):
        _require_below(
            where, f"closed head in {name}", np.array([x[place] for x in closed], dtype=np.int64), size
        )
    if neurons and (len(neurons) != circuit.n_layers or any(left > whole for left, whole in neurons)):
        raise refuse(f"{where} has neurons {[list(pair) for pair in neurons]} of {circuit.n_layers} layers",
                     "[left, of] for each layer", "export it again", CheckpointError)  # fmt: skip
    inside = set(closed) & set(zip(circuit.layer.tolist(), circuit.head.tolist(), strict=True))
    if inside:
        raise refuse(f"{where} has edges in head {'.'.join(map(str, min(inside)))}, which is closed",
                     "edges of open heads", "export it again", CheckpointError)  # fmt: skip


def _require_mixing(circuit: Circuit, where: str) -> None:
    """Raise unless meta is finite, and the layers without attention that it lists are layers of the model."""
    parse_json(json.dumps(circuit.meta), where=f"{where}, meta", kind=CheckpointError)
    mixing = circuit.meta.get("mixing_layers", [])
    require_shape(mixing, list[Place], f"{where}, mixing_layers", CheckpointError)
    _require_below(where, "mixing layer", np.array(mixing, dtype=np.int64), circuit.n_layers)


def _require_below(where: str, name: str, found: np.ndarray, size: Any) -> None:
    beyond = np.flatnonzero(found >= size)
    if len(beyond):
        first, sizes = int(beyond[0]), np.broadcast_to(size, found.shape)
        raise refuse(f"{where} has {name} {found[first]} of {sizes[first]}", f"0 to {sizes[first] - 1}",
                     "export it again", CheckpointError)  # fmt: skip


def save_circuit(circuit: Circuit, path: Path | str, *, limit: int | None = None) -> None:
    """Write a circuit as JSON."""
    if limit is not None:
        require_size(circuit, limit)
    write_json(Path(path), to_record(circuit))


def load_circuit(path: Path | str) -> Circuit:
    """Read a circuit that `save_circuit` wrote."""
    return from_record(read_json(Path(path), Any), where=str(path))
