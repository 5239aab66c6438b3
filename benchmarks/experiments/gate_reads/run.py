"""What a gate should read: the logit, the weight, or nothing but a rank; on a pretrained model, nothing trained.

    python -m benchmarks.experiments.gate_reads.run MODEL [--data stdlib] [--length 64] [--rows 32] [--name NAME]

MODEL is a folder with a causal language model and its tokenizer. Every gate is put on the same model and measured on
the same held-out rows: open keys per query and head, KL from the dense model, top-1 agreement. One line a gate goes
to results/NAME.json as it is measured; run again, the command goes on where it stopped.

Trained runs are those of the command line, one file each in configs/:

    gossamer sparsify --config benchmarks/experiments/gate_reads/configs/smollm2.yaml MODEL --out DIR
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.lib.record import Rows
from gossamer.data.prompts import training_tokenizer
from gossamer.data.sequences import TensorRows
from gossamer.data.splits import Splits
from gossamer.data.text import Corpus
from gossamer.gates.top_k import TopKGates
from gossamer.models.attach import attach, detach
from gossamer.models.checkpoint import load_for_training
from gossamer.models.head import Head
from gossamer.training.divergence import Measure, agreement, per_item
from gossamer.training.metrics import Tally, counting

RESULTS = Path(__file__).parent / "results"
LOGIT_BIASES = (8.0, 6.0, 4.0, 2.0, 0.0)
WEIGHTS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.1)  # theta; the bias is -log(theta)
KEYS = (16, 8, 4, 2)
MEASURE = Measure(Head(causal=True, language=True))
BATCH = 8


def gates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every gate: its name, and the arguments of `attach` that make it."""
    for bias in LOGIT_BIASES:
        yield f"logit > {-bias:g}", {"bias": bias, "reads": "logit"}
    for theta in WEIGHTS:
        yield f"weight > {theta:g}", {"bias": -math.log(theta), "reads": "weight"}
    for k in KEYS:
        yield f"the {k} largest", {"gates": TopKGates(k=k)}


@torch.no_grad()
def measured(model: Any, rows: TensorRows, made: dict[str, Any]) -> dict[str, float]:
    """Keys, KL and agreement of the model behind these gates, which are taken off again."""
    tally = Tally()
    for start in range(0, len(rows), BATCH):
        batch = {name: column[start : start + BATCH] for name, column in rows.columns.items()}
        theirs = model(input_ids=batch["input_ids"]).logits
        put = attach(model, check=False, impl="eager", **made)
        with counting(put, tally):
            ours = model(input_ids=batch["input_ids"]).logits
        detach(model)
        tally.add_items("kl", per_item("kl", ours, theirs, batch, MEASURE), len(ours))
        tally.add_items("agreement", agreement(ours, theirs, batch, head=MEASURE.head), len(ours))
        tally.sums["rows"] += len(ours)
    found = tally.summary()
    names = ("keys_per_query", "kl", "kl_se", "agreement", "agreement_se", "density")
    return {name: float(f"{found[name]:.6g}") for name in names}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a causal language model with its tokenizer")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--name", default="untrained")
    given = parser.parse_args()
    model = load_for_training(given.model).eval()
    tokenizer = training_tokenizer(given.model, model, given.length)
    splits = Splits(Corpus(given.data), tokenizer, given.length, train=1, held_out=given.rows)
    record = Rows(RESULTS / f"{given.name}.json")
    for name, made in gates():
        key = {"gate": name, "data": given.data, "length": given.length, "rows": given.rows}
        if record.lacks(key):
            found = record.measure(key, lambda made=made: measured(model, splits.report, made))
            print(
                f"{name:>16}  keys {found['keys_per_query']:6.2f}  KL {found['kl']:.4f} +- {found['kl_se']:.4f}"
            )


if __name__ == "__main__":
    main()
