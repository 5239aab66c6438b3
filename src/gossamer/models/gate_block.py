"""The blocks in which a checkpoint says which gates it has, one a kind; what a kind has in one is its own `state`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, refuse
from ..files import read_json, write_json
from ..gates.gate_set import SUFFIX
from ..gates.gate_sets import GateSets
from ..gates.host import Options
from ..gates.kinds import kinds


def blocks_of(config: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """Kind -> its block in a model config; empty for a dense model.

    Raises: `CheckpointError` for gates of a kind that is not known here, which would be left out.
    """
    known = {cls.block: kind for kind, cls in kinds().items()}
    for name, block in config.items():
        if name.endswith(SUFFIX) and name not in known and isinstance(block, Mapping) and "version" in block:
            raise refuse(
                f"{where} has gates of a kind that is not known here ({name})",
                f"{', '.join(known)}",
                "upgrade gossamer, or import what defines them",
                CheckpointError,
            )
    return {kind: config[block] for block, kind in known.items() if block in config}


def sets_of(blocks: Mapping[str, Any], where: Path | str, options: Options | None = None) -> GateSets:
    """The gate sets that blocks describe, to be put on their model.

    Raises: `CheckpointError` for a block of a newer version, and for one that means nothing.
    """
    known = kinds()
    made = (known[kind].from_state(block, where, options or Options()) for kind, block in blocks.items())
    return GateSets(made)


def adapter_blocks(folder: Path) -> dict[str, Any]:
    """Kind -> its block, of an adapter folder, which has no config.json of its own; empty for one without gates."""
    files = {path.stem: read_json(path) for path in sorted(folder.glob(f"*{SUFFIX}.json"))}
    return blocks_of(files, folder)


def require_adapter_blocks(folder: Path) -> dict[str, Any]:
    """The same, or an error for adapters without gates."""
    blocks = adapter_blocks(folder)
    if not blocks:
        raise refuse(
            f"{folder} holds adapters without gates (no file *{SUFFIX}.json)",
            "adapters that gossamer wrote",
            "load it with peft, or make a model sparse first",
            CheckpointError,
        )
    return blocks


def write_adapter_blocks(sets: GateSets, folder: Path) -> None:
    """Write the block of each set beside an adapter."""
    for one in sets:
        write_json(folder / f"{one.block}.json", one.state())
