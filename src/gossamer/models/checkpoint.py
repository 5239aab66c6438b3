"""Gated checkpoints: an ordinary transformers folder whose config says which gates it was trained with.

Plain transformers refuses to build such a model, whose config names an attention that only we register; asked for
another one (`attn_implementation="sdpa"`), it runs it dense. `load` puts the gates back, proves that they run, and
refuses what it does not know.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from ..data.places import reaching
from ..data.trust import trusted
from ..errors import CheckpointError, UnsupportedModel, loading, refuse
from ..files import writing
from ..gates.gate_sets import GateSets
from ..gates.host import Options
from .attach import gate_sets_of, put_on, write_config
from .config_file import adapter_base, holds_adapters
from .cut import sized
from .declared import class_of, layer_sizes, read_config
from .forward import evaluating, first_output, probe_inputs
from .gate_block import blocks_of, require_adapter_blocks, sets_of, write_adapter_blocks
from .gate_tensors import FILE, load_tensors, save_tensors
from .host import ModelHost
from .load_report import require_adapter_tensors, require_all_tensors
from .sentence_encoder import keep_files


def require_whole(model: Any) -> None:
    """Raise for a model with adapters of `model.add_adapter`, which saves those alone and never its own weights."""
    inner = next((x for x in model.modules() if isinstance(x, PreTrainedModel)), model)
    if getattr(inner, "_hf_peft_config_loaded", False):
        raise refuse(
            f"{type(inner).__name__} with adapters of model.add_adapter, which saves those alone",
            "a PeftModel",
            "wrap the dense model with peft.get_peft_model, or pass --lora",
            UnsupportedModel,
        )


def save(model: PreTrainedModel, folder: Path | str) -> None:
    """Save a gated model as a whole folder, atomically: weights as safetensors, gates in config.json.

    Gates that own parameters have them in gates.safetensors, so that the weights are the architecture's alone.
    """
    require_whole(model)
    sets = gate_sets_of(model)
    write_config(model)
    own = dict(sets.named_parameters())
    weights = {k: x for k, x in model.state_dict().items() if k not in own} if own else None
    with writing(Path(folder)) as temporary:
        model.save_pretrained(temporary, state_dict=weights)
        save_tensors(sets, temporary)
        keep_files(str(model.name_or_path), temporary)


def save_folder(model: PreTrainedModel, folder: Path | str) -> None:
    """`save_pretrained`, but atomically: the folder appears whole or not at all."""
    with writing(Path(folder)) as temporary:
        model.save_pretrained(temporary)


def save_adapter(model: Any, folder: Path) -> None:
    """Save adapters alone, atomically, with the gates beside them; the base model stays where it came from."""
    sets = gate_sets_of(model)
    with writing(folder) as temporary:
        model.save_pretrained(temporary)
        write_adapter_blocks(sets, temporary)
        save_tensors(sets, temporary)
        keep_files(model.get_base_model().name_or_path, temporary)


def load(path: Path | str, *, impl: str = "auto", check: bool = True, **options: Any) -> PreTrainedModel:
    """Load a gated checkpoint with its gates on, in evaluation mode.

    Args:
        path: a folder, or a hub id.
        impl: implementation of gated attention.
        check: prove on a probe input that the gates run.
        options: passed to `from_pretrained` (revision, token, dtype, device_map ...). Code that comes with a model
            runs only with trust_remote_code=True.
    A folder that `gossamer shrink` cut layer by layer is loaded too; where it has no gates, nor has the model.

    Raises: `CheckpointError` for a folder that is no checkpoint, is dense, or is from a newer gossamer.
    """
    if holds_adapters(Path(path)):
        return _load_adapter(Path(path), impl=impl, check=check, **options)
    on_hub = {k: v for k, v in options.items() if k in ("revision", "token", "cache_dir")}
    config = read_config(path, **on_hub, trust_remote_code=options.get("trust_remote_code", trusted()))
    blocks = blocks_of(config.__dict__, path)
    if not blocks and layer_sizes(config, path):
        return load_dense(path, config=config, **options)
    if not blocks:
        raise refuse(
            f"{path} is a dense checkpoint",
            "folders that gossamer wrote, whose config.json has a block edge_gates",
            "load it with transformers, or make it sparse first",
            CheckpointError,
        )
    sets = sets_of(blocks, path, Options(impl))
    model = load_dense(path, config=config, **options)
    put_on(model, sets, check=check)
    load_tensors(sets, _folder_of(path, sets, **on_hub))
    return model


def _folder_of(path: Path | str, sets: GateSets, **on_hub: Any) -> Path:
    """The folder with the parameters of the gates, downloaded for a hub id that has some."""
    if Path(path).is_dir() or not any(True for _ in sets.named_parameters()):
        return Path(path)
    with reaching(path):
        return Path(str(cached_file(path, FILE, **on_hub))).parent


def _load_adapter(folder: Path, *, impl: str, check: bool, **options: Any) -> Any:
    """The base model that an adapter folder names, gated, with the adapters on."""
    from peft import PeftModel

    sets = sets_of(require_adapter_blocks(folder), folder, Options(impl))
    model = load_dense(adapter_base(folder), **options)
    put_on(model, sets, check=check)
    load_tensors(sets, folder)
    with loading(folder, "whole adapters", "copy the folder again"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error, in the next line
        with reaching(folder):
            adapted = PeftModel.from_pretrained(model, folder)
    require_adapter_tensors(folder, adapted)
    return adapted.eval()


def load_merged(path: Path | str, *, impl: str = "auto") -> PreTrainedModel:
    """`load`, with adapters merged into the weights, as a circuit is read off plain linear layers."""
    model: Any = load(path, impl=impl)
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def load_dense(path: Path | str, *, config: Any = None, **options: Any) -> PreTrainedModel:
    """Load the architecture that config.json names, dense, in evaluation mode; layers may have sizes of their own."""
    trust = bool(options.pop("trust_remote_code", trusted()))
    config = config if config is not None else read_config(path, trust_remote_code=trust)
    cls = class_of(config, path, trust_remote_code=trust, **options)
    with (
        loading(path, "a whole checkpoint", "copy it again, config.json and weights together"),
        reaching(path),
    ):
        built: Any = sized(cls, sizes) if (sizes := layer_sizes(config, path)) else cls
        loaded: Any = built.from_pretrained(path, config=config, output_loading_info=True, **options)
        model, report = loaded
        model.__class__ = cls
        require_all_tensors(path, model, report)
    _require_runs(path, model.eval())
    return model


def _require_runs(path: Path | str, model: PreTrainedModel) -> None:
    """Run a model once on a few tokens, since some values of a config are read by no one before.

    One that is only shapes, or whose weights are offloaded, is left alone, for it has no numbers here.
    Raises: `CheckpointError` for one that fails, or computes what is not finite.
    """
    here = all(weight.device.type != "meta" for weight in model.parameters())
    if not here or model.main_input_name != "input_ids" or model.config.is_encoder_decoder:
        return
    with loading(path, "a model that runs on token ids alone", "check its config.json", done="run"):
        with evaluating(model):
            output = first_output(model, probe_inputs(model))
        if not output.isfinite().all():
            raise refuse(
                f"{path} computes numbers that are not finite",
                "finite weights, and a config.json that divides by no zero",
                "copy it again, or check what made it",
                CheckpointError,
            )


def load_for_training(name: Path | str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a dense model to be made sparse.

    Raises: `CheckpointError` for what cannot be reached, and for a model that is sparse already and would be
        taken for its own dense base; `UnsupportedModel` for what can have no gates, and for `output_attentions` in
        its config.
    """
    config = read_config(name)
    if blocks_of(config.__dict__, name):
        raise refuse(
            f"{name} was saved with gates and would run dense here, as a base that it is not",
            "a dense model",
            "pass the base model, or load this one with gossamer.load(path)",
            CheckpointError,
        )
    if getattr(config, "output_attentions", False):
        raise refuse(
            f"{name} has output_attentions=True in its config",
            "False, as gossamer.trace lists the open edges with their weights",
            "set it to false in config.json",
            UnsupportedModel,
        )
    # Adapters name the folder of their base, and are loaded from anywhere.
    place = Path(name).resolve() if Path(name).is_dir() else name
    model = load_dense(place, config=config, dtype=dtype)
    ModelHost(model).require_gateable()
    return model
