"""Two processes are one process with the joint batch; their noise differs; ranks that disagree are told."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from gossamer import load
from gossamer.cli import app, main
from gossamer.gates.contribution import UNMEASURED
from gossamer.models.remaining import remaining
from gossamer.training.distributed import rank_seed
from helpers import forked
from helpers.forked import SHARDED
from helpers.letters import LETTERS, save_tokenizer
from helpers.processes import environment
from helpers.zoo import build

STILL = {
    "recipe": {"gate": {"anneal": 0.3, "noise_until": 0.0}},
    "max_steps": 4,
    "eval_strategy": "no",
    "save_strategy": "no",
}
# Adam divides by a gradient that is all rounding in the first step (both models are still the same), so that
# weights differ by a share of the learning rate: 2e-5 at 2e-3, measured.
STILL |= {"learning_rate": 2e-4}


def start(out: Path, ranks: int, settings: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    """`run_tiny` in as many processes, on gloo."""
    out.mkdir(exist_ok=True)
    program = ["-m", "helpers.run_tiny", str(out), "--set", json.dumps(settings), *more]
    return forked.run(program, ranks, ACCELERATE_USE_CPU="true")


def launched(program: list[str]) -> subprocess.CompletedProcess[str]:
    """A program in two processes, started as the documents say, on gloo."""
    # `--standalone`: the launcher takes a free port itself and keeps it.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, "-W", "ignore", *launch, *program]
    return subprocess.run(command, env=environment(ACCELERATE_USE_CPU="true"), capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a text."""
    folder = tmp_path_factory.mktemp("place")
    build("gpt2").save_pretrained(folder / "gpt2")
    save_tokenizer(folder / "gpt2")
    drawn = torch.randint(2, len(LETTERS), (200, 60), generator=torch.Generator().manual_seed(0))
    (folder / "text.txt").write_text("\n\n".join("".join(LETTERS[i] for i in row) for row in drawn.tolist()))
    return folder


def sparsify(place: Path, out: Path, batch: int, *more: str) -> list[str]:
    """The arguments of the command line for a run on deterministic gates that keeps all of its checkpoints."""
    rows = f"--steps 4 --length 16 --batch {batch} --held-out 8 --held-out-share 0.2 --ceiling kl=9 --json"
    still = "--set gate.noise_until=0 --set save_total_limit=9"
    given = ["sparsify", str(place / "gpt2"), "--data", str(place / "text.txt"), "--out", str(out)]
    return [*given, *rows.split(), *still.split(), *more]


def alone(place: Path, out: Path, *more: str) -> Path:
    """The model of a run of the whole batch in one process, this one: a process of its own takes seconds to start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(sparsify(place, out, 8, *more)) == 0
    return out / "model"


# The last models are compared. The best ones of an evaluated run differed by 2e-5; why is not known (2026-11-26).
LAST = ("--set", "eval_strategy=no", "--set", "gate.bias=4")


@pytest.fixture(scope="module")
def one(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of that run, with which both forms of checkpoints are compared."""
    return load(alone(place, tmp_path_factory.mktemp("one"), *LAST)).state_dict()


def test_two_ranks_of_the_command_line_report_once(place: Path, tmp_path: Path) -> None:
    done = launched(["-m", "gossamer", *sparsify(place, tmp_path, 4)])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "report.json").read_text())
    assert json.loads((tmp_path / "started.json").read_text())["movable"]["processes"] == 2


