"""The settings of every experiment, as files: each is a run that can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.files import read_yaml
from gossamer.recipes.addition.settings import DemoSettings
from gossamer.recipes.run_config import settings_of
from gossamer.recipes.sparsify_settings import SparsifySettings
from gossamer.recipes.text import configure
from gossamer.training.config import configured
from gossamer.training.presets import PRESETS

EXPERIMENTS = Path(__file__).parents[2] / "benchmarks" / "experiments"
FINETUNING = sorted(EXPERIMENTS.glob("*/configs/finetuning.yaml"))
COMMANDS = sorted(
    path for name in ("gate_reads", "smollm2") for path in EXPERIMENTS.glob(f"{name}/configs/*.yaml")
)


@pytest.mark.parametrize("path", FINETUNING, ids=lambda path: path.parents[1].name)
def test_an_experiment_s_file_is_a_config(path: Path, tmp_path: Path) -> None:
    given = read_yaml(path)
    config = configured({**given, "output_dir": str(tmp_path), "use_cpu": True, "max_steps": 1}, {})
    assert config.recipe == PRESETS[given["recipe"]].recipe


def test_the_demo_s_file_is_the_demo() -> None:
    path = EXPERIMENTS / "addition" / "configs" / "demo.yaml"
    assert settings_of(DemoSettings, "demo", config=path) == DemoSettings()


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_file_of_the_command_line_is_a_run(path: Path) -> None:
    job = settings_of(SparsifySettings, "sparsify", config=path, given={"model": "a model"})
    assert configure(job).recipe == job.recipe


def test_every_experiment_has_one() -> None:
    experiments = {path.parent.name for path in EXPERIMENTS.glob("*/run.py")}
    assert experiments == {path.parents[1].name for path in EXPERIMENTS.glob("*/configs/*.yaml")}
