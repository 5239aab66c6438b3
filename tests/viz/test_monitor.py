"""The page of a run while it trains: written as it goes, and right about its two numbers."""

from __future__ import annotations

import re
from types import SimpleNamespace

from gossamer.training.metrics import Tally
from gossamer.viz.monitor import History, TrainingPage, watch_page
from gossamer.viz.monitor.chart import Curve, chart


def run_of(path, *, done: bool) -> TrainingPage:
    page = TrainingPage(path, title="<run>", every=0.0)
    tally = Tally()
    tally.sums.update(
        {
            "rows": 2.0,
            "group/edges/0/0": 6.0,
            "group/edges/0/1": 2.0,
            "group/edges/1/0": 1.0,
            "group/edges/1/1": 0.0,
        }
    )
    page.watching(SimpleNamespace(tally=tally, controller=SimpleNamespace(expected_steps=100)))
    state, args = SimpleNamespace(max_steps=100, global_step=0), SimpleNamespace(ceiling="kl=0.01")
    page.on_train_begin(args, state, None)
    for state.global_step, divergence in ((10, 0.004), (20, 0.012), (30, float("nan"))):
        page.on_log(args, state, None, logs={"divergence": divergence, "multiplier": 0.5, "epoch": 1.0})
        page.on_evaluate(args, state, None)
    if done:
        page.on_train_end(args, state, None)
    return page


def test_a_run_writes_its_page_as_it_goes(tmp_path):
    page = run_of(tmp_path / "run.html", done=False)
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in text
    assert "&lt;run&gt;" in text
    assert "ceiling kl=0.01: 0.01" in text
    assert "Layer 0: 4" in text
    assert "<script" not in text
    assert page.history.curves["divergence, training"] == [(10.0, 0.004), (20.0, 0.012)]


def test_a_finished_run_reloads_no_more(tmp_path):
    run_of(tmp_path / "run.html", done=True)
    assert 'http-equiv="refresh"' not in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_on_a_logarithmic_scale_zero_stands_on_the_axis():
    """A layer that lost its last edge is still told, and its latest value is zero."""
    svg = chart(
        "edges", [Curve("a", [(0.0, 100.0), (1.0, 10.0)]), Curve("b", [(0.0, 10.0), (1.0, 0.0)])], log=True
    )
    ends = [points.split()[-1] for points in re.findall(r'points="([^"]+)"', svg)]
    heights = [float(end.partition(",")[2]) for end in ends]
    axis = float(re.findall(r'd="M\d+ \d+V(\d+)H', svg)[0])
    assert heights[1] == axis
    assert heights[0] < axis
    assert "b: 0<" in svg


def test_what_is_far_below_the_highest_stands_on_the_axis_too():
    svg = chart("loss", [Curve("a", [(0.0, 1.0), (1.0, 1e-9)])], log=True)
    assert not [
        label for label in re.findall(r">([^<]+)</text>", svg) if "e-0" in label and float(label) < 1e-6
    ]


def test_the_run_page_says_the_two_numbers_it_is_about(tmp_path):
    page = run_of(tmp_path / "run.html", done=True)
    page.history.add("divergence, held out", 30, 0.004)
    page.history.add("open edges, held out", 30, 7.25)
    text = watch_page(page.history)
    assert (
        "Last evaluation: 7.25 open edges per row at a divergence of 0.004 under a ceiling of kl=0.01."
        in text
    )


def test_charts_of_nothing_and_of_one_point():
    assert chart("empty", []) == ""
    assert chart("log of zero", [Curve("x", [(0.0, 0.0)])], log=True) == ""
    assert "NaN" not in chart("one", [Curve("x", [(0.0, 0.0)])])
    assert "<section>" not in watch_page(History("nothing yet"))
