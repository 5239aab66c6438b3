"""`gossamer draw`: a folder and a prompt in, a figure and its caption's numbers out."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import BertConfig, BertForSequenceClassification

import gossamer
from gossamer.circuits.trace import trace_prompt
from gossamer.cli import main
from gossamer.data.prompts import Prompt, open_tokenizer
from gossamer.models.attach import attach
from gossamer.models.checkpoint import load, save
from gossamer.models.run_report import RunReport
from helpers import zoo
from helpers.letters import save_tokenizer
from helpers.records import validated

PROMPT = "abc ab"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `gossamer sparsify` and `gossamer demo` leave, a masked model and a classifier."""
    root = tmp_path_factory.mktemp("draw")
    for family in ("gpt2", "bert"):
        model = zoo.build(family)
        folder = root / family / "base"
        model.save_pretrained(folder)
        save_tokenizer(folder)
        attach(model, bias=-0.05)
        save(model, root / family / "sparse")
    config = BertConfig(**{**zoo.ENCODER, "pad_token_id": 0, "num_labels": 3})
    BertForSequenceClassification(config).save_pretrained(root / "classifier")
    save_tokenizer(root / "classifier")
    save(load(root / "gpt2" / "sparse"), root / "run" / "model")
    RunReport(model=str(root / "gpt2" / "base"), local=[str(root / "gpt2" / "base")]).write(root / "run")
    save(load(root / "gpt2" / "sparse"), root / "lost" / "model")
    RunReport(model="no/where", local=["no/where"]).write(root / "lost")
    save(load(root / "gpt2" / "sparse"), root / "alone")
    return root


def drawn(capsys: Any, *arguments: object) -> dict[str, Any]:
    assert main(["draw", *map(str, arguments), "--prompt", PROMPT, "--json"]) == 0
    return validated("draw", capsys.readouterr().out)


def test_a_run_is_drawn_under_the_base_that_its_report_names(place, tmp_path, capsys):
    record = drawn(capsys, place / "run", "--out", tmp_path / "figure.pdf")
    assert record["files"] == [str(tmp_path / "figure.pdf")]
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert [panel["title"] for panel in record["panels"]] == ["Dense", "Sparse"]
    prompt = Prompt.of(PROMPT, open_tokenizer(place / "gpt2" / "base"))
    for panel, folder in zip(record["panels"], ("base", "sparse"), strict=True):
        model = load(place / "gpt2" / folder) if folder == "sparse" else zoo.build("gpt2")
        traced = trace_prompt(model, prompt)
        assert panel["open"] == len(traced)
        assert panel["live"] == int(traced.live_mask().sum())
        assert panel["answers"] == [traced.answers[0][-1]]
    assert record["panels"][1]["open"] < record["panels"][0]["open"] == record["panels"][0]["visible"]


