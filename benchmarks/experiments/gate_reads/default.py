"""What the recipe of `gossamer sparsify` without options does on two models that it was not made for.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.gate_reads.default gpt2 --seeds 1 2 3 [--ceilings kl=0.02 ...]
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.gate_reads.default minilm --ceilings cosine=0.01 [--steps 720]

`gpt2` is the frontier's model, text, steps and learning rate, `minilm` the sentence encoder's; the recipe and the
optimizer are the defaults. Chosen on one part of the held-out rows, reported on another. One record a run goes to
results/default.json; a run that is there is not repeated. A pretrained language model is run by the command line, with
configs/default.yaml.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import BertModel

from benchmarks.experiments.frontier import data as source
from benchmarks.experiments.frontier.run import BATCH, RATE, measure, split
from benchmarks.experiments.sentence_encoder import run as encoder
from benchmarks.experiments.sentence_encoder.data import collate_trimmed, load_data, model_folder
from benchmarks.lib.machine import circumstances
from benchmarks.lib.record import named_runs
from gossamer.data.sequences import collate_rows
from gossamer.files import read_yaml, write_json
from gossamer.training.config import configured
from gossamer.training.sparsify import Outcome, sparsify

RESULTS = Path(__file__).parent / "results" / "default.json"
WORK = Path(__file__).parents[3] / "runs"
GPT2_STEPS, GPT2_BASE_STEPS, MINILM_STEPS = 1200, 1600, 240
COMMON = {"recipe": "default", "disable_tqdm": True, "remove_unused_columns": False, "use_cpu": True}


def gpt2(
    ceiling: str, seed: int, work: Path, *, steps: int = GPT2_STEPS, changes: dict[str, Any] | None = None
) -> tuple[Outcome, dict[str, Any]]:
    """One run on the frontier's GPT-2 with gates on edges, and its numbers on the rows that report."""
    outcome = sparse_gpt2(ceiling, seed, work, steps=steps, changes=changes)
    base, report = source.base_model(work, GPT2_BASE_STEPS), split(source.data(work))[1]
    return outcome, measure(outcome.model, base, report, work)


def sparse_gpt2(
    ceiling: str,
    seed: int,
    work: Path,
    *,
    steps: int = GPT2_STEPS,
    gates: str = "edges",
    recipe: str = "default",
    changes: dict[str, Any] | None = None,
) -> Outcome:
    """One run on the frontier's GPT-2; with other gates than edges it goes on where it was stopped.

    Args:
        changes: of the recipe, as `{"control.kp": 0.0}`.
    """
    data = source.data(work)
    base = source.base_model(work, GPT2_BASE_STEPS)
    choose, _ = split(data)
    every = steps // 12
    out = (
        work / "default" / (f"{ceiling}-{seed}" if gates == "edges" else f"{recipe}-{gates}-{ceiling}-{seed}")
    )
    config = configured(
        {
            **COMMON, "output_dir": str(out), "ceiling": ceiling, "seed": seed,
            "gates": gates, "recipe": recipe,
            "max_steps": steps, "eval_steps": every, "save_steps": every, "logging_steps": steps // 30,
            "learning_rate": RATE, "warmup_steps": 5, "adam_beta2": 0.95, "impl": "blockwise",
            "per_device_train_batch_size": BATCH, "per_device_eval_batch_size": 32,
        },
        changes or {},
    )  # fmt: skip
    model: Any = copy.deepcopy(base).requires_grad_(True)
    resume = gates != "edges" and out.is_dir()
    return sparsify(model, data.train, choose, config, base=base, resume=resume, data_collator=collate_rows)


def minilm(
    ceiling: str, seed: int, work: Path, *, steps: int = MINILM_STEPS
) -> tuple[Outcome, dict[str, Any]]:
    """One run on the sentence encoder, and its numbers on the sentences that report."""
    folder = model_folder()
    data, base = load_data(folder), BertModel.from_pretrained(folder).eval()
    every = steps // 8
    config = configured(
        {
            **read_yaml(encoder.HERE / "configs" / "finetuning.yaml"), **COMMON, "ceiling": ceiling, "seed": seed,
            "output_dir": str(work / "default" / f"{ceiling}-{seed}"), "max_steps": steps,
            "eval_steps": every, "save_steps": every,
        },
        {},
    )  # fmt: skip
    model: Any = copy.deepcopy(base).requires_grad_(True)
    outcome = sparsify(model, data.train, data.choose, config, base=base, data_collator=collate_trimmed)
    return outcome, encoder.measured(outcome.model, data.report, encoder.embedded(base, data.report))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=("gpt2", "minilm"))
    parser.add_argument("--ceilings", nargs="+", default=["kl=0.05", "kl=0.02", "kl=0.1"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, help="default: 1,200 and 240, those of the record's other runs")
    parser.add_argument("--work", type=Path, default=WORK / "frontier")
    arguments = parser.parse_args()
    results = named_runs(RESULTS, circumstances("cpu", torch.float32), same=())
    for seed in arguments.seeds:
        for ceiling in arguments.ceilings:
            run, usual = {"gpt2": (gpt2, GPT2_STEPS), "minilm": (minilm, MINILM_STEPS)}[arguments.model]
            steps = arguments.steps or usual
            name = f"{arguments.model} {ceiling} seed {seed}" + (f", {steps} steps" if steps != usual else "")
            if name in results["runs"]:
                continue
            begin = time.process_time()
            outcome, held_out = run(ceiling, seed, arguments.work, steps=steps)
            starts = {reads: round(start.density, 4) for reads, start in outcome.starts.items()}
            results["runs"][name] = {
                "best_step": outcome.step, "steps": outcome.steps, "feasible_when_chosen": outcome.feasible,
                "untrained_density": starts, "cpu_seconds": round(time.process_time() - begin), "held_out": held_out,
            }  # fmt: skip
            write_json(RESULTS, results)
            print(name, json.dumps({k: v for k, v in held_out.items() if k != "per_head"}), flush=True)


if __name__ == "__main__":
    main()
