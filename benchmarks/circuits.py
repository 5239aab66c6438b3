"""The deciding experiment: how many heads and edges a task needs, in a base, a finetuned and a sparse model.

    python benchmarks/circuits.py --seeds 0 1 2 --out /tmp/circuits

For each seed: a small GPT-2 is trained from scratch on text that contains the tasks; then it is finetuned
once without a penalty (the control) and once under sparsity, from the same start, for the same number of
steps. For each task and ablation the smallest circuit with 90 % of the effect is looked for among the best n
edges (EAP-IG, scored on other prompts than it is measured on) and the best n heads (exact).

The nonsense task has random labels. Its circuits are refused, as there is no effect to explain; to show that
none hides, the same search is run anyway and the largest metric of any n is reported, on the prompts that
were scored (where fitting is possible) and on fresh ones.

Everything is seeded. Models are kept under --out and finished records in benchmarks/results/, so that the
same command continues where it was stopped, seed by seed; --out belongs to one set of settings.

After each seed the records become a page beside them, with the goals' rows (circuits_report.py).

The table's other rows: `gossamer verify BASE SPARSE` (addition: sufficient, necessary, leak-free, precision and
recall) and `python benchmarks/patching.py` (speed).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import torch
from circuits_report import VARIANTS, write_page
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from gossamer.checkpoint import load, load_dense, save, save_folder
from gossamer.components.curve import Ablator, best_edges, head_curve, needed_edges
from gossamer.components.scores import score_edges
from gossamer.components.wiring import wiring
from gossamer.config import SparsityConfig
from gossamer.errors import GossamerError, refuse
from gossamer.files import read_json, write_json
from gossamer.probe import evaluating, first_output
from gossamer.rows import TensorRows, collate_rows
from gossamer.sparsify import sparsify
from gossamer.tasks.registry import batches, task_vocabulary, training_rows
from gossamer.trace import trace

TEXT = ("induction", "ioi", "greater_than", "quotes", "brackets", "nonsense")
MEASURED = ("induction", "ioi", "greater_than", "quotes", "brackets")
ABLATIONS = ("resample", "mean")
RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """The command line; every number of it goes into the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--base-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--ceiling", default="kl=0.02")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--prompts", type=int, default=64)
    return parser.parse_args()


def data(n: int, seed: int) -> TensorRows:
    """Mixed prompts with their answers."""
    ids, labels, mask = training_rows(TEXT, n, seed=seed, vocabulary=task_vocabulary())
    return TensorRows(input_ids=ids, labels=labels, attention_mask=mask)


