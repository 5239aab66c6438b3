"""SmolLM2-135M made sparse on this machine, beside what costs nothing or little: the frontier of a real model.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.smollm2.run [--work DIR] [--only NAME ...]

    default-t128, default-t64 ...  `gossamer sparsify` with configs/NAME.yaml, in a process of its own
    topk-K-tT, weight-W-tT         nothing trained: the K largest weights of a query, those over W
    trained-topk-K-t64             the K largest after as many steps as default-t64, on the divergence from the base
    finetuned-t64                  as many steps on the text, without gates and penalty

What is finished is in results/smollm2.json and is not repeated; a run that was stopped goes on at its last checkpoint.
The best checkpoint is chosen on some held-out rows; all are reported on the same others, in float32 (`rows_apart`).
Runs that were made because an earlier one missed its goal on those are judged on rows that none was reported on.
Position 0 is counted apart: many heads rest on it, and an edge to it may carry nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiments.frontier.baselines import compare
from benchmarks.experiments.smollm2.controls import finetuned, recovered
from benchmarks.experiments.smollm2.prepare import WORK, prepared
from benchmarks.experiments.smollm2.report import folder_of, write_page
from benchmarks.lib.machine import circumstances
from benchmarks.lib.record import named_runs
from gossamer.circuits.trace import trace
from gossamer.data.prompts import training_tokenizer
from gossamer.data.sequences import TensorRows
from gossamer.data.text import Corpus, as_rows, packed
from gossamer.files import read_json, read_yaml, write_json, writing
from gossamer.gates.edges import EdgeGates
from gossamer.gates.top_k import TopKGates
from gossamer.models.attach import attach, detach
from gossamer.models.checkpoint import load, load_dense
from gossamer.training.metrics import Tally, counting

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "smollm2.json"
TRAINED = (
    "default-t128",
    "default-t64",
    "kl0.2-t64",
    "default-t256",
    "lora-t64",
    "lora200-t64",
    "lora200-kl0.2-t64",
    "lora500-kl0.2-t64",
    "lora1600-t64",
    "lora2000-t64",
    "lora1000-kl0.2-t64",
    "lora2000-kl0.2-t64",
    "lora300-t256",
    "delta_ce0.01-t64",
)
LENGTHS = (128, 256, 64)
KEYS = {128: (16, 8, 4), 64: (16, 8, 4), 256: (16,)}
WEIGHTS = {128: (0.003, 0.01, 0.03), 64: (0.01, 0.03), 256: (0.003, 0.01)}
RECOVERED = (8, 4)
CHOOSING = {64: 64, 128: 32, 256: 16}  # rows that the configs choose by; those that report lie behind them
# Runs that are judged once more, and how many rows were looked at before: those that chose or that were reported on.
FRESH = {"lora2000-t64": 256, "lora2000-kl0.2-t64": 256, "lora1000-kl0.2-t64": 256, "lora300-t256": 44}
TOKENS, BATCH, TRACED = 3072, 4, 4


def rows_apart(text: Path, tokenizer: Any, length: int, first: int = 0, tokens: int = TOKENS) -> TensorRows:
    """Held-out rows of a length behind those that choose a checkpoint or that `gossamer sparsify` reports on.

    Args:
        first: how many rows lie before them, at least; tokens: how many there are in them, at most.
    """
    first = max(first, 2 * CHOOSING[length])
    rows = packed(Corpus(str(text)).held_out(), tokenizer, length)
    return as_rows(list(islice(rows, first, first + tokens // length)), mask_token=None, seed=0)


class Remembered(torch.nn.Module):
    """A frozen model that repeats its answer to a batch that it has seen; so each base is run once on the rows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.answers = model, {}

    def forward(self, input_ids: Tensor) -> Any:
        """The model's output."""
        key = input_ids.numpy().tobytes()
        if key not in self.answers:
            self.answers[key] = self.model(input_ids=input_ids)
        return self.answers[key]


@torch.no_grad()
def measured(model: Any, base: Any, rows: TensorRows) -> dict[str, Any]:
    """What a model loses on some rows, and which edges are open in it, in all, by layer, and at position 0."""
    gates, tally = EdgeGates.on(model), Tally()
    length = rows.columns["input_ids"].shape[1]
    if gates is None:
        return compare(model, base, rows.columns, size=BATCH) | {"keys_per_query": (length + 1) / 2}
    with counting(gates, tally):
        found = compare(model, base, rows.columns, size=BATCH)
    summary, ids = tally.summary(), rows.columns["input_ids"][:TRACED]
    circuit = trace(model, ids, batch_size=1)
    queries = ids.numel() * circuit.n_layers * circuit.n_heads
    layers = [sum(heads) / len(heads) for heads in tally.keys_per_query("edges")]
    return found | {
        "keys_per_query": round(summary["keys_per_query"], 4), "density": round(summary["density"], 6),
        "keys_at_position_0": round(float((circuit.key == 0).sum()) / queries, 4),
        "keys_per_query_of_traced_rows": round(len(circuit) / queries, 4),
        "keys_by_layer": [round(x, 3) for x in layers],
    }  # fmt: skip


def untrained(base: Any, frozen: Any, rows: TensorRows, made: dict[str, Any]) -> dict[str, Any]:
    """The base model behind gates that nothing was trained for; they are taken off again."""
    attach(base, check=False, impl="eager", **made)
    try:
        return {"held_out": measured(base, frozen, rows)}
    finally:
        detach(base)


