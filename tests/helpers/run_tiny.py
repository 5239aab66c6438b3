"""A tiny sparsifying run as a process of its own: `python -m helpers.run_tiny OUT`; what it ends with goes to a file.

Used by the tests that kill it and by those that start two of it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import GossamerError
from gossamer.training.config import SparsityConfig
from gossamer.training.distributed import leave
from gossamer.training.resume import last_checkpoint
from gossamer.training.trainer import SparsityTrainer
from helpers.zoo import build

STEPS = 12


def rows(n: int, seed: int) -> TensorRows:
    """Random text."""
    ids = torch.randint(4, 96, (n, 12), generator=torch.Generator().manual_seed(seed))
    return TensorRows(input_ids=ids, labels=ids)


def config(out: str, **other: Any) -> SparsityConfig:
    """Settings in which every part of the state matters: noise, momentum, two micro-batches, two epochs."""
    given: dict[str, Any] = {
        "ceiling": "kl=0.05",
        "learning_rate": 2e-3,
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "recipe": {"gate": {"anneal": 0.3}},
        "remove_unused_columns": False,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return SparsityConfig(output_dir=out, **{**given, **other})


def trainer(out: str, callbacks: Any = None, **other: Any) -> SparsityTrainer:
    """The trainer of a tiny GPT-2."""
    data = {"train_dataset": rows(64, 1), "eval_dataset": rows(8, 2), "data_collator": collate_rows}
    return SparsityTrainer(build("gpt2"), config(out, **other), callbacks=callbacks, **data)


def die_at(event: str, end: str, message: str, about: tuple[Any, ...]) -> None:
    """Kill this process as it is about to do something (https://docs.python.org/3/library/audit_events.html)."""
    if message == event and about and str(about[0]).endswith(end):
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Train, from the last whole checkpoint if there is one, and write what must be equal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--set", default="{}", help="settings, as JSON")
    parser.add_argument("--disagree", action="store_true", help="give each rank a ceiling of its own")
    parser.add_argument(
        "--die", nargs=2, help="the audit event and the end of the path at which to be killed"
    )
    given = parser.parse_args()
    if given.die:
        sys.addaudithook(partial(die_at, *given.die))
    other = json.loads(given.set)
    torch.set_num_threads(1)
    if given.disagree:
        other["ceiling"] = f"kl=0.0{1 + config(given.out).process_index}"
    run = trainer(given.out, **other)
    run.train(resume_from_checkpoint=last_checkpoint(given.out))
    state = {
        "weights": run.accelerator.unwrap_model(run.model).state_dict(),
        "optimizer": run.optimizer.state_dict(),
    }
    state |= {
        "controller": run.state_dict(),
        "history": run.state.log_history,
        "random": torch.get_rng_state(),
        "noise": [one.seed for one in run.gates],
    }
    torch.save(state, Path(given.out) / f"final-{run.args.process_index}.pt")
    leave()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        main()
    except GossamerError as error:
        sys.exit(f"gossamer: {error}")
