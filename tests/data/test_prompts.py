"""One prompt has one spelling: in the table, on the page, from the server; and the same ids everywhere."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gossamer.circuits.export.record import to_record
from gossamer.circuits.trace import trace_prompt
from gossamer.data.prompts import Prompt, open_tokenizer, pieces
from gossamer.errors import GossamerError
from gossamer.models.checkpoint import save, save_folder
from gossamer.recipes.trace import trace_text
from gossamer.recipes.view import view_folders
from gossamer.viz.serve.session import Session
from helpers.zoo import tiny, tiny_gated

TEXT = "the cat é 猫"


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer that writes a space as Ġ inside, as GPT-2's does, and splits letters of several bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)} | {"Ġc": 256}, [("Ġ", "c")]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    words.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="a", pad_token="a")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_folder(tiny("gpt2", vocab_size=257), folder / "base")
    save(tiny_gated("gpt2", vocab_size=257), folder / "sparse")
    for part in ("base", "sparse"):
        byte_level().save_pretrained(folder / part)
    return folder


def test_one_prompt_has_one_spelling(run: Path) -> None:
    prompt = Prompt.of(TEXT, byte_level())
    assert " c" in prompt.pieces
    table = to_record(trace_text(run / "sparse", TEXT))["prompts"][0]["tokens"]
    page = view_folders(run / "base", run / "sparse", [TEXT])
    data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[0])
    shown = [spelled(panel["circuits"]) for panel in data["panels"]]
    served = [spelled(panel) for panel in Session.load(run).answer(TEXT)["panels"]]
    for tokens in (tuple(table), *shown, *served):
        assert tokens == prompt.pieces


@pytest.mark.parametrize("decoder", [True, False])
def test_bytes_are_shown_as_text_and_answers_are_the_model_s(run: Path, decoder: bool) -> None:
    tokenizer = byte_level()
    if not decoder:
        tokenizer.backend_tokenizer.decoder = None  # type: ignore[assignment]
    prompt = Prompt.of("a cat", tokenizer)
    assert prompt.pieces == ("a", " c", "a", "t")
    model = tiny("gpt2", vocab_size=257)
    circuit = trace_prompt(model, prompt)
    with torch.no_grad():
        answers = model(prompt.ids).logits[0].argmax(-1)
    assert circuit.tokens == (prompt.pieces,)
    assert circuit.answers == (pieces(byte_level(), answers.tolist()),)
    assert circuit.answers != circuit.tokens


def spelled(packed: dict[str, Any]) -> tuple[str, ...]:
    """The tokens of the first prompt, as the page unpacks them."""
    numbers = np.frombuffer(base64.b64decode(packed["tokens"]["data"]), dtype=packed["tokens"]["type"])
    return tuple(packed["words"][i] for i in numbers)


def test_a_prompt_answers_at_its_last_position() -> None:
    prompt = Prompt.of(TEXT, byte_level())
    assert prompt.ids.shape == (1, len(prompt))
    assert prompt.outputs == (len(prompt) - 1,)
    assert torch.equal(prompt.ids[0], torch.tensor(byte_level()(TEXT)["input_ids"]))


@pytest.mark.parametrize(("text", "said"), [("", "an empty prompt"), ("x" * 6, "a prompt of 6 tokens")])
def test_a_prompt_that_cannot_be_is_one_line(text: str, said: str) -> None:
    with pytest.raises(GossamerError, match=said):
        Prompt.of(text, byte_level(), most=5)


def test_the_first_folder_with_a_tokenizer_counts(run: Path, tmp_path: Path) -> None:
    assert open_tokenizer(tmp_path, run / "base").vocab_size == 257
    with pytest.raises(GossamerError, match="no tokenizer in"):
        open_tokenizer(tmp_path)
