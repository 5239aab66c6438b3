"""The fields that `SparsityConfig` inherits, checked when they are given: kind, finite, range.

`TrainingArguments` takes anything, and torch, accelerate or the hub refuse it minutes later, or compute with NaN.
"""

from __future__ import annotations

import math
import os
import typing
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from accelerate.utils import DynamoBackend
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.utils.import_utils import is_liger_kernel_available

from ..errors import GossamerError, GossamerWarning, loading, refuse, require_choice, require_range
from ..files import require_shape

LARGEST = 10**12  # of any number, where nothing below says less
# (low, high) of numbers that are not in [0, LARGEST]; an open end of an interval is the next float.
BELOW_ONE = (0.0, math.nextafter(1.0, 0.0))
AT_LEAST_ONE = (1, LARGEST)
POSITIVE = (1e-9, LARGEST)  # a share of the run below 1, or steps
RANGES: dict[str, tuple[float, float]] = {
    "max_steps": (-1, LARGEST),
    "local_rank": (-1, LARGEST),
    "adam_beta1": BELOW_ONE,
    "adam_beta2": BELOW_ONE,
    "label_smoothing_factor": (0.0, 1.0),
    "learning_rate": (0.0, 1e3),
    "min_agreement": (0.0, 1.0),
    "max_minutes": (0.0, 1e6),
    "seed": (0, 2**32 - 1),  # as numpy takes them
    "data_seed": (0, 2**32 - 1),
    "dataloader_num_workers": (0, 1024),
    "ddp_timeout": (1, 10**9),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps", "num_train_epochs"), POSITIVE),
    **dict.fromkeys(
        (
            "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
            "save_total_limit", "eval_accumulation_steps", "torch_empty_cache_steps", "dataloader_prefetch_factor",
            "ddp_bucket_cap_mb",
        ),
        AT_LEAST_ONE,
    ),
}  # fmt: skip
CHOICES: dict[str, Iterable[str]] = {
    "dataloader_multiprocessing_context": ("fork", "forkserver", "spawn"),
    "torch_compile_backend": [backend.value.lower() for backend in DynamoBackend],
    "torch_compile_mode": torch._inductor.list_mode_options(),
    "include_num_input_tokens_seen": ("all", "non_padding", "no", "True", "False"),
    **{
        entry.name: entry.metadata["choices"]
        for entry in fields(TrainingArguments)
        if "choices" in entry.metadata
    },
}
# What the Trainer has, and a run on text cannot.
NOT_HERE = {
    "push_to_hub": "gossamer.push_to_hub(OUT, repo_id) when the run is done",
    "remove_unused_columns": "false, for rows come as whole batches",
}
PLAIN = (int, float, bool, str, type(None))


def require_arguments(config: TrainingArguments) -> None:
    """Raise one clear line for a field of `TrainingArguments` that nothing can be trained with."""
    for name, hint in _plain_fields(config).items():
        value = getattr(config, name)
        value = value.item() if isinstance(value, np.generic) else value
        require_shape(os.fspath(value) if isinstance(value, os.PathLike) else value, hint, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            require_range(name, value, *RANGES.get(name, (0, LARGEST)))
    for name, choices in CHOICES.items():
        if getattr(config, name) is not None:
            require_choice(name, getattr(config, name), choices)
    _require_workers(config)
    _require_processes(config)


def require_kinds(config: type[TrainingArguments], settings: Mapping[str, Any]) -> None:
    """Raise one clear line for a setting of a person's that is of another kind than its field.

    Args:
        settings: fields of `config`, as JSON has them.
    """
    hints = typing.get_type_hints(config)
    for name, value in settings.items():
        if name not in ("ceiling", "recipe", "fsdp"):  # which have more forms than their type says
            require_shape(value, hints[name], name)
    for name, instead in NOT_HERE.items():
        if settings.get(name):
            raise refuse(f"--set {name}", instead, "leave it out")


def require_makeable(config: TrainingArguments) -> None:
    """Raise one clear line unless the optimizer and the schedule can be made, before a model is loaded for them."""
    what = f"optim={_word(config.optim)} with lr_scheduler_type={_word(config.lr_scheduler_type)}"
    fix = "check optim, optim_args, lr_scheduler_type and lr_scheduler_kwargs"
    with loading(what, "an optimizer and a schedule that are installed", fix, GossamerError, done="made"):
        if config.optim_target_modules is None:  # otherwise it takes the model
            Trainer.get_optimizer_cls_and_kwargs(config)
        plain = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
        options = config.lr_scheduler_kwargs
        get_scheduler(config.lr_scheduler_type, plain, 1, 2, options if isinstance(options, dict) else None)
    if config.use_liger_kernel and not is_liger_kernel_available():
        raise refuse("use_liger_kernel without liger-kernel", "the package", "run pip install liger-kernel")


def warn_of_slow_bfloat16(config: TrainingArguments) -> None:
    """Say so where a run on a CPU is asked to compute in bfloat16, and the CPU has no instructions for it.

    A step of SmolLM2-135M took 20 times as long as in float32 on one with AVX2 alone (LOG.md, 2026-11-28).
    """
    if config.bf16 and config.device.type == "cpu" and not bfloat16_is_native():
        warnings.warn(
            "bfloat16 on this CPU, where torch has no instructions for it: a step takes many times as long as float32. "
            "Leave bf16 out, or pass --precision fp32",
            GossamerWarning,
            stacklevel=4,
        )


def bfloat16_is_native() -> bool:
    """Whether torch multiplies bfloat16 matrices with instructions of this CPU, as AVX-512 and newer ARM have them."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _word(choice: Any) -> str:
    return str(getattr(choice, "value", choice))


def _plain_fields(config: TrainingArguments) -> dict[str, Any]:
    """Field -> type of those that hold a number, a word or a switch; transformers rewrites the others."""
    hints = typing.get_type_hints(type(config))
    names = [entry.name for entry in fields(config) if entry.name != "fsdp"]
    return {n: hints[n] for n in names if all(k in PLAIN for k in typing.get_args(hints[n]) or (hints[n],))}


def _require_workers(config: TrainingArguments) -> None:
    """Raise for settings of workers without any worker."""
    for name in (
        "dataloader_persistent_workers",
        "dataloader_multiprocessing_context",
        "dataloader_prefetch_factor",
    ):
        if getattr(config, name) and not config.dataloader_num_workers:
            raise refuse(f"{name}={getattr(config, name)!r} without workers", "dataloader_num_workers of 1 or more",
                         "set both, or neither")  # fmt: skip


def _require_processes(config: TrainingArguments) -> None:
    """Raise for what shards over processes where there is one."""
    if config.fsdp_config and not config.fsdp:
        raise refuse("fsdp_config without fsdp", "both", "set fsdp=true, or leave fsdp_config out")
    if config.fsdp and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise refuse(f"fsdp={config.fsdp!r} in one process", "several processes to shard over",
                     "start the command with accelerate launch or torchrun, or leave fsdp out")  # fmt: skip
