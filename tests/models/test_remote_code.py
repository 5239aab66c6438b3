"""Code that comes with a model runs where a person says so, and never asks at a prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gossamer
from gossamer.errors import CheckpointError
from gossamer.models.attach import attach
from gossamer.models.checkpoint import load_dense
from helpers import zoo

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def write(folder: Path) -> Path:
    """A gated llama under a name that transformers does not know, with its code beside it."""
    model = zoo.build("llama")
    attach(model, bias=0.5)
    gossamer.save(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_llama", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE)
    return folder


def test_a_gated_model_with_its_own_code_is_loaded_and_saved_with_it(tmp_path: Path) -> None:
    folder, ids = write(tmp_path / "own"), torch.arange(4, 14)[None]
    model = gossamer.load(folder, trust_remote_code=True)
    assert type(model).__name__ == "OwnForCausalLM"
    gossamer.save(model, tmp_path / "again")
    again = gossamer.load(tmp_path / "again", trust_remote_code=True)
    plain = zoo.build("llama")
    attach(plain, bias=0.5)
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
        for one in (model, again):
            torch.testing.assert_close(one(input_ids=ids).logits, expected)


def test_without_a_word_from_a_person_nothing_runs_and_nothing_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "own")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at a prompt"))
    for load in (gossamer.load, load_dense):
        with pytest.raises(
            CheckpointError, match="a model whose code comes with it: expected trust_remote_code=True"
        ):
            load(folder)
