"""The sizes that a model's files say are those of the model, over the whole zoo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gossamer.models.anatomy import Anatomy
from gossamer.models.shape import _from_files, _from_model, shape_of
from helpers import zoo


@pytest.mark.parametrize("family", zoo.ALL)
def test_files_say_what_the_model_is(family: str, tmp_path: Path) -> None:
    zoo.build(family).save_pretrained(tmp_path)
    assert _from_files(tmp_path) == _from_model(tmp_path)


@pytest.mark.parametrize("family", [*zoo.ALL, *zoo.FURTHER])
def test_key_value_heads_are_those_of_the_weights(family: str, tmp_path: Path) -> None:
    model = zoo.build(family)
    model.save_pretrained(tmp_path)
    assert shape_of(tmp_path).key_value_heads == Anatomy.of(model)[0].n_kv_heads


def test_an_architecture_outside_the_interface_is_told_apart(tmp_path: Path) -> None:
    zoo.REFUSED["bloom"]().save_pretrained(tmp_path)
    found = _from_files(tmp_path)
    assert found is not None
    assert not found.uses_interface


@pytest.mark.parametrize("torn", ["model.safetensors", "config.json"])
def test_what_files_do_not_say_is_asked_of_the_model(torn: str, tmp_path: Path) -> None:
    zoo.build("gpt2").save_pretrained(tmp_path)
    if torn == "config.json":
        path = tmp_path / torn
        path.write_text(path.read_text().replace("GPT2LMHeadModel", "GPT2LMHeadModels"))
        assert _from_files(tmp_path) is None
        return
    whole = shape_of(tmp_path)
    (tmp_path / torn).write_bytes(b"torn")
    assert _from_files(tmp_path) is None
    assert shape_of(tmp_path) == whole


def test_reading_files_loads_no_model_code(tmp_path: Path) -> None:
    zoo.build("gpt2").save_pretrained(tmp_path)
    code = "import sys; from gossamer.models.shape import shape_of; shape_of(sys.argv[1]); "
    code += "print([m for m in ('transformers', 'matplotlib') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
