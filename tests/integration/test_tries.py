"""`gossamer demo --tries`: each is the run of its seed, the better half goes on, and none outlives its parent."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import BertForMaskedLM

from gossamer.errors import GossamerError
from gossamer.files import write_json
from gossamer.recipes.addition import look, tries
from gossamer.recipes.addition.outcome import OUTCOME, read_outcome
from gossamer.recipes.addition.run import run_demo
from gossamer.recipes.addition.settings import SEEDS, DemoSettings
from gossamer.recipes.addition.task import Addition
from gossamer.recipes.addition.tries import APART, _found_nothing, _told, _worth, seeds_of
from gossamer.recipes.run_config import write_config
from gossamer.training.resume import write_manifest
from gossamer.viz.film import Filmed
from helpers.records import validated

SETTINGS = DemoSettings(digits=1, base_steps=8, steps=8, tries=3, restarts=0)
TASK = Addition(1)


def made(out: Path, settings: DemoSettings) -> tuple[str, dict]:
    said = io.StringIO()
    run_demo(out, settings, sums=("3+8",), console=Console(file=said, width=200))
    return said.getvalue(), json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict]:
    out = tmp_path_factory.mktemp("tries") / "out"
    return (out, *made(out, SETTINGS))


def test_what_is_kept_is_the_run_of_its_seed(both: tuple[Path, str, dict], tmp_path: Path) -> None:
    out, _, report = both
    assert sorted(one["seed"] for one in report["tries"]) == seeds_of(SETTINGS) == [0, APART, 2 * APART]
    seed = report["tries"][0]["seed"]
    one = replace(SETTINGS, seed=seed, tries=1)
    said, alone = made(tmp_path / "alone", one)
    assert "reused" not in said
    said, again = made(tmp_path / "alone", one)
    assert said.count("reused") == 2
    assert again["proof"] == alone["proof"]
    with pytest.raises(GossamerError, match="made with other settings"):
        made(tmp_path / "alone", replace(one, seed=7))
    for model in ("base", "sparse"):
        ours, theirs = (load_file(place / model / "model.safetensors") for place in (out, tmp_path / "alone"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert report["proof"] == alone["proof"]
    assert report["settings"] == SETTINGS.as_dict()
    validated("demo", (out / "report.json").read_text())


def test_the_best_goes_first_and_nothing_else_stays(both: tuple[Path, str, dict]) -> None:
    out, said, report = both
    kept, second, left = report["tries"]
    said_first = "3 tries begin, with seeds 0, 1000003, 2000006; after a look at step 1 the better 2 go on"
    assert said_first in said
    assert f"; left: {left['seed']} (" in said
    line = f"kept of 3 tries: seed {kept['seed']} with {kept['open_edges']:.2f} edges; not seed {second['seed']} with"
    assert line in said
    assert f"seed {left['seed']}, left after a look" in said
    assert line in (out / "report.md").read_text().replace("Kept", "kept")
    told = f"The models are those of seed {kept['seed']}, kept of 0, {APART}, {2 * APART}."
    assert told in (out / "report.html").read_text()
    assert not (out / "tries").exists()
    assert _worth(kept) <= _worth(second) < _worth(left)
    looks = [one["look"] for one in report["tries"]]
    assert max(looks, key=look.worth) == left["look"]
    assert "look" in read_outcome(out)["seconds"]
    assert read_outcome(out)["chosen_on"]["density"] == report["tries"][0]["density"]


def test_made_again_it_is_reused(both: tuple[Path, str, dict]) -> None:
    out, before, report = both
    assert before.count("reused") >= 3, "a base model by what goes on, and the best one's models by the proof"
    said, again = made(out, SETTINGS)
    assert said.count("reused") == 2
    assert (again["tries"], again["proof"]) == (report["tries"], report["proof"])
    with pytest.raises(GossamerError, match="tries 3, now 1"):
        made(out, replace(SETTINGS, tries=1))


def test_a_try_outside_its_ceiling_is_kept_only_where_all_are() -> None:
    held = [{"feasible": True, "density": x, "divergence": 0.0} for x in (0.3, 0.1)]
    missed = [{"feasible": False, "density": 0.01, "divergence": x} for x in (0.5, 0.2)]
    best = sorted([*held, *missed], key=_worth)
    assert [one["density"] for one in best[:2]] == [0.1, 0.3]
    assert [one["divergence"] for one in best[2:]] == [0.2, 0.5]


def test_a_try_whose_units_all_stayed_found_nothing(tmp_path: Path) -> None:
    """Its edges are few, but heads and neurons were to go: another one is worth more, however many edges it has."""
    chosen = {"divergence": 0.0, "density": 0.003, "open_edges": 5.5}
    run = {"feasible": True, "missed": "", "best_step": 40, "seconds": {}, "chosen_on": chosen}
    told = {}
    for name, step in (("all stayed", 0), ("some went", 30)):
        write_json(tmp_path / name / OUTCOME, {**run, "edges": run, "units": {**run, "best_step": step}})
        told[name] = _told(tmp_path / name, 0)
    assert [_found_nothing(one) for one in told.values()] == [True, False]
    more = {**told["some went"], "density": 0.005}
    assert sorted([told["all stayed"], more], key=_worth) == [more, told["all stayed"]]


def test_the_seeds_of_tries_are_seeds() -> None:
    assert seeds_of(DemoSettings(seed=SEEDS - 1, tries=2, restarts=1)) == [
        SEEDS - 1,
        APART - 1,
        2 * APART - 1,
    ]
    with pytest.raises(GossamerError, match="tries=0"):
        DemoSettings(tries=0)


def test_there_are_several_tries_where_a_look_at_edges_tells() -> None:
    assert [DemoSettings(gates=x).tries for x in ("edges", "edges,heads,neurons", "edges,weights")] == [
        4,
        4,
        1,
    ]
    assert DemoSettings(gates="edges,weights", tries=2).tries == 2


def test_how_many_cores_there_are_decides_nothing(
    both: tuple[Path, str, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one core all tries are made here, and none is begun again after an interruption."""
    monkeypatch.setattr(tries.os, "cpu_count", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(tries, "looks_in_words", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path, SETTINGS)
    said, report = made(tmp_path, SETTINGS)
    assert "base model: step" not in said
    same = [{name: one[name] for name in one if name != "seconds"} for one in report["tries"]]
    assert same == [{name: one[name] for name in one if name != "seconds"} for one in both[2]["tries"]]
    assert report["proof"] == both[2]["proof"]


def test_a_look_counts_the_open_edges_just_before_it_and_prefers_a_base_that_is_right(tmp_path: Path) -> None:
    base = BertForMaskedLM(TASK.model_config()).eval()
    log = [{"step": n, "expected_open_edges": str(n), "loss": "0.1"} for n in range(10, 50, 10)]
    folder = tmp_path / "checkpoint-41"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(
        json.dumps({"log_history": [*log, {"step": 40, "eval_loss": 1.0}]})
    )
    write_manifest(folder)
    seen = look.look(TASK, base, torch.arange(100), tmp_path, 40)
    assert seen["open_edges"] == 40
    assert look.look(TASK, base, torch.arange(100), tmp_path, 34)["open_edges"] == 30
    inputs, labels = TASK.encode(torch.arange(100))
    answers = base(input_ids=inputs).logits.argmax(-1)
    right = [bool((row == want)[want >= 0].all()) for row, want in zip(answers, labels, strict=True)]
    assert seen["base_wrong"] == 100 - sum(right)
    assert (
        sorted([{"base_wrong": 1, "open_edges": 5.0}, {"base_wrong": 0, "open_edges": 9.0}], key=look.worth)[
            0
        ]["open_edges"]
        == 9.0
    )


def test_a_film_begins_with_the_first_step(tmp_path: Path) -> None:
    write_config(tmp_path, "demo", replace(SETTINGS, tries=1))
    tries.begin_try(tmp_path, Console(quiet=True))
    assert (tmp_path / "work" / "sparse" / "checkpoint-1").is_dir()
    seen: list[Filmed] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Filmed, "__init__", lambda self, *a, **k: (seen.append(self), begin_film(self, *a, **k))[1]
        )
        tries.run_try(tmp_path, Console(quiet=True), "3+8")
    assert seen[0].frames[0].step == 0
    assert (tmp_path / "film.gif").is_file()


