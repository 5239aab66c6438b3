"""The page of a run while it trains: written as it goes, and right about its two numbers."""

from __future__ import annotations

import re
from itertools import groupby
from types import SimpleNamespace

from gossamer.training.constraint import Ceiling
from gossamer.training.controller import Controller
from gossamer.training.metrics import Tally
from gossamer.training.recipe import Recipe
from gossamer.training.recipe_parts import CeilingRecipe, GateRecipe, RateRecipe
from gossamer.viz.monitor import History, TrainingPage, watch_page
from gossamer.viz.monitor.chart import Curve, chart
from gossamer.viz.monitor.history import curve_of
from gossamer.viz.monitor.words import waits_for


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
    state, args = SimpleNamespace(max_steps=100, global_step=0), SimpleNamespace(ceiling="kl=0.01")
    controller = Controller(Ceiling.parse("kl=0.01"), Recipe(), own_bias=4.0)
    controller.begin(100)
    page.watching(SimpleNamespace(tally=tally, controller=controller, args=args))
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


def lines_of(history: History) -> list[str]:
    """The two paragraphs under the title, as text."""
    said = re.findall(r"<p[^>]*>(.*?)</p>", watch_page(history))[:2]
    return [re.sub(r"<[^>]+>", "", line) for line in said]


def evaluated(*evaluations: tuple[int, float, float, float], done: bool = False) -> History:
    """A history of (step, score, divergence, open edges), of which a tenth of each is the open share."""
    found = History("run", steps=100, ceiling="kl=0.01", done=done)
    for step, score, divergence, edges in evaluations:
        for name, value in (("score", score), ("divergence", divergence), ("open_edges", edges)):
            found.add(str(curve_of(f"eval_{name}")), step, value)
        found.add(str(curve_of("eval_density")), step, edges / 1000)
    return found


def test_the_first_line_says_whether_the_ceiling_holds_and_what_is_left_of_the_best_checkpoint():
    """Not of the last one, which may have missed: the best is what the run keeps."""
    found = evaluated((0, 0.5, 0.0, 500.0), (10, 0.1, 0.004, 7.25), (20, 1.4, 0.014, 3.0))
    left = "Left: 7.25 open edges per row (0.7\u00a0%). The best checkpoint so far is that of step 10."
    assert lines_of(found)[0] == (f"The ceiling kl=0.01 holds: 0.004 is lost on held-out rows. {left}")
    over = evaluated((0, 1.5, 0.015, 500.0), (10, 1.2, 0.012, 4.0), done=True)
    assert lines_of(over)[0].startswith(
        "The ceiling kl=0.01 is missed: 0.012 is lost on held-out rows. Left: 4 open"
    )
    assert 'class="verdict missed"' in watch_page(over)
    assert lines_of(evaluated())[0] == "The ceiling kl=0.01 has not been checked."
    assert "is the untrained model" in lines_of(evaluated((0, 0.5, 0.0, 500.0)))[0]
    assert "holds: nothing is lost on held-out rows" in lines_of(evaluated((0, 0.5, -2.4e-9, 500.0)))[0]


def test_the_second_line_says_what_the_run_waits_for_until_it_is_over(tmp_path):
    page = run_of(tmp_path / "run.html", done=False)
    assert "Step 30 of 100" in lines_of(page.history)[1]
    assert page.history.waits in lines_of(page.history)[1]
    assert page.history.written in lines_of(page.history)[1]
    page.history.done = True
    assert lines_of(page.history)[1].startswith("Done after 30 steps")


def test_the_page_is_there_before_the_first_step(tmp_path):
    """Measuring the untrained model may take minutes, and somebody looks."""
    page = TrainingPage(tmp_path / "run.html")
    controller = Controller(Ceiling.parse("kl=0.01"), Recipe())
    page.watching(SimpleNamespace(controller=controller, args=SimpleNamespace(ceiling="kl=0.01")))
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "It measures the untrained model" in text
    assert 'http-equiv="refresh"' in text


def phases(recipe: Recipe, divergence: float, *, steps: int = 40) -> list[str]:
    """What a run waits for at each step, the first word after `It`, without repetitions."""
    controller = Controller(Ceiling.parse("kl=0.01"), recipe, own_bias=4.0)
    controller.begin(steps)
    said = [waits_for(controller)]
    for _ in range(steps):
        controller.step(divergence)
        said.append(waits_for(controller))
    return [name for name, _ in groupby(line.split()[1] for line in said)]


def test_what_a_run_waits_for_follows_from_its_controller():
    """The phases come in the order in which the controller goes through them."""
    looser = Recipe(
        gate=GateRecipe(bias=4.0, anneal=0.2),
        ceiling=CeilingRecipe(initial_factor=10.0, tighten_from=0.3, tighten_until=0.6),
        rate=RateRecipe(settle=0.2),
    )
    assert phases(looser, 0.001) == ["measures", "closes", "tightens", "settles"]
    assert phases(Recipe(), 9.0) == ["measures", "waits"]
    assert phases(Recipe(gate=GateRecipe(bias=4.0, anneal=0.2)), 0.001) == ["measures", "closes"]
    controller = Controller(Ceiling.parse("kl=0.01"), Recipe())
    controller.done = True
    assert waits_for(controller) == "It is done: held-out rows hold the ceiling."


def test_charts_of_nothing_and_of_one_point():
    assert chart("empty", []) == ""
    assert chart("log of zero", [Curve("x", [(0.0, 0.0)])], log=True) == ""
    assert "NaN" not in chart("one", [Curve("x", [(0.0, 0.0)])])
    assert "<section>" not in watch_page(History("nothing yet"))
