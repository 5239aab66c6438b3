"""The page's scripts keep the types that their JSDoc promises.

Skipped where there is no TypeScript: `npm install --prefix tests/browser typescript` puts it where it is looked for.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from gossamer.viz.viewer.page import SCRIPTS, START

OPTIONS = (
    "--checkJs",
    "--allowJs",
    "--noEmit",
    "--strict",
    "--target",
    "es2022",
    "--lib",
    "es2022,dom,dom.iterable",
)


@pytest.mark.parametrize("start", [START, "serve.js"])
def test_scripts_keep_their_types(start, tmp_path):
    beside = Path(__file__).parent / "node_modules/.bin/tsc"
    tsc = str(beside) if beside.is_file() else shutil.which("tsc")
    if tsc is None:
        pytest.skip("no TypeScript: npm install --prefix tests/browser typescript")
    scripts = [str(files("gossamer.viz.viewer").joinpath(name)) for name in SCRIPTS]
    scripts.append(str(files("gossamer.viz").joinpath("serve" if start == "serve.js" else "viewer", start)))
    found = subprocess.run(
        [tsc, *OPTIONS, *scripts], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
