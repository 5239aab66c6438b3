"""What shows itself: a circuit in a notebook, a film of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import BertForMaskedLM

from gossamer.circuits.circuit import Circuit
from gossamer.circuits.export import export
from gossamer.circuits.trace import trace
from gossamer.circuits.verify import verify
from gossamer.errors import GossamerError
from gossamer.models.attach import attach
from gossamer.models.run_report import RunReport
from gossamer.recipes.addition.task import Addition, as_text
from gossamer.viz.film import Filmed, film, frame_steps
from gossamer.viz.notebook import Page, bundle, run_report_bundle, verification_bundle, view
from helpers.zoo import adder


@pytest.fixture(scope="module")
def model() -> BertForMaskedLM:
    made = adder()
    attach(made, bias=0.0, check=False)
    return made


@pytest.fixture(scope="module")
def prompt() -> torch.Tensor:
    return Addition(1).encode(torch.tensor([38]))[0]


@pytest.fixture(scope="module")
def circuit(model, prompt) -> Circuit:
    return trace(model, prompt, text=as_text)


def test_a_circuit_shows_itself_twice_without_script_or_shared_ids(circuit):
    first, second = (bundle(circuit)["text/html"] for _ in range(2))
    assert "<script" not in first
    assert first.count("<svg") == 1
    assert not set(re.findall(r' id="([^"]+)"', first)) & set(re.findall(r' id="([^"]+)"', second))
    assert set(re.findall(r"https?://[^\s\"'<)]+", first)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_bundle_has_a_png_and_words(circuit):
    shown = bundle(circuit)
    assert shown["image/png"].startswith(b"\x89PNG")
    assert f"{len(circuit):.1f} open edges per prompt" in shown["text/plain"]


def test_a_prompt_too_long_to_draw_is_told_in_words(circuit):
    from dataclasses import replace

    long = replace(circuit, tokens=(("x",) * 5000,), answers=(("x",) * 5000,))
    assert set(bundle(long)) == {"text/plain", "text/html"}


def test_a_verification_and_a_report_show_themselves_without_script_or_style(model, tmp_path):
    task = Addition(1)
    inputs, labels = task.encode(torch.arange(task.n_sums))
    found = verify(model, model, inputs, labels, text=as_text)
    shown = verification_bundle(found)["text/html"]
    assert "Exact answers, of 100 prompts" in shown
    assert "Both models give the same output on 100 of 100 prompts" in shown
    (tmp_path / "report.json").write_text('{"task": {"digits": 2}, "proof": {"leaks": 0}}', encoding="utf-8")
    stored = run_report_bundle(RunReport.load(tmp_path))["text/html"]
    assert "the drawn graph is the whole graph" in stored
    for text in (shown, stored):
        assert not re.search("<script|<style|<html| id=|https?://", text)


def test_a_running_ipython_shows_circuits_though_they_know_nothing_of_notebooks(circuit):
    code = "from IPython.core.interactiveshell import InteractiveShell; shell = InteractiveShell.instance()\n"
    code += "import sys, gossamer; before = 'gossamer.viz.notebook' in sys.modules\n"
    code += "from gossamer.circuits.export import load_circuit\n"
    code += "import pathlib; there = load_circuit(pathlib.Path(sys.argv[1]))\n"
    code += "shown = shell.display_formatter.format(there)[0]; print(before, sorted(shown))"
    with tempfile.TemporaryDirectory() as folder:
        path = export(circuit, Path(folder) / "circuit.json", "json")
        out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False ['image/png', 'text/html', 'text/plain']"


def test_the_interactive_page_is_a_frame_of_fixed_height_and_a_file(circuit, tmp_path):
    page = view(circuit)
    assert isinstance(page, Page)
    frame = page._repr_html_()
    assert frame.startswith("<iframe ")
    assert 'height="820"' in frame
    assert "<script" not in frame  # it is escaped inside srcdoc
    assert page.save(tmp_path / "page.html").read_text(encoding="utf-8") == page.html


def test_frames_lie_in_equal_ratios_and_end_at_the_end():
    steps = sorted(frame_steps(1000, 20))
    assert (steps[0], steps[-1]) == (1, 1000)
    assert len(steps) <= 20
    assert steps[5] - steps[4] < steps[-1] - steps[-2]
    assert frame_steps(0, 20) == {0}


def test_a_film_has_one_picture_per_frame(circuit, model, prompt, tmp_path):
    camera = Filmed(prompt, text=as_text, frames=3)
    state = SimpleNamespace(max_steps=4, global_step=0)
    camera.on_train_begin(None, state, None, model=model)
    for state.global_step in range(1, 5):
        camera.on_step_end(None, state, None, model=model)
    assert [frame.step for frame in camera.frames] == [0, 1, 2, 4]
    assert camera.frames[-1].circuit.tokens == circuit.tokens
    frames = [camera.frames[0], camera.frames[-1]._replace(circuit=circuit.select(circuit.weight > 0.3))]
    path = film(circuit, frames, tmp_path / "film.gif", dpi=60)
    with Image.open(path) as image:
        assert image.format == "GIF"
        assert image.n_frames == 2  # type: ignore[attr-defined]
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # paper, not off-white


def test_a_film_without_frames_is_refused(circuit, tmp_path):
    with pytest.raises(GossamerError, match="a film without frames"):
        film(circuit, [], tmp_path / "film.gif")