def sparsified(name: str, model: Path, text: Path, work: Path, rows: TensorRows, base: Any) -> dict[str, Any]:
    """One run of the command line, and its numbers on the rows that report."""
    out, config = work / "runs" / name, HERE / "configs" / f"{name}.yaml"
    if not (out / "report.json").is_file():
        given = [str(model), "--data", str(text), "--out", str(out)]
        again = ["--resume"] if (out / "started.json").is_file() else []
        command = [sys.executable, "-m", "gossamer", "sparsify", "--config", str(config), *given, *again]
        ended = subprocess.run(command, check=False).returncode
        if ended not in (0, 1):  # 1: the ceiling was missed, which is a result
            raise SystemExit(f"{name} ended with exit code {ended}")
    report = read_json(out / "report.json")
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = ("ceiling", "feasible", "missed", "best_step", "steps", "starts")
    return {
        **{key: report[key] for key in names}, "seconds": round(sum(line.get("train_runtime", 0) for line in log)),
        "held_out": measured(load(folder_of(out), impl="eager"), base, rows),
    }  # fmt: skip


def judged(out: Path, model: Path, rows: TensorRows) -> dict[str, Any]:
    """What a run's model loses on rows of its own."""
    return measured(load(folder_of(out), impl="eager"), load_dense(model), rows)


def plan(
    model: Path, text: Path, work: Path, runs: dict[str, Any]
) -> Iterator[tuple[str, int, Callable[[TensorRows], dict[str, Any]]]]:
    """Name, length and what measures it on the rows of that length, in the order of their worth.

    Args:
        runs: those that are in the record; controls take as many steps as theirs took.
    """
    base, frozen = load_dense(model), Remembered(load_dense(model))
    yield TRAINED[0], length_of(TRAINED[0]), partial(sparsified, TRAINED[0], model, text, work, base=frozen)
    for length in LENGTHS:
        for k in KEYS[length]:
            yield f"topk-{k}-t{length}", length, partial(_gates, base, frozen, {"gates": TopKGates(k=k)})
        for weight in WEIGHTS[length]:
            made = {"bias": -math.log(weight), "reads": "weight"}
            yield f"weight-{weight:g}-t{length}", length, partial(_gates, base, frozen, made)
    for name in TRAINED[1:]:
        yield name, length_of(name), partial(sparsified, name, model, text, work, base=frozen)
    how = read_yaml(HERE / "configs" / "default-t64.yaml")
    how["steps"] = runs.get("default-t64", how)["steps"]
    train = partial(_training_rows, model, text, how)
    for k in RECOVERED:
        yield (
            f"trained-topk-{k}-t64",
            64,
            partial(_control, partial(recovered, k=k), base, frozen, train, how),
        )
    kept = work / "runs" / "finetuned-t64"
    yield "finetuned-t64", 64, partial(_control, finetuned, base, frozen, train, how, keep=kept)


def length_of(name: str) -> int:
    """Tokens of a row in a run."""
    return int(name.rpartition("-t")[2])


def _gates(base: Any, frozen: Any, made: dict[str, Any], rows: TensorRows) -> dict[str, Any]:
    return untrained(base, frozen, rows, made)


def _training_rows(model: Path, text: Path, how: dict[str, Any]) -> Tensor:
    tokenizer = training_tokenizer(str(model), load_dense(model), how["length"])
    rows = packed(Corpus(str(text)).train(), tokenizer, how["length"])
    return torch.tensor(list(islice(rows, how["steps"] * how["batch"])))


def _control(
    make: Callable[..., Any],
    base: Any,
    frozen: Any,
    train: Callable[[], Tensor],
    how: dict[str, Any],
    rows: TensorRows,
    keep: Path | None = None,
) -> dict[str, Any]:
    begin = time.process_time()
    asked = {"steps": how["steps"], "batch": how["batch"], "seed": how["seed"]}
    model = make(base, train(), rate=float(how["learning_rate"]), **asked)
    seconds = round(time.process_time() - begin)
    if keep is not None:  # circuits.py reads it
        with writing(keep / "model") as folder:
            model.save_pretrained(folder)
    return {"steps": how["steps"], "cpu_seconds": seconds, "held_out": measured(model, frozen, rows)}


def main() -> None:
    """Do what is not in the record yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", default=[], help="names of runs")
    given = parser.parse_args()
    model, text = prepared(given.work)
    results = named_runs(given.results, circumstances("cpu", torch.float32), same=("torch",))
    tokenizer = training_tokenizer(str(model), load_dense(model), max(LENGTHS))
    held_out: dict[int, TensorRows] = {}
    for name, length, measure in plan(model, text, given.work, results["runs"]):
        is_judged = name not in FRESH or "judged" in results["runs"].get(name, {})
        if (name in results["runs"] and is_judged) or (given.only and name not in given.only):
            continue
        if name not in results["runs"]:
            rows = held_out.setdefault(length, rows_apart(text, tokenizer, length))
            results["runs"][name] = {"length": length, **measure(rows=rows)}
        if not is_judged:
            fresh = rows_apart(text, tokenizer, length, FRESH[name], tokens=2 * TOKENS)
            results["runs"][name]["judged"] = judged(given.work / "runs" / name, model, fresh)
        write_json(given.results, results)
        held = results["runs"][name]["held_out"]
        print(
            f"{name}: {held['keys_per_query']} keys, KL {held['kl']}, delta CE {held['delta_ce']}", flush=True
        )
    write_page(given.results)


if __name__ == "__main__":
    main()
