"""config.json and adapter_config.json as files: read before transformers builds anything from them.

A config that lies about its sizes would be built as it says, which takes minutes or never ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from typing_extensions import TypedDict

from ..errors import CheckpointError
from ..files import read_json, require_shape

ADAPTERS = "adapter_config.json"
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
OF_BOTH = ("num_decoder_layers", "encoder_layers", "decoder_layers")  # of an encoder and a decoder
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTHS = (
    "hidden_size",
    "n_embd",
    "d_model",
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "head_dim",
    "vocab_size",
)
COUNTS = ("num_key_value_heads", "max_position_embeddings", "n_positions", "num_experts")
MOST_LAYERS, MOST = 1000, 10**8  # assumed: several times the largest model that there is

# A list has a size for each layer, and a size may be left out.
Layers = Annotated[int, Ge(1), Le(MOST_LAYERS)] | None
Width = Annotated[int, Ge(1), Le(MOST)] | list[Any] | None
Labels = Annotated[int, Ge(0), Le(10**6)] | None  # transformers makes a name for each
Count = Annotated[int, Ge(0), Le(MOST)] | list[Any] | None

_Sizes = TypedDict(  # type: ignore[misc]
    "_Sizes",
    dict.fromkeys((*LAYERS, *OF_BOTH), Layers)
    | dict.fromkeys((*HEADS, *WIDTHS), Width)
    | dict.fromkeys(COUNTS, Count)
    | {"num_labels": Labels},
    total=False,
)


class _Config(_Sizes, total=False):
    architectures: list[str] | None
    model_type: str
    text_config: dict[str, Any] | None


class _Adapter(TypedDict):
    base_model_name_or_path: str


def read_config_file(folder: Path) -> dict[str, Any]:
    """The content of config.json; infinite values are kept, since some architectures have them.

    Raises: `CheckpointError` for what is no JSON object, and for sizes that no model has.
    """
    path = folder / "config.json"
    found = read_json(path, _Config, finite=False, kind=CheckpointError)
    for name, part in found.items():
        if name.endswith("_config") and isinstance(part, dict):
            require_shape(part, _Sizes, f"{path}, {name}", CheckpointError)
    return found


def holds_adapters(folder: Path) -> bool:
    """Whether a folder is one of adapters alone, without the model that they were made for."""
    return (folder / ADAPTERS).is_file()


def holds_model(folder: Path) -> bool:
    """Whether a folder is that of a model, whole or as adapters."""
    return (folder / "config.json").is_file() or holds_adapters(folder)


def adapter_base(folder: Path) -> str:
    """The model that adapters were made for, as adapter_config.json names it."""
    content = read_json(folder / ADAPTERS, _Adapter, finite=False, kind=CheckpointError)
    return content["base_model_name_or_path"]
