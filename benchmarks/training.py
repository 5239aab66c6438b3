"""What a sparsifying step costs against a dense finetuning step of the same model, side by side in one run.

    python benchmarks/training.py [--threads 2] [--batch 256] [--rounds 30]

Both steps are whole: forward, loss, backward, clipping, AdamW. The dense one is cross-entropy on the model's own
SDPA attention; the sparse one is the Lagrangian on gated attention with sampled gates. Rounds alternate dense,
sparse, dense ... and the ratio is taken round by round, so that a slow spell of a shared machine hits both.
Before anything is timed, open gates must repeat the dense model.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedModel

from gossamer.ceiling import Multiplier
from gossamer.divergence import per_item
from gossamer.modeling import attach
from gossamer.tasks.addition import Addition

RESULTS = Path(__file__).parent / "results"


def stepper(model: PreTrainedModel, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """One whole optimizer step, returning its seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> float:
        started = time.perf_counter()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    return step


def measure(impl: str, batch: int, rounds: int) -> dict[str, float | str]:
    """Seconds of both steps and their ratio, medians over rounds."""
    task = Addition()
    torch.manual_seed(0)
    base = BertForMaskedLM(task.model_config())
    inputs, labels = task.encode(torch.randperm(task.n_sums)[:batch])
    dense, sparse = copy.deepcopy(base).train(), copy.deepcopy(base)
    gates, multiplier = attach(sparse, impl=impl), Multiplier()
    with torch.no_grad():
        expected = base.eval()(input_ids=inputs).logits
        difference = (sparse.eval()(input_ids=inputs).logits - expected).abs().max().item()
    if difference > 1e-5:
        raise SystemExit(f"{impl}: open gates differ from the dense model by {difference:.3g}; not timed")
    gates.bias = 1.0
    sparse.train()

    def dense_loss() -> Tensor:
        return torch.nn.functional.cross_entropy(
            dense(input_ids=inputs).logits.flatten(0, 1), labels.flatten()
        )

    def sparse_loss() -> Tensor:
        gates.step += 1
        with gates.recording() as record:
            output = sparse(input_ids=inputs).logits
        divergence = per_item("kl", output, expected, {"labels": labels}, causal=False).values.mean()
        return multiplier.lagrangian(record.density(), divergence)

    def sparse_with_base() -> Tensor:
        with torch.no_grad():
            base(input_ids=inputs)
        return sparse_loss()

    steps = [stepper(dense, dense_loss), stepper(sparse, sparse_loss), stepper(sparse, sparse_with_base)]
    for step in steps * 2:
        step()
    times = [[step() for step in steps] for _ in range(rounds)]
    dense_ms, sparse_ms, with_base_ms = (
        1e3 * statistics.median(column) for column in zip(*times, strict=True)
    )
    return {
        "impl": impl,
        "dense_ms": round(dense_ms, 2),
        "sparse_ms": round(sparse_ms, 2),
        "ratio": round(statistics.median(s / d for d, s, _ in times), 3),
        "with_base_ms": round(with_base_ms, 2),
        "ratio_with_base": round(statistics.median(b / d for d, _, b in times), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--impl", nargs="+", default=["eager", "blockwise"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(impl, arguments.batch, arguments.rounds) for impl in arguments.impl]
    record = {
        "benchmark": "cost of a sparsifying step, addition model",
        "device": f"cpu, {arguments.threads} threads",
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"training_cpu_{time.strftime('%Y-%m')}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"{'impl':10} {'dense ms':>9} {'sparse ms':>10} {'ratio':>6} {'with base ms':>13} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['impl']:10} {row['dense_ms']:9} {row['sparse_ms']:10} {row['ratio']:6} "
            f"{row['with_base_ms']:13} {row['ratio_with_base']:6}"
        )
    assert all(math.isfinite(float(row["ratio"])) for row in rows)


if __name__ == "__main__":
    main()
