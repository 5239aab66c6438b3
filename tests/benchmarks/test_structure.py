"""What the study of smaller models counts, and how its page puts arms beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from benchmarks.experiments import structure
from benchmarks.experiments.structure.addition import TASK, close
from benchmarks.experiments.structure.cost import left_of_blocks, of_blocks
from benchmarks.experiments.structure.language_report import as_lines
from benchmarks.lib.record import Progress, Rows
from gossamer.files import read_yaml
from gossamer.gates.host import Options
from gossamer.gates.learned import LearnedGates
from gossamer.models.attach import attach_missing
from gossamer.models.shrink import shrunk
from gossamer.training.presets import PRESETS

RECIPES = Path(structure.__file__).parent / "recipes"


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=4, n_layer=2, n_positions=16, vocab_size=32))


def test_blocks_are_counted_without_the_vocabulary() -> None:
    assert of_blocks(gpt2()) == 2 * 12 * 16 * 16


def test_what_is_cut_out_is_what_open_units_leave() -> None:
    model = gpt2()
    sets = attach_missing(model, ("heads", "neurons"), Options("eager", "logit"))
    sets.bias = 0.0
    with torch.no_grad():
        for one in sets:
            for logits in one.logits.values() if isinstance(one, LearnedGates) else ():
                logits[len(logits) // 2 :] = -1.0
    left = left_of_blocks(model, gpt2())
    assert of_blocks(shrunk(model, "per-layer")[0]) == pytest.approx(left * of_blocks(gpt2()))
    assert left == 0.5


def row(arm: str, seed: int, rise: float, **other: Any) -> dict[str, Any]:
    lost = {"loss": 3.0, "delta_ce": rise, "delta_ce_se": 0.001, "kl": rise, "kl_se": 0.001, "agreement": 0.9}
    return {
        "arm": arm,
        "gates": "heads,neurons",
        "recipe": "structure",
        "ceiling": "kl=0.05",
        "seed": seed,
        "torch": "2",
        **lost,
        **other,
    }


def test_a_page_puts_the_arms_of_a_ceiling_beside_each_other() -> None:
    level = {
        "multiply_adds": 0.5,
        "parameters": 10,
        "error": 1e-7,
        "faster_prefill": 1.5,
        "faster_decode": 1.0,
    }
    run = {"heads": [2, 2], "neurons": [8, 8], "left": 0.4, "best_step": 9, "steps": 10, "missed": ""}
    rows = [row("gates", seed, 0.04 + seed / 100, **run) for seed in (1, 2)]
    rows += [
        {
            "arm": "checkpoints",
            "gates": "heads,neurons",
            "recipe": "structure",
            "ceiling": "kl=0.05",
            "seed": 2,
            "torch": "2",
            "uniform": level,
        }
    ]
    rows += [row("magnitude", 1, 0.1), row("magnitude", 2, 0.2)]
    lines = as_lines(rows)
    assert (
        "## As many heads,neurons as the recipe structure left under kl=0.05: rise in cross-entropy, nats"
        in lines
    )
    assert "| heads,neurons | structure | kl=0.05 | 1 | 0.0500 ± 0.0010 | 2, 8 | 40.0% | 9 of 10 |" in lines
    assert (
        "| heads,neurons | structure | kl=0.05 | 2 | uniform | 50.0% | 10 | 1.50x | 1.00x | 1.0e-07 |"
        in lines
    )
    assert "| magnitude | +0.1000 ± 0.0010 | +0.2000 ± 0.0010 | +0.1500 | 0.1500 |" in lines


def test_closed_units_of_a_control_change_nothing_however_they_are_set() -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(TASK.model_config(width=16)).eval()
    mask = {
        "heads": {n: torch.tensor([1.0, 0.0, 1.0, 0.0]) for n in range(4)},
        "neurons": {n: (torch.arange(64) < 5).float() for n in range(4)},
    }
    ids = TASK.encode(torch.arange(20))[0]
    with torch.no_grad():
        before = close(model, mask)(ids).logits
        for layer in model.bert.encoder.layer:
            layer.attention.self.value.weight[4:8] += 1.0
            layer.intermediate.dense.bias[5:] += 1.0
        assert torch.equal(model(ids).logits, before)
        layer.intermediate.dense.bias[:5] += 1.0
        assert not torch.allclose(model(ids).logits, before)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_of_the_record_is_a_change_of_the_one_that_is_used(path: Path) -> None:
    assert PRESETS["addition_structure"].recipe.with_settings(read_yaml(path)).as_dict()


def test_rows_of_arms_that_are_not_made_now_do_not_count_as_done(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.json")
    rows.rows = [{"seed": seed, "arm": arm} for seed in (1, 2, 3) for arm in ("gates", "magnitude")]
    assert Progress(4, [1, 2], rows, {"gates", "random"}).left == 2
    assert Progress(4, [1, 2], rows).left == 0
