"""Ctrl-C before the command line is loaded."""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any

import pytest

from gossamer import __main__


class Interrupting(importlib.abc.MetaPathFinder):
    """A finder in which Ctrl-C arrives when the command line is looked for."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "gossamer.cli":
            raise KeyboardInterrupt


def test_it_is_a_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("gossamer.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as stop:
        __main__.run()
    assert stop.value.code == 130
    assert capsys.readouterr() == ("", "gossamer: interrupted\n")
