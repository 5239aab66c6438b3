"""What a sparsifying step costs beside a dense finetuning step of the same model, in one interleaved run.

    python -m benchmarks.speed.training              addition and a small GPT-2 at T = 128 .. 1,024; a record
    python -m benchmarks.speed.training --quick      addition and T = 128 alone, nothing kept

All steps are whole: forward, loss, backward, clipping, AdamW. `dense` is cross-entropy on the model's own SDPA
attention. `sparse` is the Lagrangian with the same cross-entropy as its divergence, on gated attention with sampled
gates: no teacher. `kl` is what the default ceiling takes: KL against the frozen base, whose forward counts. Those are
of gates that read the logit; `kl_weight` is `kl` of gates that read the attention weight. Ratios are taken round by
round. Before anything is timed, open gates must repeat the dense model, and the gradient under
sampled gates must be that of eager, the specification.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedModel

from benchmarks.lib.machine import circumstances
from benchmarks.lib.record import save
from benchmarks.lib.timing import ratio, timed
from benchmarks.speed import RESULTS
from benchmarks.speed.case import small_gpt2
from gossamer.models.attach import attach
from gossamer.models.head import Head
from gossamer.recipes.addition.task import Addition
from gossamer.training.constraint import Ceiling
from gossamer.training.controller import Controller
from gossamer.training.divergence import Measure, per_item
from gossamer.training.recipe import Recipe

TOKENS = 1024  # of a batch of the language model, whatever its length
BIAS = 1.0  # nats; about half-open gates, as in the middle of a run
NEAR = 1e-4  # relative; float32 sums in another order

Inputs = dict[str, Tensor]


class Setting(NamedTuple):
    """A model and a batch: what is finetuned."""

    name: str
    base: PreTrainedModel
    inputs: Inputs
    causal: bool


def addition() -> Setting:
    """The demo's model and batch, 256 sums of 11 tokens."""
    task = Addition()
    torch.manual_seed(0)
    ids, labels = task.encode(torch.randperm(task.n_sums)[:256])
    return Setting(
        "addition", BertForMaskedLM(task.model_config()).eval(), {"input_ids": ids, "labels": labels}, False
    )


