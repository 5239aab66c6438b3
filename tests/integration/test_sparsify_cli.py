"""`gossamer sparsify` from the command line: a promise on held-out text, and one clear line for bad input."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from gossamer import gates_of, load
from gossamer.cli import main
from gossamer.data.prompts import positions_of, training_tokenizer
from gossamer.errors import GossamerWarning
from gossamer.models.forward import evaluating
from gossamer.models.interface import attention_modules
from gossamer.models.run_report import RunReport
from gossamer.recipes.folders import model_in, open_pair, pair_in
from gossamer.recipes.sparsify_settings import SparsifySettings
from gossamer.recipes.text import rows_of
from gossamer.training.tasks import Task
from helpers import zoo
from helpers.letters import LETTERS, save_tokenizer
from helpers.records import validated


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models and a text."""
    folder = tmp_path_factory.mktemp("job")
    for family in ("gpt2", "llama", "bert"):
        zoo.build(family).save_pretrained(folder / family)
        save_tokenizer(folder / family)
    generator = torch.Generator().manual_seed(0)
    for_line = torch.randint(2, len(LETTERS), (200, 60), generator=generator)
    lines = ["".join(LETTERS[i] for i in row) for row in for_line.tolist()]
    (folder / "text.txt").write_text("\n\n".join(lines))
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": line, "n": 1}) for line in lines))
    rows = {"text": lines, "n": list(range(len(lines)))}
    datasets.Dataset.from_dict(rows).to_parquet(str(folder / "text.parquet"))
    return folder


def run(place: Path, out: Path, *other: str, model: str = "gpt2", data: str = "text.txt") -> int:
    usual = ["--steps", "4", "--length", "16", "--batch", "4", "--held-out", "6", "--held-out-share", "0.2"]
    given = ["sparsify", str(place / model), "--data", str(place / data), "--out", str(out), *usual, *other]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return main(given)


def test_a_loose_ceiling_is_held_and_reported(place: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(place, tmp_path / "out", "--ceiling", "kl=9", "--json") == 0
    report = validated("sparsify", capsys.readouterr().out)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["feasible"]
    assert {"density", "keys_per_query", "loss", "kl_se", "agreement_se", "density_gap"} <= report[
        "held_out"
    ].keys()
    assert {"density_se", "keys_per_query_se", "loss_se", "delta_ce_se"} <= report["held_out"].keys()
    assert len(report["gates"]["edges"]["per_group"]) == 2
    keys = torch.tensor(report["gates"]["edges"]["keys_per_query"])
    assert keys.shape == (2, 4)
    assert float(keys.mean()) == pytest.approx(report["held_out"]["keys_per_query"])
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert "DENSE" in card.split("```")[0]
    model = load(tmp_path / "out" / "model")
    assert gates_of(model).bias < 10
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)
    assert run(place, tmp_path / "out", "--ceiling", "kl=9", "--resume") == 0


