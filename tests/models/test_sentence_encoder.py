"""A folder of sentence-transformers: a ceiling is on what its pooling makes, and its files stay with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import gossamer
from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import GossamerError
from gossamer.models.attach import attach
from gossamer.models.sentence_encoder import MODES, SWITCHES, Pooling
from gossamer.training.config import SparsityConfig
from gossamer.training.trainer import SparsityTrainer
from helpers import zoo

QUIET: dict[str, Any] = {"use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False}
STEPS = ("Transformer", "Pooling", "Normalize")


def write(folder: Path, pooling: dict[str, Any], steps: tuple[str, ...] = STEPS) -> Path:
    """A sentence encoder as sentence-transformers writes it."""
    zoo.headed("bert", "hidden states").save_pretrained(folder)
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if not i else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": false}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    return folder


def batch() -> dict[str, torch.Tensor]:
    mask = (torch.arange(8) < torch.tensor([[8], [5], [3], [6]])).long()
    return {"input_ids": torch.randint(4, 90, (4, 8)) * mask, "attention_mask": mask}


def by_hand(mode: str, hidden: torch.Tensor, n: int) -> torch.Tensor:
    """One row's embedding from its n tokens."""
    states, place = hidden[:n], torch.arange(1, n + 1)[:, None]
    return {
        "mean": states.mean(0),
        "cls": states[0],
        "lasttoken": states[-1],
        "max": states.max(0).values,
        "mean_sqrt_len": states.sum(0) / n**0.5,
        "weightedmean": (states * place).sum(0) / place.sum(),
    }[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("left", [False, True])
def test_each_mode_is_of_the_tokens_alone(mode: str, left: bool) -> None:
    hidden, mask = torch.randn(4, 8, 5), batch()["attention_mask"]
    expected = torch.stack([by_hand(mode, x, int(m.sum())) for x, m in zip(hidden, mask, strict=True)])
    if (
        left and mode != "weightedmean"
    ):  # which counts places, padding among them, as sentence-transformers does
        shifts = (8 - mask.sum(1)).tolist()
        hidden, mask = (
            torch.stack([x.roll(s, 0) for x, s in zip(t, shifts, strict=True)]) for t in (hidden, mask)
        )
    assert torch.allclose(Pooling((mode,))(hidden, mask), expected, atol=1e-6)


@pytest.mark.parametrize(("switch", "mode"), SWITCHES.items())
def test_the_ceiling_is_on_the_embeddings_that_the_folder_makes(
    tmp_path: Path, switch: str, mode: str
) -> None:
    folder = write(tmp_path / "base", {name: name == switch for name in SWITCHES})
    model, rows = hf.AutoModel.from_pretrained(folder), batch()
    args = SparsityConfig(output_dir=str(tmp_path / "out"), ceiling="cosine=0.02", **QUIET)
    made = SparsityTrainer(model, args, eval_dataset=TensorRows(**rows), data_collator=collate_rows)
    made.gates.bias = -1.0
    found = made.evaluate()["eval_divergence"]
    with torch.no_grad():
        states = [m(**rows).last_hidden_state for m in (made.model, made.base)]
    ours, theirs = (
        torch.stack([by_hand(mode, x, int(m.sum())) for x, m in zip(s, rows["attention_mask"], strict=True)])
        for s in states
    )
    assert found == pytest.approx(float((1 - torch.cosine_similarity(ours, theirs)).mean()), rel=1e-4)
    assert found > 1e-4


def test_a_pooling_can_be_asked_for_and_newer_folders_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "base", {"pooling_mode": "lasttoken"})
    assert Pooling.of(folder).modes == ("lasttoken",)
    (folder / "modules.json").unlink()
    assert Pooling.of(folder).modes == ("lasttoken",)
    assert Pooling.of("").modes == ("mean",)
    args = SparsityConfig(
        output_dir=str(tmp_path), ceiling="cosine=0.02", pooling="cls+mean", eval_strategy="no", use_cpu=True
    )
    made = SparsityTrainer(hf.AutoModel.from_pretrained(folder), args)
    assert made.measuring.pooling.modes == ("cls", "mean")


@pytest.mark.parametrize(
    ("pooling", "steps", "message"),
    [
        ({"pooling_mode_mean_tokens": False}, STEPS, "pools by nothing: expected some of mean"),
        ({"pooling_mode": "attention"}, STEPS, r"pools by \['attention'\]"),
        ({"pooling_mode": "mean"}, (*STEPS[:2], "Dense"), "sends its embedding through a module Dense"),
        ({"pooling_mode": "mean"}, ("Transformer", "../Pooling"), "names the folder '1_../Pooling'"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, pooling: dict[str, Any], steps: tuple[str, ...], message: str
) -> None:
    folder = write(tmp_path / "base", pooling, (*steps[:1], "Pooling") if "../Pooling" in steps else steps)
    if "../Pooling" in steps:
        text = (folder / "modules.json").read_text().replace("1_Pooling", "1_../Pooling")
        (folder / "modules.json").write_text(text)
    with pytest.raises(GossamerError, match=message):
        Pooling.of(folder)


def test_a_sparse_folder_keeps_what_sentence_transformers_needs(tmp_path: Path) -> None:
    folder = write(tmp_path / "base", {"pooling_mode_cls_token": True})
    model = hf.AutoModel.from_pretrained(folder)
    attach(model, bias=0.5)
    gossamer.save(model, tmp_path / "sparse")
    gossamer.save(gossamer.load(tmp_path / "sparse"), tmp_path / "again")
    for name in (
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ):
        for place in ("sparse", "again"):
            assert (tmp_path / place / name).read_bytes() == (folder / name).read_bytes()
    assert Pooling.of(tmp_path / "again").modes == ("cls",)


def test_cosines_that_crowd_near_1_are_measured_by_their_own_spread(tmp_path: Path) -> None:
    """A large constant in every embedding: the cosine ceiling holds while the ranking is noise."""
    rows, model = batch(), zoo.headed("bert", "hidden states")
    norm = model.encoder.layer[-1].output.LayerNorm
    torch.nn.init.constant_(norm.bias, 100.0)
    found = {}
    for kind in ("cosine", "pairwise"):
        args = SparsityConfig(output_dir=str(tmp_path), ceiling=f"{kind}=0.02", **QUIET)
        made = SparsityTrainer(
            model, args, base=zoo_base(model), eval_dataset=TensorRows(**rows), data_collator=collate_rows
        )
        made.gates.bias = -3.0
        found[kind] = made.evaluate()["eval_divergence"]
    assert found["cosine"] < 0.02
    assert found["pairwise"] > 0.1


def zoo_base(like: hf.PreTrainedModel) -> hf.PreTrainedModel:
    base = zoo.headed("bert", "hidden states")
    torch.nn.init.constant_(base.encoder.layer[-1].output.LayerNorm.bias, 100.0)
    return base
