"""Gated checkpoints: an ordinary transformers folder whose config says that it was trained with gates.

Plain transformers loads such a folder and runs it dense, without a word. `load` puts the gates back, proves that
they run, and refuses what it does not know.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedModel

from .errors import CheckpointError, refuse
from .files import writing
from .modeling import CONFIG_BLOCK, SCHEMA_VERSION, attach, gates_of, write_config


def save(model: PreTrainedModel, folder: Path | str) -> None:
    """Save a gated model as a whole folder, atomically: weights as safetensors, gates in config.json."""
    gates_of(model)
    write_config(model)
    save_folder(model, folder)


def save_folder(model: PreTrainedModel, folder: Path | str) -> None:
    """`save_pretrained`, but atomically: the folder appears whole or not at all."""
    with writing(Path(folder)) as temporary:
        model.save_pretrained(temporary)


def load(path: Path | str, *, impl: str = "auto", check: bool = True, **options: Any) -> PreTrainedModel:
    """Load a gated checkpoint with its gates on, in evaluation mode.

    Args:
        path: a folder, or a hub id.
        impl: implementation of gated attention.
        check: prove on a probe input that the gates run.
        options: passed to `from_pretrained` (revision, token, dtype, device_map ...).
    Raises: `CheckpointError` for a folder that is no checkpoint, is dense, or was written by a newer gossamer.
    """
    config = read_config(path, **{k: v for k, v in options.items() if k in ("revision", "token", "cache_dir")})
    block = config.__dict__.get(CONFIG_BLOCK)
    if block is None:
        raise refuse(
            f"{path} is a dense checkpoint",
            "possible: folders that gossamer wrote, whose config.json has a block edge_gates",
            "load it with transformers, or make it sparse first",
            CheckpointError,
        )
    if not isinstance(block, dict) or not isinstance(block.get("version"), int) or "bias" not in block:
        raise refuse(f"{path}: edge_gates is {block!r}", "possible: {version, bias}", "save it again", CheckpointError)
    if block["version"] > SCHEMA_VERSION:
        raise refuse(
            f"{path} was written by a newer gossamer (edge_gates version {block['version']})",
            f"possible: versions up to {SCHEMA_VERSION}",
            "upgrade gossamer",
            CheckpointError,
        )
    model = load_dense(path, config=config, **options)
    bias = math.inf if block["bias"] == "open" else float(block["bias"])
    attach(model, bias=bias, impl=impl, check=check)
    return model


def load_dense(path: Path | str, *, config: Any = None, **options: Any) -> PreTrainedModel:
    """Load the architecture that config.json names, dense, in evaluation mode."""
    config = config if config is not None else read_config(path)
    names = getattr(config, "architectures", None) or []
    cls = next((getattr(transformers, name) for name in names if hasattr(transformers, name)), None)
    if cls is None:
        raise refuse(
            f"{path} names no architecture that transformers has ({names})",
            "possible: checkpoints of transformers models",
            "add `architectures` to its config.json",
            CheckpointError,
        )
    try:
        return cls.from_pretrained(path, config=config, **options).eval()
    except (OSError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise refuse(f"{path} cannot be loaded ({line})", "possible: a whole checkpoint", "copy it again", CheckpointError) from error


def read_config(path: Path | str, **options: Any) -> Any:
    """The model config of a folder or hub id, or one clear line."""
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise refuse(f"{path} has no config.json", "possible: a checkpoint folder", "check the path", CheckpointError)
    with suppress(OSError, ValueError):
        return AutoConfig.from_pretrained(path, **options)
    raise refuse(
        f"{path} is neither a checkpoint folder nor a model that can be reached",
        "possible: a folder with config.json, or a hub id with network access",
        "check the path",
        CheckpointError,
    )
