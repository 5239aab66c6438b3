"""One arm on a language model: the frontier's GPT-2 under the default recipe, judged on the rows that report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.experiments.frontier import data as source
from benchmarks.experiments.gate_reads.default import GPT2_BASE_STEPS, gpt2
from benchmarks.lib.record import Row

STEPS, CEILING = 300, "kl=0.05"
HELD_OUT = ("keys_per_query", "kl", "kl_se", "delta_ce", "delta_ce_se", "agreement")


def measured(work: Path, seed: int, changes: dict[str, Any]) -> Row:
    """Sparsify the GPT-2 under the changed recipe; say what is left and what it loses.

    Args:
        changes: of the recipe, as `{"control.kp": 0.0}`.
    """
    source.base_model(work, GPT2_BASE_STEPS)  # made once, and in no run's seconds
    started = time.monotonic()
    outcome, held_out = gpt2(CEILING, seed, work, steps=STEPS, changes=changes)
    return {
        **{name: held_out[name] for name in HELD_OUT},
        "feasible": outcome.feasible,
        "missed": outcome.missed,
        "best_step": outcome.step,
        "steps": outcome.steps,
        "ended": outcome.ended,
        "seconds": round(time.monotonic() - started, 1),
    }
