"""Between tasks, and under shift: a small GPT-2 that knows four tasks, made sparse under other ceilings and other data.

    base         trained on all tasks                      finetuned        the same steps again, without a penalty
    general@C    under the ceiling C on all tasks          finetuned_one    the same on one task alone
    one@C        under the ceiling C on one task alone     topk             the base, reading as many keys as general

The ceiling is enforced on the answers of the prompts that a run is finetuned on, and nowhere else. So KL on other
tasks' answers, on the tokens before an answer, and on prompts that no text contains is what nothing promises.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from benchmarks.experiments.circuits.models import BASE_RATE, RATE, data, plain, sparse, untrained
from gossamer.circuits.trace import trace
from gossamer.data.pairs import Batch
from gossamer.data.registry import batches
from gossamer.files import read_json
from gossamer.gates.edges import EdgeGates
from gossamer.gates.top_k import TopKGates
from gossamer.models.attach import attach
from gossamer.models.checkpoint import load, load_dense
from gossamer.models.forward import evaluating, first_output
from gossamer.training.divergence import kl_per_item

TASKS = ("ioi", "greater_than", "quotes", "brackets")
ONE = "ioi"  # the task that a narrow run is finetuned on
UNSEEN = ("induction", "docstring")  # tasks of the vocabulary that no run has seen
CEILINGS = ("kl=0.02", "kl=0.1", "kl=0.005", "kl=0.05", "kl=0.01")
MEASURED = 8000  # added to the seed: prompts that nobody was trained on
SIZE = {"layers": 4, "heads": 4, "width": 32}


def settings(out: Path, steps: int, ceiling: str = CEILINGS[0]) -> argparse.Namespace:
    """What the circuits' models are made with."""
    fixed = {"base_steps": 1200, "rows": 40_000, "loose": 2.5, "most": 10.0}
    return argparse.Namespace(out=out, steps=steps, ceiling=ceiling, **fixed, **SIZE)


def variants() -> tuple[str, ...]:
    """Every model of a seed, in the order of its worth."""
    first, rest = CEILINGS[0], CEILINGS[1:]
    main = ("base", f"general@{first}", f"one@{first}", "finetuned", "finetuned_one", f"topk@{first}")
    return (*main, *(f"{kind}@{ceiling}" for ceiling in rest for kind in ("general", "topk")))


def model_of(variant: str, out: Path, steps: int, seed: int) -> Any:
    """Load a variant, or make it; top-k gates are put on the base and kept nowhere."""
    kind, _, ceiling = variant.partition("@")
    given, folder = settings(out, steps, ceiling or CEILINGS[0]), out / f"seed{seed}" / variant
    if kind == "topk":
        general = model_of(f"general@{ceiling}", out, steps, seed)
        return with_top_k(model_of("base", out, steps, seed), keys_per_query(general, seed))
    if (folder / "config.json").is_file():
        return load(folder, impl="eager") if kind in ("general", "one") else load_dense(folder)
    if kind == "base":
        set_seed(seed)
        model = untrained(given)
        plain(model, folder, data(given.rows, seed, TASKS), steps=given.base_steps, seed=seed, rate=BASE_RATE)
        return model
    tasks = (ONE,) if kind in ("one", "finetuned_one") else TASKS
    model = model_of("base", out, steps, seed)
    set_seed(seed)
    if kind in ("finetuned", "finetuned_one"):
        train = data(given.rows, seed + 1000, tasks)
        plain(model, folder, train, steps=steps, seed=seed + 1000, rate=RATE)
        return model
    return sparse(model, given, folder, seed + 1000, tasks)


def promise(variant: str, out: Path, seed: int) -> dict[str, Any]:
    """What a sparse run said of its own ceiling."""
    path = out / f"seed{seed}" / f"{variant}.json"
    return read_json(path) if path.is_file() else {}


def with_top_k(base: Any, keys: float) -> Any:
    """The base reading its k strongest keys per query and head, k the next whole number."""
    model = copy.deepcopy(base)
    attach(model, gates=TopKGates(k=max(1, round(keys))))
    return model


def keys_per_query(model: Any, seed: int) -> float:
    """Open keys per query and head of a gated model on prompts of all tasks."""
    opened = queries = 0
    for task in TASKS:
        for batch in batches(task, 50, seed=seed + MEASURED):
            circuit = trace(model, batch.clean)
            opened += len(circuit)
            queries += batch.clean.numel() * circuit.n_layers * circuit.n_heads
    return opened / queries


def shifted(batch: Batch, kind: str) -> Tensor:
    """(N, T') prompts that differ from those of the text.

    Args:
        kind: clean; corrupt, with another fact in it; shuffled, the same tokens in another order; twice, two prompts in
            a row, longer than any that was trained on.
    """
    if kind == "clean":
        return batch.clean
    if kind == "corrupt":
        return batch.corrupt
    if kind == "twice":
        return torch.cat([batch.clean.roll(1, 0), batch.clean], 1)[:, -32:]
    draw = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(batch.clean.shape[1], generator=draw) for _ in range(len(batch))])
    return batch.clean.gather(1, order)


SHIFTS = ("clean", "corrupt", "shuffled", "twice")


def measure(model: Any, base: Any, seed: int, n: int = 200) -> dict[str, Any]:
    """By task: accuracy, KL to the base at the answer, before it, and under each shift, and open edges a prompt."""
    found: dict[str, Any] = {}
    for task in (*TASKS, *UNSEEN):
        parts = batches(task, n, seed=seed + MEASURED)
        found[task] = {
            "accuracy": _mean(parts, lambda batch: _right(model, batch)),
            "kl_before": _mean(parts, lambda batch: kl(model, base, batch.clean)[:, :-1].mean(1)),
            **{
                f"kl_{kind}": _mean(
                    parts, lambda batch, kind=kind: kl(model, base, shifted(batch, kind))[:, -1]
                )
                for kind in SHIFTS
            },
            "edges": _mean(parts, lambda batch: _edges(model, batch)),
        }
    return found


def _mean(parts: list[Batch], look: Callable[[Batch], Tensor]) -> float:
    return float(f"{float(torch.cat([look(batch).double().cpu() for batch in parts]).mean()):.6g}")


def kl(model: Any, base: Any, ids: Tensor) -> Tensor:
    """(N, T) nats: KL(base || model) at every position."""
    with evaluating(model), evaluating(base):
        ours, theirs = (first_output(one, {"input_ids": ids}) for one in (model, base))
    return kl_per_item(theirs.flatten(0, 1), ours.flatten(0, 1)).view(ids.shape)


def _right(model: Any, batch: Batch) -> Tensor:
    with evaluating(model):
        last = first_output(model, {"input_ids": batch.clean})[:, -1]
    best = [last.masked_fill(~mask, -torch.inf).amax(-1) for mask in (batch.right, batch.wrong)]
    return (best[0] > best[1]).float()


def _edges(model: Any, batch: Batch) -> Tensor:
    if EdgeGates.on(model) is None:
        length = batch.clean.shape[1]
        edges = model.config.n_layer * model.config.n_head * length * (length + 1) / 2
        return torch.full((len(batch),), edges)
    return torch.from_numpy(trace(model, batch.clean, outputs=[-1]).per_prompt()).float()
