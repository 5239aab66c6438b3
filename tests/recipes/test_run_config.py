"""A whole run as a file: what is written gives the same run again, and what cannot be meant is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.errors import GossamerError
from gossamer.recipes.addition.settings import DemoSettings
from gossamer.recipes.run_config import read_config, settings_of, write_config
from gossamer.recipes.sparsify_settings import SparsifySettings
from gossamer.training.constraint import Ceiling
from gossamer.training.presets import PRESETS

SPARSIFY = SparsifySettings(
    model="gpt2: a name, 'quoted'",
    data="stdlib",
    out=Path("over there"),
    ceiling=Ceiling("delta_ce", 1e-4),
    learning_rate=3e-5,
    recipe=PRESETS["circuits"].recipe.with_settings({"control.kp": 0.25}),
    settings={"weight_decay": 0.1, "lr_scheduler_type": "cosine"},
)


@pytest.mark.parametrize(
    ("verb", "settings"), [("sparsify", SPARSIFY), ("demo", DemoSettings(seed=3, steps=40))]
)
def test_a_run_is_repeated_from_its_folder(tmp_path, verb, settings):
    write_config(tmp_path, verb, settings)
    assert settings_of(type(settings), verb, config=tmp_path / "config.yaml") == settings


def test_options_go_before_the_file_and_the_file_before_the_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: gpt2\nsteps: 7\nlearning_rate: 1e-5\nrecipe: language_model\n")
    found = settings_of(
        SparsifySettings,
        "sparsify",
        config=path,
        given={"steps": 9},
        changes={"control.kp": 0.3, "weight_decay": 0.2},
    )
    assert (found.model, found.steps, found.learning_rate) == ("gpt2", 9, 1e-5)
    assert found.length == SparsifySettings(model="").length
    assert found.recipe == PRESETS["language_model"].recipe.with_settings({"control.kp": 0.3})
    assert found.settings == {"weight_decay": 0.2}


def test_a_preset_on_the_command_line_replaces_the_file_s_recipe(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: gpt2\nrecipe: {control: {kp: 0.9}}\n")
    found = settings_of(SparsifySettings, "sparsify", config=path, recipe="circuits")
    assert found.recipe == PRESETS["circuits"].recipe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: gpt2\nstep: 7\n", "no setting 'step'.*steps"),
        ("model: gpt2\nsteps: many\n", "steps: 'many'.*a whole number"),
        ("model: gpt2\nsteps: true\n", "a whole number"),
        ("model: gpt2\nlearning_rate: fast\n", "a number"),
        ("model: 3\n", "model: 3.*a text"),
        ("model: gpt2\nceiling: 0.02\n", "a ceiling, as kl=0.02"),
        ("model: gpt2\nceiling: mse=1\n", "ceiling kind='mse'"),
        ("model: gpt2\nrecipe: {control: {kq: 0.3}}\n", "control.kq.*control.kp"),
        ("model: gpt2\nrecipe: {contrl: {kp: 0.3}}\n", "contrl"),
        ("model: gpt2\nrecipe: 3\n", "the name of a preset"),
        ("model: gpt2\nsettings: [1]\n", "name: value pairs"),
        ("model: gpt2\nseed: 0\ndual_gain: 0.3\n", "now 'control.kp'.*Write recipe: {control: {kp: 0.3}}"),
        ("model: gpt2\ncontrol.kp: 0.3\n", "'control.kp' at the top.*Write recipe: {control: {kp: 0.3}}"),
        ("model: gpt2\nfield: text\n", "run.yaml: setting 'field' is now 'columns'.*columns: {text: text}"),
        ("model: gpt2\nfield: null\n", "columns: {text: null}"),
        ("model: gpt2\nfield: [a, b]\n", r"columns: {text: \[a, b\]}"),
        ("verb: demo\nseed: 1\n", "is of gossamer demo"),
        ("steps: 3\n", "no MODEL"),
        ("- 3\n", "holds no settings"),
        ("", "holds no settings"),
        ("model: [gpt2\n", "cannot be read"),
        ("!!python/object:os.system {}\n", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path, text, said):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(GossamerError, match=said) as error:
        settings_of(SparsifySettings, "sparsify", config=path)
    assert "\n" not in str(error.value)


def test_the_line_that_a_moved_setting_is_told_to_be_is_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: gpt2\ncolumns: {text: body}\nrecipe: {control: {kp: 0.3}}\n")
    found = settings_of(SparsifySettings, "sparsify", config=path)
    assert (found.columns, found.recipe.control.kp) == ({"text": "body"}, 0.3)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(GossamerError, match="cannot be read"):
        read_config(tmp_path / "none.yaml", "sparsify", SparsifySettings)


def test_a_demo_takes_settings_of_its_recipe_alone():
    found = settings_of(DemoSettings, "demo", changes={"control.ki": 0.01})
    assert found.recipe == PRESETS["addition"].recipe.with_settings({"control.ki": 0.01})
    with pytest.raises(GossamerError, match="no setting 'weight_decay'"):
        settings_of(DemoSettings, "demo", changes={"weight_decay": 0.1})
