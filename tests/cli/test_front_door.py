"""What every command line has: its version, the same everywhere, and completion for the shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import gossamer
from gossamer.cli import VERBS, main

ROOT = Path(__file__).parents[2]


def test_the_version_is_said_and_is_one(capsys: Any) -> None:
    """pyproject.toml, the package, CITATION.cff and the newest entry of the changelog name one version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gossamer {gossamer.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[0]
    assert {project["version"], cited["version"], newest} == {gossamer.__version__}


def test_what_is_cited_has_what_the_format_asks_for() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["license"] == "Apache-2.0"
    assert "date-released" not in cited, "nothing has been released: the changelog says so"


def complete(words: str, *, shell: str = "bash", **more: str) -> str:
    """What a shell is told when it asks to complete `words`."""
    asked = {"_GOSSAMER_COMPLETE": f"complete_{shell}", "COMP_WORDS": words}
    asked |= {"COMP_CWORD": str(words.count(" ")), **more}
    command = [sys.executable, "-m", "gossamer"]
    env = os.environ | asked
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_bash_completes_verbs_and_options() -> None:
    names = {verb.__name__.rpartition(".")[2] for verbs in VERBS.values() for verb in verbs}
    assert set(complete("gossamer ").split()) == names
    assert complete("gossamer sp").split() == ["sparsify"]
    assert "--ceiling" in complete("gossamer sparsify --ce").split()


def test_zsh_is_told_the_help_of_an_option() -> None:
    said = complete("", shell="zsh", _TYPER_COMPLETE_ARGS="gossamer sparsify --see")
    assert '"--seed":"Seed of data order' in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_for_the_command_however_it_is_started(shell: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    command = [sys.executable, "-m", "gossamer", "--show-completion", shell]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "_GOSSAMER_COMPLETE=complete_" + shell in said
