"""`gossamer sparsify --data` on a model of each task, and what `gossamer info` says then.

Classifiers are trained here for a few seconds on labels that this file makes, in an order of classes that is not the
alphabet's: that the base model's accuracy is high says that rows, words and labels were read as they were meant.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import gossamer
from gossamer import SparsityConfig, load_data, sparsify
from gossamer.cli import main
from helpers import zoo
from helpers.letters import tokenizer

VOWELS = "aeiou"
ROWS, WORDS, WORD = 240, 3, 3
Model = Any
pytestmark = pytest.mark.integration


def words(seed: int = 0) -> list[list[str]]:
    """Sentences of three words of three letters."""
    letters = torch.randint(26, (ROWS, WORDS, WORD), generator=torch.Generator().manual_seed(seed)).tolist()
    return [["".join(chr(97 + i) for i in word) for word in row] for row in letters]


def verdict(row: list[str]) -> str:
    return (
        "early" if row[-1][0] < "n" else "late"
    )  # the head reads the first token, so attention has to carry it


def tag(word: str) -> str:
    return "Vowel" if word[0] in VOWELS else "O"


def ids_of(rows: list[list[str]]) -> torch.Tensor:
    made = tokenizer()
    return torch.tensor([made.convert_tokens_to_ids(list(" ".join(row))) for row in rows])


def trained(
    model: Model, targets: torch.Tensor, logits: Callable[[Model, torch.Tensor], torch.Tensor]
) -> Model:
    """The model after a few seconds on these rows, by a loop that knows nothing of ours."""
    optimizer, inputs = torch.optim.Adam(model.parameters(), 3e-3), ids_of(words())
    for _ in range(150):
        loss = F.cross_entropy(logits(model, inputs).float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    return model.eval()


def named(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


# ---- a model and its data, by task ----


def classify(folder: Path) -> list[str]:
    model = zoo.headed("bert", "sequence", **named("late", "early"))
    targets = torch.tensor([["late", "early"].index(verdict(row)) for row in words()])
    save(trained(model, targets, lambda m, x: m(x).logits), folder)
    with (folder / "data.csv").open(
        "w", encoding="utf-8-sig", newline=""
    ) as file:  # as Excel saves it in Berlin
        table = csv.writer(file, delimiter=";")
        table.writerows([["review", "verdict"], *[[" ".join(row), verdict(row).upper()] for row in words()]])
    return ["data.csv", "--column", "review", "--column", "label=verdict"]


def tokens(folder: Path) -> list[str]:
    model = zoo.headed("bert", "tokens", **named("Vowel", "O"))
    targets = torch.tensor([[["Vowel", "O"].index(tag(word)) for word in row] for row in words()]).flatten()
    first = torch.arange(WORDS) * (WORD + 1)
    save(trained(model, targets, lambda m, x: m(x).logits[:, first].flatten(0, 1)), folder)
    lines = ["\r\n".join(f"{word} NN {tag(word)}" for word in row) for row in words()]
    (folder / "data.conll").write_bytes("\r\n\r\n".join(lines).encode("utf-16"))
    return ["data.conll"]


def score(folder: Path) -> list[str]:
    model = zoo.headed("bert", "sequence", num_labels=1)
    save(model, folder)
    table = ["premise\tclaim\tlabel", *[f"{one}\t{two}\t{len(VOWELS) / 7}" for one, two, _ in words()]]
    (folder / "data.tsv").write_text("\n".join(table))
    return ["data.tsv", "--column", "premise", "--column", "pair=claim", "--ceiling", "fvu=0.5"]


def mlm(folder: Path) -> list[str]:
    save(zoo.build("bert"), folder)
    rows = [json.dumps({"text": " ".join(row), "label": 1}) for row in words()]
    (folder / "data").mkdir()
    for i in range(2):
        (folder / "data" / f"{i}.jsonl").write_text("\n\n".join(rows[i::2]), encoding="utf-8-sig")
    return ["data", "--ceiling", "kl=0.5"]


def embed(folder: Path) -> list[str]:
    save(zoo.headed("bert", "hidden states"), folder)
    (folder / "data.txt").write_bytes("\r\n".join("ä " + " ".join(row) for row in words()).encode("cp1252"))
    return ["data.txt", "--encoding", "cp1252"]


def lm(folder: Path) -> list[str]:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    made = tokenizer()
    made.chat_template = "{% for m in messages %}{{ m.role[0] }}. {{ m.content }}\n{% endfor %}"
    save(zoo.build("gpt2"), folder, made)
    talks = [
        [{"role": "user", "content": row[0]}, {"role": "assistant", "content": row[1]}] for row in words()
    ]
    parquet.write_table(arrow.table({"messages": talks}), folder / "data.parquet")
    return ["data.parquet", "--ceiling", "kl=0.5"]


def save(model: Model, folder: Path, made: Any = None) -> None:
    model.save_pretrained(folder)
    (made or tokenizer()).save_pretrained(folder)


# task -> what makes it, and the number that its ceiling is on
CASES = {
    "classify": (classify, "kl"),
    "tokens": (tokens, "kl"),
    "mlm": (mlm, "kl"),
    "embed": (embed, "cosine"),
    "lm": (lm, "kl"),
}


def run(folder: Path, *options: str) -> int:
    usual = ["--steps", "6", "--length", "11", "--batch", "8", "--held-out", "12", "--held-out-share", "0.2"]
    given = [str(folder), "--data", *options, "--out", str(folder / "out"), *usual]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return main(["sparsify", *given])


@pytest.mark.parametrize("task", CASES)
def test_each_task_from_the_command_line(
    task: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, kind = CASES[task]
    data = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, *data) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    found, ceiling = report["held_out"], report["ceiling"].partition("=")
    assert (report["task"]["name"], report["settings"]["task"], ceiling[0]) == (task, task, kind)
    head = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    assert f"Task: {task} (from {head})" in said
    assert 0 <= found[kind] == found["divergence"] <= float(ceiling[2])
    assert report["feasible"] is True
    if task in ("classify", "tokens"):
        assert report["task"]["labelled"]
        assert found["base_accuracy"] > 0.9
        assert found["accuracy"] >= found["base_accuracy"] + found["agreement"] - 1 - 1e-9
    assert main(["info", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out
    assert f"Task: {task} " in lines
    assert f"ceiling {report['ceiling']}, held" in lines
    gossamer.load(tmp_path / "out" / "model")


def test_embeddings_of_a_language_model_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = mlm(tmp_path)[:1]
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, *data, "--task", "embed") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["task"], report["ceiling"]) == ({"name": "embed", "why": "--task"}, "cosine=0.02")
    assert report["held_out"]["cosine"] <= 0.02


def test_scores_of_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = score(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, *data) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["task"]["name"] == "classify"
    assert report["held_out"]["fvu"] <= 0.5
    assert "agreement" not in report["held_out"]


def test_a_run_is_repeated_from_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = classify(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, *data) == 0
    again = ["--config", "out/config.yaml", "--out", "again"]
    assert main(["sparsify", *again]) == 0
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("out", "again")]
    assert reports[0]["held_out"] == reports[1]["held_out"]


def test_data_from_python(tmp_path: Path) -> None:
    classify(tmp_path)
    model = gossamer.models.checkpoint.load_for_training(tmp_path)
    columns = {"text": "review", "label": "verdict"}
    rows = load_data(
        model,
        str(tmp_path / "data.csv"),
        columns=columns,
        length=11,
        train=64,
        held_out_share=0.2,
        held_out=12,
    )
    assert rows.labelled
    assert sorted(rows.train.columns) == ["attention_mask", "input_ids", "labels"]
    config = SparsityConfig(
        str(tmp_path / "run"), ceiling="kl=0.05", max_steps=3, use_cpu=True, disable_tqdm=True
    )
    found = sparsify(model, rows.train, rows.choose, config)
    assert found.feasible
    assert found.metrics["base_accuracy"] > 0.9
