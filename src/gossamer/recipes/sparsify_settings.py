"""The settings of `gossamer sparsify`: one dataclass, which its options and its config.yaml both fill."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..data.examples import AUTO, ROLES, parse_columns
from ..data.tables import require_encoding
from ..errors import refuse, require_choice, require_range
from ..training.constraint import SENTENCES, Ceiling
from ..training.presets import DEFAULT
from ..training.recipe import Recipe

# Settings of the Trainer that are options of ours: set twice, one of the two would be ignored.
OWN = {"recipe": "--recipe", "gates": "--gates", "output_dir": "--out", "ceiling": "--ceiling", "max_steps": "--steps",
       "max_minutes": "--max-minutes",
       "report_to": "--report-to", "resume_from_checkpoint": "--resume",
       "per_device_train_batch_size": "--batch", "gradient_accumulation_steps": "--accumulate", "seed": "--seed",
       "learning_rate": "--learning-rate", "bf16": "--precision", "fp16": "--precision",
       "gradient_checkpointing": "--checkpointing", "activation_checkpointing": "--checkpointing"}  # fmt: skip
PRECISIONS = ("fp32", "bf16", "fp16")
TRACKERS = ("tensorboard", "wandb", "trackio")  # each is also the name of its package


@dataclass(frozen=True)
class SparsifySettings:
    """Every setting of a run of `gossamer sparsify`; `settings` holds more fields of `SparsityConfig`."""

    model: str
    data: str = "stdlib"
    out: Path = Path("sparse")
    task: str = AUTO
    columns: dict[str, str] = dataclasses.field(default_factory=dict)  # role -> column
    encoding: str = ""  # of text files; empty for what they tell, or UTF-8
    ceiling: Ceiling | None = None  # None for what is usual under the task
    gates: str = "edges"
    length: int = 128
    steps: int = 1000
    max_minutes: float = 0.0  # 0 for as long as the steps take
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-4
    seed: int = 0
    held_out: int = 64  # rows to choose by, and as many again to report on
    held_out_share: float = 0.05
    stream: bool = False
    lora: int = 0  # rank; 0 for full finetuning
    merge: bool = False
    precision: str = "fp32"
    checkpointing: bool = False
    report_to: str = "none"
    recipe: Recipe = DEFAULT
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, PRECISIONS)
        require_choice("report_to", self.report_to, ("none", *TRACKERS))
        for name in ("steps", "batch", "accumulate", "held_out"):
            require_range(name, getattr(self, name), 1, 10**9)
        require_range("length", self.length, 4, 10**9)  # a start, an end, and two tokens to attend between
        require_range("max_minutes", self.max_minutes, 0.0, 1e6)
        require_range("lora", self.lora, 0, 10**6)
        require_range("seed", self.seed, 0, 2**32 - 1)
        require_range("learning_rate", self.learning_rate, 0.0, 1e3)
        if self.merge and not self.lora:
            raise refuse("--merge without adapters", "--lora with it", "pass --lora 8, or drop --merge")
        require_choice("task", self.task, (AUTO, *ROLES))
        require_encoding(self.encoding)
        parse_columns(f"{role}={name}" for role, name in self.columns.items())
        if self.stream and self.ceiling is not None and self.ceiling.kind in SENTENCES:
            raise refuse(f"--stream under a {self.ceiling.kind} ceiling, which takes whole sentences",
                         "whole texts", "drop --stream")  # fmt: skip
        if self.report_to != "none" and find_spec(self.report_to) is None:
            raise refuse(f"tracker {self.report_to} is not installed", "none, or an installed one",
                         f"run pip install {self.report_to}")  # fmt: skip
        if self.precision == "fp16" and not _has_cuda():
            raise refuse("fp16 on a CPU", "fp32, bf16", "pass --precision bf16")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as config.yaml and report.json hold them."""
        plain = {"out": str(self.out), "recipe": self.recipe.as_dict()}
        plain["ceiling"] = None if self.ceiling is None else str(self.ceiling)
        return {**asdict(self), **plain}


def _has_cuda() -> bool:
    import torch  # here, so that the command line can show these defaults without it

    return torch.cuda.is_available()