@pytest.mark.parametrize("form", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
def test_two_ranks_that_share_one_model_are_one_process(
    form: str, place: Path, one: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "two"
    asked = {**SHARDED, "FSDP_STATE_DICT_TYPE": form}
    program = ["-m", "helpers.run_sharded", *sparsify(place, out, 4, *LAST)]
    done = forked.run(program, 2, **asked)
    assert done.returncode == 0, done.stderr
    shutil.copytree(out, tmp_path / "whole")
    for name in ("checkpoint-3", "checkpoint-4", "model"):
        shutil.rmtree(out / name)
    done = forked.run([*program, "--resume"], 2, **asked)
    assert done.returncode == 0, done.stderr
    two, whole = (load(tmp_path / name / "model").state_dict() for name in ("two", "whole"))
    for name, weight in one.items():
        assert torch.equal(two[name], whole[name]), name
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-5)


LEARNED = ("gate.reads=logit", "gate.bias=1", "gate.learning_rate=2")


@pytest.mark.parametrize(
    ("gates", "settings", "start"),
    [
        (("edges,heads,neurons,weights",), LEARNED, 1),
        (("heads,neurons", "--uniform"), LEARNED, 1),
        (("heads,neurons", "--uniform"), (), UNMEASURED),
    ],
)
def test_gates_on_units_of_a_shared_model_are_those_of_one_process(
    gates: tuple[str, ...], settings: tuple[str, ...], start: float, place: Path, tmp_path: Path
) -> None:
    said = [word for setting in ("eval_strategy=no", *settings) for word in ("--set", setting)]
    last = ("--gates", *gates, *said)
    asked = {**SHARDED, "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
    done = forked.run(["-m", "helpers.run_sharded", *sparsify(place, tmp_path / "two", 4, *last)], 2, **asked)
    assert done.returncode == 0, done.stderr
    models = [load(tmp_path / "two" / "model"), load(alone(place, tmp_path / "one", *last))]
    two, one = (model.state_dict() for model in models)
    for name, weight in one.items():
        # A rate of 2 nats, so that logits leave their start in four steps; other weights move by 1e-4.
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-3 if "_gates" in name else 1e-5)
    left = [remaining(model).units for model in models]
    assert left[0] == left[1]
    decided = [weight for name, weight in one.items() if "_gates" in name]
    assert all(float((weight - start).abs().max()) > 0.1 for weight in decided), "gates that did not move"


def test_adapters_on_a_shared_model_are_merged(place: Path, tmp_path: Path) -> None:
    program = ["-m", "helpers.run_sharded", *sparsify(place, tmp_path, 4, "--lora", "2", "--merge")]
    done = forked.run(program, 2, **SHARDED)
    assert done.returncode == 0, done.stderr
    base = build("gpt2").state_dict()
    merged = load(tmp_path / "model").state_dict()
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    assert moved
    assert all(".attn.c_" in name for name in moved)


def commands() -> list[list[str]]:
    """Every command of the document on several processes, as the shell splits it."""
    blocks = re.findall(
        r"```sh skip=gpu\n(.*?)```",
        (Path(__file__).parents[2] / "docs/how-to/several-processes.md").read_text(),
        re.S,
    )
    return [shlex.split(block.replace("\\\n", " ").replace("--nnodes N", "--nnodes 2")) for block in blocks]


@pytest.mark.parametrize("words", commands(), ids=lambda words: words[0])
def test_the_recipes_are_commands_that_parse(words: list[str]) -> None:
    launcher, given = words[0], words[1:] if words[0] == "torchrun" else words[2:]
    parser = get_args_parser() if launcher == "torchrun" else launch_command_parser()
    read = parser.parse_args(given)
    assert (read.module, read.training_script) == (True, "gossamer")
    verb, *options = read.training_script_args
    assert verb == "sparsify"
    if options != ["..."]:
        typer.main.get_command(app).commands[verb].make_context(verb, options)  # type: ignore[attr-defined]


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
    states = [run["controller"]["controller"] for run in (ranks[0], one)]
    for name in ("integral", "average"):
        assert states[0][name] == pytest.approx(states[1][name], abs=1e-5)
    assert ranks[0]["noise"] != ranks[1]["noise"]
    assert ranks[0]["noise"] == one["noise"]


def test_ranks_that_disagree_are_told(tmp_path: Path) -> None:
    done = start(tmp_path / "two", 2, STILL, "--disagree")
    assert done.returncode != 0
    assert "ranks disagree on the ceiling" in done.stderr


def test_sharding_that_would_be_plain_data_parallel_is_refused(tmp_path: Path) -> None:
    done = start(tmp_path / "two", 2, {**STILL, "fsdp": True})
    assert done.returncode != 0
    assert "fsdp was asked for, but accelerate would run MULTI_CPU on cpu: expected" in done.stderr


def test_the_noise_of_ranks() -> None:
    seeds = {rank_seed(7, rank) for rank in range(1000)}
    assert len(seeds) == 1000
    assert rank_seed(7, 0) == 7