begin_film = Filmed.__init__


def test_a_try_that_fails_is_one_line_and_the_others_are_reused(tmp_path: Path) -> None:
    torn = tmp_path / "tries" / str(APART) / "base"
    torn.mkdir(parents=True)
    (torn / "config.json").write_text("{")
    with pytest.raises(
        GossamerError, match=f"the process that trains .*{APART} ended with exit code 1.*log.txt"
    ):
        made(tmp_path, SETTINGS)
    assert not (tmp_path / "sparse").exists()
    (torn / "config.json").unlink()
    said, report = made(tmp_path, SETTINGS)
    assert said.count("base model: step 8 of 8") == 0, "the first try was begun"
    assert len(report["tries"]) == 3


def test_another_seed_follows_where_one_found_nothing(both: tuple[Path, str, dict], tmp_path: Path) -> None:
    """Interrupted before its models are in the folder, it goes on there; and a seed more may be asked for later."""
    asked = replace(SETTINGS, tries=1, restarts=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tries, "_adopted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path, asked)
    assert (tmp_path / "tries" / str(APART) / "sparse").is_dir()
    said, report = made(tmp_path, asked)
    assert said.count(f"kept of 2 tries: seed {report['tries'][0]['seed']}") == 1
    assert not [
        path.name for path in tmp_path.iterdir() if "tries" in path.name and path.name != "tries.json"
    ]
    for one in report["tries"]:
        assert one["best_step"] == 0, "8 steps find nothing"
    ours, theirs = (
        {one["seed"]: one.get("open_edges") for one in tried} for tried in (report["tries"], both[2]["tries"])
    )
    assert any(ours[seed] == theirs[seed] for seed in ours), "two of three went on, so one of these at least"
    assert "--restarts 2, which tries one seed more" in said
    assert len(made(tmp_path, replace(asked, restarts=2))[1]["tries"]) == 3


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_nothing_is_tried_after_a_sparse_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {"seed": 0, "feasible": True, "best_step": 4, "density": 0.5, "divergence": 0.0}
    monkeypatch.setattr(tries, "_told", lambda folder, seed: found)
    assert tries.restart(tmp_path, DemoSettings(tries=1, restarts=3), Console(quiet=True)) == []
    assert not list(tmp_path.iterdir())
    found["feasible"] = False
    assert len(tries.restart(tmp_path, DemoSettings(tries=1, restarts=0), Console(quiet=True))) == 0


def test_a_try_ends_with_its_parent(tmp_path: Path) -> None:
    write_config(tmp_path, "demo", DemoSettings(digits=1, base_steps=10**6))
    command = [sys.executable, "-m", "gossamer.recipes.addition.tries", str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert b"seed" in process.stdout.readline()
        assert b"base model" in process.stdout.readline()  # it trains
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=20) == 1
