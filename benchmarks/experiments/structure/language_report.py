"""The page of the small GPT-2 with fewer heads and neurons: the runs under a ceiling, and the arms beside them."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.lib.record import Row
from benchmarks.lib.tables import head, line

ARMS = ("gates", "magnitude", "random", "small dense", "found, untrained", "magnitude, untrained")
RUN = ("gates", "recipe", "ceiling", "seed")


def as_lines(rows: list[Row]) -> list[str]:
    """Three tables: what is left, what it saves, what the arms lose."""
    runs, smaller = ([row for row in rows if row["arm"] == arm] for arm in ("gates", "checkpoints"))
    lines = ["# A small GPT-2 with fewer heads and neurons, one count in every layer", ""]
    lines += [f"`python -m benchmarks.experiments.structure.language`, torch {rows[0]['torch']}, CPU, one thread a "
              "run. Multiply-adds are those of a token in the blocks.", ""]  # fmt: skip
    lines += ["## What a ceiling leaves", ""]
    lines += head(
        *RUN, "held-out KL", "heads, neurons a layer", "multiply-adds in open units", "step of the best model"
    )
    lines += [
        line(*_run(x), f"{x['kl']:.4f} ± {x['kl_se']:.4f}", f"{x.get('heads', ['all'])[0]}, {x['neurons'][0]}",
              f"{x['left']:.1%}", f"{x['best_step']} of {x['steps']}{', missed' if x['missed'] else ''}")
        for x in runs
    ]  # fmt: skip
    lines += ["", "## What the smaller checkpoint saves", "",
              "`uniform` opens in plain transformers, and GPT-2's config knows no count of heads: closed ones are "
              "zeros that are computed. `per-layer` has them cut out. Times are those of the base over those of the "
              "checkpoint.", ""]  # fmt: skip
    lines += head(*RUN, "level", "multiply-adds", "parameters", "prompt", "token", "largest difference")
    lines += [
        line(*_run(x), level, f"{one['multiply_adds']:.1%}", f"{one['parameters']:,}",
              f"{one['faster_prefill']:.2f}x", f"{one['faster_decode']:.2f}x", f"{one['error']:.1e}")
        for x in smaller
        for level, one in ((name, part) for name, part in x.items() if isinstance(part, dict))
    ]  # fmt: skip
    for about in dict.fromkeys(_run(x)[:-1] for x in runs):
        gates, recipe, ceiling = about
        title = f"As many {gates} as the recipe {recipe} left under {ceiling}"
        lines += ["", f"## {title}: rise in cross-entropy, nats", ""]
        lines += _arms([row for row in rows if _run(row)[:-1] == about])
    return lines


def _arms(rows: list[Row]) -> list[str]:
    seeds = sorted({x["seed"] for x in rows})
    lines = head("arm", *(f"seed {x}" for x in seeds), "mean", "KL from the base, mean")
    for arm in ARMS:
        of_seed = {x["seed"]: x for x in rows if x["arm"] == arm}
        if of_seed:
            rise, kl = (statistics.mean(x[name] for x in of_seed.values()) for name in ("delta_ce", "kl"))
            cells = [_rise(of_seed[x]) if x in of_seed else "" for x in seeds]
            lines.append(line(arm, *cells, f"{rise:+.4f}", f"{kl:.4f}"))
    return lines


def _run(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in RUN)


def _rise(row: dict[str, Any]) -> str:
    return f"{row['delta_ce']:+.4f} ± {row['delta_ce_se']:.4f}"
