"""A sparse model's folder in, a smaller model's folder out: what `gossamer shrink` runs.

Nothing appears under the final name before the small model, read back from its files, is proved to compute what the
gated one computes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from ..data.prompts import open_tokenizer, positions_of
from ..data.text import packed
from ..errors import CheckpointError, refuse
from ..files import cannot_write, require_writable, writing
from ..models.attach import detach, find_gate_sets
from ..models.checkpoint import load, load_dense, save
from ..models.config_file import holds_adapters
from ..models.declared import read_config
from ..models.gate_block import blocks_of
from ..models.latency import latencies
from ..models.levels import Plan
from ..models.run_report import RunReport, report_beside
from ..models.same_function import Same, require_same
from ..models.shrink import shrunk
from ..training.tasks import corpus_of
from .folders import model_in

RECORD = "shrink.json"
STDLIB = "stdlib"  # the text that a run has by default, which is on every machine
ROWS, LENGTH = 8, 64  # held-out rows of the proof, and their tokens
COPIED = ("token", "vocab", "merges", "special_tokens", "added_tokens", "chat_template", "spiece", "sentencepiece",
          "generation_config", "preprocessor_config", "processor_config", "image_processor")  # fmt: skip
CARD = """---
library_name: transformers
tags:
- gossamer
- pruned
---

# {title}

**Level {level}**: {how}

What the gates of `{sparse}` close is {done}. Its outputs are those of the gated model: the largest difference was
{error:.2g} in float32 on {rows} rows{generated}.

| | gated model's base | this model |
|---|---|---|
{table}

Latencies are medians of one run on the machine that wrote this card.
"""


@dataclass(frozen=True)
class Shrunk:
    """What came out.

    Attributes:
        level: uniform, per-layer or masked; parts: the same of each kind of gate.
        opens: how the folder is loaded; edges: whether it keeps gates on edges.
        kept: layer -> what is left of it, where something was cut.
        why: of kinds that are not uniform, what keeps them from it.
        base, small: parameters, bytes of the weights on disk, `prefill_ms`, and `decode_ms` of models that write text.
        proof: rows, error, allowed, generated.
        held_out: where the held-out rows of the proof are from; empty where there were none.
    """

    out: str
    level: str
    parts: dict[str, str]
    opens: str
    edges: bool
    kept: dict[str, dict[str, int]]
    why: dict[str, str]
    base: dict[str, float]
    small: dict[str, float]
    proof: dict[str, float]
    held_out: str

    def as_record(self) -> dict[str, Any]:
        """Plain values, as shrink.json holds them."""
        return asdict(self)

    def last_line(self) -> str:
        """The level, and base and small side by side."""
        numbers = [f"{name} {old} -> {new}" for name, old, new in side_by_side(self.base, self.small)]
        return f"level {self.level}: {', '.join(numbers)}; open {self.out} with {self.opens}"


def shrink(
    sparse: Path | str,
    out: Path | str,
    *,
    level: str | None = None,
    data: str | None = None,
    anyway: bool = False,
) -> Shrunk:
    """Write the model in `sparse` without what its gates close, and prove that it computes the same.

    Args:
        sparse: folder of a gated model, or of a run that holds one.
        out: a folder that is new or empty.
        level: uniform (the same count in every layer), per-layer (opened by `gossamer.load`) or masked (zeros, same
            shapes); by default the strongest that the architecture allows.
        data: text whose held-out rows are in the proof; by default that of the run, if it is on this machine.
        anyway: shrink a model that missed its ceiling too.
    Raises: `GossamerError` for a dense model, a run that missed its ceiling, a level that the
        architecture cannot express, outputs that differ (nothing is written then), and a disk without room.
    """
    folder, target = _folder(Path(sparse)), Path(out)
    report = report_beside(folder)
    _require_held(folder, report, anyway)
    _require_place(folder, target)
    dtype = getattr(read_config(folder), "dtype", None) or torch.float32
    gated = load(folder, impl="eager", dtype=torch.float32)
    small, plan = shrunk(gated, level)
    rows, held_out = _held_out(folder, gated, report, data)
    require_same(gated, small, rows)
    try:
        with writing(target) as temporary:
            _write(small.to(dtype=dtype), temporary)  # type: ignore[call-arg]
            _copy(folder, temporary)
            found = _measure(folder, temporary, target, gated, plan, rows, held_out)
            (temporary / RECORD).write_text(json.dumps(found.as_record(), indent=2) + "\n", encoding="utf-8")
            (temporary / "README.md").write_text(_card(found, folder), encoding="utf-8")
    except SafetensorError as error:  # a full disk is no OSError to it
        raise cannot_write(target, OSError(0, str(error))) from error
    return found


# ---- what may be shrunk, and where to ----


def _folder(sparse: Path) -> Path:
    """The folder of the gated model itself."""
    folder = model_in(sparse)
    if holds_adapters(folder) or (sparse / "adapter").is_dir():
        raise refuse(
            f"{sparse} holds adapters",
            "a whole gated model",
            "make it sparse with --merge",
            CheckpointError,
        )
    config = read_config(folder)
    if not blocks_of(config.__dict__, folder):
        raise refuse(
            f"{folder} is a dense checkpoint", "a gated model", "make it sparse first", CheckpointError
        )
    if getattr(config, "quantization_config", None) is not None:
        raise refuse(
            f"{folder} is quantised",
            "weights in floating point",
            "save it without quantisation",
            CheckpointError,
        )
    return folder


def _require_held(folder: Path, report: RunReport | None, anyway: bool) -> None:
    if report is not None and report.feasible is False and not anyway:
        raise refuse(
            f"{folder} missed its ceiling {report.ceiling} ({report.missed})",
            "a model that holds its ceiling",
            "train it longer, or pass --anyway",
        )


def _require_place(folder: Path, out: Path) -> None:
    """Raise unless `out` is new or empty, apart from the model, and has room for as much as the model takes."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise refuse(f"{out} exists", "a folder that is new or empty", "choose another --out")
    require_writable(out.resolve().parent)
    room, needed = shutil.disk_usage(out.resolve().parent).free, _bytes(folder)
    if room < needed:
        raise refuse(
            f"{out} cannot be written ({room:,} bytes are free)",
            f"{needed:,}, what {folder} takes",
            "choose another --out",
        )


