"""`gossamer shrink`: a folder that opens without us where it says so, or one line and nothing written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoConfig, PreTrainedModel

import gossamer
from gossamer import load, save
from gossamer.cli import main
from gossamer.errors import CheckpointError, GossamerError
from gossamer.files import read_json
from gossamer.gates.learned import OPEN
from gossamer.models.checkpoint import load_dense
from gossamer.models.forward import evaluating, first_output, probe_inputs
from gossamer.models.latency import latencies
from gossamer.models.run_report import RunReport
from gossamer.models.summary import describe
from gossamer.recipes.shrink import shrink
from helpers.closed_units import closing, gated
from helpers.letters import save_tokenizer
from helpers.processes import environment
from helpers.records import validated
from helpers.zoo import build

# Opens folders in a process that knows nothing of us: how far each is from the output that it should have, and its
# parameters; or the error that it was refused with.
PLAIN = """
import json, sys, torch, transformers
from safetensors.torch import load_file
found = {}
for folder, auto in json.loads(sys.argv[1]):
    kept = load_file(f"{folder}/../expected.safetensors")
    try:
        model = getattr(transformers, auto).from_pretrained(folder).eval()
    except Exception as error:
        found[folder] = {"refused": str(error)}
        continue
    with torch.no_grad():
        output = model(**{name: kept[name] for name in kept if name != "output"})[0]
    parameters = sum(x.numel() for x in model.parameters())
    found[folder] = {"error": (output - kept["output"]).abs().max().item(), "parameters": parameters}
assert not any("gossamer" in name for name in sys.modules)
print(json.dumps(found))
"""
CAUSAL = "AutoModelForCausalLM"
UNIFORM = [  # family, class, level asked for
    ("llama", CAUSAL, None), ("qwen3", CAUSAL, "uniform"), ("gpt2", CAUSAL, None),
    ("bert", "AutoModelForMaskedLM", None), ("vit", "AutoModelForImageClassification", None),
    ("llama", CAUSAL, "masked"),
]  # fmt: skip
DENSE, EDGES = ("heads", "neurons"), ("edges", "heads", "neurons")
PER_LAYER = [(family, kinds) for family in ("gpt2", "llama", "bert", "gpt_neox") for kinds in (DENSE, EDGES)]


def sparse(
    folder: Path, name: str = "llama", kinds: tuple[str, ...] = ("heads", "neurons")
) -> PreTrainedModel:
    """A gated model in a folder: two of four heads and a third of the neurons are closed."""
    model, _ = closing(name, *kinds)
    save(model, folder)
    return model


def output(model: Any) -> torch.Tensor:
    with evaluating(model):
        return first_output(model, probe_inputs(model))


@pytest.fixture(autouse=True)
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies are measured once and not in five rounds: here they only have to be there."""
    monkeypatch.setattr("gossamer.recipes.shrink.latencies", partial(latencies, rounds=1))


def uneven(folder: Path, family: str, kinds: tuple[str, ...]) -> PreTrainedModel:
    """A gated model in a folder: its first layer has two open heads, its second has one."""
    model, sets = closing(family, *kinds)
    with torch.no_grad():
        sets.of_kind("heads").logits["1"][1:] = -OPEN  # type: ignore[attr-defined]
    save(model, folder)
    return model


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, Any]]:
    """What one process without us says of a small folder of every case, with what was shrunk and the model before."""
    cases: dict[Any, dict[str, Any]] = {}
    for case in (*UNIFORM, *PER_LAYER):
        place = tmp_path_factory.mktemp("case")
        plain = case in UNIFORM
        make, kinds, level = (sparse, DENSE, case[2]) if plain else (uneven, case[1], "per-layer")
        model = make(place / "sparse", case[0], kinds)
        found = shrink(place / "sparse", place / "small", level=level)
        save_file({**probe_inputs(model), "output": output(model)}, place / "expected.safetensors")
        cases[case] = {"folder": place / "small", "found": found, "model": model}
    given = [(str(x["folder"]), case[1] if case in UNIFORM else "AutoModel") for case, x in cases.items()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, json.dumps(given)],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    said = json.loads(done.stdout)
    return {case: x | {"outside": said[str(x["folder"])]} for case, x in cases.items()}


@pytest.mark.integration
@pytest.mark.parametrize("case", UNIFORM, ids=str)
def test_a_plain_folder_opens_in_a_process_without_us(case: Any, outside: dict[Any, dict[str, Any]]) -> None:
    folder, found, model, said = outside[case].values()
    assert said["error"] <= 1e-5 * max(1.0, output(model).abs().max().item())
    assert said["parameters"] == found.small["parameters"]
    level = case[2] or "uniform"
    assert found.level == level
    if level != "masked":
        assert found.small["parameters"] < found.base["parameters"]
        assert found.small["bytes"] < found.base["bytes"]
    assert AutoConfig.from_pretrained(folder).shrink["level"] == level
    assert f"**Level {level}**" in (folder / "README.md").read_text()
    assert read_json(folder / "shrink.json")["level"] == level


