"""Sharing and fetching: the card goes up with the model and stays; a hub that gives nothing is one clear line.

The hub is a folder here: the calls that would go over the network are replaced, and nothing else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError
from transformers.utils import hub as transformers_hub

from gossamer import attach, load
from gossamer.data.text import Corpus
from gossamer.errors import CheckpointError, GossamerError
from gossamer.files import write_json
from gossamer.models.checkpoint import load_for_training, save
from gossamer.models.hub import push_to_hub
from gossamer.models.model_card import model_card
from gossamer.models.run_report import RunReport
from helpers import zoo

REPORT = {"model": "openai-community/gpt2", "data": "stdlib", "ceiling": "kl=0.02", "feasible": True, "missed": "",
          "held_out": {"keys_per_query": 3.25, "density": 0.05, "kl": 0.0187, "kl_se": 0.0004}}  # fmt: skip
REPO = "someone/gpt2-sparse"


class Shelf:
    """A hub of one repository: its files, by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, folder_path: str, ignore_patterns: str, **_: Any) -> str:
        for path in Path(folder_path).iterdir():
            if not path.match(ignore_patterns):
                self.files[path.name] = path.read_bytes()
        return "commit"

    def upload_file(self, *, path_or_fileobj: bytes, path_in_repo: str, **_: Any) -> str:
        self.files[path_in_repo] = path_or_fileobj
        return "commit"

    def create_commit(self, *, operations: Any, **_: Any) -> str:
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()
        return "commit"

    def card(self, repo_id: str, **_: Any) -> ModelCard:
        """What `ModelCard.load` finds."""
        if "README.md" not in self.files:
            raise EntryNotFoundError("no card")
        return ModelCard(self.files["README.md"].decode())


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    for name in ("create_repo", "upload_folder", "upload_file"):
        call = getattr(shelf, name)
        monkeypatch.setattr(HfApi, name, lambda api, *args, _call=call, **given: _call(*args, **given))
    monkeypatch.setattr(transformers_hub, "hf_api", lambda: shelf)
    monkeypatch.setattr(transformers_hub.ModelCard, "load", shelf.card)
    return shelf


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What `gossamer sparsify` leaves."""
    model = zoo.build("gpt2")
    attach(model, bias=0.5)
    save(model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text(
        model_card(RunReport.of(REPORT), title="gpt2, sparse", where=str(tmp_path))
    )
    write_json(tmp_path / "report.json", REPORT)
    return tmp_path


def test_the_card_goes_up_and_names_the_repository(out: Path, shelf: Shelf, tmp_path: Path) -> None:
    assert push_to_hub(out, REPO) == "commit"
    card = shelf.files["README.md"].decode()
    for message in (
        "DENSE",
        f'gossamer.load("{REPO}")',
        "kl=0.02",
        "3.250",
        "0.0187",
        "base_model: openai-community/gpt2",
    ):
        assert message in card
    assert str(out) not in card
    assert json.loads(shelf.files["report.json"]) == REPORT
    got = tmp_path / "got"
    got.mkdir()
    for name, content in shelf.files.items():
        (got / name).write_bytes(content)
    assert load(got).config.edge_gates["bias"] == 0.5


def test_a_later_push_of_the_model_keeps_the_card(out: Path, shelf: Shelf) -> None:
    push_to_hub(out, REPO)
    before = ModelCard(shelf.files["README.md"].decode())
    shelf.files.pop("config.json")
    load(out / "model").push_to_hub(REPO)
    assert ModelCard(shelf.files["README.md"].decode()).text == before.text
    assert json.loads(shelf.files["config.json"])["edge_gates"]["bias"] == 0.5


def test_nothing_dense_is_shared_as_sparse(out: Path, shelf: Shelf, tmp_path: Path) -> None:
    zoo.build("gpt2").save_pretrained(out / "model")
    with pytest.raises(CheckpointError, match="is a dense checkpoint"):
        push_to_hub(out, REPO)
    with pytest.raises(CheckpointError, match=r"has no report.json"):
        push_to_hub(tmp_path / "nowhere", REPO)
    assert not shelf.files


def test_adapters_of_a_folder_of_this_machine_are_not_shared(out: Path, shelf: Shelf) -> None:
    base = out / "model"
    for place, message in ((base, "which is a folder of this machine"), ("openai-community/gpt2", "")):
        write_json(out / "adapter" / "adapter_config.json", {"base_model_name_or_path": str(place)})
        write_json(out / "adapter" / "edge_gates.json", {"version": 1, "bias": 0.5})
        if message:
            with pytest.raises(CheckpointError, match=message):
                push_to_hub(out, REPO)
            assert not shelf.files
        else:
            assert push_to_hub(out, REPO) == "commit"
            assert "adapter_config.json" in shelf.files


def test_a_hub_out_of_reach_is_one_line(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise HfHubHTTPError.__bases__[0]("Name or service not known")

    with monkeypatch.context() as patched:
        patched.setattr(HfApi, "create_repo", unreachable)
        with pytest.raises(
            CheckpointError, match=r"cannot be written \(Name or service not known\): expected own"
        ):
            push_to_hub(out, REPO)
    with pytest.raises(CheckpointError, match="cannot be written"):
        push_to_hub(out, "no/such/name")


def gated(*_: Any, **__: Any) -> None:
    """What the hub answers about a repository that one must ask for."""
    answer: Any = SimpleNamespace(headers={}, request=None, status_code=401)
    raise GatedRepoError("401 Client Error. Access to this repository is restricted.", response=answer)


def test_a_gated_model_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_hub, "hf_hub_download", gated)
    with pytest.raises(
        CheckpointError, match=r"owner/gated is neither .* log in if the model is gated"
    ) as message:
        load_for_training("owner/gated")
    assert "\n" not in str(message.value)


def test_gated_data_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", gated)
    with pytest.raises(
        GossamerError, match=r"'owner/gated' is no file here .* log in if it is gated"
    ) as message:
        next(Corpus("owner/gated").documents())
    assert "\n" not in str(message.value)


@pytest.mark.integration
def test_transformers_alone_refuses_it_unless_it_is_asked_for_a_dense_model(out: Path) -> None:
    line = "import sys, transformers; transformers.GPT2LMHeadModel.from_pretrained(sys.argv[1], **eval(sys.argv[2]))"
    for options, message in (
        ({}, 'attn_implementation="edge_gate"` is not supported'),
        ({"attn_implementation": "sdpa"}, ""),
    ):
        command = [sys.executable, "-c", line, str(out / "model"), repr(options)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (not message), done.stderr
        assert message in done.stderr


def test_a_model_that_was_asked_for_dense_is_noticed_by_attach(out: Path) -> None:
    model = transformers.GPT2LMHeadModel.from_pretrained(out / "model", attn_implementation="sdpa")
    with pytest.warns(
        UserWarning, match=r"loaded without them, so it has been running DENSE; load it with gossamer.load"
    ):
        attach(model)


def test_a_demo_is_shared_with_the_numbers_of_its_proof(out: Path, shelf: Shelf) -> None:
    (out / "model").rename(out / "sparse")
    proof = {
        "prompts": 100,
        "base_exact": 100,
        "sparse_exact": 99,
        "edges_mean": 6.5,
        "leaks": 0,
        "recall": 1.0,
    }
    write_json(out / "report.json", {**REPORT, "recipe": "addition", "model": "base", "local": ["base"],
                                     "data": "addition", "held_out": {}, "proof": proof})  # fmt: skip
    push_to_hub(out, REPO)
    card = shelf.files["README.md"].decode()
    assert "| on all 100 prompts | |\n|---|---|\n| exact answers of the base model | 100 |\n" in card
    assert "| open attention edges a sum, mean | 6.500 |\n" in card
    assert "base_model" not in card
    assert "datasets" not in card


def test_no_card_has_a_table_without_rows(out: Path) -> None:
    for report in (
        REPORT,
        {**REPORT, "held_out": {}, "proof": {"prompts": 4, "leaks": 1}},
        {**REPORT, "held_out": {}},
    ):
        card = model_card(RunReport.of(report), title="x", where="x")
        assert re.search(r"\|---\|---\|\n\n", card) is None