def test_a_missed_ceiling_exits_with_one(place: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(place, tmp_path, "--ceiling", "loss=0.001") == 1
    assert "the ceiling loss=0.001 is missed by" in capsys.readouterr().err
    assert not json.loads((tmp_path / "report.json").read_text())["feasible"]


@pytest.mark.parametrize("options", [
    ("--ceiling", "delta_ce=9", "--lora", "2", "--merge"),
    ("--ceiling", "kl=9", "--precision", "bf16", "--accumulate", "2", "--checkpointing"),
    ("--ceiling", "loss=99", "--stream"),
])  # fmt: skip
@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.filterwarnings("ignore:bfloat16 on this CPU")
def test_ways_to_train(model: str, options: tuple[str, ...], place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, *options, model=model, data="text.jsonl") == 0
    assert load(tmp_path / "model").config.edge_gates["version"] in (1, 2)  # by what the gates read


def test_a_table_holds_the_same_text_in_each_form(place: Path, tmp_path: Path) -> None:
    found = []
    for form in ("jsonl", "parquet"):
        out = tmp_path / form
        assert run(place, out, "--ceiling", "kl=9", data=f"text.{form}") == 0
        found.append(json.loads((out / "report.json").read_text())["held_out"])
    assert found[0] == found[1]


def test_the_cosine_ceiling_on_an_encoder(place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, "--ceiling", "cosine=0.9", model="bert") == 0
    found = json.loads((tmp_path / "report.json").read_text())["held_out"]
    assert 0 <= found["cosine"] <= 0.9


def test_a_masked_language_model(place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, "--ceiling", "kl=9", model="bert") == 0
    assert "loss" in json.loads((tmp_path / "report.json").read_text())["held_out"]


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_adapters_alone_load_gated(place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, "--ceiling", "kl=9", "--lora", "2", "--seed", "1") == 0
    model = load(tmp_path / "adapter")
    assert len(attention_modules(model)) == 2


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_verbs_open_a_run_that_left_adapters_alone(place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, "--ceiling", "kl=9", "--lora", "2", "--seed", "1") == 0
    base, sparse = pair_in(tmp_path)
    assert sparse == tmp_path / "adapter"
    assert model_in(tmp_path) == sparse
    merged, adapted, ids = open_pair(base, sparse)[1], load(sparse, impl="eager"), torch.arange(3, 11)[None]
    assert gates_of(merged).bias == gates_of(adapted).bias
    with evaluating(merged), evaluating(adapted):
        difference = merged(input_ids=ids).logits - adapted(input_ids=ids).logits
    assert float(difference.abs().max()) < 1e-5
    assert not any("lora" in name for name, _ in merged.named_parameters())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_model_with_adapters_has_the_sizes_that_it_has_once_they_are_merged(
    place: Path, tmp_path: Path
) -> None:
    units = ("--ceiling", "kl=9", "--lora", "2", "--gates", "edges,heads,neurons")
    found = {}
    for name, more in (("adapter", ()), ("model", ("--merge",))):
        assert run(place, tmp_path / name, *units, *more) == 0
        report = RunReport.load(tmp_path / name)
        found[name] = report.sizes, report.gates["neurons"].of_layer
        assert "multiply-adds a token" in (tmp_path / name / name / "README.md").read_text()
    assert found["adapter"] == found["model"]
    assert found["adapter"][0]["parameters"]["base"] == zoo.build("gpt2").num_parameters()
    assert load(tmp_path / "adapter" / "adapter").peft_config  # they are there still


@pytest.mark.parametrize(("options", "message"), [
    (("--length", "999"), "length 999 on a model of 64 positions"),
    (("--ceiling", "kl=-1"), "ceiling kl=-1"),
    (("--ceiling", "nonsense=1"), "ceiling kind"),
    (("--precision", "fp16"), "fp16 on a CPU"),
    (("--precision", "fp8"), "precision='fp8' is not known"),
    (("--set", "gate.bias"), "expected name=value"),
    (("--set", "no_such_field=1"), "no_such_field"),
    (("--set", "gate.bias=open"), "gate.bias='open'"),
    (("--set", "gate_bias=4"), "setting 'gate_bias' is now 'gate.bias'"),
    (("--set", "adam_beta1=much"), "adam_beta1 has 'much'"),
    (("--set", "lr_scheduler_type=no-such-one"), "no-such-one"),
    (("--length", "2"), "length=2 is out of range"),
    (("--seed", "-1"), "seed=-1 is out of range"),
    (("--lora", "-1"), "lora=-1 is out of range"),
    (("--learning-rate", "-1"), "learning_rate=-1"),
    (("--merge",), "--merge without adapters"),
    (("--uniform",), "gate.uniform with gates=edges"),
    (("--set", "gate.uniform=3"), "gate.uniform=3"),
    (("--set", "max_steps=9"), "--set max_steps, which has an option of its own: expected --steps"),
    (("--data", "{place}/empty.jsonl"), "gives 0 rows of 16 tokens to train on"),
    (("--data", "{place}/one.txt"), "a larger --held-out-share"),
    (("--checkpointing", "--set", 'gradient_checkpointing_kwargs={{"use_reentrant": true}}'), "reentrant"),
    (("--stream", "--ceiling", "cosine=0.1"), "whole sentences"),
    (("--report-to", "nobody"), "report_to='nobody' is not known"),
    (("--column", "n", "--data", "{place}/text.jsonl"), "has no text in column 'n'"),
    (("--data", "{place}/torn.parquet"), "cannot be read as a table"),
    (("--column", "n", "--data", "{place}/text.parquet"), "has no text in column 'n'"),
    (("--data", "{place}/nowhere.txt"), "does not exist"),
    (("--data", "{place}/empty.txt"), "gives 0 rows"),
    (("--data", "{place}/binary.txt"), "is not text"),
    (("--data", "{place}/short.txt"), "rows of 16 tokens"),
])  # fmt: skip
def test_bad_input_is_one_line(
    options: tuple[str, ...], message: str, place: Path, tmp_path: Path, capsys: Any
) -> None:
    (place / "empty.txt").write_text("")
    (place / "binary.txt").write_bytes(b"\x7fELF\0\0")
    (place / "short.txt").write_text("abc")
    (place / "empty.jsonl").write_text("")
    (place / "one.txt").write_text("abc " * 200)
    whole = (place / "text.parquet").read_bytes()
    (place / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    assert run(place, tmp_path, *(o.format(place=place) for o in options)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]  # before it, transformers' bar while it loads
    assert last.startswith("gossamer: ")
    assert message in last


def broken(place: Path, folder: Path, **changes: Any) -> None:
    """A copy of the tiny GPT-2 with another config."""
    zoo.build("gpt2").save_pretrained(folder)
    save_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("changes", "message"), [
    ({"output_attentions": True}, "output_attentions=True in its config"),
    ({"edge_gates": {"version": 1, "bias": 0.0}}, "was saved with gates and would run dense"),
    ({"architectures": ["NoSuchModel"]}, "neither in transformers nor imported here"),
    ({"model_type": "no-such-type"}, "one that this version of transformers can use"),
    ({"n_embd": 64}, "its weights have other shapes than its config.json says"),
])  # fmt: skip
def test_bad_models_are_one_line(
    changes: Any, message: str, place: Path, tmp_path: Path, capsys: Any
) -> None:
    broken(place, tmp_path / "model", **changes)
    assert run(tmp_path, tmp_path / "out", model="model", data=str(place / "text.txt")) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_nowhere(place: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["sparsify", "no-such-owner/no-such-model", "--out", str(tmp_path)]) == 2
    assert "with network access" in capsys.readouterr().err


def test_out_of_memory_is_one_line(place: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    # The allocator itself refuses: no machine has that much.
    monkeypatch.setattr(
        "gossamer.recipes.text.sparsify", lambda *_, **__: torch.empty(2**58, dtype=torch.uint8)
    )
    assert run(place, tmp_path) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "out of memory at 4 rows of 16 tokens" in last
    assert "By the estimate" in last
    assert "then --resume" in last


def test_a_tokenizer_that_does_not_fit(place: Path, tmp_path: Path, capsys: Any) -> None:
    model = zoo.build("gpt2")
    model.resize_token_embeddings(8)
    model.save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    assert run(tmp_path, tmp_path / "out", model="model", data=str(place / "text.txt")) == 2
    assert "tokens, its model 8" in capsys.readouterr().err


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(("damage", "message"), [
    (lambda folder: cut(folder / "model.safetensors"), "cannot be loaded"),
    (lambda folder: cut(folder / "config.json"), "config.json cannot be read"),
    (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "no tokenizer in"),
    (lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"), "holds adapters, not a model"),
])  # fmt: skip
def test_torn_models_are_one_line(
    damage: Any, message: str, place: Path, tmp_path: Path, capsys: Any
) -> None:
    broken(place, tmp_path / "model")
    damage(tmp_path / "model")
    assert run(tmp_path, tmp_path / "out", model="model", data=str(place / "text.txt")) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("gossamer: ")
    assert message in last


def test_a_folder_holds_one_run(place: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(place, tmp_path, "--ceiling", "kl=9") == 0
    for other, message in (
        ((), "holds the checkpoints of an earlier run"),
        (("--resume", "--lora", "2"), "--lora 2 on a run that was started with 0"),
        (("--resume", "--batch", "2"), "rows per step (--batch x --accumulate x processes) 2 on a run"),
        (("--resume", "--held-out", "5"), "the held-out text (--data, --column,"),
    ):
        assert run(place, tmp_path, "--ceiling", "kl=9", *other) == 2
        assert message in capsys.readouterr().err
    assert run(place, tmp_path, "--ceiling", "kl=9", "--resume", "--batch", "2", "--accumulate", "2") == 0


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_adapters_of_one_seed_are_one_run_and_load_from_anywhere(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)  # so that the model is named by a relative path
    for name in ("one", "two"):
        torch.manual_seed(len(name) + ord(name[0]))
        assert run(Path(), tmp_path / name, "--ceiling", "kl=9", "--lora", "2") == 0
    monkeypatch.chdir(tmp_path)
    one, two = (load(tmp_path / name / "adapter").state_dict() for name in ("one", "two"))
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name


def test_fewer_held_out_rows_than_asked_for_are_told(place: Path, tmp_path: Path) -> None:
    job = SparsifySettings(
        str(place / "gpt2"), str(place / "text.txt"), tmp_path, length=16, held_out=10**6, steps=1
    )
    model = zoo.build("gpt2")
    tokenizer = training_tokenizer(job.model, model, 16)
    with pytest.warns(
        GossamerWarning, match=r"only \d+ held-out rows to choose by .* where 1000000 were asked for"
    ):
        rows_of(job, Task.of(model), model, tokenizer, 1)


def test_every_process_has_rows_of_its_own(place: Path, tmp_path: Path) -> None:
    job = SparsifySettings(
        str(place / "gpt2"), str(place / "text.txt"), tmp_path, length=16, batch=4, held_out=4, steps=3
    )
    model = zoo.build("gpt2")
    tokenizer = training_tokenizer(job.model, model, 16)
    made = [rows_of(job, Task.of(model), model, tokenizer, processes) for processes in (1, 2)]
    assert [len(rows.train) for rows in made] == [12, 24]


def test_a_local_name_is_no_hub_id_in_the_card(place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(place)
    assert run(Path(), tmp_path, "--ceiling", "kl=9", data="text.jsonl") == 0
    front = (tmp_path / "model" / "README.md").read_text().split("---")[1]
    assert "base_model" not in front
    assert "datasets" not in front


def test_roberta_counts_positions_from_behind_its_padding() -> None:
    model = zoo.build("roberta")
    assert positions_of(model) == model.config.max_position_embeddings - model.config.pad_token_id - 1
    assert positions_of(zoo.build("gpt2")) == 64


def test_a_log_has_neither_bars_nor_tied_weights_that_are_missed(
    place: Path, tmp_path: Path, capsys: Any
) -> None:
    assert run(place, tmp_path, "--ceiling", "kl=9") == 0
    said = capsys.readouterr().err
    assert "it/s]" not in said
    assert "missing keys" not in said