def test_the_caption_is_printed_and_every_format_is_written(place, tmp_path, capsys):
    stem = tmp_path / "figure"
    assert main(["draw", str(place / "gpt2"), "--prompt", PROMPT, "--out", str(stem), "--dpi", "100"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Dense: 168 of 168 attention edges open, in 8 of 8 heads; ")
    assert said[1].startswith("Sparse: ")
    assert said[2:] == [f"{stem}.{form}" for form in ("svg", "pdf", "png")]
    with Image.open(f"{stem}.png") as image:
        assert image.width == 330
    assert said[0] in Path(f"{stem}.svg").read_text(encoding="utf-8")


def test_a_dense_model_is_drawn_alone(place, tmp_path, capsys):
    record = drawn(capsys, place / "gpt2" / "base", "--out", tmp_path / "f.svg")
    assert [panel["title"] for panel in record["panels"]] == ["Dense"]


def test_the_positions_that_answer_follow_from_the_model(place, tmp_path, capsys):
    where = ("--out", tmp_path / "f.svg")
    assert drawn(capsys, place / "gpt2", *where)["outputs"] == [5]
    assert drawn(capsys, place / "gpt2", *where, "--position", "-2", "--position", "0")["outputs"] == [0, 4]
    every = drawn(capsys, place / "bert", *where)
    assert every["outputs"] == list(range(len(every["tokens"])))
    assert main(["draw", str(place / "bert"), "--prompt", "ab[MASK]d", *map(str, where), "--json"]) == 0
    masked = json.loads(capsys.readouterr().out)
    assert [masked["tokens"][i] for i in masked["outputs"]] == ["[MASK]"]


def test_a_classifier_answers_with_a_class_and_the_figure_names_no_token(place, tmp_path, capsys):
    record = drawn(capsys, place / "classifier", "--out", tmp_path / "f.svg")
    assert record["panels"][0]["answers"] == []
    assert "The answer is" not in record["caption"][0]
    assert main(["trace", str(place / "classifier"), "--prompt", PROMPT, "--json"]) == 0
    said = set(json.loads(capsys.readouterr().out)["prompts"][0]["answers"]) - {""}
    assert len(said) == 1
    assert said < {"LABEL_0", "LABEL_1", "LABEL_2"}


def test_one_call_of_python_gives_the_same(place, tmp_path, capsys):
    record = drawn(capsys, place / "run", "--out", tmp_path / "a.svg", "--most", "9")
    made = gossamer.draw_model(place / "run", PROMPT, out=tmp_path / "b.svg", most=9)
    assert made.as_record() | {"files": []} == record | {"files": []}
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert gossamer.draw_model(place / "run", PROMPT).files == ()


@pytest.mark.parametrize(("arguments", "message"), [
    (("lost",), "no/where, the base model of"),
    (("alone",), "alone, whose base model is not on record: expected the base model too. Pass --base FOLDER"),
    (("gpt2/base", "--base", "gpt2/base"), "which is dense itself"),
    (("gpt2", "--base", "./nowhere"), "nowhere does not exist"),
    (("gpt2", "--out", "run"), "run.svg"),
    (("gpt2", "--position", "6"), "outputs (6,) of 6 tokens"),
    (("gpt2", "--width", "0.1"), "width=0.1 is out of range"),
    (("gpt2", "--most", "0"), "most=0 is out of range"),
    (("gpt2", "--by", "size"), "by='size' is not known"),
    (("./nowhere",), "nowhere does not exist"),
])  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(place, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(place)
    (place / "run.svg").mkdir(exist_ok=True)
    before = sorted(place.iterdir())
    assert main(["draw", *arguments, "--prompt", PROMPT]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gossamer: ")]
    assert len(said) == 1
    assert message in said[0]
    assert sorted(place.iterdir()) == before


def test_a_prompt_too_long_for_the_column_says_which_width_would_do(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    assert main(["draw", "gpt2", "--prompt", "m" * 60]) == 2
    assert "pass a width of at least" in capsys.readouterr().err.lower()


def old_figures(folder: Path) -> dict[str, str]:
    """An older figure in every format."""
    for suffix in ("svg", "pdf", "png"):
        (folder / f"f.{suffix}").write_text("old")
    return everything(folder)


def everything(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("probed", [True, False])
def test_a_full_disk_is_one_line_and_leaves_the_old_figures(probed, place, tmp_path, monkeypatch, capsys):
    """Full from the start, which is seen before anything is drawn; and full once there is something to write."""
    before, limits = old_figures(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    if not probed:
        monkeypatch.setattr("gossamer.recipes.draw.require_room", lambda _: None)
    arguments = ("draw", str(place / "run"), "--prompt", PROMPT, "--out", str(tmp_path / "f"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))  # fails as a full disk does
    try:
        assert main(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr()
    assert said.out == ""
    assert [line for line in said.err.splitlines() if not line.startswith("draw: ")] == [
        f"gossamer: {tmp_path}/f.svg cannot be written (File too large): expected a writable folder with space. "
        "Free some space, or choose another --out."
    ]
    assert everything(tmp_path) == before
    assert main(arguments) == 0


@pytest.mark.parametrize("when", ["tracing", "writing"])
def test_ctrl_c_is_one_line_and_leaves_the_old_figures(when, place, tmp_path, monkeypatch, capsys):
    before, whole = old_figures(tmp_path), Path.write_bytes

    def stopped(*given: Any) -> Any:
        if when == "writing":
            path, data = given
            if "pdf" not in path.name:  # the SVG is written, the PDF in part
                return whole(path, data)
            whole(path, data[:100])
        raise KeyboardInterrupt

    if when == "writing":
        monkeypatch.setattr(Path, "write_bytes", stopped)
    else:
        monkeypatch.setattr("gossamer.recipes.draw.trace_prompt", stopped)
    assert main(["draw", str(place / "run"), "--prompt", PROMPT, "--out", str(tmp_path / "f")]) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1] == "gossamer: interrupted"
    assert everything(tmp_path) == before


def test_the_model_is_not_changed(place, tmp_path):
    before = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    gossamer.draw_model(place / "run", PROMPT, out=tmp_path / "f.svg")
    assert before == {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
