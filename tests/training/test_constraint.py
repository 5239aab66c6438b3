"""The ceilings that a person can type."""

from __future__ import annotations

import pytest

from gossamer.errors import GossamerError
from gossamer.training.constraint import KINDS, Ceiling


@pytest.mark.parametrize("text", ["kl", "kl=", "kl=x", "kl=-1", "kl=0", "kl=nan", "mse=0.1"])
def test_bad_ceilings_are_one_clear_line(text: str) -> None:
    with pytest.raises(GossamerError) as error:
        Ceiling.parse(text)
    message = str(error.value)
    assert ": expected " in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", KINDS)
def test_ceilings_are_read_and_written(kind: str) -> None:
    ceiling = Ceiling.parse(f"{kind}=0.25")
    assert (ceiling.kind, ceiling.value, str(ceiling)) == (kind, 0.25, f"{kind}=0.25")
    assert ceiling.needs_base == (kind != "loss")
    assert ceiling.excess(0.25) == 0
    assert ceiling.scaled(4).value == 1.0
