"""What a smaller model saves: size against the latency of a prompt and of a token, for a few kept shares, in one run.

    python -m benchmarks.speed.structure              Llama-shaped and GPT-2-shaped models; a record
    python -m benchmarks.speed.structure --quick      one share of small ones, nothing kept
    OMP_NUM_THREADS=1 python -m benchmarks.speed.structure --steps      what gates on units add to a training step

Weights are random: which units are left does not change the time. Heads and neurons are closed in every layer until
the share is left, and `shrunk` makes the smaller model, which must compute what the gated one does before anything is
timed. GPT-2 has no config for fewer heads: they are zeros at level uniform and gone at level per-layer. Llama's counts
divide its width: of 8 heads of 256 features, 6 are no count, so that they are zeros at a share of 0.75.

A step is forward, KL against the frozen base, backward, clipping and AdamW, with sampled gates, as in `training.py`;
its contestants take turns in one process, each with a model of its own, and ratios are taken round by round.

onnxruntime runs the prompt (no cache) of the same models, exported by the exporters of transformers, where onnx,
onnxscript and onnxruntime are installed; a model that does not export has its reason in the record in place of a time.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.lib.machine import circumstances
from benchmarks.lib.record import save
from benchmarks.lib.timing import medians, ratio, timed
from benchmarks.speed import RESULTS
from benchmarks.speed.training import Setting, addition, language, logits, lost, stepper
from gossamer.gates.host import Options
from gossamer.gates.learned import LearnedGates
from gossamer.gates.reads import MAGNITUDE
from gossamer.models.attach import attach_missing, detach
from gossamer.models.latency import PROMPT, latencies
from gossamer.models.same_function import require_same
from gossamer.models.shrink import shrunk
from gossamer.training.constraint import Ceiling
from gossamer.training.controller import Controller
from gossamer.training.recipe import Recipe

KINDS = {
    "edges": "edges",
    "units": "edges,heads,neurons",
    "all": "edges,heads,neurons,weights",
    "all, weights by magnitude": "edges,heads,neurons,weights",
}
SHARES = (0.75, 0.5, 0.25)
BIAS = 1.0  # nats; about half-open edges, as in the middle of a run
NEEDED = ("onnx", "onnxscript", "onnxruntime")
ROUNDS = 9
NEAR = 1e-3  # nats; onnxruntime sums in another order


def dense(name: str, width: int, layers: int) -> PreTrainedModel:
    """A model with random weights; heads of 32."""
    torch.manual_seed(0)
    heads, size = width // 32, {"vocab_size": 4096}
    if name == "gpt2":
        off = {"bos_token_id": 0, "eos_token_id": 0}
        return GPT2LMHeadModel(
            GPT2Config(n_embd=width, n_head=heads, n_layer=layers, n_positions=512, **size, **off)
        ).eval()
    shape = {"num_attention_heads": heads, "num_key_value_heads": heads, "num_hidden_layers": layers}
    shape |= {"intermediate_size": 4 * width, "max_position_embeddings": 512}
    return LlamaForCausalLM(LlamaConfig(hidden_size=width, **shape, **size)).eval()


def smaller(
    name: str, width: int, layers: int, share: float, level: str
) -> tuple[PreTrainedModel, dict[str, str]]:
    """The model with a share of its heads and neurons, proved, and the level of each kind."""
    model = dense(name, width, layers)
    sets = attach_missing(model, ("heads", "neurons"), Options("eager"))
    sets.bias = 0.0
    with torch.no_grad():
        for one in sets:
            for logits in one.logits.values() if isinstance(one, LearnedGates) else ():
                logits[round(share * len(logits)) :] = -1.0
    small, plan = shrunk(model, None if level == "uniform" else level)
    require_same(model, small)
    detach(model)
    return small, plan.parts


def exported(models: dict[str, PreTrainedModel], rounds: int) -> dict[str, float | str]:
    """Milliseconds of a prompt in onnxruntime, or why there are none."""
    missing = [x for x in NEEDED if importlib.util.find_spec(x) is None]
    if missing:
        return dict.fromkeys(models, f"not installed: {', '.join(missing)}")
    ids = torch.ones(1, PROMPT, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found: dict[str, float | str] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        try:
            calls[name] = _session(model, inputs)
        except (
            RuntimeError,
            ValueError,
            TypeError,
            NotImplementedError,
        ) as error:  # the reason is the result
            found[name] = f"does not export: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    return {**found, **medians(calls, rounds)}


def _session(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Callable[[], Any]:
    """The model in onnxruntime, which must compute what torch computes, as a call that reads the prompt."""
    import onnxruntime
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        OnnxExporter().export(model, {**inputs, "use_cache": False}, config=OnnxConfig()).save_pretrained(
            folder
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            Path(folder) / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        given = {x.name: inputs[x.name].numpy() for x in session.get_inputs()}
        off = (torch.from_numpy(session.run(None, given)[0]) - model(**inputs).logits).abs().max().item()
    if not off <= NEAR:
        raise ValueError(f"onnxruntime differs by {off:.3g}")
    return lambda: session.run(None, given)


def measure(
    name: str, width: int, layers: int, shares: tuple[float, ...], rounds: int
) -> list[dict[str, Any]]:
    """Rows of one architecture: the base, then each share, timed in turns."""
    models, rows = {"base": dense(name, width, layers)}, [{"share": 1.0, "level": "base", "parts": {}}]
    for level in ("uniform", "per-layer") if name == "gpt2" else ("uniform",):
        for share in shares:
            models[f"{level} {share}"], parts = smaller(name, width, layers, share, level)
            rows.append({"share": share, "level": level, "parts": parts})
    taken = latencies(models, rounds=rounds)
    onnx = exported(models, rounds)
    return [
        {"model": name, **row, "parameters": sum(x.numel() for x in model.parameters()), **taken[key],
         "prefill_onnxruntime": onnx[key]}
        for row, (key, model) in zip(rows, models.items(), strict=True)
    ]  # fmt: skip


def line(row: dict[str, Any], base: dict[str, Any]) -> str:
    """A row of the table, times beside those of the base."""
    onnx, of_base = row["prefill_onnxruntime"], base["prefill_onnxruntime"]
    ran = isinstance(onnx, float) and isinstance(of_base, float)
    times = [f"{row[x]:.2f} ({base[x] / row[x]:.2f}x)" for x in ("prefill_ms", "decode_ms")]
    times.append(f"{onnx:.2f} ({of_base / onnx:.2f}x)" if ran else str(onnx))
    return (
        f"| {row['model']} | {row['level']} | {row['share']} | {row['parameters']:,} | {' | '.join(times)} |"
    )


def step_of(setting: Setting, name: str) -> Callable[[], None]:
    """A training step of a model with some kinds of gates."""
    model = copy.deepcopy(setting.base)
    sets = attach_missing(model, KINDS[name].split(","), Options("blockwise", "logit"))
    sets.bias = BIAS
    if "magnitude" in name:
        sets.of_kind("weights").reads = MAGNITUDE
    model.train()
    controller, count = Controller(Ceiling("kl", 0.02), Recipe()), itertools.count()

    def loss() -> Tensor:
        sets.name_noise(step=next(count))
        with torch.no_grad():
            expected = logits(setting.base, setting.inputs)
        with sets.recording() as seen:
            output = logits(model, setting.inputs)
        return controller.lagrangian(sets.penalty(seen), lost(setting, "kl", output, expected))

    return stepper(model, loss)


def steps(settings: Iterable[Setting], rounds: int) -> list[dict[str, Any]]:
    """What a step costs beside one with gates on edges alone, for several models and batches."""
    rows = []
    for setting in settings:
        times = timed({name: step_of(setting, name) for name in KINDS}, rounds)
        batch, length = setting.inputs["input_ids"].shape
        row: dict[str, Any] = {"model": setting.name, "B": batch, "T": length}
        row |= {name: round(statistics.median(taken), 2) for name, taken in times.items()}
        rows.append(
            row
            | {f"{name}/edges": round(ratio(times, name, "edges"), 3) for name in KINDS if name != "edges"}
        )
        print(rows[-1], flush=True)
    return rows


def keep_steps(rows: list[dict[str, Any]], message: dict[str, Any], *, kept: bool) -> None:
    """Print the table of steps, and keep its record."""
    names = list(rows[0])
    lines = [
        "# Gates on units: time of a whole step",
        "",
        ", ".join(f"{k} {v}" for k, v in message.items()),
        "",
    ]
    lines += [
        "Milliseconds, medians over interleaved rounds; ratios are medians of those within a round.",
        "",
    ]
    lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    print("\n".join(lines))
    if kept:
        save(RESULTS, "structure-steps", "cpu", {"circumstances": message, "rows": rows}, lines)


def main(argv: list[str] | None = None) -> None:
    """Measure and, unless --quick, keep the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one share of small models, nothing kept")
    parser.add_argument(
        "--steps", action="store_true", help="training steps, not the latency of smaller models"
    )
    parser.add_argument("--rounds", type=int, default=15, help="steps of each contestant")
    asked = parser.parse_args(argv)
    quick = asked.quick
    if asked.steps:
        message = circumstances("cpu", torch.float32) | {"clock": "processor time", "rounds": asked.rounds}
        found = steps((addition(), *(language(n) for n in ((128,) if quick else (128, 512)))), asked.rounds)
        return keep_steps(found, message, kept=not quick)
    message = circumstances("cpu", torch.float32) | {
        "clock": "wall; onnxruntime: processor time",
        "prompt": PROMPT,
    }
    lines = ["# Smaller models: latency", "", ", ".join(f"{k} {v}" for k, v in message.items()), ""]
    lines += [
        "| model | level | share | parameters | prefill ms | decode ms a token | prefill ms, onnxruntime |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    rows = []
    for name in ("llama", "gpt2"):
        width, layers, shares, rounds = (64, 2, (0.5,), 2) if quick else (256, 4, SHARES, ROUNDS)
        found = measure(name, width, layers, shares, rounds)
        rows += found
        lines += [line(row, found[0]) for row in found]
    print("\n".join(lines))
    if not quick:
        save(RESULTS, "structure", "cpu", {"circumstances": message, "rows": rows}, lines)


if __name__ == "__main__":
    main()