def language(length: int) -> Setting:
    """A small GPT-2 on random tokens: 1,024 of them in rows of `length`."""
    base = small_gpt2(length)
    ids = torch.randint(0, 4096, (TOKENS // length, length), generator=torch.Generator().manual_seed(0))
    return Setting("gpt2 4 x 128", base, {"input_ids": ids, "labels": ids}, True)


def logits(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    return model(input_ids=inputs["input_ids"], use_cache=False).logits


def lost(setting: Setting, kind: str, output: Tensor, base: Tensor | None = None) -> Tensor:
    return per_item(kind, output, base, setting.inputs, Measure(Head(causal=setting.causal))).values.mean()


def sparse_loss(setting: Setting, model: PreTrainedModel, gates: Any, kind: str) -> Tensor:
    """The Lagrangian of one batch, with the teacher's forward where `kind` needs one."""
    expected = None
    if kind != "loss":
        with torch.no_grad():
            expected = logits(setting.base, setting.inputs)
    with gates.recording() as record:
        output = logits(model, setting.inputs)
    return Controller(Ceiling("kl", 0.02), Recipe()).lagrangian(
        record.density(), lost(setting, kind, output, expected)
    )


def gated(setting: Setting, impl: str, reads: str = "logit") -> tuple[PreTrainedModel, Any]:
    """A copy of the base behind gates, as many of them open as logits near 0 leave under `BIAS`."""
    model = copy.deepcopy(setting.base).train()
    gates = attach(model, impl=impl, reads=reads)
    length = setting.inputs["input_ids"].shape[1]
    visible = (length + 1) / 2 if setting.causal else length
    gates.bias = BIAS + (math.log(visible) if reads == "weight" else 0.0)
    return model, gates


def check(setting: Setting, impl: str, reads: str = "logit") -> str | None:
    """None if the sparse model may be timed, else why not."""
    model, gates = gated(setting, impl, reads)
    with torch.no_grad(), gates.using(bias=torch.inf):
        off = (logits(model, setting.inputs) - logits(setting.base, setting.inputs)).abs().max().item()
    if not off <= NEAR:
        return f"open gates differ from the dense model by {off:.3g}"
    grads = []
    for name in (impl, "eager"):
        with gates.using(impl=name):
            loss = sparse_loss(setting, model, gates, "loss")
        grads.append(torch.cat([x.flatten() for x in torch.autograd.grad(loss, list(model.parameters()))]))
    off = ((grads[0] - grads[1]).norm() / grads[1].norm()).item()
    return None if off <= NEAR else f"the gradient differs from eager's by {off:.3g} of its norm"


def stepper(model: PreTrainedModel, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One whole optimizer step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def steps_of(setting: Setting, impl: str) -> dict[str, Callable[[], None]]:
    """The contestants, each with a model of its own."""
    dense = copy.deepcopy(setting.base).train()
    found = {"dense": stepper(dense, lambda: lost(setting, "loss", logits(dense, setting.inputs)))}
    for name, kind, reads in (
        ("sparse", "loss", "logit"),
        ("kl", "kl", "logit"),
        ("kl_weight", "kl", "weight"),
    ):
        model, gates = gated(setting, impl, reads)

        def loss(model: PreTrainedModel = model, gates: Any = gates, kind: str = kind) -> Tensor:
            gates.step += 1
            return sparse_loss(setting, model, gates, kind)

        found[name] = stepper(model, loss)
    return found


def begun(setting: Setting, impl: str) -> dict[str, Any]:
    """The head of a row: what is measured, with `refused` where it fails its check and may not be timed."""
    rows, length = setting.inputs["input_ids"].shape
    row: dict[str, Any] = {"model": setting.name, "impl": impl, "B": rows, "T": length}
    why = check(setting, impl) or check(setting, impl, "weight")
    return row if why is None else {**row, "refused": why}


def measure(setting: Setting, impl: str, rounds: int) -> dict[str, Any]:
    """A row of the record."""
    row = begun(setting, impl)
    if "refused" in row:
        return row
    times = timed(steps_of(setting, impl), rounds)
    row |= {f"{name}_ms": round(statistics.median(taken), 2) for name, taken in times.items()}
    pairs = (("sparse", "dense"), ("kl", "dense"), ("kl_weight", "kl"))
    return row | {f"{name}/{beside}": round(ratio(times, name, beside), 3) for name, beside in pairs}


def table(rows: list[dict[str, Any]], message: dict[str, Any]) -> list[str]:
    """The record as a page of Markdown."""
    names = ["model", "impl", "B", "T", "dense_ms", "sparse_ms", "kl_ms", "kl_weight_ms"]
    names += ["sparse/dense", "kl/dense", "kl_weight/kl"]
    lines = ["# Sparsifying: time of a whole step", "", ", ".join(f"{k} {v}" for k, v in message.items()), ""]
    lines += ["Medians over interleaved rounds; sparse: no teacher; kl: with the frozen base's forward; "
              "kl_weight: the same, of gates that read the attention weight.", ""]  # fmt: skip
    lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(str(row.get(n, row.get("refused"))) for n in names) + " |")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure and, unless --quick, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="short cases, nothing kept")
    parser.add_argument("--rounds", type=int, default=9, help="steps of each contestant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--impl", nargs="+", default=["blockwise"], help="eager, blockwise or both")
    asked = parser.parse_args(argv)
    torch.set_num_threads(asked.threads)
    lengths = [128] if asked.quick else [128, 256, 512, 1024]
    message = {**circumstances("cpu", torch.float32), "clock": "processor time", "rounds": asked.rounds}
    rows = []
    for setting in (addition(), *(language(n) for n in lengths)):
        for impl in asked.impl:
            rows.append(measure(setting, impl, asked.rounds))
            print(rows[-1], flush=True)
    lines = table(rows, message)
    print("\n".join(lines))
    if not asked.quick:
        save(RESULTS, "training", "cpu", {"circumstances": message, "rows": rows}, lines)


if __name__ == "__main__":
    main()
