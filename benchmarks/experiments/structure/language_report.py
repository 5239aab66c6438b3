"""The page of the small GPT-2 with fewer heads and neurons: the runs under a ceiling, and the arms beside them."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.lib.record import Row

ARMS = ("gates", "magnitude", "random", "small dense", "found, untrained", "magnitude, untrained")


def as_lines(rows: list[Row]) -> list[str]:
    """Three tables: what is left, what it saves, what the arms lose."""
    runs, smaller = ([row for row in rows if row["arm"] == arm] for arm in ("gates", "checkpoints"))
    lines = ["# A small GPT-2 with fewer heads and neurons, one count in every layer", ""]
    lines += [f"`OMP_NUM_THREADS=1 python -m benchmarks.experiments.structure.language {_asked(runs)}`, torch "
              f"{rows[0]['torch']}, CPU. Multiply-adds are those of a token in the blocks.", ""]  # fmt: skip
    lines += ["## What a ceiling leaves", "",
              "| ceiling | seed | held-out KL | heads, neurons a layer | multiply-adds in open units "
              "| step of the best model |", "|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {x['ceiling']} | {x['seed']} | {x['kl']:.4f} ± {x['kl_se']:.4f} | {x['heads'][0]}, {x['neurons'][0]} "
        f"| {x['left']:.1%} | {x['best_step']} of {x['steps']}{', missed' if x['missed'] else ''} |"
        for x in runs
    ]
    lines += ["", "## What the smaller checkpoint saves", "",
              "`uniform` opens in plain transformers, and GPT-2's config knows no count of heads: closed ones are "
              "zeros that are computed. `per-layer` has them cut out. Times are those of the base over those of the "
              "checkpoint.", "",
              "| ceiling | seed | level | multiply-adds | parameters | prompt | token | largest difference |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {x['ceiling']} | {x['seed']} | {level} | {one['multiply_adds']:.1%} | {one['parameters']:,} "
        f"| {one['faster_prefill']:.2f}x | {one['faster_decode']:.2f}x | {one['error']:.1e} |"
        for x in smaller
        for level, one in ((name, part) for name, part in x.items() if isinstance(part, dict))
    ]
    for ceiling in dict.fromkeys(x["ceiling"] for x in runs):
        lines += ["", f"## As many units otherwise: rise in cross-entropy, nats, {ceiling}", ""]
        lines += _arms([row for row in rows if row["ceiling"] == ceiling])
    return lines


def _arms(rows: list[Row]) -> list[str]:
    seeds = sorted({x["seed"] for x in rows})
    lines = ["| arm | " + " | ".join(f"seed {x}" for x in seeds) + " | mean | KL from the base, mean |"]
    lines += ["|---" * (len(seeds) + 3) + "|"]
    for arm in ARMS:
        of_seed = {x["seed"]: x for x in rows if x["arm"] == arm}
        if of_seed:
            cells = [_rise(of_seed[x]) if x in of_seed else "" for x in seeds]
            rise, kl = (statistics.mean(x[name] for x in of_seed.values()) for name in ("delta_ce", "kl"))
            lines += [f"| {arm} | " + " | ".join(cells) + f" | {rise:+.4f} | {kl:.4f} |"]
    return lines


def _rise(row: dict[str, Any]) -> str:
    return f"{row['delta_ce']:+.4f} ± {row['delta_ce_se']:.4f}"


def _asked(runs: list[Row]) -> str:
    seeds, ceilings = (list(dict.fromkeys(x[name] for x in runs)) for name in ("seed", "ceiling"))
    return f"--seeds {' '.join(map(str, seeds))} --ceilings {' '.join(ceilings)}"
