"""The sizes of a model, from its files: config.json, the headers of its weights, and the source of its architecture.

Importing transformers and a model class takes seconds, reading these files a tenth of one. What they do not say in
the ordinary way is asked of the model, on torch's meta device, which holds shapes and no numbers; what no other verb
could load is refused then.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.trust import trusted
from ..errors import UnsupportedModel, loading
from .config_file import HEADS, LAYERS, read_config_file
from .gate_block import blocks_of
from .gate_tensors import FILE
from .ordinary import SHARED, is_ordinary

INTERFACE = (
    "ALL_ATTENTION_FUNCTIONS.get_interface"  # what the source of an architecture that can be gated calls
)


@dataclass(frozen=True)
class Shape:
    """What `gossamer info` says of a model.

    Attributes:
        family: the `model_type` of transformers.
        gates: kind -> the block of gates in its config; empty for a dense model.
        gateable: whether it can have gates.
    """

    architecture: str
    family: str
    layers: int
    heads: int
    key_value_heads: int
    parameters: int
    gates: dict[str, Any]
    gateable: bool


def shape_of(place: Path | str) -> Shape:
    """The shape of a checkpoint folder or of a hub id.

    Raises: `CheckpointError` for what is no model of transformers.
    """
    return _from_files(Path(place)) or _from_model(place)


def _from_files(folder: Path) -> Shape | None:
    """The shape that the files say, or None where they do not say all of it."""
    if not (folder / "config.json").is_file():
        return None
    config = read_config_file(folder)
    names, tensors = config.get("architectures") or [None], _tensors(folder)
    source = _source(str(names[0]), str(config.get("model_type", "")))
    sizes = [
        next((config[n] for n in known if isinstance(config.get(n), int)), None) for known in (LAYERS, HEADS)
    ]
    if source is None or tensors is None or None in sizes or "model_type" not in config:
        return None
    layers, heads = (int(size) for size in sizes if size is not None)
    if not is_ordinary(config, heads) or not _has_whole_layers(tensors, layers):
        return None
    # Any config keeps this name if it is given one; where the source lacks it, no head shares its keys.
    shares = SHARED in source
    return Shape(
        str(names[0]),
        str(config["model_type"]),
        layers,
        heads,
        int((config.get(SHARED) if shares else 0) or heads),
        sum(map(math.prod, tensors.values())),
        blocks_of(config, folder),
        INTERFACE in source,
    )


def _tensors(folder: Path) -> dict[str, list[int]] | None:
    """The shapes of the tensors of a folder, from the headers of its files; None without such files."""
    files = sorted(x for x in folder.glob("*.safetensors") if x.is_file() and x.name != FILE)
    if not files:
        return None
    found: dict[str, list[int]] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            found |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
            return None  # the slow way names what is wrong with it
    return found


def _has_whole_layers(tensors: Mapping[str, list[int]], layers: int) -> bool:
    """Whether each of so many layers has the same tensors in the same shapes, in the largest list of blocks."""
    stacks: dict[str, dict[int, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))
    for name, shape in tensors.items():
        if found := re.match(r"(.*?)\.?(\d+)\.(.*)", name):
            stacks[found[1]][int(found[2])].add((found[3], *map(str, shape)))
    blocks = max(stacks.values(), key=lambda one: sum(map(len, one.values())), default={})
    return sorted(blocks) == list(range(layers)) and len(set(map(frozenset, blocks.values()))) == 1


def _source(name: str, family: str) -> str | None:
    """The source of the module of transformers that defines an architecture."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return None
    models = Path(next(iter(spec.submodule_search_locations))) / "models"
    for path in sorted(models.glob("*/modeling_*.py"), reverse=True):
        if not family.replace("-", "_").startswith(path.parent.name):  # gemma3_text is of gemma3
            continue
        source = path.read_text(encoding="utf-8")
        if f"\nclass {name}(" in source:
            return source
    return None


def _from_model(place: Path | str) -> Shape:
    """The shape of the model built on the meta device."""
    from .host import ModelHost
    from .layers import layers_of
    from .quiet import quiet

    with quiet():
        model = _built(place)
    config, heads, count = model.config, ModelHost(model).n_heads, layers_of(model).count
    text = config.get_text_config()
    passes = max(
        count, int(getattr(text, "num_hidden_layers", count))
    )  # more than layers where these are shared
    return Shape(
        type(model).__name__,
        config.model_type,
        passes,
        heads,
        _key_value_heads(model) or int(getattr(text, SHARED, None) or heads),
        sum(p.numel() for p in model.parameters()),
        blocks_of(config.__dict__, place),
        passes == count and _is_gateable(model),
    )


def _built(place: Path | str) -> Any:
    """A model without its numbers: that of a hub id, and a quantised one, from its config alone."""
    import torch

    from .checkpoint import load_dense
    from .declared import class_of, read_config

    config = read_config(place)
    if Path(place).is_dir() and getattr(config, "quantization_config", None) is None:
        return load_dense(place, config=config, device_map="meta")
    cls = class_of(config, place, trust_remote_code=trusted())
    expected = "a config.json that its architecture can be built from"
    with loading(place, expected, "check it"), torch.device("meta"):
        return cls(config)


def _is_gateable(model: Any) -> bool:
    from .host import ModelHost

    try:
        ModelHost(model).require_gateable()
    except UnsupportedModel:
        return False
    return True


def _key_value_heads(model: Any) -> int:
    """How many heads of keys there are by the weights; 0 where they are not known."""
    from .anatomy import Anatomy

    try:
        return Anatomy.of(model).layers[0].n_kv_heads
    except UnsupportedModel:
        return 0
