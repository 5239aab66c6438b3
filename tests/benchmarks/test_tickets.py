"""Masks, arms and verdicts of the tickets, on small models and made-up records whose answers are known by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.experiments.tickets import arms, masks
from benchmarks.experiments.tickets.report import Record, steps_to, write_page
from benchmarks.experiments.tickets.run import SUBJECTS
from benchmarks.experiments.tickets.train import train
from benchmarks.lib.intervals import t_interval
from benchmarks.lib.record import Rows, declare
from gossamer.errors import GossamerError
from gossamer.files import read_yaml
from gossamer.models.remaining import remaining
from gossamer.recipes.addition.settings import DemoSettings
from helpers.zoo import adder, build

CRITERION = Path(arms.__file__).parent / "configs" / "addition.yaml"


def some_mask(model: Any) -> masks.Mask:
    """Every second head and every third neuron, but no head of the last layer."""
    layers = range(model.config.num_hidden_layers)
    heads, neurons = model.config.num_attention_heads, model.config.intermediate_size
    found = {"heads": {n: (torch.arange(heads) % 2 == 0).float() for n in layers}}
    found["heads"][layers[-1]] = torch.zeros(heads)
    return found | {"neurons": {n: (torch.arange(neurons) % 3 == n).float() for n in layers}}


def test_a_mask_that_is_held_is_read_back_and_closes_what_it_says() -> None:
    model = adder()
    mask = some_mask(model)
    masks.hold(model, mask)
    again = masks.mask_of(model)
    assert masks.sizes(again) == masks.sizes(mask)
    assert all(torch.equal(again[kind][n], mask[kind][n]) for kind in mask for n in mask[kind])
    assert remaining(model).left.parameters < remaining(model).base.parameters


def test_a_closed_model_trains_as_one_that_is_held() -> None:
    inputs = torch.randint(0, 13, (8, 7), generator=torch.Generator().manual_seed(0))
    curves = []
    for put in (masks.hold, masks.close):
        model = adder()
        put(model, some_mask(model))
        arguments = DemoSettings(base_steps=6).base(Path("unused"))

        def loss(x: Any) -> tuple[float, float]:
            with torch.no_grad():
                return float(x(input_ids=inputs, labels=inputs).loss), 0.0

        batch = {"input_ids": inputs, "labels": inputs}
        curves.append(train(model, arguments, lambda _: batch, loss, every=2).curve)  # noqa: B023
    assert curves[0][0][1] > curves[0][-1][1], "nothing was learnt"
    assert [x[1] for x in curves[0]] == pytest.approx([x[1] for x in curves[1]], rel=1e-4)


def test_other_masks_have_as_many_units_and_the_largest_are_the_largest() -> None:
    model = adder()
    mask = some_mask(model)
    masks.hold(model, mask)
    for change in (masks.shuffled, masks.random):
        other = change(model, mask, 5)
        assert masks.sizes(other) == masks.sizes(mask)
        assert any(not torch.equal(other["neurons"][n], mask["neurons"][n]) for n in mask["neurons"])
        again = change(model, mask, 5)["neurons"]
        assert all(torch.equal(again[n], z) for n, z in other["neurons"].items())
    best, norms = masks.largest(model, mask), masks.unit_norms(model, ("heads", "neurons"))
    assert masks.sizes(best) == masks.sizes(mask)
    for kind, layers in best.items():
        for layer, z in layers.items():
            kept, gone = norms[kind][layer][z == 1], norms[kind][layer][z == 0]
            assert not len(kept) or kept.min() >= gone.max()


def test_shuffling_stays_within_a_matrix_and_random_within_a_layer() -> None:
    model = build("gpt2")
    masks.attach_missing(model, ("weights",), masks.Options("eager", "logit"))
    (gates,) = masks.find_gate_sets(model)
    mask = {"weights": {}}
    for layer, places in gates.places.items():
        z = torch.zeros(places[-1].units.stop)
        z[places[0].units] = 1.0  # one matrix whole, the others closed
        mask["weights"][layer] = z
    shuffled, random = masks.shuffled(model, mask, 1), masks.random(model, mask, 1)
    assert torch.equal(shuffled["weights"][0], mask["weights"][0])
    assert random["weights"][0].sum() == mask["weights"][0].sum()
    assert not torch.equal(random["weights"][0], mask["weights"][0])
    norms = masks.unit_norms(model, ("weights",))["weights"][0]
    assert norms.shape == mask["weights"][0].shape


def test_signs_of_one_and_magnitudes_of_the_other() -> None:
    found = masks.signed({"w": torch.tensor([-3.0, 0.5])}, {"w": torch.tensor([2.0, -7.0])})
    assert found["w"].tolist() == [-2.0, 7.0]


def test_rewinding_keeps_the_step_and_every_arm_has_a_start() -> None:
    model, other = adder(), adder()
    mask = some_mask(model)
    states = {step: model.state_dict() for step in (0, *arms.points(400))}
    masks.hold(other, mask)
    found = arms.Found(mask, states, model.state_dict(), other, 1234, 7)
    starts = {name: make(found) for name, make in arms.arms(400).items()}
    assert {name: start.first for name, start in starts.items() if start.first} == {
        "rewound_20": 20,
        "rewound_80": 80,
        "rewound_200": 200,
        "shuffled_80": 80,
    }
    assert starts["small_dense"].small == 1234
    assert {"found", "fresh", "shuffled", "random", "magnitude", "signs"} < set(starts)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [((1.0, 2.0, 3.0), 2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), ((4.0,), -math.inf, math.inf)],
)
def test_t_intervals(values: tuple[float, ...], low: float, high: float) -> None:
    found = t_interval(values)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert not t_interval((-1.0, 1.0)).excludes_zero
    assert t_interval((1.0, 1.01, 1.02)).excludes_zero


def row(arm: str, seed: int, exact: float, reached: int | None) -> dict[str, Any]:
    """A row of 100 steps with an evaluation every 10, which is exact from `reached` on."""
    curve = [[s, 1.0, 1.0 if reached is not None and s >= reached else exact] for s in range(0, 101, 10)]
    return {"arm": arm, "seed": seed, "steps": 100, "torch": "x", "loss": 0.1, "exact": exact,
            "parameters": 10, "cpu_seconds": 1.0, "curve": curve}  # fmt: skip


def record(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "addition.json"
    declare(Rows(path), read_yaml(CRITERION))
    path.write_text(json.dumps([*json.loads(path.read_text()), *rows]))
    return path


def test_steps_to_a_threshold_and_never() -> None:
    assert steps_to(row("found", 0, 0.9, 50), 0.99, 10) == 50
    assert steps_to(row("found", 0, 0.9, None), 0.99, 10) == 110


def test_a_ticket_beats_all_three_and_a_difference_must_count(tmp_path: Path) -> None:
    seeds = range(3)
    rows = [row("dense", s, 1.0, 30) for s in seeds] + [row("found", s, 1.0, 40 + s) for s in seeds]
    rows += [row(arm, s, 0.9 - 0.01 * s, None) for arm in ("fresh", "shuffled", "random") for s in seeds]
    found = Record(record(tmp_path, rows))
    assert found.ticket("found") == (True, [])
    assert found.difference("fresh", "found").counts == {"exact": -1, "steps_to": -1}  # type: ignore[union-attr]
    rows[-3:] = [row("random", s, 1.0, 40) for s in seeds]
    again = Record(record(tmp_path / "b", rows)) if (tmp_path / "b").mkdir() is None else None
    assert again is not None
    assert again.ticket("found") == (False, ["random: no difference that counts"])
    assert Record(record_of(tmp_path, rows[:6])).ticket("found") == (False, ["fresh: not measured"])


def record_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    (tmp_path / "c").mkdir()
    return record(tmp_path / "c", rows)


def test_one_seed_proves_nothing(tmp_path: Path) -> None:
    rows = [row("found", 0, 1.0, 20), row("fresh", 0, 0.1, None)]
    assert Record(record(tmp_path, rows)).difference("found", "fresh").counts == {"exact": 0, "steps_to": 0}  # type: ignore[union-attr]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_has_a_criterion(subject: str) -> None:
    found = read_yaml(CRITERION.with_name(f"{subject}.yaml"))
    assert found["threshold"].keys() >= {subject}
    assert found["margin"][subject].keys() == {"exact", "steps_to"}


def test_masks_of_weights_are_shown_by_layer(tmp_path: Path) -> None:
    rows = [row("dense", 0, 1.0, 30), row("found", 0, 1.0, 30)]
    rows.append({"arm": "mask", "seed": 0, "open": {"weights": [4000, 5]}, "proof": {}, "cpu_seconds": 2.0})
    page = write_page(record(tmp_path, rows)).read_text()
    assert "| mask of seed | open weights by layer | parameters left | search |\n|---|---|---|---|\n" in page
    assert "| 0 | 4,000, 5 | 10 |" in page


def test_the_page_shows_every_arm_and_a_record_keeps_its_criterion(tmp_path: Path) -> None:
    rows = [row(arm, s, 1.0, 30) for arm in ("dense", "found", "fresh") for s in range(2)]
    rows.append({"arm": "mask", "seed": 0, "open": {"heads": [1, 0], "neurons": [3, 4]}, "proof": {"exact": 1.0},
                 "cpu_seconds": 2.0})  # fmt: skip
    path = record(tmp_path, rows)
    page = write_page(path).read_text()
    assert all(f"| {arm} | 2 |" in page for arm in ("dense", "found", "fresh"))
    assert "| 0 | 1, 0 | 3, 4 | 10 | exact 1.000 |" in page
    assert "- `found`: no ticket; fresh: no difference that counts; shuffled: not measured" not in page
    assert "- `found`: no ticket; shuffled: not measured." in page
    assert path.with_suffix(".svg").is_file()
    with pytest.raises(GossamerError, match="another criterion"):
        declare(Rows(path), {"other": 1})
