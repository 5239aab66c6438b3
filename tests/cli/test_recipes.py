"""`gossamer recipes`: every preset with its record, every setting with its meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.cli import main
from gossamer.training.presets import PRESETS
from gossamer.training.recipe import HELP, SETTINGS
from helpers.records import validated

ROOT = Path(__file__).parents[2]


def test_every_preset_is_listed_with_its_purpose_and_record(capsys):
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.purpose}" in said
        assert preset.record in said


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_explains_every_setting(name, capsys):
    assert main(["recipes", name, "--json"]) == 0
    assert validated("recipes", capsys.readouterr().out)["settings"].keys() == SETTINGS.keys()
    assert main(["recipes", name]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in HELP.values())


def test_the_records_that_presets_cite_exist():
    for name, preset in PRESETS.items():
        if name != "default":
            assert (ROOT / preset.record.split(";")[0]).is_file()


def test_an_unknown_preset_is_one_line(capsys):
    assert main(["recipes", "adition"]) == 2
    assert "addition" in capsys.readouterr().err
