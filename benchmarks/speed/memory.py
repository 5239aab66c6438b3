"""How much memory gated attention takes at its peak, and how long a long prompt takes to trace.

    python -m benchmarks.speed.memory                 the cases of this device, a record and a plot
    python -m benchmarks.speed.memory --quick         the short ones, nothing kept

On a CPU (Linux) each case runs in a fresh process, which counts how far its resident memory grows
over what was there when the inputs were ready; on CUDA the allocator counts. Seconds are those of
the processor.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.lib.machine import circumstances
from benchmarks.lib.plot import plot
from benchmarks.lib.record import save
from benchmarks.speed import RESULTS
from benchmarks.speed.case import Case, check, run
from gossamer.gates.attention.edge_list import open_edges


def resident(field: str) -> float:
    """Resident memory of this process in MB, from Linux: VmRSS now, or VmHWM at its peak."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 2**10


def forget_peak() -> float:
    """Let the peak start again from now; MB now."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return resident("VmRSS")


def peak(case: Case, impl: str, device: str, dtype: torch.dtype) -> dict[str, float]:
    """MB above the inputs for one run, and its seconds."""
    qkv = case.inputs(device, dtype)
    run(case, impl, case.inputs(device, dtype, 16))  # load what is loaded once
    start = time.process_time()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(case, impl, qkv)
        torch.cuda.synchronize()
        grown = (torch.cuda.max_memory_allocated() - before) / 2**20
    else:
        before = forget_peak()
        run(case, impl, qkv)
        grown = resident("VmHWM") - before
    return {"MB": grown, "seconds": time.process_time() - start}


def trace(length: int) -> dict[str, float]:
    """MB and seconds for the open edges of one causal head; about 1 in a million pairs is open."""
    maker = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, length, 8, generator=maker) for _ in range(2))
    before, start = forget_peak(), time.process_time()
    edges = open_edges(q, k, scale=1.0, bias=-16.0, causal=True)
    return {
        "MB": resident("VmHWM") - before,
        "seconds": time.process_time() - start,
        "edges": len(edges.key),
    }


def alone(*arguments: str) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def one(arguments: list[str], device: str, dtype: torch.dtype) -> dict[str, float]:
    """What `alone` asked for."""
    if arguments[0] == "trace":
        return trace(int(arguments[1]))
    return peak(_case(int(arguments[1]), device), arguments[0], device, dtype)


def _case(length: int, device: str) -> Case:
    if device == "cuda":
        return Case(4, 16, 16, length, 64, mode="sampled", backward=True)
    return Case(1, 4, 4, length, 32, mode="sampled", backward=True)


def drawn(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Peak memory against T, a line for each implementation and one for tracing, which has no backward."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        name = "tracing, one head" if row["impl"] == "trace" else row["impl"]
        lines.setdefault(name, []).append((row["length"], row["MB"]))
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure and, unless --quick, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short cases, nothing kept")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if asked.one:
        print(json.dumps(one(asked.one, device, dtype)))
        return
    names = ["triton", "sdpa"] if device == "cuda" else ["blockwise", "eager", "sdpa"]
    lengths = [512, 1024] if asked.quick else [1024, 2048, 4096]
    message = circumstances(device, dtype)
    lines = ["# Gated attention: peak memory", "", ", ".join(f"{k} {v}" for k, v in message.items())]
    lines += ["", "| T | implementation | MB above the inputs | seconds |", "|---|---|---|---|"]
    rows: list[dict[str, Any]] = []
    for length in lengths:
        case = _case(length, device)
        for name in names:
            why = check(case, name, device, dtype)
            if why:
                lines.append(f"| {length} | {name} | refused: {why} | |")
                continue
            took = alone(name, str(length))
            rows.append({"impl": name, **asdict(case), **took})
            lines.append(f"| {length} | {name} | {took['MB']:.0f} | {took['seconds']:.2f} |")
            print(lines[-1], flush=True)
    lines += ["", "| T | traced: open edges | MB | seconds |", "|---|---|---|---|"]
    for length in [2048] if asked.quick else [8192, 32768]:
        took = alone("trace", str(length))
        rows.append({"impl": "trace", "length": length, **took})
        lines.append(f"| {length} | {took['edges']} | {took['MB']:.0f} | {took['seconds']:.1f} |")
    print("\n".join(lines))
    if not asked.quick:
        page = save(RESULTS, "memory", device, {"circumstances": message, "rows": rows}, lines)
        title = "Forward and backward, sampled gates"
        plot(drawn(rows), page.with_suffix(".svg"), unit="MB above the inputs", title=title)


if __name__ == "__main__":
    main()
