"""The wheel: what it holds, and that it runs the demo where nothing but it and its dependencies is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gossamer

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "gossamer"

pytestmark = pytest.mark.integration


def run(*command: object, cwd: Path, path: Path | None = None) -> str:
    """Standard output of a command outside the repository, which sees gossamer in `path` alone."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1"} | ({} if path is None else {"PYTHONPATH": str(path)})
    done = subprocess.run([str(x) for x in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("build", "hatchling"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name}: pip install build hatchling")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (made,) = out.glob("*.whl")
    assert list(out.glob("*.tar.gz")), "the source archive, from which the wheel was made"
    return made


def test_it_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    """Pages, scripts and styles too: a page that lacks one fails only where it is opened."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    there = {path.relative_to(SOURCE.parent).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    assert names == {name for name in there if "__pycache__" not in name}
    assert f"\nVersion: {gossamer.__version__}\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text


def test_it_installs_and_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    place, out = tmp_path / "site", tmp_path / "out"
    install = ("install", "--quiet", "--no-deps", "--no-index", "--target", place)
    run(sys.executable, "-m", "pip", *install, wheel, cwd=tmp_path)
    gossamer_in = (sys.executable, "-m", "gossamer")
    where = run(sys.executable, "-c", "import gossamer; print(gossamer.__file__)", cwd=tmp_path, path=place)
    assert Path(where.strip()).is_relative_to(place)
    assert run(*gossamer_in, "--version", cwd=tmp_path, path=place) == f"gossamer {gossamer.__version__}\n"
    assert (place / "bin" / "gossamer").is_file()
    assert "addition" in run(*gossamer_in, "recipes", cwd=tmp_path, path=place)
    few = ("--digits", "1", "--base-steps", "20", "--steps", "8", "--ceiling", "kl=9")
    few += ("--tries", "1", "--restarts", "0")
    run(*gossamer_in, "demo", "--out", out, *few, cwd=tmp_path, path=place)
    names = {path.name for path in out.iterdir()}
    assert {"figure.svg", "view.html", "report.html", "training.html", "report.json"} <= names
