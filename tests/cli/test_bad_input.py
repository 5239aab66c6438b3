"""Bad input of every kind, at the doors that read it: one line and exit 2, nothing written, no bug found by it.

Everything runs in this process. What a case may not do is end in a traceback, which the command line would turn into
exit code 70, or pass a number on that is not finite.
"""

from __future__ import annotations

import copy
import gzip
import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gossamer.circuits.circuit import EDGE_FIELDS, VALUE_FIELDS, Circuit
from gossamer.circuits.export import FORMATS, export
from gossamer.circuits.export.graphs import from_graphml, to_graphml
from gossamer.circuits.export.record import from_record
from gossamer.cli import main
from gossamer.cli.last_resort import UNFORESEEN, last_resort
from gossamer.cli.options import parse_settings
from gossamer.errors import GossamerError
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save
from gossamer.training.config import SparsityConfig, configured
from gossamer.training.recipe import SETTINGS
from helpers import zoo
from helpers.letters import save_tokenizer

# No JSON at all, JSON of another shape, and JSON that is deep or holds what is not finite.
SHAPES = {
    "empty": "", "torn": '{"a": [1, ', "list": "[]", "null": "null", "number": "7", "text": '"x"', "nan": '{"a": NaN}',
    "deep": "[" * 200_000 + "]" * 200_000, "deep object": '{"a":' * 3000 + "1" + "}" * 3000,
    "huge": '{"a": 1e999}', "digits": '{"a": ' + "9" * 5000 + "}", "bytes": "\udcff\udcfe", "wrong": '{"a": 1}',
}  # fmt: skip
JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**7, 10**12, 2**31, 2**63, "", "many", "\ud800", "\x00", [], [1], ["a"], [[]], {},
    {"a": 1}, math.nan, math.inf, -math.inf, 1e39,
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, one of them gated, with tokenizers."""
    folder = tmp_path_factory.mktemp("bad")
    for family in ("gpt2", "llama", "bert"):
        zoo.build(family).save_pretrained(folder / family)
        save_tokenizer(folder / family)
    for head in ("sequence", "tokens"):
        zoo.headed("bert", head, id2label={0: "no", 1: "yes"}).save_pretrained(folder / head)
        save_tokenizer(folder / head)
    gated = zoo.build("llama")
    attach(gated, bias=0.0)
    save(gated, folder / "gated")
    save_tokenizer(folder / "gated")
    (folder / "circuit.json").write_text(json.dumps(record()))
    return folder


@pytest.fixture(autouse=True)
def no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried here is known, so the last resort must not be needed for it."""

    def found(error: BaseException) -> tuple[str, int]:
        raise AssertionError("the last resort was needed") from error

    monkeypatch.setattr("gossamer.cli.last_resort", found)


