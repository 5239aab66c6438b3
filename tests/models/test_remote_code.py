"""Code that comes with a model runs where a person says so, and never asks at a prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gossamer
from gossamer.cli import main
from gossamer.errors import CheckpointError
from gossamer.models.attach import attach
from gossamer.models.checkpoint import load_dense
from helpers import zoo
from helpers.letters import save_tokenizer

pytestmark = pytest.mark.integration  # writes and loads models with code of their own

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


VERBS = {
    "info": ("info", "own"),
    "trace": ("trace", "own", "--prompt", "abc"),
    "verify": ("verify", "dense", "own", "--task", "induction", "--n-prompts", "2"),
    "compare": ("compare", "own", "dense", "--task", "induction", "--n-prompts", "2"),
    "export": ("export", "own", "--format", "mib", "--task", "induction", "--n-prompts", "2", "--out", "x.json"),
    "view": ("view", ".", "--base", "dense", "--sparse", "own", "--prompt", "abc"),
    "shrink": ("shrink", "own", "--out", "small"),
    "sparsify": ("sparsify", "dense", "--out", "run", "--data", "text.txt", "--steps", "2", "--length", "16",
                 "--batch", "2", "--held-out", "4", "--held-out-share", "0.3", "--ceiling", "kl=9"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gated and a dense model with code of their own, and a text."""
    write(tmp_path / "own")
    write(tmp_path / "dense")
    path = tmp_path / "dense" / "config.json"
    config = {
        k: v
        for k, v in json.loads(path.read_text()).items()
        if k not in ("edge_gates", "attn_implementation")
    }
    path.write_text(json.dumps(config))
    for name in ("own", "dense"):
        save_tokenizer(tmp_path / name)
    rows = torch.randint(97, 123, (60, 40), generator=torch.Generator().manual_seed(0)).tolist()
    (tmp_path / "text.txt").write_text("\n\n".join("".join(map(chr, row)) for row in rows))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at a prompt"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_loads_a_model_says_how_its_code_may_run(verb: str, place: Path, capsys) -> None:
    assert main(VERBS[verb]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "a model whose code comes with it" in said
    assert "Pass --trust-remote-code" in said
    assert not [name for name in ("small", "x.json", "view.html") if (place / name).exists()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verb", ["info", "trace", "view", "sparsify"])
def test_a_verb_runs_the_code_of_a_model_where_a_person_says_so(verb: str, place: Path, capsys) -> None:
    assert main([*VERBS[verb], "--trust-remote-code"]) == 0
    shown = capsys.readouterr()
    if verb == "info":
        assert "OwnForCausalLM (own_llama), 2 layers of 4 heads (2 of keys and values)" in shown.out
    if verb == "sparsify":
        assert (place / "run" / "model" / "own.py").read_text() == CODE
        assert "trust" not in (place / "run" / "config.yaml").read_text()
    assert main(VERBS["trace"]) == 2  # what was said for one command holds for that one alone


def test_a_tokenizer_with_its_own_code_is_refused_by_what_it_is(place: Path, capsys) -> None:
    gated = zoo.build("llama")
    attach(gated, bias=0.5)
    gossamer.save(gated, place / "plain")
    save_tokenizer(place / "plain")
    path = place / "plain" / "tokenizer_config.json"
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    (place / "plain" / "own.py").write_text("raise SystemExit('run')\n")
    assert main(["trace", "plain", "--prompt", "abc"]) == 2
    assert "is a tokenizer whose code comes with it" in capsys.readouterr().err


@pytest.mark.parametrize("code", ["raise ValueError('no')", "def broken(:", "import no_such_package", ""])
def test_code_that_does_not_run_is_one_line(code: str, place: Path, capsys) -> None:
    (place / "own" / "own.py").write_text(code + "\n")
    assert main(["trace", "own", "--prompt", "abc", "--trust-remote-code"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("gossamer: ")