def shared(given: argparse.Namespace, folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Training arguments that all three runs share."""
    return {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": 64,
        "learning_rate": 2e-3, "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "warmup_steps": 50,
        "weight_decay": 0.0, "seed": seed, "report_to": "none", "disable_tqdm": True, "logging_steps": 200,
        "dataloader_pin_memory": False, "remove_unused_columns": False,
    }  # fmt: skip


def plain(model: GPT2LMHeadModel, given: argparse.Namespace, folder: Path, steps: int, seed: int) -> None:
    """Ordinary training on the text."""
    settings = TrainingArguments(save_strategy="no", **shared(given, folder, steps, seed))
    Trainer(model, settings, train_dataset=data(given.rows, seed), data_collator=collate_rows).train()
    save_folder(model.eval(), folder)


def model_of(variant: str, given: argparse.Namespace, seed: int) -> Any:
    """Load a variant, or make it."""
    folder = given.out / f"seed{seed}" / variant
    if (folder / "config.json").is_file():
        return load(folder, impl="eager") if variant == "sparse" else load_dense(folder)
    set_seed(seed)
    if variant == "base":
        model = GPT2LMHeadModel(GPT2Config(
            vocab_size=len(task_vocabulary()), n_positions=32, n_embd=given.width, n_layer=given.layers,
            n_head=given.heads, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0, bos_token_id=0,
            eos_token_id=0, pad_token_id=0,
        ))  # fmt: skip
        plain(model, given, folder, given.base_steps, seed)
        return model
    model = load_dense(given.out / f"seed{seed}" / "base")
    if variant == "finetuned":
        plain(model, given, folder, given.steps, seed + 1000)
        return model
    every = max(1, given.steps // 10)
    config = SparsityConfig(
        ceiling=given.ceiling, loose=5.0, dual_rate=0.02, adam_beta2=0.99, impl="blockwise", eval_steps=every,
        save_steps=every, save_total_limit=1, per_device_eval_batch_size=256,
        **shared(given, folder.parent / "work", given.steps, seed + 1000),
    )  # fmt: skip
    rows = data(given.rows, seed + 1000), data(512, seed + 2000)
    found = sparsify(model, *rows, config, data_collator=collate_rows)
    save(found.model, folder)
    write_json(folder.parent / "sparse.json", {"metrics": _finite(found.metrics), "missed": found.missed})
    return found.model


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def measure(model: Any, task: str, ablation: str, n: int, seed: int) -> dict[str, Any]:
    """Heads and edges for 90 % of the effect, or the line that says why there is no answer."""
    wires = wiring(model)
    scored, fresh = (batches(task, n, seed=seed + offset) for offset in (5000, 6000))
    ablator = Ablator(wires, fresh, ablation)
    record: dict[str, Any] = {"effect": ablator.effect, "metric": float(ablator.all.mean())}
    try:
        heads = head_curve(ablator)
        edges = needed_edges(ablator, score_edges(wires, scored, ablation=ablation))
    except GossamerError as error:
        return record | {"refused": str(error)}
    best_heads, best = heads.needed(), edges.needed()
    return record | {
        "heads": best_heads.kept if best_heads else None,
        "heads_of": heads.of,
        "edges": best.kept if best else None,
        "edges_without_dead_ends": best.edges if best else None,
        "edges_of": edges.of,
        "heads_cpr_cmd": heads.areas(),
    }


def nonsense(model: Any, ablation: str, n: int, seed: int) -> dict[str, Any]:
    """The largest metric of any circuit for random labels, where it was scored and on fresh prompts."""
    wires = wiring(model)
    scored, fresh = (batches("nonsense", n, seed=seed + offset) for offset in (5000, 6000))
    scores = score_edges(wires, scored, ablation=ablation)
    ablators = [Ablator(wires, prompts, ablation) for prompts in (scored, fresh)]
    found = []
    for share in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
        kept = best_edges(wires, scores, max(1, round(share * wires.graph.n_edges)), signed=True)
        found.append([int(kept.sum()), *(float(ablator.values(kept).mean()) for ablator in ablators)])
    return {
        "curve": found,
        "best_scored": max(row[1] for row in found),
        "best_fresh": max(row[2] for row in found),
    }


def describe(model: Any, seed: int) -> dict[str, Any]:
    """Accuracy on every task and, for a gated model, its open edges."""
    found: dict[str, Any] = {"accuracy": {}, "open_edges": {}}
    for task in TEXT:
        hits, opened, total = 0.0, 0.0, 0
        for batch in batches(task, 200, seed=seed + 7000):
            with evaluating(model):
                hits += batch.accuracy(first_output(model, {"input_ids": batch.clean})) * len(batch)
            opened += len(trace(model, batch.clean, outputs=[-1]))
            total += len(batch)
        found["accuracy"][task], found["open_edges"][task] = hits / total, opened / total
    return found


def require_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raise unless the models kept in `folder`, if any, were made with these very settings."""
    path = folder / "settings.json"
    if not path.is_file():
        write_json(path, settings)
    elif (kept := read_json(path)) != settings:
        other = {name: value for name, value in kept.items() if settings.get(name) != value}
        raise refuse(f"{folder} holds models made with {other}", "possible: the same", "choose another --out")


def main() -> None:
    """Run what is not in the results yet."""
    given = arguments()
    torch.set_num_threads(1)
    settings = {name: value for name, value in vars(given).items() if name not in ("out", "seeds")}
    given.out.mkdir(parents=True, exist_ok=True)
    require_settings(given.out, settings)
    path = RESULTS / f"circuits_{platform.machine()}_{given.layers}x{given.heads}x{given.width}.json"
    done = read_json(path) if path.is_file() else []
    for seed in given.seeds:
        for variant in VARIANTS:
            model = model_of(variant, given, seed)
            about = {"seed": seed, "variant": variant, "settings": settings, "torch": torch.__version__}
            for task in (*MEASURED, "nonsense", "about"):
                for ablation in ABLATIONS if task != "about" else ("none",):
                    key = {**about, "task": task, "ablation": ablation}
                    if any(all(record[name] == value for name, value in key.items()) for record in done):
                        continue
                    started = time.monotonic()
                    if task == "about":
                        found = describe(model, seed)
                    elif task == "nonsense":
                        found = nonsense(model, ablation, given.prompts, seed)
                    else:
                        found = measure(model, task, ablation, given.prompts, seed)
                    done.append({**key, **found, "seconds": round(time.monotonic() - started, 2)})
                    write_json(path, done)
                    print(
                        json.dumps(
                            {"seed": seed, "variant": variant, "task": task, "ablation": ablation, **found}
                        )
                    )
        write_page(path)


if __name__ == "__main__":
    main()
