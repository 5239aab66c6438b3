"""The frontier: open keys per query per head against the rise in held-out loss, method by method.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.frontier.run run --steps 200  every run of the plan, in turn
    OMP_NUM_THREADS=1 python -m benchmarks.experiments.frontier.run run --only kl=0.05
    python -m benchmarks.experiments.frontier.run table
        results -> frontier.md, frontier.svg

A run that is finished is in results/frontier.json and is not repeated, and one that was stopped goes on at its last
checkpoint, so the driver can be stopped and started at will. Results of other --steps are refused, not mixed. The
best checkpoint is chosen on some held-out rows and reported on others. The paper's ceiling is set from the base's loss
on text like that which it is enforced on, so its run is chosen on rows of the training text, set apart: the held-out
files are harder by 0.125 nats, more than any ceiling here allows to lose. All runs are reported on the same rows.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.frontier import data as source
from benchmarks.experiments.frontier.baselines import compare, finetuned, random_gates, top_k
from benchmarks.experiments.frontier.report import write_table
from benchmarks.lib.record import named_runs
from gossamer.cli.options import parse_settings
from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.files import read_yaml, write_json
from gossamer.training.config import SparsityConfig, configured
from gossamer.training.constraint import Ceiling
from gossamer.training.sparsify import sparsify
from gossamer.training.trainer import SparsityTrainer

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "frontier.json"
CEILINGS = ("delta_ce=0.03", "kl=0.05", "delta_ce=0.01", "kl=0.1", "kl=0.02", "delta_ce=0.06")
RISES = (0.03, 0.01, 0.06)  # of the paper's ceiling, over the base model's held-out loss
CHOOSE = 64  # held-out rows on which the best checkpoint is chosen
APART = (
    512  # rows of the training text that choose under the paper's ceiling, whose loss varies from row to row
)
BATCH = 8  # rows; 1,024 tokens a step
LOOSE = 0.09  # nats above the base model that every run may lose at first (LOG.md)
RATE = 3e-4  # of every finetuning, the one without the penalty too
KEY_BIAS_RATE = 2e-2  # of the keys' biases alone
KEYS = (1, 2, 4, 8, 16, 32)  # kept per query by the training-free baselines
SHOWN = (
    "loss",
    "delta_ce",
    "kl",
    "agreement",
    "density",
    "expected_density",
    "density_gap",
    "keys_per_query",
)


def settings(
    ceiling: str, seed: int, steps: int, folder: Path, *, rise: float | None = None, **other: Any
) -> SparsityConfig:
    """One run's configuration: configs/finetuning.yaml, and what differs from run to run.

    Args:
        rise: how far the ceiling lies above the base model, which for a ceiling on the loss is not its value.
    """
    asked = Ceiling.parse(ceiling)
    rise = asked.value if rise is None else rise
    given = {
        **read_yaml(HERE / "configs" / "finetuning.yaml"),
        "eval_steps": max(1, steps // 6),
        "save_steps": max(1, steps // 6),
        "logging_steps": max(1, steps // 30),
        "use_cpu": not torch.cuda.is_available(),
    }
    given |= {"output_dir": str(folder), "ceiling": ceiling, "seed": seed, "max_steps": steps}
    factor = max(1.0, 1 + (LOOSE - rise) / asked.value)
    return configured(given, {"ceiling.initial_factor": factor, **other})


def key_bias_first(model: Any, config: SparsityConfig) -> torch.optim.Optimizer:
    """AdamW with a far higher rate for the keys' biases, which GPT-2 keeps in the middle third of one vector.

    A bias on all keys shifts the logits of a row by the same q . b: it moves the row's gates and leaves its softmax as
    it is, so it finds where to cut without costing what the same step costs on other weights.
    """
    biases, width = [], model.config.n_embd
    for name, weight in model.named_parameters():
        if name.endswith("attn.c_attn.bias"):
            mask = torch.zeros_like(weight).index_fill_(0, torch.arange(width, 2 * width), 1.0)
            weight.register_hook(mask.mul)  # the queries' and values' biases stay as they are
            biases.append(weight)
    own = {id(weight) for weight in biases}
    rest = [weight for weight in model.parameters() if id(weight) not in own]
    groups = [{"params": rest}, {"params": biases, "lr": KEY_BIAS_RATE}]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(0.9, config.adam_beta2), weight_decay=0.0
    )


def measure(model: Any, base: Any, rows: TensorRows, work: Path) -> dict[str, Any]:
    """The held-out numbers of a gated model on the rows kept for reporting."""
    config = settings("kl=1", 0, 1, work / "scratch", report_to="none", **{"gate.reads": None})
    trainer = SparsityTrainer(model, config, base=base, eval_dataset=rows, data_collator=collate_rows)
    found = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    return _rounded(found) | {"per_head": trainer.tally.per_group("edges")}


def _rounded(found: dict[str, float]) -> dict[str, float]:
    kept = {name: found[name] for name in SHOWN} | {
        f"{name}_se": found[f"{name}_se"] for name in SHOWN if f"{name}_se" in found
    }
    return {name: float(f"{value:.6g}") for name, value in kept.items()}


def one_run(
    name: str,
    ceiling: str,
    seed: int,
    steps: int,
    work: Path,
    base_steps: int,
    *,
    rise: float | None = None,
    **other: Any,
) -> dict:
    """Sparsify a copy of the base model and report it."""
    data, base = source.data(work), source.base_model(work, base_steps)
    choose, report = split(data)
    train = data.train
    if ceiling.startswith("loss"):
        choose, train = apart(data)
    model: Any = copy.deepcopy(base).requires_grad_(True)
    config = settings(ceiling, seed, steps, work / "runs" / f"{name}-{seed}-of-{steps}", rise=rise, **other)
    begin, processor = time.perf_counter(), time.process_time()
    outcome = sparsify(
        model,
        train,
        choose,
        config,
        base=base,
        resume=True,
        data_collator=collate_rows,
        optimizers=(key_bias_first(model, config), None),
    )
    seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    found = measure(outcome.model, base, report, work)
    names = ("step", "eval_divergence", "eval_keys_per_query", "eval_delta_ce")
    evaluations = [h for h in outcome.history if "eval_delta_ce" in h]
    curve = [{k.removeprefix("eval_"): h[k] for k in names} for h in evaluations]
    return {"ceiling": ceiling, "feasible_when_chosen": outcome.feasible, "best_step": outcome.step, "steps": steps,
            "seconds": round(seconds, 1), "cpu_seconds": round(processor, 1), "settings": other,
            "held_out": found, "curve": curve}  # fmt: skip


def split(data: source.Data) -> tuple[TensorRows, TensorRows]:
    """The held-out rows that choose a model, and those it is reported on."""
    half = len(data.held_out) // 2
    choose, report = (TensorRows(**{k: v[s] for k, v in data.held_out.columns.items()})
                      for s in (slice(half - CHOOSE, half), slice(half, None)))  # fmt: skip
    return choose, report


def apart(data: source.Data) -> tuple[TensorRows, TensorRows]:
    """Rows of the training text, from all over it, and the training text without them."""
    every = len(data.train) // APART
    chosen = torch.zeros(len(data.train), dtype=torch.bool)
    chosen[: APART * every : every] = True
    columns = data.train.columns.items()
    return TensorRows(**{k: v[chosen] for k, v in columns}), TensorRows(**{k: v[~chosen] for k, v in columns})


def baselines(work: Path, base_steps: int, steps: int) -> dict[str, Callable[[], dict[str, float]]]:
    """What measures each control: the training-free ones at each number of keys, and finetuning without the penalty."""
    data, base = source.data(work), source.base_model(work, base_steps)
    report = split(data)[1].columns
    found: dict[str, Callable[[], dict[str, float]]] = {}
    found |= {f"topk-{k}": partial(top_k, base, report, k) for k in KEYS[::-1]}
    found |= {f"random-{k}": partial(random_gates, base, report, k) for k in KEYS[::-1]}
    found |= {f"topk-renormalised-{k}": partial(top_k, base, report, k, renormalise=True) for k in KEYS[::-1]}
    found["finetuned"] = partial(finetuned, base, data.train, report, steps, batch=BATCH, peak=RATE)
    return found


def environment(data: source.Data, base_steps: int, steps: int) -> dict[str, Any]:
    """What another person needs in order to repeat the numbers; `date` and `commit` are those of the first run."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} thread"
    )
    return {"date": time.strftime("%Y-%m-%d"), "commit": commit.stdout.strip(), "device": device,
            "python": platform.python_version(), "torch": torch.__version__, "held_out_digest": data.digest,
            "train_rows": len(data.train), "base_steps": base_steps, "steps": steps}  # fmt: skip


