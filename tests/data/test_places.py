"""Local places ask no network, paths are not asked from the hub, and a silent hub is found out quickly and once."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gossamer.data.places import WAIT, hub_answers, looks_like_path
from gossamer.data.prompts import open_tokenizer
from gossamer.data.text import Corpus
from gossamer.errors import GossamerError
from gossamer.models.checkpoint import load_dense, load_for_training
from gossamer.models.declared import read_config
from gossamer.models.summary import describe
from helpers.zoo import tiny


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What name servers were asked; they are silent, as behind a firewall that drops everything."""
    questions: list[Any] = []

    def silent(host: Any, *_: Any, **__: Any) -> Any:
        questions.append(host)
        time.sleep(8)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub_answers.cache_clear()
    yield questions
    hub_answers.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its tokenizer, and data of every kind."""
    made = tmp_path_factory.mktemp("local")
    tiny(vocab_size=256).save_pretrained(made / "model")
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(made / "model")
    rows = [{"text": f"a b {i}"} for i in range(4)]
    (made / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (made / "rows.json").write_text(json.dumps(rows))
    (made / "rows.csv").write_text("text\n" + "\n".join(row["text"] for row in rows))
    (made / "rows.txt").write_text("\n\n".join(row["text"] for row in rows))
    return made


def test_local_places_ask_no_name_server(asked: list[Any], folder: Path) -> None:
    model = folder / "model"
    load_for_training(str(model))
    load_dense(model)
    describe(model)
    open_tokenizer(model)
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows.txt"):
        assert len(list(Corpus(str(folder / name)).documents())) == 4
    assert asked == []


def test_parquet_asks_no_name_server(asked: list[Any], tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'gossamer[data]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["a", "b"]}), tmp_path / "rows.parquet")
    assert list(Corpus(str(tmp_path / "rows.parquet")).documents()) == ["a", "b"]
    assert asked == []


@pytest.mark.parametrize(
    "name", ["./run/model", "/no/such", "~/model", "a/b/c", "run\\model", "here/modle", "model dir", "a/"]
)
def test_what_looks_like_a_path_is_not_asked_from_the_hub(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert looks_like_path(name)
    for ask in (read_config, load_for_training, lambda x: list(Corpus(x).documents())):
        with pytest.raises(GossamerError, match=r" does not exist"):
            ask(name)
    assert asked == []


@pytest.mark.parametrize("name", ["gpt2", "owner/model", "owner/model-1.5_b"])
def test_hub_ids_are_not_taken_for_paths(name: str) -> None:
    assert not looks_like_path(name)


def test_a_path_is_a_path(asked: list[Any]) -> None:
    with pytest.raises(GossamerError, match="modle does not exist"):
        read_config(Path("./modle"))
    assert asked == []


def test_a_silent_hub_is_said_once_and_soon(asked: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(GossamerError, match=r"owner/model is neither .* \(the hub does not answer\)"):
        load_for_training("owner/model")
    with pytest.raises(GossamerError, match=r"'owner/data' is no file here .* \(the hub does not answer\)"):
        list(Corpus("owner/data").documents())
    assert time.monotonic() - begun < WAIT + 2
    assert len(asked) == 1
    assert capfd.readouterr() == ("", "")
