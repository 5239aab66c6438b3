"""Two processes are one process with the joint batch; their noise differs; ranks that disagree are told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gossamer.distributed import fingerprint, rank_seed

HERE = Path(__file__).parent
STILL = {"noise_until": 0.0, "max_steps": 4, "eval_strategy": "no", "save_strategy": "no"}
# Adam divides by a gradient that is all rounding in the first step (both models are still the same), so that
# weights differ by a share of the learning rate: 2e-5 at 2e-3, measured.
STILL |= {"learning_rate": 2e-4}


def start(out: Path, ranks: int, settings: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    """`run_tiny.py` in as many processes, on gloo."""
    out.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    launch = (
        ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", f"--master_port={port}"]
        if ranks > 1
        else []
    )
    command = [sys.executable, "-W", "ignore", *launch, str(HERE / "run_tiny.py"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [*command, "--set", json.dumps(settings), *more], env=environment, capture_output=True, text=True
    )


def test_two_ranks_are_one_process_with_the_joint_batch(tmp_path: Path) -> None:
    done = start(tmp_path / "two", 2, {**STILL, "per_device_train_batch_size": 4})
    assert done.returncode == 0, done.stderr
    done = start(tmp_path / "one", 1, {**STILL, "per_device_train_batch_size": 8})
    assert done.returncode == 0, done.stderr
    one = torch.load(tmp_path / "one" / "final-0.pt")
    ranks = [torch.load(tmp_path / "two" / f"final-{rank}.pt") for rank in (0, 1)]
    for name, weight in one["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][name], weight, rtol=0, atol=1e-5)
        assert torch.equal(ranks[0]["weights"][name], ranks[1]["weights"][name])
    assert ranks[0]["controller"] == ranks[1]["controller"]
    multipliers = [run["controller"]["multiplier"] for run in (ranks[0], one)]
    assert multipliers[0]["integral"] == pytest.approx(multipliers[1]["integral"], abs=1e-5)
    assert multipliers[0]["average"] == pytest.approx(multipliers[1]["average"], abs=1e-5)
    assert ranks[0]["noise"] != ranks[1]["noise"]
    assert ranks[0]["noise"] == one["noise"]


def test_ranks_that_disagree_are_told(tmp_path: Path) -> None:
    done = start(tmp_path / "two", 2, STILL, "--disagree")
    assert done.returncode != 0
    assert "ranks disagree on the ceiling" in done.stderr


def test_sharding_that_would_be_plain_data_parallel_is_refused(tmp_path: Path) -> None:
    done = start(tmp_path / "two", 2, {**STILL, "fsdp": True})
    assert done.returncode != 0
    assert "fsdp was asked for, but accelerate would run MULTI_CPU on cpu; possible:" in done.stderr


def test_the_noise_of_ranks() -> None:
    seeds = {rank_seed(7, rank) for rank in range(1000)}
    assert len(seeds) == 1000
    assert rank_seed(7, 0) == 7


def test_a_fingerprint_names_the_weights() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 3)
    before = fingerprint(model)
    assert before == fingerprint(model)
    with torch.no_grad():
        model.weight[-1, -1] += 1
    assert fingerprint(model) != before