def plan(base_loss: float, seeds: int) -> list[tuple[str, str, int]]:
    """(name, ceiling, seed) in the order of their worth, so that a run cut short leaves the figure."""
    named = [(ceiling, ceiling) for ceiling in CEILINGS]
    named[3:3] = [(f"loss+{rise}", f"loss={base_loss + rise:.4f}") for rise in RISES[:1]]
    named += [(f"loss+{rise}", f"loss={base_loss + rise:.4f}") for rise in RISES[1:]]
    return [(*item, 0) for item in named] + [(*named[0], seed) for seed in range(1, seeds)]


def run(arguments: argparse.Namespace) -> None:
    """Do what is not done yet."""
    work, path = arguments.work, arguments.results
    data = source.data(work)
    now = environment(data, arguments.base_steps, arguments.steps)
    results = named_runs(path, now, same=("held_out_digest", "base_steps", "steps"))
    runs, other = results["runs"], parse_settings(arguments.set)

    def keep(name: str, found: dict) -> None:
        runs[name] = found
        write_json(path, results)
        print(
            name,
            json.dumps(
                {k: found["held_out"].get(k) for k in ("keys_per_query", "delta_ce", "delta_ce_se", "kl")}
            ),
            flush=True,
        )

    controls = {} if arguments.only else baselines(work, arguments.base_steps, arguments.steps)
    for control, measured in controls.items():
        if control not in runs:
            keep(control, {"held_out": measured()})
    for name, ceiling, seed in plan(_base_loss(work, arguments.base_steps), arguments.seeds):
        label = f"{name} seed {seed}"
        if label in runs or (arguments.only and name != arguments.only):
            continue
        rise = float(name.split("+")[1]) if "+" in name else None
        keep(
            label,
            one_run(name, ceiling, seed, arguments.steps, work, arguments.base_steps, rise=rise, **other),
        )


def _base_loss(work: Path, base_steps: int) -> float:
    """The base model's loss with all gates open on training text, which the paper's ceiling is set above."""
    base, rows = source.base_model(work, base_steps), apart(source.data(work))[0].columns
    return compare(base, base, rows)["loss"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("run", "table"))
    parser.add_argument("--work", type=Path, default=HERE.parents[2] / "runs" / "frontier")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--base-steps", type=int, default=1600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", help="one ceiling, without the controls")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        help="other fields of SparsityConfig, as name=value; told in the results",
    )
    arguments = parser.parse_args()
    if arguments.verb == "run":
        run(arguments)
    write_table(arguments.results)


if __name__ == "__main__":
    main()
