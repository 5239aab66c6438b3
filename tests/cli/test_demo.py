"""What `gossamer demo` says and exits with when its proof finds a sum that the two models answer otherwise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gossamer.cli import main
from gossamer.recipes.addition import run


@pytest.mark.parametrize(("same", "code"), [(10_000, 0), (9_999, 1)])
def test_one_sum_that_is_answered_otherwise_is_a_claim_that_does_not_hold(
    same: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = {"prompts": 10_000, "same_row": same}
    monkeypatch.setattr(run, "run_demo", lambda *given, **options: SimpleNamespace(missed="", proof=proof))
    assert main(["demo", "--out", str(tmp_path / "demo")]) == code
    said = " ".join(capsys.readouterr().err.split())
    assert ("answers 1 of 10,000 sums otherwise than the base model" in said) == (code == 1)
