"""`gossamer info`: what it says of dense, gated, adapted and ungateable models, and of a run's folder."""

from __future__ import annotations

import pytest
import torch

from gossamer.cli import main
from gossamer.errors import CheckpointError
from gossamer.files import write_json
from gossamer.gates.attention import choose
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save, save_adapter, save_folder
from gossamer.models.summary import describe, describe_model
from gossamer.training.adapters import add_adapters
from helpers.records import validated
from helpers.zoo import REFUSED, tiny, tiny_gated


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder: base/, sparse/ at bias 0, and the report of a ceiling that was missed."""
    root = tmp_path_factory.mktemp("run")
    save_folder(tiny("llama", num_key_value_heads=1), root / "base")
    save(tiny_gated("llama", num_key_value_heads=1), root / "sparse")
    write_json(root / "report.json", {"ceiling": "kl=0.02", "feasible": False})
    return root


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_sizes_are_those_of_the_loaded_model(kind, tmp_path):
    model = tiny(kind)
    save_folder(model, tmp_path / "model")
    found = describe_model(tmp_path / "model")
    assert found["architecture"] == type(model).__name__
    assert found["family"] == model.config.model_type
    assert (found["layers"], found["heads"], found["key_value_heads"]) == (3, 2, 2)
    assert found["parameters"] == model.num_parameters()
    assert found["edges"]
    assert found["gates"] == {}


def test_a_run_shows_both_models_and_its_promise(run, capsys):
    assert main(["info", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.count("LlamaForCausalLM (llama), 3 layers of 2 heads (1 of keys and values)") == 2
    assert "dense; can be gated" in said
    assert "gates on edges, bias c = 0 nats" in said
    assert "ceiling kl=0.02, MISSED" in said
    assert f"torch {torch.__version__}" in said


def test_auto_is_said_as_it_is_resolved(run, capsys):
    assert main(["info", str(run / "sparse"), "--json"]) == 0
    record = validated("info", capsys.readouterr().out)
    assert record["impl"]["cpu"]["impl"] == attach(tiny()).impl == "blockwise"
    assert record["impl"]["cpu"]["why"] == choose("auto", "cpu").why
    assert record["models"] == describe(run)["models"][1:]


@pytest.mark.parametrize(("installed", "impl"), [(True, "triton"), (False, "blockwise")])
def test_auto_on_cuda_asks_for_triton(monkeypatch, installed, impl):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    chosen = choose("auto", "cuda")
    assert chosen.impl == impl
    assert ("not installed" in chosen.why) is not installed
    assert choose("eager", "cuda") == ("eager", "asked for by name")


def test_a_demo_s_report_is_read_too(tmp_path):
    save(tiny_gated("bert"), tmp_path / "sparse")
    write_json(tmp_path / "report.json", {"settings": {"ceiling": "kl=0.0005"}, "run": {"feasible": True}})
    found = describe_model(tmp_path / "sparse")
    assert (found["ceiling"], found["feasible"]) == ("kl=0.0005", True)


def test_a_model_without_a_report_has_no_promise(tmp_path, capsys):
    model = tiny("gpt2")
    attach(model)
    save(model, tmp_path / "model")
    assert main(["info", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().out
    assert "gates on edges, all open" in said
    assert "ceiling not on record here" in said


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_are_described_by_their_base(tmp_path, capsys):
    pytest.importorskip("peft")
    save_folder(tiny("gpt2"), tmp_path / "base")
    model = tiny("gpt2")
    model.name_or_path = str(tmp_path / "base")
    attach(model, bias=-1.0)
    save_adapter(add_adapters(model, rank=2), tmp_path / "adapter")
    assert main(["info", str(tmp_path / "adapter")]) == 0
    said = capsys.readouterr().out
    assert f"adapters of {tmp_path / 'base'}" in said
    assert "gates on edges, bias c = -1 nats" in said


def test_what_cannot_be_gated_is_said(tmp_path, capsys):
    save_folder(REFUSED["bloom"](), tmp_path / "b")
    assert main(["info", str(tmp_path / "b")]) == 0
    assert "its attention cannot be gated" in capsys.readouterr().out


def test_a_folder_without_a_model_is_one_line_and_2(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 2
    assert "holds no model: expected a folder with config.json" in capsys.readouterr().err
    with pytest.raises(
        CheckpointError, match="absent does not exist: expected a checkpoint folder, or a hub id"
    ):
        describe(tmp_path / "absent")
