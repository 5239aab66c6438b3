"""The estimate of a run is timed as its steps will run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gossamer.recipes import text
from gossamer.recipes.sparsify_settings import SparsifySettings
from gossamer.training.estimate import Shape


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", None), ("bf16", torch.bfloat16)])
def test_the_forward_pass_is_timed_in_the_precision_of_the_steps(
    precision: str, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype | None] = []

    def timed(*_: Any, **__: Any) -> float:
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return 2.0

    monkeypatch.setattr(text, "seconds_per_step", timed)
    rows = SimpleNamespace(choose=SimpleNamespace(columns={"input_ids": torch.zeros(1, 4, dtype=torch.long)}))
    shape = Shape(parameters=10, trainable=10, layers=1, heads=1, width=4, vocabulary=8, rows=1, length=4)
    model = SimpleNamespace(device=torch.device("cpu"))
    said = text._estimate(model, shape, SparsifySettings("m", precision=precision, steps=30), rows)  # type: ignore[arg-type]
    assert seen == [dtype]
    assert "1.0 minutes for 30 steps" in said
