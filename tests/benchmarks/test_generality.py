"""What generality leaves out, shifts and counts, on small models; nodes against what gates would close."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from benchmarks.experiments.circuits import nodes
from benchmarks.experiments.circuits.models import untrained
from benchmarks.experiments.generality import addition, tasks
from benchmarks.experiments.generality.report import write_page
from benchmarks.experiments.tickets.masks import hold
from gossamer.data.registry import batches
from gossamer.recipes.addition.task import Addition


def model() -> Any:
    set_seed(0)
    return untrained(tasks.settings(Path("unused"), 1)).eval()


def test_every_sum_with_a_seven_in_the_tens_place_is_left_out_and_as_many_at_random() -> None:
    task = Addition()
    sevens, random = (addition.left_out(kind, 3) for kind in ("sevens", "random"))
    assert int(sevens.sum()) == int(random.sum()) == 10_000 - 90 * 90
    assert all(bool(sevens[task.parse(text)]) for text in ("70+1", "1+79", "75+75"))
    assert not any(bool(sevens[task.parse(text)]) for text in ("7+7", "67+17", "36+28"))
    assert not torch.equal(random, addition.left_out("random", 4))


def test_shifts_change_what_they_say() -> None:
    (batch,) = batches("quotes", 8, seed=1)[:1]
    clean = tasks.shifted(batch, "clean")
    assert torch.equal(clean, batch.clean)
    assert torch.equal(tasks.shifted(batch, "corrupt"), batch.corrupt)
    mixed = tasks.shifted(batch, "shuffled")
    assert torch.equal(mixed.sort(1).values, clean.sort(1).values)
    assert not torch.equal(mixed, clean)
    twice = tasks.shifted(batch, "twice")
    assert torch.equal(twice[:, -clean.shape[1] :], clean)
    assert clean.shape[1] < twice.shape[1] <= 32


def test_a_model_has_no_divergence_from_itself_and_some_from_another() -> None:
    base, other = model(), model()
    with torch.no_grad():
        other.transformer.h[0].mlp.c_proj.weight.mul_(5)
    found = tasks.measure(base, base, 0, n=8)
    assert all(row["kl_clean"] == pytest.approx(0, abs=1e-6) for row in found.values())
    assert all(row["kl_twice"] > 1e-6 for row in tasks.measure(other, base, 0, n=8).values())
    assert set(found) == {*tasks.TASKS, *tasks.UNSEEN}


def test_nodes_that_are_removed_are_what_gates_would_close() -> None:
    base = model()
    found = nodes.Nodes(base)
    assert len(found) == 4 * (4 + 128)
    assert found.weights[0] == 4 * 8 * 32, "a head reads and writes 8 features of 32, four times"
    assert found.weights[4] == 2 * 32, "a neuron has a row and a column"
    (batch,) = batches("quotes", 8, seed=1)[:1]
    instead = nodes.instead_of(found, batch, "zero")
    with torch.no_grad():
        whole = base(input_ids=batch.clean).logits[:, -1]
        kept = torch.ones(len(found), dtype=torch.bool)
        torch.testing.assert_close(found.run(batch.clean, kept, instead), whole)
        kept[[1, 4 + 7, 2 * 132 + 3, 2 * 132 + 4 + 100]] = False
        gone = found.run(batch.clean, kept, instead)
    mask = {
        "heads": {layer: kept[132 * layer :][:4].float() for layer in range(4)},
        "neurons": {layer: kept[132 * layer + 4 :][:128].float() for layer in range(4)},
    }
    with torch.no_grad():
        torch.testing.assert_close(gone, hold(base, mask)(input_ids=batch.clean).logits[:, -1])
    assert (gone - whole).abs().max() > 1e-4


def test_attribution_is_the_gradient_along_the_change() -> None:
    base = model().double()
    found = nodes.Nodes(base)
    (batch,) = batches("quotes", 4, seed=1)[:1]
    values = found.values(batch.clean)
    small = [x * (1 - 1e-5) for x in values]  # nearly the value itself, so that ablation is linear
    scores = found.attribution(batch, small)
    for node in (2, 4 + 9, 132 + 1):
        kept = torch.ones(len(found), dtype=torch.bool)
        kept[node] = False
        with torch.no_grad():
            change = [nodes.loss(batch, found.run(batch.clean, x, small)).sum() for x in (None, kept)]
        assert float(scores[node]) == pytest.approx(abs(float(change[0] - change[1])), rel=1e-2, abs=1e-12)


def test_random_weights_and_random_labels_have_no_circuit() -> None:
    found = nodes.measured(model(), "nonsense", "mean", 0)
    assert found["nodes"] is None
    assert found["best_loss"] > nodes.TARGET
    lines = nodes.as_lines([{"model": "random", "task": "nonsense", "ablation": "mean", "seed": 0, **found}])
    assert "never; best loss" in lines[-1]


def test_pages_of_addition_and_tasks(tmp_path: Path) -> None:
    head = {"arm": "criterion", "criterion": {}, "written": "then", "cpu_seconds": 0.0}

    def sums(exact: int) -> dict[str, Any]:
        return {"exact": exact, "whole_rows": exact, "n": 100, "kl": 0.01}

    rows = [{"arm": "sevens", "seed": s, "torch": "x", "left_out": sums(90 + s), "seen_kind": sums(100),
             "multiply_adds": 0.2, "cpu_seconds": 1.0} for s in range(3)]  # fmt: skip
    rows += [row | {"arm": "sevens_finetuned", "left_out": sums(100)} for row in rows]
    rows += [row | {"arm": "random", "left_out": sums(100)} for row in rows[:3]]
    path = tmp_path / "addition.json"
    path.write_text(json.dumps([head, *rows]))
    assert (
        "| sevens | 3 | 0.910 (0.885 to 0.935) | 1.000 (1.000 to 1.000) | -0.090"
        in write_page(path).read_text()
    )
    assert path.with_suffix(".svg").is_file()
    task = {"accuracy": 1.0, "edges": 5.0, "kl_before": 0.1}
    task |= {f"kl_{kind}": 0.01 for kind in tasks.SHIFTS}
    every = dict.fromkeys((*tasks.TASKS, *tasks.UNSEEN), task)
    lost = every | {"quotes": task | {"accuracy": 0.5}}
    arms = {"general@kl=0.02": every, "one@kl=0.02": lost, "finetuned_one": every, "finetuned": every}
    rows = [{"arm": arm, "seed": s, "torch": "x", "tasks": values, "own": {"missed": ""}, "cpu_seconds": 1.0}
            for arm, values in arms.items() for s in range(2)]  # fmt: skip
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([head, *rows]))
    page = write_page(path).read_text()
    assert "accuracy on quotes: -0.500 (-0.500 to -0.500); counts." in page
    assert "accuracy on brackets: 0.000 (0.000 to 0.000); does not count." in page
    assert path.with_suffix(".svg").is_file()
