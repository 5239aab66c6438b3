"""Recipes: every setting by its name, presets that cite a record which is there, old names that say where they went."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from gossamer.errors import GossamerError
from gossamer.training.config import SparsityConfig, configured
from gossamer.training.constraint import Ceiling
from gossamer.training.presets import PRESETS, recipe_of
from gossamer.training.recipe import HELP, MOVED, SETTINGS, Recipe

ROOT = Path(__file__).parents[2]


def test_the_config_has_eight_fields_of_ours_and_recipes_hold_the_rest() -> None:
    ours = {x.name for x in fields(SparsityConfig)} - {x.name for x in fields(TrainingArguments)}
    assert ours | {"output_dir"} == {
        "output_dir",
        "ceiling",
        "min_agreement",
        "gates",
        "recipe",
        "max_minutes",
        "pooling",
        "impl",
    }
    assert set(SETTINGS) == set(HELP)
    assert set(MOVED.values()) <= set(SETTINGS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_cites_its_record_and_survives_a_file(name: str) -> None:
    preset = PRESETS[name]
    record = preset.record.split(";")[0]
    assert record.startswith("no record") or (ROOT / record).is_file()
    assert recipe_of(json.loads(json.dumps(preset.recipe.as_dict()))) == preset.recipe
    assert Recipe().with_settings(preset.recipe.changes()) == preset.recipe


def test_a_config_takes_a_recipe_in_each_of_its_three_forms(tmp_path: Path) -> None:
    given = {"output_dir": str(tmp_path), "use_cpu": True}
    recipe = recipe_of("addition").with_settings({"control.kp": 0.3, "gate.bias": None})
    for form in (recipe, recipe.as_dict()):
        assert configured(given, {"recipe": form}).recipe == recipe
    config = configured(given, {"recipe": recipe, "adam_beta2": 0.9})
    assert configured(given, {"recipe": "addition"}).recipe == PRESETS["addition"].recipe
    assert (config.adam_beta2, config.ceiling) == (0.9, Ceiling("kl", 0.01))
    assert json.loads(config.to_json_string())["recipe"]["control"]["kp"] == 0.3
    assert json.loads(config.to_json_string())["ceiling"] == "kl=0.01"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dual_gain": 0.5}, "setting 'dual_gain' is now 'control.kp'"),
        ({"control.kpp": 0.5}, "no setting 'control.kpp': expected control.kp"),
        ({"ema_decay": 0.5}, "no setting 'ema_decay': expected .*control.ema_decay"),
        ({"control.kp": "much"}, "control.kp='much': expected a number"),
        ({"control.kp": True}, "control.kp=True: expected a number"),
        ({"control.kp": float("nan")}, "control.kp=nan: expected a number"),
        ({"control.lambda_bounds": 3}, "control.lambda_bounds=3: expected two numbers"),
        ({"gate.pace": 3}, "gate.pace=3: expected a word"),
        ({"recipe": "additon"}, "recipe='additon' is not known: expected one of default, addition"),
        ({"recipe": {"controls": {}}}, "recipe with 'controls'"),
        ({"gates": "egdes"}, r"gates='egdes' is not known: expected .*edges"),
    ],
)
def test_settings_that_are_none_are_one_line(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    given = {"output_dir": str(tmp_path), "use_cpu": True}
    of_recipe = any("." in name for name in settings)
    with pytest.raises(GossamerError, match=words) as error:
        _ = Recipe().with_settings(settings) if of_recipe else configured(given, settings)
    assert "\n" not in str(error.value)
