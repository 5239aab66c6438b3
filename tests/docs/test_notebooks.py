"""The notebooks of the site: what is kept of them is clean, and each runs from top to bottom as it was kept."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="no nbformat: pip install nbclient ipykernel")
pytest.importorskip("nbclient", reason="no nbclient: pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="no ipykernel: pip install nbclient ipykernel")

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
HELD = "the ceiling holds"
# The share of a notebook's training steps that a test takes. `GOSSAMER_NOTEBOOK_STEPS=1` takes all, for another six
# minutes of a core; `make notebooks`, which keeps what they put out, always does.
STEPS = float(os.environ.get("GOSSAMER_NOTEBOOK_STEPS", "0.15"))


def load_script() -> ModuleType:
    """`docs/notebooks/execute.py`, which lies in no package."""
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = load_script()


def outputs(book: Any) -> list[Any]:
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def kinds(book: Any) -> list[list[tuple[str, ...]]]:
    """Per cell, what it puts out: numbers may be those of another machine, what shows them may not."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    return [[(o.output_type, *sorted(o.get("data", ()))) for o in cell.outputs] for cell in code]


def test_there_are_six_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "addition", "circuit", "classifier", "language_model", "sentence_encoder", "smaller_checkpoint"
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_clean_and_holds_its_ceiling(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert execute.problems(book) == []
    assert book.metadata == execute.METADATA
    assert all(not cell.metadata for cell in book.cells)
    assert any(HELD in text for output in outputs(book) for text in execute.texts_of(output))
    words = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert "## What you have seen, and what not" in words


def executed(**output: Any) -> Any:
    """A notebook of one cell that puts out one thing."""
    cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=[nbformat.v4.new_output(**output)])
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize(("output", "message"), [
    ({"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}, "cell 1 fails: ValueError"),
    ({"output_type": "stream", "name": "stderr", "text": "careful"}, "cell 1 warns: careful"),
    ({"output_type": "stream", "name": "stdout", "text": "in /home/you/run"}, "cell 1 tells '/home/you/run'"),
    ({"output_type": "display_data", "data": {"text/html": "<p>/tmp/run</p>"}}, "cell 1 tells '/tmp/run</p>'"),
    ({"output_type": "display_data", "data": {"text/plain": "<x at 0x7f0a1b2c>"}}, "cell 1 tells 'at 0x7f0a1b2c>'"),
])  # fmt: skip
def test_what_must_not_be_kept_is_found(output: dict[str, Any], message: str) -> None:
    assert execute.problems(executed(**output)) == [message]


def test_cells_that_were_run_in_another_order_are_found() -> None:
    book = executed(output_type="stream", text="see https://example.org/tmp/x, 1/2 and a/home/b")
    assert execute.problems(book) == []
    book.cells[0].execution_count = 3
    assert execute.problems(book) == ["cells were run in the order [3]"]


def test_nothing_says_when_a_notebook_was_run(tmp_path: Path) -> None:
    book = executed(output_type="stream", text="hello")
    book.metadata["language_info"] = {"name": "python", "version": "3.11.9"}
    book.cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    execute.write(execute.clean(book), tmp_path / "a.ipynb")
    first = (tmp_path / "a.ipynb").read_text()
    assert "2026" not in first
    assert "3.11.9" not in first
    execute.write(nbformat.read(tmp_path / "a.ipynb", as_version=4), tmp_path / "a.ipynb")
    assert (tmp_path / "a.ipynb").read_text() == first


def test_prints_are_one_output_in_however_many_pieces_they_came() -> None:
    pieces = [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in pieces]
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1", execution_count=1, outputs=outputs)]
    )
    assert [o.text for o in execute.clean(book).cells[0].outputs] == ["a\nb\n", "c\n", "d\n"]


def test_seconds_are_those_of_an_idle_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "STEPS_TIMED", 1)
    monkeypatch.setattr(execute, "IDLE_STEP", 1e6)
    assert execute.slowness() == 1.0, "a faster machine does not make a notebook longer"
    monkeypatch.setattr(execute, "IDLE_STEP", 1e-6)
    assert execute.slowness() > 100


def test_a_notebook_can_train_for_a_part_of_its_steps() -> None:
    source = (
        "steps = 500\nfit(max_steps=1000, eval_steps=100)\nfor _ in range(800):\n    x = range(300)\n"
        'batches("ioi", 200, seed=2)'
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    assert execute.shortened(book, 1.0).cells[0].source == source
    assert execute.shortened(book, 0.25).cells[0].source == (
        "steps = 125\nfit(max_steps=250, eval_steps=100)\nfor _ in range(200):\n    x = range(300)\n"
        'batches("ioi", 50, seed=2)'
    )
    with pytest.raises(ValueError, match="no cell has steps"):
        execute.shortened(executed(output_type="stream", text="hello"), 0.25)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_it_was_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in execute.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)  # so that they are as before afterwards
    book, seconds = execute.execute(path, STEPS)
    assert execute.problems(book) == []
    assert kinds(book) == kinds(nbformat.read(path, as_version=4))
    assert any(HELD in text for output in outputs(book) for text in execute.texts_of(output))
    assert seconds < execute.MOST_SECONDS
