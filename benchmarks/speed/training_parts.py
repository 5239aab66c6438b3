"""Where the time of a sparsifying step goes, part by part, beside a dense finetuning step on the same batch.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.training_parts          addition, and a small GPT-2 at T = 128 and 512
    OMP_NUM_THREADS=1 python -m benchmarks.speed.training_parts --quick  T = 128 alone, nothing kept

The steps are those of `training.py`, dense and `kl`, in turn in one process, with the clock read between their parts.
What gates cost is told as a difference of medians: the forward (backward) of the gated model less that of the dense
one, so it holds everything that the gate brings, and in backward also the KL's gradient.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.lib.machine import circumstances
from benchmarks.lib.record import save
from benchmarks.speed import RESULTS
from benchmarks.speed.training import Setting, addition, begun, gated, language, logits, lost
from gossamer.training.constraint import Ceiling
from gossamer.training.controller import Controller
from gossamer.training.recipe import Recipe

Times = dict[str, float]  # milliseconds by part
PARTS = ("teacher", "forward", "loss", "backward", "optimizer")
TOLD = (
    "teacher's forward",
    "forward",
    "gates in forward",
    "loss",
    "backward",
    "gates and KL in backward",
    "optimizer",
)


class Stopwatch:
    """Processor milliseconds between calls, by the name of the part that just ended."""

    def __init__(self) -> None:
        self.parts: Times = dict.fromkeys(PARTS, 0.0)
        self._last = time.process_time()

    def ends(self, part: str) -> None:
        """The part ran from the last call until now."""
        now = time.process_time()
        self.parts[part] += 1e3 * (now - self._last)
        self._last = now


def _optimize(watch: Stopwatch, model: PreTrainedModel, optimizer: torch.optim.Optimizer, loss: Any) -> Times:
    loss.backward()
    watch.ends("backward")
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    watch.ends("optimizer")
    return watch.parts


def dense_step(setting: Setting) -> Callable[[], Times]:
    """A finetuning step on the model's own SDPA attention, with the clock read between its parts."""
    model = copy.deepcopy(setting.base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> Times:
        watch = Stopwatch()
        output = logits(model, setting.inputs)
        watch.ends("forward")
        loss = lost(setting, "loss", output)
        watch.ends("loss")
        return _optimize(watch, model, optimizer, loss)

    return step


def sparse_step(setting: Setting, impl: str) -> Callable[[], Times]:
    """A sparsifying step under KL to the frozen base, likewise."""
    model, gates = gated(setting, impl)
    optimizer, controller = (
        torch.optim.AdamW(model.parameters(), lr=1e-5),
        Controller(Ceiling("kl", 0.02), Recipe()),
    )

    def step() -> Times:
        watch = Stopwatch()
        gates.step += 1
        with torch.no_grad():
            expected = logits(setting.base, setting.inputs)
        watch.ends("teacher")
        with gates.recording() as record:
            output = logits(model, setting.inputs)
        watch.ends("forward")
        loss = controller.lagrangian(record.density(), lost(setting, "kl", output, expected))
        watch.ends("loss")
        return _optimize(watch, model, optimizer, loss)

    return step


def measure(setting: Setting, impl: str, rounds: int) -> dict[str, Any]:
    """A row of the record: both steps by parts, what gates add, the shares, and the ratio of the whole."""
    row = begun(setting, impl)
    if "refused" in row:
        return row
    steps = {"dense": dense_step(setting), "sparse": sparse_step(setting, impl)}
    taken: dict[str, list[Times]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            found = step()
            if turn:  # the first warms up
                taken[name].append(found)
    dense, sparse = ({p: statistics.median(t[p] for t in times) for p in PARTS} for times in taken.values())
    whole = [sum(a.values()) / sum(b.values()) for a, b in zip(taken["sparse"], taken["dense"], strict=True)]
    total = sum(sparse.values())
    return row | {
        "dense_ms": _rounded(dense),
        "sparse_ms": _rounded(sparse),
        "shares": {name: round(ms / total, 4) for name, ms in split(dense, sparse).items()},
        "sparse/dense": round(statistics.median(whole), 3),
    }


def split(dense: Times, sparse: Times) -> Times:
    """The sparsifying step in the parts that are told; they add up to the whole."""
    parts = (sparse["teacher"], dense["forward"], sparse["forward"] - dense["forward"], sparse["loss"],
             dense["backward"], sparse["backward"] - dense["backward"], sparse["optimizer"])  # fmt: skip
    return dict(zip(TOLD, parts, strict=True))


def _rounded(times: Times) -> Times:
    return {name: round(ms, 2) for name, ms in times.items()}


def table(rows: list[dict[str, Any]], message: dict[str, Any]) -> list[str]:
    """The record as a page of Markdown."""
    names = ["model", "T", "dense ms", "sparse ms", "sparse/dense", *TOLD]
    lines = ["# A sparsifying step, part by part", "", ", ".join(f"{k} {v}" for k, v in message.items()), ""]
    lines += [
        "Shares of the sparsifying step under KL to the frozen base; medians over interleaved rounds.",
        "",
    ]
    lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        if "refused" in row:
            lines.append(f"| {row['model']} | {row['T']} | {row['refused']} |")
            continue
        whole = [f"{sum(row[f'{name}_ms'].values()):.1f}" for name in ("dense", "sparse")]
        shares = [f"{100 * share:.1f} %" for share in row["shares"].values()]
        cells = [row["model"], str(row["T"]), *whole, f"{row['sparse/dense']:.2f}", *shares]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure and, unless --quick, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="T = 128 alone, nothing kept")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each kind")
    parser.add_argument("--impl", default="blockwise")
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = [language(128)] if asked.quick else [addition(), language(128), language(512)]
    message = {**circumstances("cpu", torch.float32), "clock": "processor time", "rounds": asked.rounds}
    rows = [measure(setting, asked.impl, asked.rounds) for setting in settings]
    lines = table(rows, message)
    print("\n".join(lines))
    if not asked.quick:
        save(RESULTS, "training-parts", "cpu", {"circumstances": message, "rows": rows}, lines)


if __name__ == "__main__":
    main()