@pytest.mark.integration
@pytest.mark.parametrize("case", PER_LAYER, ids=str)
def test_layers_that_differ_open_in_no_process_without_us(
    case: Any, outside: dict[Any, dict[str, Any]]
) -> None:
    assert ("edge_gate" if "edges" in case[1] else "mismatched_sizes") in outside[case]["outside"]["refused"]


@pytest.mark.parametrize(("family", "kinds"), PER_LAYER)
def test_a_per_layer_folder_opens_with_load(family: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    uneven(tmp_path / "sparse", family, kinds)
    model = load(tmp_path / "sparse", impl="eager")
    found = shrink(tmp_path / "sparse", tmp_path / "small", level="per-layer")
    assert found.edges == ("edges" in kinds)
    assert found.opens == "gossamer.load"
    small = load(tmp_path / "small", impl="eager")
    assert type(small) is type(model)
    torch.testing.assert_close(output(small), output(model), rtol=1e-5, atol=1e-5)
    (described,) = describe(tmp_path / "small")["models"]
    assert described["parameters"] == found.small["parameters"]
    small.save_pretrained(tmp_path / "again") if not found.edges else save(small, tmp_path / "again")
    assert torch.equal(output(load(tmp_path / "again", impl="eager")), output(small))


def test_half_precision_stays_and_is_proved_in_single(tmp_path: Path) -> None:
    model = sparse(tmp_path / "sparse")
    save(model.to(dtype=torch.bfloat16), tmp_path / "half")  # type: ignore[call-arg]
    shrink(tmp_path / "half", tmp_path / "small")
    assert load_dense(tmp_path / "small").dtype == torch.bfloat16


def test_the_last_line_names_the_level_and_both_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse(tmp_path / "run" / "model", "gpt2")
    RunReport(ceiling="kl=0.02", feasible=True).write(tmp_path / "run")
    assert main(["shrink", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--json"]) == 0
    assert validated("shrink", capsys.readouterr().out)["level"] == "uniform"
    assert main(["shrink", str(tmp_path / "run"), "--out", str(tmp_path / "small")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("level uniform: parameters 30,592 -> ")
    for words in ("bytes", "prefill ms", "decode ms a token", "GPT2LMHeadModel.from_pretrained"):
        assert words in lines[-1]
    assert any(line.startswith("heads: masked (GPT2LMHeadModel") for line in lines)
    assert "neurons: uniform" in lines


def test_tokenizer_and_generation_settings_come_along(tmp_path: Path) -> None:
    sparse(tmp_path / "sparse")
    (tmp_path / "sparse" / "tokenizer_config.json").write_text('{"kept": 1}')
    settings = read_json(tmp_path / "sparse" / "generation_config.json")
    (tmp_path / "sparse" / "generation_config.json").write_text(json.dumps({**settings, "max_length": 37}))
    found = gossamer.shrink(tmp_path / "sparse", tmp_path / "small")
    assert read_json(tmp_path / "small" / "tokenizer_config.json") == {"kept": 1}
    assert read_json(tmp_path / "small" / "generation_config.json")["max_length"] == 37
    assert found.small["decode_ms"] > 0
    assert found.proof["generated"] > 0


def test_held_out_rows_of_the_run_are_in_the_proof(tmp_path: Path) -> None:
    sparse(tmp_path / "run" / "model", "gpt2")
    save_tokenizer(tmp_path / "run" / "model")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"the {i % 7} cat sat on mat {chr(97 + i % 26)} " * 20 for i in range(80)))
    RunReport(data=str(text), local=[str(text)], feasible=True).write(tmp_path / "run")
    found = shrink(tmp_path / "run", tmp_path / "small")
    assert found.held_out == str(text)
    probes = shrink(tmp_path / "run" / "model", tmp_path / "plain").proof["rows"]
    text.unlink()
    alone = shrink(tmp_path / "run", tmp_path / "alone")
    assert (alone.held_out, alone.proof["rows"]) == ("", 4)
    assert probes == found.proof["rows"] > 4
    assert (tmp_path / "small" / "tokenizer.json").is_file()
    with pytest.raises(GossamerError, match="does not exist"):
        shrink(tmp_path / "run", tmp_path / "none", data=str(text))


def test_a_table_is_read_in_the_proof_as_the_run_read_it(tmp_path: Path) -> None:
    sparse(tmp_path / "run" / "model", "gpt2")
    save_tokenizer(tmp_path / "run" / "model")
    table = tmp_path / "reviews.csv"
    lines = [f"the {i % 7} cat sat on a mät {chr(97 + i % 26)} " * 20 + ";good" for i in range(80)]
    table.write_text("\n".join(["review;verdict", *lines]), encoding="cp1252")
    settings = {"task": "classify", "columns": {"text": "review", "label": "verdict"}, "encoding": "cp1252"}
    RunReport(data=str(table), settings=settings, feasible=True).write(tmp_path / "run")
    found = shrink(tmp_path / "run", tmp_path / "small")
    assert found.held_out == str(table)
    assert found.proof["rows"] > 4


def _dense(folder: Path) -> None:
    build("llama").save_pretrained(folder / "sparse")


def _edges(folder: Path) -> None:
    model = closing("llama", "edges")[0]
    save(model, folder / "sparse")


def _open(folder: Path) -> None:
    save(gated("llama", "heads", "neurons")[0], folder / "sparse")


def _nowhere(folder: Path) -> None:
    (folder / "sparse").mkdir()


def _shrunk(folder: Path) -> None:
    sparse(folder / "whole")
    shrink(folder / "whole", folder / "sparse", level="per-layer")


def _missed(folder: Path) -> None:
    sparse(folder / "sparse")
    RunReport(ceiling="kl=0.02", feasible=False, missed="kl is 0.05").write(folder)


def _taken(folder: Path) -> None:
    sparse(folder / "sparse")
    (folder / "small").mkdir()
    (folder / "small" / "mine").write_text("")


def _quantised(folder: Path) -> None:
    sparse(folder / "sparse")
    config = read_json(folder / "sparse" / "config.json")
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "sparse" / "config.json").write_text(json.dumps(config))


def _adapter(folder: Path) -> None:
    (folder / "sparse").mkdir()
    (folder / "sparse" / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (_dense, "is a dense checkpoint"),
        (_edges, "has gates on edges alone: expected gates on heads, neurons or weights"),
        (_open, "every gate of the model is open: expected closed units"),
        (_nowhere, "sparse"),
        (_shrunk, "sparse is a dense checkpoint"),
        (_missed, r"missed its ceiling kl=0.02 \(kl is 0.05\).*--anyway"),
        (_taken, "small exists: expected a folder that is new or empty"),
        (_quantised, "is quantised: expected weights in floating point"),
        (_adapter, "holds adapters"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    make: Callable[[Path], None], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(GossamerError, match=line):
        shrink(tmp_path / "sparse", tmp_path / "small")
    capsys.readouterr()
    assert main(["shrink", str(tmp_path / "sparse"), "--out", str(tmp_path / "small")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "kinds", "level", "line"),
    [
        (
            "gpt2",
            ("heads", "neurons"),
            "uniform",
            "level uniform for heads: .*expected level per-layer or masked",
        ),
        ("llama", ("edges", "heads"), "uniform", "gates on edges, which have no place in a plain checkpoint"),
        ("llama", ("edges", "heads"), "masked", "gates on edges, which have no place in a plain checkpoint"),
        ("gpt2", ("weights",), "per-layer", "level per-layer for weights: single weights have no shape"),
        ("llama", ("heads",), "smallest", "level='smallest' is not known"),
    ],
)
def test_a_level_that_cannot_be_is_one_line_and_nothing_is_written(
    name: str,
    kinds: tuple[str, ...],
    level: str,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sparse(tmp_path / "sparse", name, kinds)
    command = ["shrink", str(tmp_path / "sparse"), "--out", str(tmp_path / "small"), "--level", level]
    capsys.readouterr()
    assert main(command) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(line, said)
    assert [x.name for x in tmp_path.iterdir()] == ["sparse"]


def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse(tmp_path / "sparse")

    def half(self: Any, folder: Path, **_: Any) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", half)
    capsys.readouterr()
    assert main(["shrink", str(tmp_path / "sparse"), "--out", str(tmp_path / "small")]) == 130
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [x.name for x in tmp_path.iterdir()] == ["sparse"]


def test_a_missed_ceiling_is_shrunk_on_demand(tmp_path: Path) -> None:
    _missed(tmp_path)
    assert shrink(tmp_path / "sparse", tmp_path / "small", anyway=True).level == "uniform"


def test_a_disk_without_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(tmp_path / "sparse")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
        with pytest.raises(GossamerError, match="10 bytes are free"):
            shrink(tmp_path / "sparse", tmp_path / "small")

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(GossamerError, match=r"small cannot be written .*No space left"):
        shrink(tmp_path / "sparse", tmp_path / "small")
    assert [x.name for x in tmp_path.iterdir()] == ["sparse"]


def test_a_model_whose_files_compute_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse(tmp_path / "sparse")
    before = PreTrainedModel.save_pretrained

    def torn(self: Any, *args: Any, **options: Any) -> None:
        with torch.no_grad():
            self.model.layers[0].mlp.down_proj.weight[:, 0] += 0.1
        before(self, *args, **options)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", torn)
    with pytest.raises(GossamerError, match="outputs differ from the gated model's by"):
        shrink(tmp_path / "sparse", tmp_path / "small")
    assert [x.name for x in tmp_path.iterdir()] == ["sparse"]


def test_a_per_layer_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    sparse(tmp_path / "sparse")
    shrink(tmp_path / "sparse", tmp_path / "small", level="per-layer")
    config = read_json(tmp_path / "small" / "config.json")
    config["shrink"]["version"] = 2
    (tmp_path / "small" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"newer gossamer \(shrink version 2\)"):
        load(tmp_path / "small")
