"""The parameters of gates that own some, in a file of their own: gates.safetensors, beside the weights.

The weights of a saved model are then those of its architecture, name for name. A checkpoint of the Trainer holds the
parameters among the weights, unless it holds adapters alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, refuse
from ..gates.gate_sets import GateSets

FILE = "gates.safetensors"


def save_tensors(sets: GateSets, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the parameters of gate sets into a folder; nothing for sets that own none.

    Args:
        weights: where to take them from, by their names in any wrapper: whole ones, of a model that is sharded.
    """
    found: dict[str, Tensor] = dict(sets.named_parameters())
    if weights:
        found = {name: next(x for key, x in weights.items() if key.endswith(name)) for name in found}
    if found:
        save_file({name: x.detach().cpu().contiguous() for name, x in found.items()}, folder / FILE)


def load_tensors(sets: GateSets, folder: Path) -> None:
    """Read the parameters of gate sets from whichever safetensors of a folder hold them.

    Raises: `CheckpointError` for one that is missing, or of another shape.
    """
    wanted = dict(sets.named_parameters())
    found = _read(set(wanted), folder) if wanted else {}
    for name, parameter in wanted.items():
        shape = tuple(found[name].shape) if name in found else "no tensor"
        if shape != tuple(parameter.shape):
            raise refuse(
                f"{folder}: {shape} for {name}",
                f"{tuple(parameter.shape)}",
                "copy the checkpoint again",
                CheckpointError,
            )
        with torch.no_grad():
            parameter.copy_(found[name])


def _read(names: set[str], folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                found |= {name: file.get_tensor(name) for name in names & set(file.keys())}
        except (OSError, SafetensorError) as error:
            raise refuse(
                f"{path} cannot be read ({error})", "a whole file", "copy it again", CheckpointError
            ) from error
    return found
