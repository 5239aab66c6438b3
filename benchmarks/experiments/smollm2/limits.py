"""Where a training step of SmolLM2-135M goes on this machine: precision, adapters, length and implementation; memory.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.smollm2.limits [--work DIR]

Each case is a process of its own, so that its largest resident memory is its own: it makes a few steps of the default
recipe under kl=0.05 and tells the processor seconds of a step after the first, beside those of one dense forward pass.
A case that is in results/limits.json is not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.experiments.smollm2.prepare import WORK, prepared
from benchmarks.lib.machine import circumstances
from benchmarks.lib.record import Rows
from gossamer.data.prompts import training_tokenizer
from gossamer.data.sequences import collate_rows
from gossamer.data.splits import Splits
from gossamer.data.text import Corpus
from gossamer.gates.edges import EdgeGates
from gossamer.models.attach import gate_sets_of
from gossamer.models.checkpoint import load_for_training
from gossamer.recipes.sparsify_settings import SparsifySettings
from gossamer.recipes.text import configure, gated
from gossamer.training.base_model import OpenBase
from gossamer.training.trainer import SparsityTrainer

RESULTS = Path(__file__).parent / "results" / "limits.json"
STEPS, TOKENS = 4, 512
CASES: tuple[dict[str, Any], ...] = (
    {"precision": "bf16", "lora": 0, "length": 128, "impl": "auto"},
    {"precision": "bf16", "lora": 16, "length": 128, "impl": "auto"},
    {"precision": "fp32", "lora": 0, "length": 128, "impl": "auto"},
    {"precision": "fp32", "lora": 16, "length": 128, "impl": "auto"},
    {"precision": "bf16", "lora": 0, "length": 256, "impl": "auto"},
    {"precision": "bf16", "lora": 0, "length": 64, "impl": "auto"},
    {"precision": "bf16", "lora": 0, "length": 128, "impl": "eager"},
)


class Clock(TrainerCallback):
    """Processor seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.begun = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self.begun)


@contextmanager
def parts(trainer: Any, spent: dict[str, list[float]]) -> Iterator[None]:
    """Processor seconds of the parts of a step, each a method of the trainer or of its optimizer."""

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name].append(time.process_time() - begin)

        return timed

    for owner, method, name in ((trainer, "_answer", "forward, gated"), (trainer, "_base_output", "forward, base"),
                                (trainer.accelerator, "backward", "backward")):  # fmt: skip
        setattr(owner, method, watched(name, getattr(owner, method)))
    yield


def measured(case: dict[str, Any], work: Path) -> dict[str, Any]:
    """One case, in this process."""
    model_folder, text = prepared(work)
    rows = TOKENS // case["length"]
    settings = {
        "impl": case["impl"],
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
    }
    job = SparsifySettings(
        model=str(model_folder), data=str(text), out=work / "limits", length=case["length"], batch=rows, steps=STEPS,
        lora=case["lora"], precision=case["precision"], settings=settings,
    )  # fmt: skip
    config = configure(job)
    model: Any = load_for_training(job.model)
    tokenizer = training_tokenizer(job.model, model, job.length)
    splits = Splits(Corpus(job.data), tokenizer, job.length, train=STEPS * rows, held_out=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16"):
        ids = splits.train.columns["input_ids"][:rows]
        model(ids)
        begin = time.process_time()
        model(ids)
        forward = time.process_time() - begin
    model = gated(model, job, config) if job.lora else model
    base = OpenBase(model, gate_sets_of(model)) if job.lora else None
    clock, spent = Clock(), defaultdict(list)
    trainer = SparsityTrainer(model, config, base=base, train_dataset=splits.train, data_collator=collate_rows,
                              callbacks=[clock])  # fmt: skip
    trainer.gates.reads, trainer.gates.bias = "weight", 5.0
    with parts(trainer, spent):
        trainer.train()
    edges = EdgeGates.on(model)
    spent["forward, gated"] = spent["forward, gated"][: 2 * STEPS]
    medians = {name: round(statistics.median(values[1:]), 2) for name, values in spent.items()}
    return {"seconds_per_step": round(statistics.median(clock.seconds[1:]), 2), "parts": medians,
            "dense_forward": round(forward, 2), "resolved": "" if edges is None else edges.impl,
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measured(given.case, given.work)))
        return
    record, now = Rows(RESULTS), circumstances("cpu", torch.float32)
    for case in CASES:
        key = {**case, "tokens": TOKENS, "device": now["device"], "torch": now["torch"]}
        if record.lacks(key):
            command = [sys.executable, "-m", "benchmarks.experiments.smollm2.limits", "--work", str(given.work),
                       "--case", json.dumps(case)]  # fmt: skip
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = record.measure(key, lambda output=output: json.loads(output.strip().splitlines()[-1]))
            print(json.dumps({**case, **found}), flush=True)


if __name__ == "__main__":
    main()
