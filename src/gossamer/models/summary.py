"""What a model is, without loading its weights: its family and sizes, its gates, its ceiling, what would run it.

A gated checkpoint does not know its ceiling; the report.json beside it does, where `gossamer demo` or `gossamer
sparsify` wrote one.
"""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import CheckpointError, refuse
from ..gates.attention import choose
from .config_file import adapter_base, holds_adapters, holds_model
from .gate_block import adapter_blocks, sets_of
from .run_report import report_beside
from .shape import shape_of

PARTS = (
    "base",
    "sparse",
    "model",
    "adapter",
)  # what `gossamer demo` and `gossamer sparsify` call their models


def describe(place: Path | str) -> dict[str, Any]:
    """Describe a model, or the models in the folder of a run.

    Args:
        place: a checkpoint folder, a hub id, or a folder that holds base/ and sparse/, model/ or adapter/.
    Returns: `models` (one record each, as `describe_model`), `impl` (device -> what auto resolves to there, and
        why), `versions`.
    Raises: `CheckpointError` for what is none of these.
    """
    folder = Path(place)
    found = [folder / part for part in PARTS if (folder / part).is_dir()]
    whole = not folder.is_dir() or holds_model(folder)
    if not whole and not found:
        raise refuse(
            f"{place} holds no model",
            f"a folder with config.json, or with one of {', '.join(f'{x}/' for x in PARTS)}",
            "check the path",
            CheckpointError,
        )
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {
        "models": [describe_model(x) for x in ([place] if whole else found)],
        "impl": {device: choose("auto", device)._asdict() for device in devices},
        "versions": {
            "gossamer": __version__,
            **{name: version(name) for name in ("torch", "transformers")},
            "python": platform.python_version(),
        },
    }


def describe_model(place: Path | str) -> dict[str, Any]:
    """Architecture, family, sizes, gates and ceiling of one model.

    Returns: `gates` has each kind that is on, with its `bias` c in nats, "open" if all are open, and what its gates
        read; it is empty for a dense model. `edges` is False where the architecture keeps its attention from the
        interface, so that it cannot be gated; `ceiling` and `feasible` are None where no report says them, and `open`
        is what it says of each kind: hard open units per held-out row, by layer, `of` how many units
        a layer has, where that is fixed, and
        `sizes` its parameters, multiply-adds and bytes, of base and of what is left; `task` says in words what for.
    """
    adapter = holds_adapters(Path(place))
    source = adapter_base(Path(place)) if adapter else place
    shape = shape_of(source)
    sets = sets_of(adapter_blocks(Path(place)) if adapter else shape.gates, place)
    return {
        "path": str(place),
        "architecture": shape.architecture,
        "family": shape.family,
        "adapter_of": source if adapter else None,
        "layers": shape.layers,
        "heads": shape.heads,
        "key_value_heads": shape.key_value_heads,
        "parameters": shape.parameters,
        "edges": shape.gateable,
        "gates": {
            one.kind: {"bias": "open" if math.isinf(one.bias) else one.bias, "reads": one.reads}
            for one in sets
        },
        **_ceiling(Path(place) if sets else None),
    }


def _ceiling(folder: Path | None) -> dict[str, Any]:
    """The ceiling of a gated model and whether it was held, from the report beside its folder."""
    report = None if folder is None else report_beside(folder)
    if report is None:
        return {
            "ceiling": None,
            "feasible": None,
            "open": {},
            "of": {},
            "sizes": {},
            "why_reads": "",
            "task": "",
        }
    left = {kind: units.per_layer for kind, units in report.gates.items()}
    said = {"ceiling": report.ceiling or None, "feasible": report.feasible, "open": left}
    said |= {
        "of": {kind: x.of_layer for kind, x in report.gates.items() if x.of_layer},
        "sizes": report.sizes,
    }
    return said | {"why_reads": report.why_reads, "task": report.task_in_words}
