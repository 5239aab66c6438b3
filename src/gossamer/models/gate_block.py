"""The block in which a checkpoint says that it has gates: version, bias, and what the gates read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, refuse
from ..files import read_json
from ..gates.edges import SCHEMA_VERSION
from ..gates.reads import READS

BLOCK_FILE = "edge_gates.json"  # beside an adapter, which has no config.json of its own


def adapter_block(folder: Path) -> dict[str, Any]:
    """The gates' block of an adapter folder."""
    if not (folder / BLOCK_FILE).is_file():
        raise refuse(
            f"{folder} holds adapters without gates ({BLOCK_FILE} is missing)",
            "adapters that gossamer wrote",
            "load it with peft, or make a model sparse first",
            CheckpointError,
        )
    return read_json(folder / BLOCK_FILE)


def bias_of(block: Any, path: Path | str) -> float:
    """The gate bias in an `edge_gates` block, or an error for a block that this version does not know."""
    if not isinstance(block, dict) or not isinstance(block.get("version"), int) or "bias" not in block:
        raise refuse(f"{path}: edge_gates is {block!r}", "{version, bias}", "save it again", CheckpointError)
    if block["version"] > SCHEMA_VERSION:
        raise refuse(
            f"{path} was written by a newer gossamer (edge_gates version {block['version']})",
            f"versions up to {SCHEMA_VERSION}",
            "upgrade gossamer",
            CheckpointError,
        )
    return math.inf if block["bias"] == "open" else float(block["bias"])


def reads_of(block: dict[str, Any], path: Path | str) -> str:
    """What the gates of an `edge_gates` block read; blocks of version 1 do not say it and read the logit."""
    reads = block.get("reads", "logit")
    if reads not in READS:
        raise refuse(
            f"{path}: gates that read {reads!r}",
            f"one of {', '.join(READS)}",
            "save it again",
            CheckpointError,
        )
    return str(reads)
