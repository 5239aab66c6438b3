"""How long gated attention takes beside its peers, in one interleaved run.

    python -m benchmarks.speed.attention              the cases of this device, a record and a plot
    python -m benchmarks.speed.attention --quick      the short ones, nothing kept

CPU: blockwise against eager at T = 4,096, and both against dense SDPA on the way there. CUDA: triton
against SDPA's flash attention at T = 1k .. 16k, and hard gates in a forward of which 1 % is open; the kernel of the
paper's authors is a peer where their package splash_attention is installed.
The rows that need CUDA stay open in the record of a CPU, with the command that fills them.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.lib.machine import circumstances
from benchmarks.lib.plot import plot
from benchmarks.lib.record import save
from benchmarks.lib.timing import medians
from benchmarks.speed import RESULTS
from benchmarks.speed.case import Case, check, has_authors, run

SMALL = Case(rows=128, heads=4, groups=4, length=11, width=16, mode="sampled", backward=True, causal=False)
MIDDLE = Case(rows=1, heads=4, groups=4, length=128, width=32, mode="sampled", backward=True)
LONG = Case(rows=4, heads=16, groups=16, length=1024, width=64, mode="sampled", backward=True)
# At this bias about 1 % of standard normal logits exceed 0.
ONE_PERCENT = -2.33


def cases(device: str, quick: bool) -> list[tuple[Case, list[str]]]:
    """Each case with its contestants."""
    if device == "cuda":
        lengths = [1024, 4096] if quick else [1024, 2048, 4096, 8192, 16384]
        long = [replace(LONG, length=n) for n in lengths]
        hard = [replace(x, mode="hard", backward=False, bias=ONE_PERCENT) for x in long]
        peers = ["triton", "sdpa", *(["authors"] if has_authors() else [])]
        return [(x, peers) for x in (*long, *hard)]
    lengths = [128, 512] if quick else [128, 512, 1024, 2048, 4096]
    middle = [replace(MIDDLE, length=n) for n in lengths]
    step = replace(MIDDLE, length=1024, mode="hard", backward=False)
    small = [SMALL, replace(SMALL, mode="hard"), replace(SMALL, mode="open"), step]
    return [(x, ["blockwise", "eager", "sdpa"]) for x in (*small, *middle)]


def measure(case: Case, names: list[str], device: str, dtype: torch.dtype, rounds: int):
    """Check, then time; a row of the record."""
    row: dict[str, Any] = {**asdict(case), "milliseconds": None}
    failures = [why for name in names if (why := check(case, name, device, dtype))]
    if failures:
        return {**row, "refused": "; ".join(failures)}
    qkv = case.inputs(device, dtype)
    calls = {name: lambda name=name: run(case, name, qkv) for name in names}
    with torch.set_grad_enabled(case.backward):
        return {**row, "milliseconds": medians(calls, rounds)}


def table(rows: list[dict[str, Any]], names: list[str], message: dict[str, Any]) -> list[str]:
    """The record as a page of Markdown."""
    lines = ["# Gated attention: time", "", ", ".join(f"{k} {v}" for k, v in message.items()), ""]
    lines += [
        "Milliseconds, median of interleaved runs; the last columns are ratios in that run.",
        "",
    ]
    head = ["B", "H", "T", "D", "gates", "pass", *names, *(f"{names[0]} / {n}" for n in names[1:])]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        case = [str(row[x]) for x in ("rows", "heads", "length", "width", "mode")]
        case.append("forward + backward" if row["backward"] else "forward")
        took = row["milliseconds"]
        if took is None:
            lines.append(f"| {' | '.join(case)} | refused: {row['refused']} |")
            continue
        numbers = [f"{took[n]:.2f}" for n in names]
        ratios = [f"{took[names[0]] / took[n]:.2f}" for n in names[1:]]
        lines.append(f"| {' | '.join([*case, *numbers, *ratios])} |")
    return lines


OPEN = [
    "",
    "Open, since no CUDA device was at hand; `python -m benchmarks.speed.attention` on one fills them:",
    "",
    "| CUDA, bf16, B=4 H=16 D=64, causal | must reach | measured |",
    "|---|---|---|",
    "| T = 1k..16k, forward + backward, sampled, triton / SDPA flash, T >= 4k | <= 1.6 | open |",
    "| the same, the authors' kernel / triton, their package splash_attention installed | >= 3 | open |",
    "| the same, memory, triton / SDPA flash, `python -m benchmarks.speed.memory` | <= 1.15 | open |",
    "| hard gates, forward, 1 % open, triton / SDPA flash, T >= 4k | <= 1.0 | open |",
]


def drawn(rows: list[dict[str, Any]], names: list[str]) -> dict[str, list[tuple[int, float]]]:
    """Time against T for the cases that differ in T alone, a line for each implementation."""
    series = [r for r in rows if r["milliseconds"] and r["causal"] and r["backward"]]
    return {name: [(r["length"], r["milliseconds"][name]) for r in series] for name in names}


def main(argv: list[str] | None = None) -> None:
    """Measure and, unless --quick, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short cases, nothing kept")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant")
    asked = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    chosen = cases(device, asked.quick)
    names = chosen[0][1]
    message = circumstances(device, dtype)
    rows = []
    for case, contestants in chosen:
        rows.append(measure(case, contestants, device, dtype, asked.rounds))
        print(case.length, case.mode, rows[-1].get("refused") or rows[-1]["milliseconds"], flush=True)
    lines = table(rows, names, message) + (OPEN if device == "cpu" else [])
    print("\n".join(lines))
    if not asked.quick:
        page = save(RESULTS, "attention", device, {"circumstances": message, "rows": rows}, lines)
        title = "Forward and backward, sampled gates"
        plot(drawn(rows, names), page.with_suffix(".svg"), unit="milliseconds", title=title)


if __name__ == "__main__":
    main()