def refused(capsys: Any, *arguments: object) -> str:
    """The one line of a command that ends with exit code 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert captured.out == ""
    assert last.startswith("gossamer: ")
    assert "Traceback" not in captured.err
    return last


def record() -> dict[str, Any]:
    """A circuit on two prompts."""
    edges = {name: [0, 1, 1] for name in EDGE_FIELDS} | {name: [0.5, -1.0, 2.0] for name in VALUE_FIELDS}
    return {
        "schema": "gossamer-circuit",
        "version": 1,
        "model": {"n_layers": 2, "n_heads": 2},
        "outputs": [1],
        "prompts": [{"tokens": ["a", "b"], "answers": ["b", "c"], "visible": 6} for _ in range(2)],
        "edges": edges,
        "meta": {"model": "x", "top_k": 3},
    }


def variant(place: Path, source: str, folder: Path) -> Path:
    """A copy of a model to be damaged."""
    return Path(shutil.copytree(place / source, folder / "model"))


# ---- files of another shape ----


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "verb"), [
    ("config.json", "info"), ("config.json", "trace"), ("tokenizer.json", "trace"),
])  # fmt: skip
def test_a_file_of_a_model_of_another_shape(
    name: str, verb: str, shape: str, place: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = variant(place, "gated", tmp_path)
    write(folder / name, SHAPES[shape])
    more = ["--prompt", "abc"] if verb == "trace" else []
    assert str(folder) in refused(capsys, verb, folder, *more, "--out", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_report_beside_a_model_of_another_shape(
    shape: str, place: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = variant(place, "gated", tmp_path)
    write(tmp_path / "report.json", SHAPES[shape])
    assert "report.json" in refused(capsys, "info", folder)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_adapter_config_of_another_shape(shape: str, tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "adapter_config.json", SHAPES[shape])
    assert "adapter_config.json" in refused(capsys, "info", tmp_path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_circuit_of_another_shape(shape: str, form: str, tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "circuit.json", SHAPES[shape])
    assert "circuit.json" in refused(
        capsys, "export", tmp_path / "circuit.json", "--format", form, "--out", tmp_path / "out"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["circuit.json"]


@pytest.mark.parametrize("verb", ["sparsify", "demo"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_config_of_a_run_of_another_shape(shape: str, verb: str, tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "run.yaml", SHAPES[shape])
    out = tmp_path / "out"
    refused(
        capsys, verb, *(["x"] if verb == "sparsify" else []), "--config", tmp_path / "run.yaml", "--out", out
    )
    assert not out.exists()


# ---- a config that lies, weights that are damaged ----


LIES: list[tuple[str, dict[str, Any]]] = [
    *(("gpt2", {"n_head": value}) for value in (0, -1, 3, "many", True, 10**12)),
    *(("gpt2", {"n_layer": value}) for value in (0, -1, 1.5, "many", True, 10**7, 10**12)),
    *(("gpt2", {"n_embd": value}) for value in (0, "many", 10**12)),
    *(("gpt2", {"vocab_size": value}) for value in (0, -5, "many", 10**12)),
    *(("gpt2", {"dtype": value}) for value in ("float99", "Tensor", 5)),
    *(
        ("gpt2", {"architectures": value})
        for value in ([1], "GPT2LMHeadModel", ["pipeline"], ["AutoModel"], {})
    ),
    *(("gpt2", {"architectures": [name]}) for name in ("BertForMaskedLM", "GPT2Config", "GPT2Block")),
    *(("gpt2", {"model_type": value}) for value in (5, "bert", "no-such", [])),
    *(("gpt2", {"edge_gates": value}) for value in (5, [], {}, {"version": 1, "bias": None})),
    *(
        ("gpt2", {"edge_gates": {"version": 1, "bias": value}})
        for value in ("abc", [1], math.nan, math.inf, True)
    ),
    ("gpt2", {"num_labels": 10**9}),
    ("gpt2", {"activation_function": "nope"}),
    ("gpt2", {"layer_norm_epsilon": "x"}),
    ("llama", {"rope_parameters": {"rope_type": "nope"}}),
    ("llama", {"rope_parameters": 5}),
    ("llama", {"hidden_act": "nope"}),
    ("llama", {"head_dim": 7}),
    ("llama", {"num_key_value_heads": 3}),
    ("llama", {"num_key_value_heads": "x"}),
    ("llama", {"rms_norm_eps": "x"}),
    ("bert", {"type_vocab_size": "x"}),
    ("bert", {"num_attention_heads": 5}),
    ("bert", {"text_config": []}),
    ("bert", {"chunk_size_feed_forward": "x"}),
    ("gated", {"edge_gates": {"version": 2, "bias": 0, "reads": [1]}}),
    ("gated", {"edge_gates": {"version": 2, "bias": 0, "reads": "nope"}}),
    ("gated", {"foo_gates": {"version": 1}}),
]


@pytest.mark.parametrize(("source", "changes"), LIES)
def test_a_config_that_lies(
    source: str, changes: dict[str, Any], place: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = variant(place, source, tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(capsys, "trace", folder, "--prompt", "abc", "--out", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:4], lambda content: content[: len(content) // 2],
    lambda content: b"\xff" * 8 + content[8:], lambda content: content[:8] + b"[" + content[9:],
    lambda content: b"\x80\x04" + content, lambda content: b"<html>", lambda content: content + b"more",
    lambda content: content[:8] + content[8:].replace(b'"F32"', b'"F99"'),
    lambda content: content.replace(b'"data_offsets":[0,', b'"data_offsets":[9,'),
])  # fmt: skip
def test_damaged_weights(damage: Callable[[bytes], bytes], place: Path, tmp_path: Path, capsys: Any) -> None:
    folder = variant(place, "gated", tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert "cannot be loaded" in refused(capsys, "trace", folder, "--prompt", "abc")


# ---- prompts and sizes ----


@pytest.mark.parametrize(("prompt", "message"), [
    ("a" * 100_000, "a prompt of 100,000 tokens"), ("a" * 65, "a prompt of 65 tokens: expected at most 64"),
    ("a\ud800", "half of a character"), ("\udfff", "half of a character"), ("", "an empty prompt"),
])  # fmt: skip
def test_a_prompt_that_a_model_cannot_take(prompt: str, message: str, place: Path, capsys: Any) -> None:
    assert message in refused(capsys, "trace", place / "gpt2", "--prompt", prompt)


def test_a_token_beyond_the_vocabulary(place: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "model"
    small = zoo.build("gpt2")
    small.resize_token_embeddings(4)
    small.save_pretrained(folder)
    save_tokenizer(folder)
    assert "on a model of 4 tokens: expected 0 to 3" in refused(capsys, "trace", folder, "--prompt", "zzz")


def test_a_trace_that_does_not_fit_is_refused_before_it_begins(
    place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossamer.models.inputs.available", lambda: 1000.0)
    line = refused(capsys, "trace", place / "gpt2", "--prompt", "abc")
    assert "a trace of 1 prompts of 3 tokens at once needs about" in line


@pytest.mark.parametrize("arguments", [
    ("verify", "gpt2", "gated", "--task", "ioi", "--n-prompts", 10**12),
    ("compare", "gpt2", "gpt2", "--task", "ioi", "--n-prompts", 10**12),
    ("compare", "gpt2", "gpt2", "--task", "ioi", "--seed", -1),
    ("export", "gpt2", "--format", "mib", "--task", "ioi", "--n-prompts", 10**12, "--out", "x"),
    ("demo", "--digits", 4, "--out", "x"), ("demo", "--digits", 0, "--out", "x"),
    ("demo", "--gates", "weights", "--out", "x"), ("demo", "--gates", "heads,neurons", "--out", "x"),
    ("verify", "gpt2", "gated", "--digits", 4), ("trace", "gpt2", "--sum", "1+2", "--digits", 10**9),
    ("trace", "gpt2", "--prompt", "abc", "--threshold", "nan"), ("trace", "gpt2", "--prompt", "abc", "--top-k", 0),
])  # fmt: skip
def test_sizes_that_never_end(
    arguments: tuple[object, ...], place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    refused(capsys, *arguments)
    assert not (place / "x").exists()


# ---- data ----


def on_data(
    place: Path, folder: Path, capsys: Any, model: str, name: str, content: bytes, *options: str
) -> str:
    """The one line of a run on a file, which leaves nothing behind."""
    (folder / name).write_bytes(content)
    given_ = ["--data", folder / name, "--out", folder / "out", "--length", 8, "--held-out", 2, *options]
    line = refused(capsys, "sparsify", place / model, *given_)
    assert not list(folder.glob("out/*"))
    return line


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "conll", "parquet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_of_another_shape(shape: str, ending: str, place: Path, tmp_path: Path, capsys: Any) -> None:
    content = SHAPES[shape].encode("utf-8", "surrogateescape")
    model = "tokens" if ending == "conll" else "gpt2"
    assert f"data.{ending}" in on_data(place, tmp_path, capsys, model, f"data.{ending}", content)


def table(*rows: str, encoding: str = "utf-8") -> bytes:
    return "\n".join(rows).encode(encoding)


def lines(*rows: dict[str, Any]) -> bytes:
    return table(*map(json.dumps, rows))


TALK = {"messages": [{"role": "user", "content": "a"}]}
BAD_DATA: list[tuple[str, str, bytes, tuple[str, ...], str]] = [
    ("gpt2", "a.csv", table("text", "café", encoding="cp1252"), (), "is not text in UTF-8"),
    (
        "gpt2",
        "a.txt",
        table("café", encoding="latin-1"),
        (),
        "Name its encoding, for example --encoding cp1252",
    ),
    ("gpt2", "a.txt", b"abc", ("--encoding", "utf-99"), "encoding 'utf-99' is not known"),
    ("gpt2", "a.txt", b"abc", ("--encoding", "utf-32"), "is not text in utf-32"),
    ("gpt2", "a.csv.gz", gzip.compress(b"text", mtime=0), (), "is not text (it holds zero bytes)"),
    (
        "gpt2",
        "a.csv",
        "text\na".encode("utf-16-le"),
        (),
        "or name its encoding, for example --encoding utf-16",
    ),
    ("gpt2", "a.xlsx", b"PK\3\4\0\0", (), "is not text (it holds zero bytes)"),
    ("gpt2", "a.csv", table("text,label", "a, b,1"), (), "line 2 has 3 cells under a header of 2"),
    ("gpt2", "a.csv", table("text,text", "a,b"), (), "two columns are named 'text'"),
    (
        "gpt2",
        "a.csv",
        table("a good film,1", "a bad one,0"),
        (),
        "no text in column 'text': row 1 has no such column",
    ),
    ("gpt2", "a.csv", table("text", " ", ""), (), "gives 0 rows of 8 tokens to train on"),
    ("gpt2", "a.jsonl", lines({"text": "a"}), ("--column", "review"), "no text in column 'review'"),
    ("gpt2", "a.jsonl", lines({"text": "a"}), ("--column", "role=x"), "--column='role' is not known"),
    ("gpt2", "a.jsonl", lines({"text": "a"}), ("--column", "a", "--column", "b"), "each role once"),
    ("gpt2", "a.jsonl", lines({"text": "a"}), ("--column", "label=b"), "--column label=b under the task lm"),
    ("gpt2", "a.jsonl", lines(TALK), (), "the tokenizer has no chat template"),
    (
        "gpt2",
        "a.jsonl",
        lines({"messages": [{"role": "user", "content": None}]}),
        (),
        "a role and a content in each",
    ),
    ("gpt2", "a.jsonl", lines({"messages": "hello"}), (), "no list of turns in column 'messages'"),
    (
        "gpt2",
        "a.txt",
        b"abc",
        ("--task", "classify"),
        "--task classify on GPT2LMHeadModel, whose head is for lm",
    ),
    ("gpt2", "a.txt", b"abc", ("--task", "chat"), "task='chat' is not known: expected one of auto, lm"),
    ("gpt2", "a.txt", b"abc", ("--task", "embed", "--ceiling", "kl=1"), "a ceiling on kl for the task embed"),
    (
        "sequence",
        "a.csv",
        table("text,label", "a,maybe"),
        (),
        "row 1 has the label 'maybe', which the model does not",
    ),
    ("sequence", "a.csv", table("text,label", "a,2"), (), "expected 0 to 1, or one of no, yes"),
    ("sequence", "a.csv", table("text,label", "a,yes", "b,"), (), "row 2 has no label"),
    (
        "sequence",
        "a.jsonl",
        lines({"text": "a", "label": None}),
        (),
        "in column 'label': row 1 holds nothing",
    ),
    (
        "sequence",
        "a.jsonl",
        lines({"text": "a", "label": 1}, {"text": "b"}),
        (),
        "no label in column 'label': row 2",
    ),
    (
        "sequence",
        "a.csv",
        table("text,label", "a,yes"),
        ("--column", "label=gold"),
        "no label in column 'gold'",
    ),
    ("sequence", "a.csv", table("text,label", "a,yes"), ("--stream",), "--stream of one document a row"),
    (
        "sequence",
        "a.csv",
        table("text", *map(str, range(200))),
        ("--ceiling", "loss=1"),
        "the data have no labels, which a ceiling on loss",
    ),
    ("tokens", "a.conll", table("Ann yes", "ran"), (), "line 2: 'ran' has no tag"),
    ("tokens", "a.conll", table("Ann B-PER"), (), "has the label 'B-PER', which the model does not have"),
    ("tokens", "a.jsonl", lines({"tokens": ["a", "b"], "tags": [1]}), (), "has 1 labels of 2 words"),
    (
        "tokens",
        "a.jsonl",
        lines({"tokens": "a b", "tags": [1, 1]}),
        (),
        "no list of words in column 'tokens'",
    ),
    (
        "tokens",
        "a.jsonl",
        lines({"tokens": ["a"], "tags": None}),
        (),
        "in column 'tags': row 1 holds nothing",
    ),
]


@pytest.mark.parametrize(("model", "name", "content", "options", "message"), BAD_DATA)
def test_data_that_no_run_can_take(
    model: str, name: str, content: bytes, options: tuple[str, ...], message: str, place: Path, tmp_path: Path,
    capsys: Any,
) -> None:  # fmt: skip
    assert message in on_data(place, tmp_path, capsys, model, name, content, *options)


@pytest.mark.parametrize(("ending", "package"), [("parquet", "pyarrow.parquet")])
def test_an_extra_that_is_absent(
    ending: str, package: str, place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = on_data(place, tmp_path, capsys, "gpt2", f"a.{ending}", b"PAR1")
    assert line.endswith("for parquet and the hub. Run pip install 'gossamer[data]'.")


# ---- circuits ----


def change(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with one entry replaced."""
    whole = copy.deepcopy(value)
    part = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = new
    return whole


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the entries of plain values are."""
    entries = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    below = [place for key, inner in entries for place in paths(inner, (*before, key))]
    return [(*before, key) for key, _ in entries] + below


@pytest.mark.parametrize(("path", "value", "message"), [
    (("edges", "key", 0), 99, "key 99 of 2"), (("edges", "prompt", 0), 7, "prompt 7 of 2"),
    (("edges", "layer", 2), 2, "layer 2 of 2"), (("edges", "head", 2), 5, "head 5 of 2"),
    (("outputs", 0), 2, "outputs 2 of 2"),
    (("outputs",), ["a"], "'a' at outputs.0"), (("edges", "contribution", 1), math.nan, "nan at edges.contribution.1"),
    (("prompts", 0, "tokens"), [{"a": 1}, "b"], "{'a': 1} at prompts.0.tokens.0"),
    (("prompts", 1, "answers"), ["b"], "1 answers to 2 tokens in prompt 1"),
    (("edges", "query", 0), -1, "-1 at edges.query.0"),
    (("model", "n_layers"), 10**9, "1000000000 at model.n_layers"),
    (("prompts", 0, "visible"), -1, "-1 at prompts.0.visible"),
])  # fmt: skip
def test_a_circuit_out_of_range(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(GossamerError) as error:
        from_record(change(record(), path, value))
    assert message in str(error.value)


@given(path=st.sampled_from(paths(record())), value=st.sampled_from(JUNK))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_circuit_with_any_entry_replaced_is_refused_or_whole(
    path: tuple[Any, ...], value: Any, place: Path
) -> None:
    try:
        circuit = from_record(change(record(), path, value))
    except GossamerError:
        return
    require_whole(circuit)
    for form in FORMATS:
        assert export(circuit, place / "out", form).read_bytes().decode("utf-8")
    require_whole(from_graphml(to_graphml(circuit)))


def require_whole(circuit: Circuit) -> None:
    """Every value is finite, and every index inside."""
    assert all(bool((abs(getattr(circuit, name)) < math.inf).all()) for name in VALUE_FIELDS)
    sizes = {"prompt": 2, "layer": circuit.n_layers, "head": circuit.n_heads, "query": 2, "key": 2}
    assert all(((getattr(circuit, n) >= 0) & (getattr(circuit, n) < size)).all() for n, size in sizes.items())


@pytest.mark.parametrize(
    "token", ["\ud800", "a\udfff", "\ufffe", "\uffff", "\x00", "\x1b", "\x0b", "\x85", "]]>", "\r\n"]
)
def test_graphml_of_any_token_is_read_back(token: str) -> None:
    circuit = from_record(change(record(), ("prompts", 0, "tokens", 0), token))
    assert from_graphml(to_graphml(circuit)).tokens == circuit.tokens


# ---- settings ----


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "[1]", "{}", "abc", "true", '"5"', "-1e9"]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("name", [n for n, kind in SETTINGS.items() if "str" not in str(kind)])
def test_a_setting_of_a_recipe_that_no_run_can_take(name: str, value: str) -> None:
    with pytest.raises(GossamerError, match=name):
        configured({"output_dir": "x"}, parse_settings([f"{name}={value}"]))


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("name", [
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "learning_rate", "warmup_steps",
    "logging_steps", "eval_steps", "save_steps", "eval_delay", "label_smoothing_factor", "neftune_noise_alpha", "seed",
    "data_seed", "dataloader_num_workers", "per_device_train_batch_size", "max_steps", "min_agreement", "max_minutes",
])  # fmt: skip
def test_a_number_of_the_trainer_that_no_run_can_take(name: str, value: str) -> None:
    with pytest.raises(GossamerError, match=name):
        configured({"output_dir": "x"}, parse_settings([f"{name}={value}"]))


@pytest.mark.parametrize("setting", [
    "adam_beta2=1.5", "adam_beta2=1", "fsdp=full_shard", "fsdp=true", 'fsdp_config={"a":1}', "push_to_hub=true",
    "optim=nothing", "optim_args=foo", 'lr_scheduler_kwargs={"a":1}', "lr_scheduler_kwargs=[1]", "log_level=loud",
    "lr_scheduler_type=warmup_stable_decay", "lr_scheduler_type=cosine_with_min_lr", "torch_compile_backend=abc",
    "torch_compile_mode=abc", "parallelism_config={}", "accelerator_config=[]", "label_names=5", "label_names=[1]",
    "remove_unused_columns=true", "dataloader_prefetch_factor=2", "dataloader_persistent_workers=true",
    "dataloader_multiprocessing_context=abc", "train_sampling_strategy=abc", "debug=abc", "hub_strategy=x",
    "control.lambda_bounds=[1]", "control.lambda_bounds=[1,NaN]", "control.lambda_bounds=[2,1]", "gates=", "gates=[1]",
])  # fmt: skip
def test_settings_that_are_refused_later_by_others(setting: str) -> None:
    with pytest.raises(GossamerError) as error:
        configured({"output_dir": "x"}, parse_settings([setting]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given_", [
    {"ceiling": 5}, {"ceiling": "kl=nan"}, {"ceiling": "kl=inf"}, {"ceiling": None}, {"recipe": 5},
    {"recipe": {"gate": 5}},
    {"recipe": {"gate": {"bias": math.nan}}}, {"weight_decay": math.nan}, {"learning_rate": "1e-4"}, {"gates": 5},
    {"max_steps": 1.5}, {"warmup_steps": math.inf}, {"min_agreement": math.nan},
])  # fmt: skip
def test_a_config_from_python_is_checked_as_well(given_: dict[str, Any]) -> None:
    with pytest.raises(GossamerError):
        SparsityConfig("x", **given_)


# ---- the last resort ----


def test_what_nothing_foresaw_is_one_line_and_a_file(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(place: str) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr("gossamer.cli.last_resort", last_resort)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("gossamer.models.summary.describe", fails)
    assert main(["info", "x"]) == UNFORESEEN == 70
    said = capsys.readouterr().err
    (log,) = tmp_path.glob("gossamer-*.log")
    assert said.count("\n") == 1
    assert f"ZeroDivisionError: first); its traceback is in {log}" in said
    assert "in fails" in log.read_text()


def test_an_allocator_s_error_is_no_bug(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(place: str) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr("gossamer.cli.last_resort", last_resort)
    monkeypatch.setattr("gossamer.models.summary.describe", fails)
    assert "out of memory" in refused(capsys, "info", "x")
