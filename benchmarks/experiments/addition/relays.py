"""Which position pairs a base adder needs: its answers with one pair cut in every layer and head.

    python -m benchmarks.experiments.addition.relays runs/addition/seed*/base

A sparse model keeps the wiring that its base has, so this tells beforehand what a run can end with: a tens slot that
reads its carry off the hundreds slot is a relay that finetuning does not give up (LOG.md, 2026-11-24). Printed per
model: the share of 10,000 sums on which the hundreds, tens and units slots are still right.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from gossamer.models.attach import attach
from gossamer.models.checkpoint import load_dense
from gossamer.models.forward import first_output
from gossamer.recipes.addition.task import Addition

TASK = Addition()
SLOTS = {"hundreds": 8, "tens": 9, "units": 10}
DIGITS, ANSWER = (0, 1, 3, 4), tuple(range(6, 11))
CUTS = {
    "nothing": [],
    "tens reads hundreds": [(9, 8)],
    "hundreds reads tens": [(8, 9)],
    "tens reads units": [(9, 10)],
    "all between answer slots": [(q, k) for q in ANSWER for k in ANSWER if q != k],
    "all into digits": [(q, k) for q in DIGITS for k in range(11) if q != k],
}


@torch.no_grad()
def right(model: torch.nn.Module, cut: list[tuple[int, int]], inputs: Tensor, labels: Tensor) -> list[float]:
    """Share of sums on which each slot is right when the (query, key) pairs `cut` are closed in every layer."""
    keep = torch.ones(TASK.length, TASK.length)
    for query, key in cut:
        keep[query, key] = 0
    gates = attach(model, impl="eager")
    with gates.using(bias=math.inf, keep=dict.fromkeys(range(gates.n_layers), keep)):
        found = torch.cat([first_output(model, {"input_ids": x}).argmax(-1) for x in inputs.split(1000)])
    return [float((found == labels)[:, position].float().mean()) for position in SLOTS.values()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", nargs="+", type=Path, help="folders of two-digit base adders")
    inputs, labels = TASK.encode(torch.arange(TASK.n_sums))
    print("| base | cut | " + " | ".join(SLOTS) + " |\n|---|---|---|---|---|")
    for folder in parser.parse_args().base:
        for name, cut in CUTS.items():
            shares = right(load_dense(folder).eval(), cut, inputs, labels)
            print(f"| {folder} | {name} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