def _held_out(
    folder: Path, model: PreTrainedModel, report: RunReport | None, data: str | None
) -> tuple[Tensor | None, str]:
    """Held-out rows in the model's own tokens, and where they are from; none where no text is known."""
    found = data or (report.data if report is not None and report.recipe == "text" else "")
    if not found or (data is None and found != STDLIB and not Path(found).exists()):
        return None, ""
    length = min(LENGTH, positions_of(model) or LENGTH)
    tokenizer = open_tokenizer(folder)
    corpus = corpus_of(report.settings if report and found == report.data else {}, found, tokenizer)
    rows = list(islice(packed(corpus.held_out(), tokenizer, length), ROWS))
    if not rows:
        raise refuse(f"{found} has no held-out row of {length} tokens", "more text", "pass another --data")
    return torch.tensor(rows), found


# ---- what is written ----


def _write(small: PreTrainedModel, folder: Path) -> None:
    if find_gate_sets(small):
        save(small, folder)
    else:
        small.save_pretrained(folder)


def _copy(folder: Path, out: Path) -> None:
    """Tokenizer and generation settings, as they are."""
    for path in folder.iterdir():
        if path.is_file() and path.name.startswith(COPIED):
            shutil.copyfile(path, out / path.name)


def _measure(
    folder: Path,
    written: Path,
    out: Path,
    gated: PreTrainedModel,
    plan: Plan,
    rows: Tensor | None,
    held_out: str,
) -> Shrunk:
    """Prove what is in the files, then measure it beside the base."""
    gates = bool(blocks_of(read_config(written).__dict__, written))
    options: dict[str, Any] = {"dtype": torch.float32}
    small = load(written, impl="eager", **options) if gates else load_dense(written, **options)
    proof: Same = require_same(gated, small, rows)
    detach(gated, implementation="sdpa" if getattr(gated, "_supports_sdpa", False) else "eager")
    both = {"base": gated, "small": small}
    taken = latencies(both)
    numbers = {
        name: {
            "parameters": sum(x.numel() for x in model.parameters()),
            "bytes": _bytes(place),
            **taken[name],
        }
        for (name, model), place in zip(both.items(), (folder, written), strict=True)
    }
    plain = plan.plain and not gates
    opens = f"{type(small).__name__}.from_pretrained" if plain else "gossamer.load"
    kept = {str(layer): one.counts() for layer, one in plan.kept.items()}
    return Shrunk(
        str(out), plan.level, plan.parts, opens, gates, kept, plan.why, numbers["base"], numbers["small"],
        {name: float(x) for name, x in proof._asdict().items()}, held_out,
    )  # fmt: skip


def _bytes(folder: Path) -> int:
    """Bytes of the weights on disk."""
    return sum(x.stat().st_size for x in folder.iterdir() if x.suffix in (".safetensors", ".bin"))


def side_by_side(base: Mapping[str, float], small: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """(what, of the base, of the small model), in words."""
    names = {"parameters": ("parameters", "{:,.0f}"), "bytes": ("bytes", "{:,.0f}"),
             "prefill_ms": ("prefill ms", "{:.3g}"), "decode_ms": ("decode ms a token", "{:.3g}")}  # fmt: skip
    return [
        (words, form.format(base[name]), form.format(small[name]))
        for name, (words, form) in names.items()
        if name in base
    ]


def _card(found: Shrunk, folder: Path) -> str:
    hows = {
        "uniform": "every layer has the same count",
        "per-layer": "each layer has its own count",
        "masked": "what is closed is zero, in the shapes of the base",
    }
    parts = ", ".join(f"{kind} {level}" for kind, level in found.parts.items())
    generated = f", and token by token with a cache over {found.proof['generated']:.0f} tokens"
    return CARD.format(
        title=Path(found.out).name,
        level=found.level,
        how=f"{hows[found.level]} ({parts}). Open it with `{found.opens}`.",
        sparse=folder.name,
        done="zero" if found.level == "masked" else "cut out or zero",
        error=found.proof["error"],
        rows=f"{found.proof['rows']:.0f}",
        generated=generated if found.proof["generated"] else "",
        table="\n".join("| " + " | ".join(row) + " |" for row in side_by_side(found.base, found.small)),
    )
