"""The card of a run: its Python block is run as it stands, where a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gossamer.models.attach import attach
from gossamer.models.checkpoint import save
from gossamer.models.model_card import model_card
from gossamer.models.run_report import OpenUnits, RunReport
from helpers import zoo

pytestmark = pytest.mark.integration  # runs what cards say

CHECK = """
assert gossamer.gates_of(model).n_layers == 2
assert not model.training
"""


def blocks(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)


def test_the_code_of_a_card_runs_as_it_stands(tmp_path: Path) -> None:
    model = zoo.build("gpt2")
    attach(model, bias=0.5)
    save(model, tmp_path / "run" / "model")
    report = RunReport(
        model="gpt2", ceiling="kl=0.02", feasible=True, gates={"edges": OpenUnits([[1.0], [2.0]])}
    )
    card = model_card(report, title="tiny", where="run/model")
    (code,) = blocks(card)
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "error", "-c", code + CHECK]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
