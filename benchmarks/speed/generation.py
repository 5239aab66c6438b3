"""What hard gates cost in generation with a KV cache, beside the same model on SDPA, in one interleaved run.

    python -m benchmarks.speed.generation              prompts of 128 and 896 tokens, 64 new ones; a record
    python -m benchmarks.speed.generation --quick      16 new ones, nothing kept

A call is `model.generate`, greedy, prompt and all. `sdpa` is the dense model, `hard` the same with gates at bias 0.
Before anything is timed, open gates must generate the dense model's tokens, and hard gates with the cache must give
the logits that they give without it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.lib.machine import circumstances
from benchmarks.lib.record import save
from benchmarks.lib.timing import ratio, timed
from benchmarks.speed import RESULTS
from benchmarks.speed.case import small_gpt2
from gossamer.models.attach import attach

NEAR = 1e-4  # nats


@torch.no_grad()
def generate(model: PreTrainedModel, prompt: Tensor, n: int) -> Any:
    """n greedy tokens after the prompt, with their logits."""
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        min_new_tokens=n,
        max_new_tokens=n,
        return_dict_in_generate=True,
        output_logits=True,
        pad_token_id=0,
    )


def check(dense: PreTrainedModel, sparse: PreTrainedModel, gates: Any, prompt: Tensor, n: int) -> str | None:
    """None if generation may be timed, else why not."""
    with gates.using(bias=torch.inf):
        same = torch.equal(generate(sparse, prompt, n).sequences, generate(dense, prompt, n).sequences)
    if not same:
        return "open gates generate other tokens than the dense model"
    found = generate(sparse, prompt, n)
    with torch.no_grad():
        whole = sparse(found.sequences, use_cache=False).logits[:, prompt.shape[1] - 1 : -1]
    off = (torch.stack(found.logits, 1) - whole).abs().max().item()
    return None if off <= NEAR else f"logits with the cache differ by {off:.3g} nats from those without"


def measure(length: int, n: int, rounds: int) -> dict[str, Any]:
    """A row of the record."""
    dense = small_gpt2(1024)
    sparse = copy.deepcopy(dense)
    gates = attach(sparse)
    gates.bias = 0.0
    prompt = torch.randint(1, 4096, (1, length), generator=torch.Generator().manual_seed(0))
    row: dict[str, Any] = {"prompt": length, "new": n, "impl": gates.impl}
    why = check(dense, sparse, gates, prompt, n)
    if why is not None:
        return {**row, "refused": why}
    contestants = {
        "sdpa": lambda: generate(dense, prompt, n),
        "hard": lambda: generate(sparse, prompt, n),
    }
    times = timed(contestants, rounds)
    row |= {f"{name}_ms": round(statistics.median(taken), 1) for name, taken in times.items()}
    return row | {"hard/sdpa": round(ratio(times, "hard", "sdpa"), 3)}


def table(rows: list[dict[str, Any]], message: dict[str, Any]) -> list[str]:
    """The record as a page of Markdown."""
    names = ["prompt", "new", "impl", "sdpa_ms", "hard_ms", "hard/sdpa"]
    lines = ["# Generation with a KV cache: time", "", ", ".join(f"{k} {v}" for k, v in message.items()), ""]
    lines += ["A GPT-2 of 4 layers, 128 wide, 4,096 tokens; medians over interleaved rounds.", ""]
    lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(str(row.get(n, row.get("refused"))) for n in names) + " |")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure and, unless --quick, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few tokens, nothing kept")
    parser.add_argument("--rounds", type=int, default=7, help="calls of each contestant")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args(argv)
    torch.set_num_threads(asked.threads)
    message = {**circumstances("cpu", torch.float32), "clock": "processor time", "rounds": asked.rounds}
    rows = []
    for length in (128, 896):
        rows.append(measure(length, 16 if asked.quick else 64, asked.rounds))
        print(rows[-1], flush=True)
    lines = table(rows, message)
    print("\n".join(lines))
    if not asked.quick:
        save(RESULTS, "generation", "cpu", {"circumstances": message, "rows": rows}, lines)


if __name__ == "__main__":
    main()
