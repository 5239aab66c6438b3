"""Circuits as the page wants them: sorted columns, small integers, base64.

Weights and contributions are quantised to 16 bits: a step of 1.5e-5 of the largest value, far below what is
shown. Edges are sorted by (prompt, layer, query, key, head), so that the heads of one drawn line are
neighbours.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...circuits.circuit import Circuit, concatenate

LEVELS = 65535  # of a 16-bit number


def array(values: np.ndarray) -> dict[str, Any]:
    """Non-negative integers in the fewest bytes, or floats as float32; base64, little-endian."""
    if values.dtype.kind == "f":
        return {"type": "f4", "data": _base64(values.astype("<f4"))}
    largest = int(values.max(initial=0))
    kind = "u1" if largest < 2**8 else "u2" if largest < 2**16 else "u4"
    return {"type": kind, "data": _base64(values.astype(f"<{kind}"))}


def quantised(values: np.ndarray) -> dict[str, Any]:
    """Non-negative floats as 16-bit integers and a scale."""
    largest = float(values.max(initial=0.0)) or 1.0
    levels = np.rint(values.astype(np.float64) * (LEVELS / largest)).astype("<u2")
    return {"type": "u2", "data": _base64(levels), "scale": largest / LEVELS}


def circuits(parts: Sequence[Circuit], *, most: int) -> dict[str, Any]:
    """Circuits of one model, whose outputs may differ; of more than `most` edges those that reach an output
    are kept, and of the others the heaviest: without an edge of its path, another would seem to lead nowhere.

    `open` holds every prompt's full count, so that the page says how many edges there are and not how many
    it has.
    """
    found = concatenate([replace(part, outputs=()) for part in parts])
    outputs = [list(part.outputs) for part in parts for _ in range(part.n_prompts)]
    opened = found.per_prompt()
    if len(found) > most:
        live = np.concatenate([part.live_mask() for part in parts])
        found = found.select(np.sort(np.lexsort((-found.weight, ~live))[:most]))
    order = np.lexsort((found.head, found.key, found.query, found.layer, found.prompt))
    words: dict[str, int] = {}
    tokens = np.array([words.setdefault(t, len(words)) for row in found.tokens for t in row], dtype=np.int64)
    answers = np.array(
        [words.setdefault(t, len(words)) for row in found.answers for t in row], dtype=np.int64
    )
    return {
        "words": list(words),
        "lengths": array(np.array([len(row) for row in found.tokens], dtype=np.int64)),
        "tokens": array(tokens),
        "answers": array(answers),
        "outputs": outputs[:1] if all(row == outputs[0] for row in outputs) else outputs,
        "visible": array(np.array(found.visible, dtype=np.int64)),
        "open": array(opened),
        "counts": array(found.per_prompt()),
        **{name: array(getattr(found, name)[order]) for name in ("layer", "head", "query", "key")},
        **{name: quantised(getattr(found, name)[order]) for name in ("weight", "contribution")},
    }


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
