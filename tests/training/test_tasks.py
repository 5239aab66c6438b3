"""The task that a head is for, the ceiling that is usual on it, and one line for what does not go together."""

from __future__ import annotations

import pytest

from gossamer.errors import GossamerError, GossamerWarning
from gossamer.training.constraint import Ceiling
from gossamer.training.tasks import TASKS, Task, load_data
from helpers import zoo
from helpers.letters import tokenizer

MODELS = {
    "lm": lambda: zoo.build("gpt2"),
    "mlm": lambda: zoo.build("bert"),
    "classify": lambda: zoo.headed("bert", "sequence"),
    "tokens": lambda: zoo.headed("bert", "tokens"),
    "embed": lambda: zoo.headed("bert", "hidden states"),
}


@pytest.mark.parametrize("asked", TASKS)
@pytest.mark.parametrize("task", MODELS)
def test_a_head_has_one_task_and_embeddings(task: str, asked: str) -> None:
    model = MODELS[task]()
    if asked in (task, "embed"):
        assert Task.of(model, asked).name == asked
        assert Task.of(model).name == task
    else:
        with pytest.raises(
            GossamerError, match=f"--task {asked} on {type(model).__name__}, whose head is for {task}"
        ):
            Task.of(model, asked)


@pytest.mark.parametrize(
    ("task", "settings", "expected"),
    [
        ("lm", {}, "kl=0.02"), ("mlm", {}, "kl=0.02"), ("classify", {}, "kl=0.02"), ("tokens", {}, "kl=0.02"),
        ("embed", {}, "cosine=0.02"), ("classify", {"num_labels": 1}, "fvu=0.02"),
        ("classify", {"problem_type": "multi_label_classification"}, "kl=0.02"),
    ],
)  # fmt: skip
def test_the_usual_ceiling(task: str, settings: dict, expected: str) -> None:
    model = zoo.headed("bert", "sequence", **settings) if settings else MODELS[task]()
    assert str(Task.of(model).ceiling) == expected


def test_a_ceiling_on_embeddings_makes_an_encoder_of_any_head() -> None:
    found = Task.of(MODELS["mlm"](), ceiling=Ceiling("pairwise", 0.1))
    assert (found.name, found.why) == ("embed", "the ceiling on pairwise")
    for asked, kind in (("embed", "kl"), ("mlm", "cosine"), ("auto", "fvu")):
        with pytest.raises(GossamerError, match=f"a ceiling on {kind} for the task"):
            Task.of(MODELS["mlm"](), asked, Ceiling(kind, 0.1))


def test_heads_without_labelled_data_here_have_no_name() -> None:
    model = zoo.headed("bert", "answers")
    assert Task.of(model).name == ""
    with pytest.raises(GossamerError, match="whose head is for something else"):
        Task.of(model, "classify")


def test_a_decoder_that_classifies_learns_what_padding_is(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{'a' * (i % 9 + 1)} {i},{i % 2}\n" for i in range(60)))
    model = zoo.headed("gpt2", "sequence", pad_token_id=None)
    rows = load_data(model, str(path), tokenizer(), length=12, held_out=4, held_out_share=0.3)
    assert model.config.pad_token_id == tokenizer().pad_token_id
    assert model(**{k: v[:4] for k, v in rows.train.columns.items()}).logits.shape == (4, 2)
    bare = tokenizer()
    bare.pad_token = None
    with pytest.raises(GossamerError, match="a tokenizer without a padding token"):
        load_data(zoo.headed("gpt2", "sequence", pad_token_id=None), str(path), bare)


def test_a_masked_model_needs_a_mask(tmp_path) -> None:
    bare = tokenizer()
    bare.mask_token = None
    with pytest.raises(GossamerError, match="without a mask token"):
        load_data(MODELS["mlm"](), "stdlib", bare)


def test_other_labels_are_another_text(tmp_path) -> None:
    path, model = tmp_path / "a.csv", MODELS["classify"]()
    lines = [f"{chr(97 + i % 26) * (i % 5 + 1)},{i % 2},{i % 3 == 0:d}" for i in range(60)]
    path.write_text("\n".join(["text,label,other", *lines]))
    found = [
        load_data(model, str(path), tokenizer(), length=8, held_out=4, held_out_share=0.3, columns=columns)
        for columns in ({}, {"label": "other"}, {})
    ]
    assert found[0].fingerprint() == found[2].fingerprint() != found[1].fingerprint()


def test_rows_that_are_cut_are_counted(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text", *["a" * (i % 10 + 1) for i in range(100)]]))
    with pytest.warns(
        GossamerWarning, match=r"\d\d of \d\d rows are cut to 8 tokens: pass a larger --length"
    ):
        rows = load_data(
            MODELS["classify"](), str(path), tokenizer(), length=8, held_out=4, held_out_share=0.3
        )
    assert rows.train.columns["input_ids"].shape[1] == 8
