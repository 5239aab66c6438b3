"""A demo with more sums than an evaluation or a proof can read: samples in the shares of the split, told as such."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gossamer.errors import GossamerError
from gossamer.recipes.addition import run, stages, task
from gossamer.recipes.addition.run import run_demo
from gossamer.recipes.addition.settings import BASE_STEPS, DemoSettings
from gossamer.recipes.addition.task import MOST_CHECKED, Addition
from gossamer.training.presets import PRESETS


def test_all_sums_are_looked_at_where_they_are_few_and_a_fixed_sample_where_they_are_many() -> None:
    assert torch.equal(Addition(2).checked(3), torch.arange(10_000))
    some = Addition(3).checked(3)
    assert len(some.unique()) == len(some) == MOST_CHECKED
    assert torch.equal(some, some.sort().values)
    assert torch.equal(some, Addition(3).checked(3))
    assert not torch.equal(some, Addition(3).checked(4))
    _, held_out = Addition(3).split(3)
    share = torch.isin(some, held_out).float().mean()
    assert share == pytest.approx(
        0.2, abs=0.005
    )  # four standard errors: the sample does not follow the split


def test_two_digits_choose_by_all_sums_that_they_may_and_three_by_a_share_of_each() -> None:
    for digits, of_train, of_seen in ((2, 8_000, 1_000), (3, 35_556, 4_444)):
        train, held_out = Addition(digits).split(0)
        seen = held_out[: len(held_out) // 2]
        chosen = stages.choosing(Addition(digits), 0)
        assert (int(torch.isin(chosen, train).sum()), int(torch.isin(chosen, seen).sum())) == (
            of_train,
            of_seen,
        )
        assert not torch.isin(chosen, held_out[len(held_out) // 2 :]).any()


def test_a_base_has_as_many_steps_as_its_digits_need() -> None:
    assert [DemoSettings(digits=n).base_steps for n in (1, 2, 3)] == list(BASE_STEPS.values())
    assert DemoSettings(digits=3, base_steps=5).base_steps == 5
    with pytest.raises(GossamerError, match="base_steps=0 is out of range"):
        DemoSettings(base_steps=0)


def test_neurons_of_a_million_sums_are_refused() -> None:
    with pytest.raises(GossamerError, match="with 3 digits, where the proof closes each neuron on every sum"):
        DemoSettings(digits=3, gates="edges,neurons")


def test_heads_and_neurons_go_in_a_run_of_their_own_with_a_recipe_of_their_own(tmp_path: Path) -> None:
    settings = DemoSettings(gates="weights,neurons,edges,heads")
    runs = [settings.sparsity(tmp_path, stage) for stage in ("edges", "units", "sparse")]
    kinds = [("edges",), ("edges", "heads", "neurons"), ("edges", "weights")]
    assert [run.gate_kinds for run in runs] == kinds
    assert [run.recipe for run in runs] == [settings.first, settings.units, settings.recipe]
    assert DemoSettings().unit_kinds == ()
    with pytest.raises(
        GossamerError, match=r"gate.price of heads, neurons, which go in a run before.* units: "
    ):
        DemoSettings(gates="edges,heads,neurons", recipe=PRESETS["addition_structure"].recipe)
    assert DemoSettings(recipe=PRESETS["addition_structure"].recipe).gates == "edges"


@pytest.mark.integration
def test_the_whole_demo_on_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "MOST_CHECKED", 40)
    monkeypatch.setattr(run, "MOST_CHECKED", 40)
    monkeypatch.setattr(stages, "MOST_CHOOSING", 30)
    monkeypatch.setattr(stages, "MOST_KEPT", 20)
    said = io.StringIO()
    settings = DemoSettings(digits=1, base_steps=20, steps=20, tries=1, restarts=0)
    report = run_demo(tmp_path, settings, sums=("3+8",), console=Console(file=said, width=200))
    looked, (_, held_out) = Addition(1).checked(0), Addition(1).split(0)
    assert report.proof["prompts"] == len(looked) == 40
    assert report.proof["unseen"] == int(torch.isin(looked, held_out[10:]).sum()) > 0
    assert "verifying 40 sums" in said.getvalue()
    assert report.best_step == 0, "20 steps close nothing under this ceiling, and that is said"
    assert "nothing that was trained held the ceiling with fewer edges" in said.getvalue().replace("\n", " ")
    assert "exact, of 40 drawn of 100 sums" in (tmp_path / "report.md").read_text()
