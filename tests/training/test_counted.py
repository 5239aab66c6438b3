"""Loops that count themselves, and the lines that say how far they are."""

from __future__ import annotations

import time

import pytest

from gossamer.training import counted as module
from gossamer.training.counted import Loop, counted, state, told, under_way


def test_the_loops_under_way_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    assert state() == "loading"
    said = []
    for _ in counted(("base", "sparse"), "models"):
        for _ in counted(iter(range(3)), "heads", total=3):
            now[0] += 60
            said.append(state())
        with under_way("sizes tried") as search:
            search.done += 2
            said.append(state())
    assert said == [
        "models 0 of 2, heads 0 of 3",
        "models 0 of 2, heads 1 of 3 (about 4 min left)",
        "models 0 of 2, heads 2 of 3 (about 90 s left)",
        "models 0 of 2, sizes tried 2",
        "models 1 of 2 (about 4 min left), heads 0 of 3",
        "models 1 of 2 (about 5 min left), heads 1 of 3",
        "models 1 of 2 (about 6 min left), heads 2 of 3",
        "models 1 of 2 (about 6 min left), sizes tried 2",
    ]
    assert state() == "loading"


def test_a_loop_that_breaks_is_no_longer_under_way() -> None:
    for _ in counted([1, 2], "loops"):
        break
    assert state() == "loading"


def test_nothing_is_said_of_what_is_quick(capfd: pytest.CaptureFixture[str]) -> None:
    with told("compare"):
        assert list(counted([1, 2], "loops")) == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_one_long_step_is_heard_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.05)
    with told("compare"):
        for _ in counted([1], "heads ablated"):
            time.sleep(0.3)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "compare: heads ablated 0 of 1\n")


def test_a_loop_without_an_end_has_no_estimate() -> None:
    assert Loop("x", None, done=3).left() is None
    assert Loop("x", 0).left() is None
