"""A folder whose weights are not those of its config is refused in one line, wherever it is loaded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from gossamer import attach, load, save
from gossamer.cli import main
from gossamer.errors import CheckpointError, GossamerWarning
from gossamer.files import read_json, write_json
from gossamer.models.checkpoint import load_dense, load_for_training, save_adapter
from gossamer.models.shape import shape_of
from gossamer.training.adapters import add_adapters
from helpers import zoo
from helpers.letters import save_tokenizer

pytestmark = pytest.mark.integration  # writes and loads many models

WEIGHTS = "model.safetensors"


def change(folder: Path, how: Callable[[dict[str, torch.Tensor]], Any], file: str = WEIGHTS) -> None:
    tensors = load_file(folder / file)
    how(tensors)
    save_file(tensors, folder / file, {"format": "pt"})


def layer_tensor(tensors: dict[str, torch.Tensor]) -> str:
    """A matrix inside the last layer."""
    return max(
        name for name in tensors if ".1." in name and name.endswith("weight") and tensors[name].dim() == 2
    )


def without_one(folder: Path) -> str:
    change(folder, lambda tensors: tensors.pop(layer_tensor(tensors)))
    return "lack 1 tensor"


def renamed(folder: Path) -> str:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        name = layer_tensor(tensors)
        tensors[name + "_"] = tensors.pop(name)

    change(folder, rename)
    return "lack 1 tensor"


def one_more(folder: Path) -> str:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors[layer_tensor(tensors) + "_"] = torch.zeros(3)

    change(folder, add)
    return "hold 1 tensor"


def of_another_shape(folder: Path) -> str:
    def widen(tensors: dict[str, torch.Tensor]) -> None:
        tensors[layer_tensor(tensors)] = torch.zeros(7, 5)

    change(folder, widen)
    return "other shapes than its config.json says"


def layers(folder: Path, more: int) -> None:
    config = read_json(folder / "config.json")
    name = next(x for x in ("num_hidden_layers", "n_layer", "n_layers") if x in config)
    config[name] += more
    for key in ("layer_types", "mlp_layer_types"):
        config.pop(key, None)
    write_json(folder / "config.json", config)


def a_layer_more_in_the_config(folder: Path) -> str:
    layers(folder, 1)
    return r"lack \d+ tensors"


def a_layer_fewer_in_the_config(folder: Path) -> str:
    layers(folder, -1)
    return r"hold \d+ tensors"


HARM = [
    without_one,
    renamed,
    one_more,
    of_another_shape,
    a_layer_more_in_the_config,
    a_layer_fewer_in_the_config,
]


def dense(family: str, folder: Path) -> Path:
    zoo.build(family).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("family", zoo.ALL)
def test_a_folder_with_other_weights_than_its_config_is_refused(
    family: str, harm: Any, tmp_path: Path
) -> None:
    zoo.build(family).save_pretrained(tmp_path)
    message = harm(tmp_path)
    for loading in (load_dense, load_for_training):
        with pytest.raises(CheckpointError, match=message) as error:
            loading(tmp_path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", [*zoo.ALL, *zoo.FURTHER, *zoo.HYBRID])
def test_what_transformers_saves_is_loaded_without_a_word(family: str, tmp_path: Path) -> None:
    zoo.build(family).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GossamerWarning)
        load_dense(tmp_path)
        shape_of(tmp_path)


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("verb", [
    "info {model}",
    "trace {model} --prompt abc",
    "view {out} --base {model} --sparse {model} --prompt abc --out {out}/page.html",
    "sparsify {model} --data {data} --out {out}/run",
], ids=lambda verb: verb.split()[0])  # fmt: skip
def test_every_verb_refuses_it_in_one_line(verb: str, harm: Any, tmp_path: Path, capsys: Any) -> None:
    model = dense("llama", tmp_path / "model")
    (tmp_path / "data.txt").write_text("abc " * 500)
    message = harm(model)
    given = verb.format(model=model, out=tmp_path, data=tmp_path / "data.txt")
    capsys.readouterr()
    assert main(given.split()) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(message, said), said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("harm", [without_one, one_more, a_layer_fewer_in_the_config])
def test_a_gated_folder_too(harm: Any, tmp_path: Path) -> None:
    model = zoo.build("llama")
    attach(model, bias=0.1)
    save(model, tmp_path / "sparse")
    message = harm(tmp_path / "sparse")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "sparse")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("how", ["lack", "hold"])
def test_adapters_too(how: str, tmp_path: Path) -> None:
    zoo.build("llama").save_pretrained(tmp_path / "base")
    model = load_for_training(tmp_path / "base")
    attach(model, bias=0.1)
    save_adapter(add_adapters(model, rank=2), tmp_path / "adapter")
    load(tmp_path / "adapter")

    def harm(tensors: dict[str, torch.Tensor]) -> None:
        name = sorted(tensors)[-1]
        moved = tensors[name] if how == "hold" else tensors.pop(name)
        if how == "hold":
            tensors[name.replace("layers.1", "layers.2")] = moved.clone()

    change(tmp_path / "adapter", harm, "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=f"{how} 1 tensor") as error:
        load(tmp_path / "adapter")
    assert "\n" not in str(error.value)


def test_heads_of_another_architecture_of_the_family_are_left_out_with_a_warning(tmp_path: Path) -> None:
    """As in the file of bert-base-uncased, whose architecture is BertForMaskedLM."""
    hf.BertForPreTraining(zoo.build("bert").config).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "architectures": ["BertForMaskedLM"]})
    with pytest.warns(GossamerWarning, match="holds 4 tensors .* of another architecture of its family"):
        load_dense(tmp_path)
    layers(tmp_path, -1)
    with pytest.raises(CheckpointError, match=r"hold \d+ tensors .*bert.encoder.layer.1"):
        load_dense(tmp_path)
