"""A user's own callbacks of the Trainer: they see every event, may stop the run, and none of ours is lost by them."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from gossamer import SparsityConfig, sparsify
from gossamer.data.sequences import TensorRows
from helpers import zoo

pytestmark = pytest.mark.integration  # whole runs

STEPS = 4


class Counting(TrainerCallback):
    """Counts events, keeps what is logged, and stops where it is told to."""

    def __init__(self, stop_at: int = 10**9) -> None:
        self.events: Counter[str] = Counter()
        self.logged: list[dict[str, float]] = []
        self.stop_at = stop_at

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events["train_begin"] += 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events["step_end"] += 1
        control.should_training_stop = control.should_training_stop or state.global_step >= self.stop_at

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self.events["evaluate"] += 1
        assert {"eval_divergence", "eval_density", "eval_score"} <= metrics.keys()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logged.append(dict(logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events["train_end"] += 1


def run(out: Path, *callbacks: TrainerCallback, **more: Any) -> Any:
    ids = torch.randint(3, zoo.VOCABULARY, (16, 8), generator=torch.Generator().manual_seed(0))
    rows = TensorRows(input_ids=ids, labels=ids.clone())
    settings: dict[str, Any] = {
        "ceiling": "kl=9", "max_steps": STEPS, "eval_steps": 2, "save_steps": 2, "logging_steps": 1,
        "per_device_train_batch_size": 4, "use_cpu": True, "disable_tqdm": True, **more,
    }  # fmt: skip
    config = SparsityConfig(output_dir=str(out), **settings)
    return sparsify(zoo.build("gpt2"), rows, rows, config, callbacks=list(callbacks))


def test_a_callback_sees_the_run_and_what_is_logged(tmp_path: Path) -> None:
    seen = Counting()
    outcome = run(tmp_path, seen)
    assert outcome.steps == STEPS
    assert seen.events["train_begin"] == seen.events["train_end"] == 1
    assert seen.events["step_end"] == STEPS
    assert seen.events["evaluate"] >= 1 + STEPS // 2, "the untrained model, and every evaluation"
    names = set().union(*seen.logged)
    assert {"loss", "divergence", "multiplier", "gate_bias", "eval_score", "eval_open_edges"} <= names


def test_a_callback_may_stop_the_run_and_its_best_model_is_kept(tmp_path: Path) -> None:
    outcome = run(tmp_path, Counting(stop_at=3))
    assert outcome.steps == 3
    assert outcome.feasible


def test_two_callbacks_change_nothing_of_what_is_trained(tmp_path: Path) -> None:
    """Whoever watches does not touch: the run with callbacks is the run without, bit for bit."""
    alone, watched = run(tmp_path / "a"), run(tmp_path / "b", Counting(), Counting())
    ours, theirs = (dict(one.model.named_parameters()) for one in (alone, watched))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_tensorboard_gets_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("no tensorboard: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    run(tmp_path / "run", report_to="tensorboard")
    folder = next(iter({path.parent for path in tmp_path.rglob("events.out.tfevents*")}))
    board = EventAccumulator(str(folder)).Reload()
    assert {"train/divergence", "train/multiplier", "eval/divergence", "eval/open_edges"} <= set(
        board.Tags()["scalars"]
    )
    steps = [event.step for event in board.Scalars("train/divergence")]
    assert steps == list(range(1, STEPS + 1))


def test_what_callbacks_see_is_what_the_history_keeps(tmp_path: Path) -> None:
    seen = Counting()
    outcome = run(tmp_path, seen)
    kept = [{name: x for name, x in line.items() if name != "step"} for line in outcome.history]
    assert (
        json.loads(json.dumps(kept))[: len(seen.logged)] == json.loads(json.dumps(seen.logged))[: len(kept)]
    )
