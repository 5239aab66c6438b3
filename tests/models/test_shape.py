"""What `gossamer info` says is what the model has, over the whole zoo; what no verb could load is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gossamer.errors import CheckpointError
from gossamer.models.anatomy import Anatomy
from gossamer.models.shape import _from_files, _from_model, shape_of
from helpers import zoo


@pytest.mark.parametrize("family", [*zoo.ALL, *zoo.FURTHER])
def test_sizes_are_those_of_the_weights(family: str, tmp_path: Path) -> None:
    model = zoo.build(family)
    model.save_pretrained(tmp_path)
    found = shape_of(tmp_path)
    assert (found.architecture, found.family) == (type(model).__name__, model.config.model_type)
    assert (found.layers, found.heads) == (2, 4)
    assert found.key_value_heads == Anatomy.of(model)[0].n_kv_heads
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.gateable == (family != "albert")  # whose layers are one module, run several times


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_ordinary_files_say_it_without_model_code(family: str, tmp_path: Path) -> None:
    zoo.build(family).save_pretrained(tmp_path)
    assert _from_files(tmp_path) == _from_model(tmp_path)


@pytest.mark.integration
def test_ordinary_files_are_read_without_transformers(tmp_path: Path) -> None:
    places = []
    for name in ("gpt2", "llama", "bert"):
        zoo.build(name).save_pretrained(tmp_path / name)
        places.append(str(tmp_path / name))
    code = "import sys; from gossamer.models.shape import shape_of; list(map(shape_of, sys.argv[1:])); "
    code += "print([m for m in ('transformers', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code, *places], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("family", zoo.ALL)
def test_files_say_what_the_model_is_or_nothing(family: str, tmp_path: Path) -> None:
    zoo.build(family).save_pretrained(tmp_path)
    assert _from_files(tmp_path) in (None, _from_model(tmp_path))


def test_an_architecture_outside_the_interface_is_told_apart(tmp_path: Path) -> None:
    zoo.REFUSED["bloom"]().save_pretrained(tmp_path)
    assert not shape_of(tmp_path).gateable


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_torn_file_is_refused(name: str, tmp_path: Path) -> None:
    zoo.build("gpt2").save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"torn")
    with pytest.raises(CheckpointError):
        shape_of(tmp_path)


# What a config says and its architecture cannot take; nothing in it is a size.
UNFIT: tuple[dict[str, Any], ...] = (
    {"hidden_act": "nope"}, {"hidden_act": None}, {"hidden_act": 5}, {"rms_norm_eps": -1}, {"rms_norm_eps": "x"},
    {"use_cache": "x"}, {"pad_token_id": 10**9}, {"pad_token_id": "x"}, {"eos_token_id": "x"}, {"dtype": "int8"},
    {"max_position_embeddings": None}, {"tie_word_embeddings": "yes"}, {"attention_bias": "x"}, {"id2label": [1]},
    {"rope_parameters": {"rope_type": "yarn"}}, {"rope_parameters": {"rope_type": "nope"}}, {"mlp_bias": "x"},
    {"num_key_value_heads": 3}, {"num_key_value_heads": 0}, {"attn_implementation": 5}, {"attn_implementation": []},
    {"initializer_range": "x"}, {"auto_map": 5}, {"quantization_config": 5},
)  # fmt: skip


@pytest.mark.parametrize("changes", UNFIT, ids=str)
def test_a_config_that_no_other_verb_could_load_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    zoo.build("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError) as error:
        shape_of(tmp_path)
    assert "\n" not in str(error.value)
