"""Whether a config.json says nothing but what every architecture takes, told from the file alone.

`gossamer info` then need not ask the classes of transformers, whose import takes most of its time. What is not known
here is not ordinary, whether it is right or wrong: the class says which.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")
TEXTS = ("model_type", "transformers_version", "summary_type", "position_embedding_type", "_name_or_path")
MAY_LACK = (
    "n_inner",
    "classifier_dropout",
    "summary_activation",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "rope_scaling",
)
FLOATS = ("float32", "float16", "bfloat16", "float64")
ATTENTIONS = ("eager", "sdpa", "edge_gate")
SHARED = "num_key_value_heads"


def is_ordinary(config: Mapping[str, Any], heads: int) -> bool:
    """Whether every value of a config is one that its architecture takes, as far as its name tells."""
    return all(_fits(name, value, config, heads) for name, value in config.items())


def _fits(name: str, value: Any, config: Mapping[str, Any], heads: int) -> bool:
    if value is None:
        return name in MAY_LACK
    if name == "architectures" or name.endswith("_gates"):  # have doors of their own
        return True
    if name == SHARED:
        return _is_whole(value) and heads % value == 0
    if name == "pad_token_id":
        return _is_whole(value, least=0) and value < config.get("vocab_size", math.inf)
    return next(
        (fits(value) for has, fits in KINDS if has(name)), _is_whole(value) or isinstance(value, bool)
    )


def _is_whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value <= 10**8


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_rope(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("rope_type") != "default" or len(value) > 2:
        return False
    theta = value.get("rope_theta", 1.0)
    return type(theta) in (int, float) and 1 <= theta < math.inf


# What a name tells, and what such a value is.
KINDS: tuple[tuple[Callable[[str], bool], Callable[[Any], bool]], ...] = (
    (lambda name: name in ACTIVATIONS, lambda value: isinstance(value, str) and value in _activations()),
    (lambda name: name in TEXTS, lambda value: isinstance(value, str)),
    (lambda name: name in ("dtype", "torch_dtype"), lambda value: value in FLOATS),
    (lambda name: name.endswith("attn_implementation"), lambda value: value in ATTENTIONS),
    (lambda name: name in ("rope_parameters", "rope_scaling"), _is_rope),
    (lambda name: name == "rope_theta", lambda value: type(value) in (int, float) and 1 <= value < math.inf),
    (lambda name: name.endswith(("_eps", "_epsilon")), lambda value: type(value) is float and 0 < value < 1),
    (lambda name: name.endswith(("dropout", "pdrop", "_prob", "_range")), _is_share),
    (lambda name: name.endswith("_token_id"), lambda value: _is_whole(value, least=0)),
    (lambda name: name in ("is_encoder_decoder", "output_attentions"), lambda value: value is False),
    (lambda name: name.endswith(("_config", "_map")), lambda value: False),
    (lambda name: name == "return_dict", lambda value: value is True),
    (
        lambda name: name.startswith(("use_", "tie_")) or name.endswith("_bias"),
        lambda value: isinstance(value, bool),
    ),
)


@cache
def _activations() -> frozenset[str]:
    """The names of activations in the source of transformers."""
    spec = importlib.util.find_spec("transformers")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        return frozenset()
    source = (Path(places[0]) / "activations.py").read_text(encoding="utf-8")
    return frozenset(re.findall(r'^    "(\w+)":', source, re.MULTILINE))
