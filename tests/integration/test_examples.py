"""The tutorial notebooks run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_its_circuits(path, monkeypatch, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="no nbformat: pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="no nbclient: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="no ipykernel: pip install nbclient ipykernel")
    monkeypatch.setenv("GOSSAMER_QUICK", "1")
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "notebooks are kept without outputs"
    place = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(book, timeout=600, resources=place).execute()
    shown = [output["data"] for cell in done.cells for output in cell.get("outputs", []) if "data" in output]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert any("<svg" in page and "<script" not in page for page in pages)
    assert any(page.startswith("<iframe") for page in pages)
    assert any("image/png" in data for data in shown)
