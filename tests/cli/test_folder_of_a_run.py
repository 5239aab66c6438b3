"""The folder of a run is enough for the verbs that show it, as README says; and a run says nothing of padding."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gossamer.cli import main
from gossamer.errors import GossamerError
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save
from gossamer.models.quiet import without_padding_advice
from gossamer.models.run_report import RunReport
from gossamer.recipes.folders import pair_in
from helpers import zoo
from helpers.letters import save_tokenizer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """my-gpt2, and the folder of the run that made it sparse, as `gossamer sparsify` leaves them."""
    root = tmp_path_factory.mktemp("run")
    model = zoo.build("gpt2")
    model.save_pretrained(root / "my-gpt2")
    attach(model, bias=-0.05)
    save(model, root / "run" / "model")
    for folder in ("my-gpt2", "run/model"):
        save_tokenizer(root / folder)
    dense = str(root / "my-gpt2")
    RunReport(model=dense, local=[dense]).write(root / "run")
    return root


def test_the_folder_of_a_run_tells_both_models(root: Path) -> None:
    base, sparse = pair_in(root / "run")
    assert (str(base), sparse) == (str(root / "my-gpt2"), root / "run" / "model")
    assert pair_in(root / "run" / "model") == (base, sparse)
    assert pair_in(root / "run", base=Path("b")) == (Path("b"), sparse)
    assert pair_in(root / "run", sparse=Path("s")) == (root / "run" / "base", Path("s"))
    assert pair_in(root) == (root / "base", root / "sparse")


def test_a_model_without_a_record_of_its_base_is_one_line(root: Path, tmp_path: Path) -> None:
    attach(model := zoo.build("gpt2"), bias=-0.05)
    save(model, tmp_path / "model")
    with pytest.raises(GossamerError, match=r"whose base model is not on record.*Pass --base FOLDER"):
        pair_in(tmp_path)


def test_adapters_without_a_record_name_their_base(tmp_path: Path) -> None:
    named = {"peft_type": "LORA", "base_model_name_or_path": "my-gpt2"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(named))
    assert pair_in(tmp_path) == ("my-gpt2", tmp_path / "adapter")


def test_the_folder_of_a_run_is_viewed(root: Path, capsys: Any) -> None:
    assert main(["view", str(root / "run"), "--prompt", "abc"]) == 0
    assert (root / "run" / "view.html").read_text(encoding="utf-8").startswith("<!")


def test_the_folder_of_a_run_is_served(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'gossamer[serve]'")
    opened: list[Any] = []
    module = importlib.import_module("gossamer.viz.serve.run")
    monkeypatch.setattr(module, "_serve", lambda *given: opened.append(given[4]))
    assert main(["serve", str(root / "run"), "--port", "0"]) == 0
    assert opened[0].answer("abc")
    assert main(["serve", str(root / "nowhere"), "--port", "0"]) == 0
    assert "nowhere/base does not exist" in str(opened[1])


def test_advice_on_padding_is_left_out_of_a_run_and_nothing_else() -> None:
    logger, said = logging.getLogger("transformers.modeling_utils"), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        with without_padding_advice():
            logger.warning("We strongly recommend passing in an `attention_mask` since ...")
            logger.warning("other")
        logger.warning("passing in an `attention_mask`")
    finally:
        logger.removeHandler(handler)
    assert said == ["other", "passing in an `attention_mask`"]
