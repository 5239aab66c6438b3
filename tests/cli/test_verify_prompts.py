"""`gossamer verify --prompt`: a circuit proved on texts of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from gossamer.cli import main
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save
from helpers import zoo
from helpers.letters import save_tokenizer
from helpers.records import validated

TEXTS = ("abc", "bca", "cabd")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 and a BERT in letters, each dense and with gates."""
    root = tmp_path_factory.mktemp("own")
    for family in ("gpt2", "bert"):
        model = zoo.build(family)
        model.save_pretrained(root / family / "base")
        attach(model, bias=-0.05)
        save(model, root / family / "sparse")
        for name in ("base", "sparse"):
            save_tokenizer(root / family / name)
    assert not hf.AutoModelForMaskedLM.from_pretrained(root / "bert" / "base").can_generate()
    return root


def proved(place: Path, capsys: Any, *texts: str) -> tuple[dict[str, Any], int]:
    """The record of these prompts, and the exit code."""
    capsys.readouterr()
    more = [word for text in texts for word in ("--prompt", text)]
    code = main(["verify", str(place / "gpt2" / "base"), str(place / "gpt2" / "sparse"), *more, "--json"])
    return validated("verify", capsys.readouterr().out), code


def test_several_prompts_count_as_each_alone(place: Path, capsys: Any) -> None:
    together, code = proved(place, capsys, *TEXTS)
    alone = [proved(place, capsys, text)[0] for text in TEXTS]
    assert together["same_answer"]["n"] == len(TEXTS)
    for name in ("same_answer", "leaks", "live_alone"):
        assert together[name]["hits"] == sum(one[name]["hits"] for one in alone)
    own = [one["sufficient"]["prompt"]["hits"] for one in alone]
    assert together["sufficient"]["prompt"]["hits"] == sum(own)
    open_edges = sum(one["edges_a_prompt"]["open"] for one in alone)
    assert together["edges_a_prompt"]["open"] == pytest.approx(open_edges / len(TEXTS))
    assert open_edges > 0
    assert (together["base_right"], together["sparse_right"], together["paraphrases"]) == (None, None, None)
    assert set(together["stable"]) == {"3"}  # two of its length; of one prompt nothing can be resampled
    assert code == (0 if together["all_claims_hold"] else 1)


def test_the_table_says_nothing_of_what_is_right(place: Path, capsys: Any) -> None:
    main(["verify", str(place / "gpt2" / "base"), str(place / "gpt2" / "sparse"), "--prompt", "abc"])
    shown = capsys.readouterr().out
    assert "own prompts, by intervention" in shown
    assert "same answer" in shown
    assert "base right" not in shown


@pytest.mark.parametrize(("models", "more", "message"), [
    (("gpt2/base", "gpt2/sparse"), ["--prompt", "abc", "--task", "ioi"], "--task and --prompt: expected one of them"),
    (("gpt2/base", "gpt2/sparse"), ["--prompt", "abc", "--seed", "1"], "--seed with --prompt"),
    (("gpt2/base", "gpt2/sparse"), ["--prompt", "abc", "--digits", "1"], "--digits with --prompt"),
    (("gpt2/base", "gpt2/sparse"), ["--prompt", ""], "an empty prompt"),
    (("gpt2/base", "gpt2/sparse"), ["--prompt", "a" * 500], "a prompt of 500 tokens"),
    (("gpt2/base", "gpt2/base"), ["--prompt", "abc"], "has no gates"),
    (("bert/base", "bert/sparse"), ["--prompt", "abc"], "a BertForMaskedLM, which gives no next token"),
])  # fmt: skip
def test_what_cannot_be_proved_is_one_line(
    models: tuple[str, str], more: list[str], message: str, place: Path, capsys: Any
) -> None:
    capsys.readouterr()
    assert main(["verify", *(str(place / name) for name in models), *more]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gossamer: ")]
    assert len(said) == 1
    assert message in said[0]
