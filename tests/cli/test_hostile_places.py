"""Paths, files and models of the wrong kind, over the verbs that read them: one line and exit 2."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from gossamer.circuits.trace import trace
from gossamer.cli import main
from gossamer.errors import GossamerError
from gossamer.files import read_yaml
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save
from gossamer.training.run_manifest import STARTED, begin
from helpers import zoo
from helpers.letters import save_tokenizer

SPARSIFY = ("--data", "text.txt", "--out", "run", "--steps", "2", "--length", "16", "--batch", "2")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gated model and a dense one, with tokenizers, and a text."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("dense", "gated"):
        model = zoo.build("llama")
        if name == "gated":
            attach(model, bias=0.0)
            save(model, folder / name)
        else:
            model.save_pretrained(folder / name)
        save_tokenizer(folder / name)
    rows = torch.randint(97, 123, (60, 40), generator=torch.Generator().manual_seed(0)).tolist()
    (folder / "text.txt").write_text("\n\n".join("".join(map(chr, row)) for row in rows))
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them to be damaged; in this folder."""
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def found(error: BaseException) -> tuple[str, int]:
        raise AssertionError("the last resort was needed") from error

    monkeypatch.setattr("gossamer.cli.last_resort", found)
    return tmp_path


def refused(capsys: Any, *arguments: object) -> str:
    """The one line of a command that ends with exit code 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("gossamer: ")]
    assert len(said) == 1
    assert captured.err.strip().splitlines()[-1] == said[0]
    assert captured.out == ""
    return said[0]


# ---- names ----


@pytest.mark.parametrize(("before", "after"), [
    (("info",), ()), (("trace", "gated", "--prompt", "abc", "--out"), ()), (("sparsify", "dense", "--out"), ()),
    (("sparsify", "dense", "--out", "run", "--data"), ()), (("shrink", "gated", "--out"), ()),
    (("sparsify", "dense", "--out", "run", "--config"), ()), (("verify",), ("gated",)),
])  # fmt: skip
def test_a_name_that_is_too_long(
    before: tuple[str, ...], after: tuple[str, ...], place: Path, capsys: Any
) -> None:
    for name in ("x" * 300, "/".join(["y" * 200] * 30)):
        refused(capsys, *before, name, *after)


@pytest.mark.parametrize("arguments", [
    ("info", ""), ("trace", "", "--prompt", "abc"), ("sparsify", "", "--out", "run"),
    ("sparsify", "dense", "--out", ""),
    ("sparsify", "dense", "--out="), ("demo", "--out", ""), ("shrink", "gated", "--out", ""), ("view", ""),
    ("view", ".", "--out", ""), ("compare", "dense", "", "--task", "ioi"), ("export", "", "--out", "x"), ("serve", ""),
    ("sparsify", "dense", "--config", ""), ("verify", "dense", "gated", "--other", ""), ("recipes", ""),
])  # fmt: skip
def test_an_empty_argument_is_not_the_folder_that_one_is_in(
    arguments: tuple[str, ...], place: Path, capsys: Any
) -> None:
    before = sorted(place.rglob("*"))
    line = refused(capsys, *arguments)
    assert "an empty argument" in line or "without a value" in line
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b[2J", "\u202e", "\x00", "\u2028", "\x9b"])
def test_signs_that_cannot_be_seen_are_escaped(sign: str, place: Path, capsys: Any) -> None:
    line = refused(capsys, "info", f"no{sign}folder")
    assert line.isprintable()


# ---- files ----


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("what", [as_folder, dangling, loop, pipe])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_none(name: str, what: Callable[[Path], None], place: Path, capsys: Any) -> None:
    what(place / "gated" / name)
    if name != "tokenizer.json":
        refused(capsys, "info", "gated")
    refused(capsys, "trace", "gated", "--prompt", "abc")


@pytest.mark.parametrize("content", [
    "[]", '{"weight_map": []}', '{"weight_map": {"lm_head.weight": "../dense/model.safetensors"}}', '{"weight_map"',
    '{"metadata": {}, "weight_map": {"lm_head.weight": "no.safetensors"}}', '{"metadata": {}, "weight_map": {"a": 5}}',
])  # fmt: skip
def test_an_index_of_shards_that_means_nothing(content: str, place: Path, capsys: Any) -> None:
    (place / "gated" / "model.safetensors").unlink()
    (place / "gated" / "model.safetensors.index.json").write_text(content)
    refused(capsys, "info", "gated")
    refused(capsys, "trace", "gated", "--prompt", "abc")


@pytest.mark.parametrize("content", [b"\x80\x04K\x01.", b"PK\x03\x04junk", b""])
def test_a_pickle_that_holds_no_weights(content: bytes, place: Path, capsys: Any) -> None:
    (place / "gated" / "model.safetensors").unlink()
    (place / "gated" / "pytorch_model.bin").write_bytes(content)
    refused(capsys, "info", "gated")
    refused(capsys, "trace", "gated", "--prompt", "abc")


@pytest.mark.parametrize("changes", [
    {"model_max_length": "x"}, {"tokenizer_class": "BertTokenizer"}, {"pad_token": {"a": 1}}, {"eos_token": ["a"]},
    {"tokenizer_class": 5}, {"added_tokens_decoder": [1]}, {"auto_map": 5},
])  # fmt: skip
def test_a_tokenizer_that_cannot_be_used(changes: dict[str, Any], place: Path, capsys: Any) -> None:
    path = place / "gated" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert "the tokenizer of gated cannot be loaded" in refused(capsys, "trace", "gated", "--prompt", "abc")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("arguments", [
    ("trace", "dense", "--prompt", "abc"), ("view", ".", "--base", "dense", "--sparse", "gated", "--prompt", "abc"),
    ("verify", "dense", "gated", "--task", "ioi"), ("compare", "dense", "gated", "--task", "ioi"),
    ("sparsify", "dense", *SPARSIFY), ("export", "dense", "--format", "mib", "--task", "ioi", "--out", "x"),
])  # fmt: skip
def test_weights_that_are_no_numbers(
    arguments: tuple[str, ...], value: float, place: Path, capsys: Any
) -> None:
    path = place / "dense" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] = value
    save_file(weights, path, metadata={"format": "pt"})
    assert "computes numbers that are not finite" in refused(capsys, *arguments)


# ---- models of the wrong kind ----

V, SMALL = zoo.VOCABULARY, {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32}
SMALL |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": V}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WRONG: dict[str, Callable[[], Any]] = {
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=V, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    ),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**SMALL)),
    "whisper": lambda: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(**SMALL, **IDS, decoder_start_token_id=1)
    ),
    "vit": lambda: zoo.build("vit"),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=4)
    ),
    "albert": lambda: zoo.build("albert"),
    **zoo.REFUSED,
}


OVER = ("verify", "wrong", "wrong", "--task", "ioi"), ("compare", "wrong", "wrong", "--task", "ioi"), (
    "export", "wrong", "--format", "mib", "--task", "ioi", "--out", "x"
)  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_model_of_another_kind(kind: str, place: Path, capsys: Any) -> None:
    WRONG[kind]().save_pretrained(place / "wrong")
    save_tokenizer(place / "wrong")
    refused(capsys, "trace", "wrong", "--prompt", "abc")
    refused(capsys, "sparsify", "wrong", *SPARSIFY)
    refused(capsys, "view", ".", "--base", "wrong", "--sparse", "gated", "--prompt", "abc")
    for arguments in OVER:
        refused(capsys, *arguments)
    assert not (place / "run" / "model").exists()
    assert main(["info", "wrong"]) == 0
    assert ("cannot be gated" in capsys.readouterr().out) == (kind != "vit")


@pytest.mark.parametrize("kind", [hf.GPT2ForSequenceClassification, hf.GPT2ForQuestionAnswering])
def test_a_head_that_answers_once_a_row_says_so_at_the_output_alone(kind: Any) -> None:
    model = kind(hf.GPT2Config(**zoo.GPT2)).eval()
    *before, last = trace(model, torch.arange(4, 9)[None], outputs=[-1]).answers[0]
    assert before == ["", "", "", ""]
    assert last


def test_answers_are_what_a_head_says() -> None:
    ids, config = torch.arange(4, 9)[None], hf.GPT2Config(**zoo.GPT2, id2label={0: "no", 1: "yes"})
    assert trace(hf.GPT2Model(config).eval(), ids).answers == (("",) * 5,)  # hidden states are no tokens
    labels = trace(hf.GPT2ForTokenClassification(config).eval(), ids).answers[0]
    assert set(labels) <= {"no", "yes"}
    assert len(labels) == 5
    tokens = trace(hf.GPT2LMHeadModel(config).eval(), ids).answers[0]
    assert all(token.isdigit() for token in tokens)


# ---- data, settings and what a run remembers ----


def test_half_of_a_character_in_data_is_told_by_its_row(place: Path, capsys: Any) -> None:
    rows = [json.dumps({"text": "abc " * 20}) for _ in range(30)] + ['{"text": "a\\ud800"}']
    (place / "rows.jsonl").write_text("\n".join(rows))
    given = ["rows.jsonl" if x == "text.txt" else x for x in SPARSIFY]
    assert "rows.jsonl, row 31 with '\\ud800'" in refused(capsys, "sparsify", "dense", *given)


def test_a_device_is_no_data(place: Path, capsys: Any) -> None:
    given = [os.devnull if x == "text.txt" else x for x in SPARSIFY]
    assert "is a device" in refused(capsys, "sparsify", "dense", *given)


@pytest.mark.parametrize("wrong", [("--gates", "nope"), ("--gates", "edges,"), ("--set", "gate.pace=nope")])
def test_a_demo_says_what_is_wrong_before_it_trains(wrong: tuple[str, str], place: Path, capsys: Any) -> None:
    refused(capsys, "demo", "--digits", 1, "--out", "demo", *wrong)
    assert not (place / "demo").exists()


@pytest.mark.parametrize("text", ["steps: 2\nsteps: 3\n", "recipe:\n  gate: {bias: 1.0, bias: 2.0}\n"])
def test_a_name_that_stands_twice_in_a_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(GossamerError, match="stands there twice"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", '{"fixed": 5, "movable": {}}', '{"fixed": {}}', "torn{", '{"a": {}}']
)
def test_what_a_run_was_started_with_of_another_shape(text: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "complete.json").write_text("{}")
    (tmp_path / STARTED).write_text(text)
    with pytest.raises(GossamerError):
        begin(tmp_path, {"--seed": 0}, {}, resume=True)
