"""What a folder or a hub id says that its model is: its config, the class that it names, the sizes of its layers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import transformers
from transformers import AttentionInterface, AutoConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ..data.places import hub_answers, looks_like_path, reaching
from ..data.trust import trusted, untrusted
from ..errors import CheckpointError, GossamerWarning, loading, refuse
from .config_file import holds_adapters, read_config_file
from .interface import KEY

BLOCK = "shrink"  # of config.json: what `gossamer shrink` did


def read_config(path: Path | str, **options: Any) -> Any:
    """The model config of a folder or hub id, or one clear line."""
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise _no_config(folder)
    if not folder.exists() and looks_like_path(path):
        raise refuse(
            f"{path} does not exist", "a checkpoint folder, or a hub id", "check the path", CheckpointError
        )
    options.setdefault("trust_remote_code", trusted())  # unset, transformers asks at a prompt
    if folder.is_dir():
        read_config_file(folder)  # says what is wrong with a file that is no JSON, or lies about its sizes
        fix = "check its model_type, or upgrade transformers"
        try:
            with loading(f"the config.json of {path}", "one that this version of transformers can use", fix):
                config = AutoConfig.from_pretrained(path, **options)
        except CheckpointError as error:
            if "trust_remote_code" in str(error.__cause__):
                raise untrusted(path) from error
            raise
        return _as_built(config, path)  # outside, since what it warns of is no failure to load
    try:
        with reaching(path):
            return _as_built(AutoConfig.from_pretrained(path, **options), path)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise untrusted(path) from error
        why = "" if hub_answers() else " (the hub does not answer)"
        raise refuse(
            f"{path} is neither a checkpoint folder nor a model that can be reached{why}",
            "a folder with config.json, or a hub id with network access",
            "check the name, and log in if the model is gated",
            CheckpointError,
        ) from error


def _as_built(config: Any, path: Path | str) -> Any:
    """A model config without an attention that gates replace: ours, flash, or one that nobody has registered."""
    wanted = config._attn_implementation
    if wanted is not None and not isinstance(wanted, str):
        raise refuse(
            f"attn_implementation={wanted!r} in the config.json of {path}",
            "the name of an attention, such as sdpa",
            "take it out",
            CheckpointError,
        )
    if wanted == KEY:
        config._attn_implementation = None
    elif wanted and (wanted.startswith("flash") or wanted not in AttentionInterface().valid_keys()):
        config._attn_implementation = None
        message = f"{path} asks for attn_implementation={wanted!r}, which gates replace; it is loaded with the default"
        warnings.warn(message, GossamerWarning, stacklevel=4)
    return config


def class_of(
    config: Any, path: Path | str, *, trust_remote_code: bool, **options: Any
) -> type[PreTrainedModel]:
    """The class that a config names, in code of its own where that may run; `CheckpointError` if there is none."""
    own = architecture_of_its_own(config, path, **options) if trust_remote_code else None
    return own or architecture(config, path)


def architecture(config: Any, path: Path | str) -> type[PreTrainedModel]:
    """The class of transformers that a model config names; `CheckpointError` if there is none."""
    names = getattr(config, "architectures", None) or []
    classes = [_class_named(name) for name in names if isinstance(name, str)]
    models = [cls for cls in classes if isinstance(cls, type) and issubclass(cls, PreTrainedModel)]
    cls = next((cls for cls in models if isinstance(config, cls.config_class or ())), None)
    if models and cls is None:
        raise refuse(
            f"{path} is of model_type {config.model_type} and names the architecture {models[0].__name__}",
            "an architecture of that model_type",
            "mend config.json",
            CheckpointError,
        )
    if cls is None:
        if getattr(config, "auto_map", None):
            raise untrusted(path)
        if names:
            raise refuse(
                f"{path} is of a class that is neither in transformers nor imported here ({names})",
                "models of transformers, or subclasses of them that are imported",
                "import the module that defines it, or name its parent in `architectures` of config.json",
                CheckpointError,
            )
        raise refuse(
            f"{path} names no architecture",
            "checkpoints of transformers models",
            "add `architectures` to its config.json",
            CheckpointError,
        )
    return cls


def _class_named(name: str) -> Any:
    """What transformers has under that name, or a subclass of `PreTrainedModel` that somebody has defined."""
    if hasattr(transformers, name):
        return getattr(transformers, name)
    waiting = [PreTrainedModel]
    while waiting:
        cls = waiting.pop()
        if cls.__name__ == name:
            return cls
        waiting += cls.__subclasses__()
    return None


def architecture_of_its_own(config: Any, path: Path | str, **options: Any) -> type[PreTrainedModel] | None:
    """The class that a model config names in code of its own, which is run; None where it names none there."""
    wanted = set(getattr(config, "architectures", None) or [])
    for name, reference in (getattr(config, "auto_map", None) or {}).items():
        if name != "AutoConfig" and isinstance(reference, str) and reference.rpartition(".")[2] in wanted:
            on_hub = {
                k: v for k, v in options.items() if k in ("revision", "token", "cache_dir", "code_revision")
            }
            expected = f"{name} in {reference}"
            with loading(f"the code of {path}", expected, "check it"), reaching(path):
                cls = get_class_from_dynamic_module(reference, str(path), **on_hub)
                cls.register_for_auto_class(name)  # so that saving keeps the code
            return cls
    return None


def layer_sizes(config: Any, path: Path | str) -> dict[str, dict[str, int]]:
    """Number of the layer -> its sizes, of a folder that `gossamer shrink` cut layer by layer; else empty."""
    block = getattr(config, BLOCK, None)
    if not isinstance(block, dict) or "level" not in block:
        return {}
    if block.get("version") != 1:
        raise refuse(
            f"{path} was written by a newer gossamer ({BLOCK} version {block.get('version')})",
            "version 1",
            "upgrade gossamer",
            CheckpointError,
        )
    return block.get("per_layer_config", {})


def _no_config(folder: Path) -> Exception:
    """The error for a folder that is no model, told apart from one that holds adapters alone."""
    if holds_adapters(folder):
        return refuse(
            f"{folder} holds adapters, not a model",
            "a dense model",
            "pass the model they were made for, or load them with gossamer.load(path)",
            CheckpointError,
        )
    return refuse(f"{folder} has no config.json", "a checkpoint folder", "check the path", CheckpointError)
