"""What several processes must share: sums, one multiplier, one set of facts. What they must not: the noise.

Rank r draws its noise from seed + r * STRIDE: other rows of the joint batch, other draws. What steers (the
divergence, the tally of an evaluation) is reduced over ranks first, so that all take the same decision.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env

from ..errors import refuse
from .metrics import Tally

STRIDE = 0x9E3779B1  # odd, so that ranks differ modulo 2**32; the golden ratio's, as in Knuth's hash


def first_process() -> bool:
    """Whether this process is the one that speaks for all, by the rank that a launcher gave it."""
    return int(os.environ.get("RANK", "0")) == 0


def leave() -> None:
    """Wait for all processes, then leave their group, if there is one; the last act of a program.

    A process that ends inside the group may be aborted by the group's own threads (pytorch issue 190489), and its
    launcher then ends the others, even the one that is still writing the model.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        state = PartialState()
        state.wait_for_everyone()
        state.destroy_process_group()


def rank_seed(seed: int, rank: int) -> int:
    """The noise seed of one process; `seed` itself on rank 0."""
    return (seed + rank * STRIDE) % 2**32


def reduced(tally: Tally, accelerator: Any) -> Tally:
    """The tally of all ranks; they saw the same layers and kinds, so their sums line up by name."""
    names = sorted(tally.sums)
    sums = torch.tensor([tally.sums[name] for name in names], dtype=torch.float64, device=accelerator.device)
    total = Tally()
    total.sums.update(zip(names, accelerator.reduce(sums, reduction="sum").tolist(), strict=True))
    return total


def gathered(accelerator: Any, model: Any, again: Callable[[], Any]) -> Any:
    """A model with all of its weights in the first process, where FSDP leaves each process a part of every one.

    Every process must call it; the others, and all without FSDP, get the model as it is.

    Args:
        model: as the accelerator prepared it.
        again: makes the same model anew, with whole weights of any value.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return accelerator.unwrap_model(model)
    weights = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return model
    whole = again()
    whole.load_state_dict(weights)
    return whole


def require_agreement(accelerator: Any, facts: dict[str, Any]) -> None:
    """Raise on every rank unless all ranks hold the same facts, naming the first that differs."""
    if accelerator.num_processes == 1:
        return
    hashes = [_number(str(value)) for value in facts.values()]
    mine = torch.tensor(hashes, dtype=torch.int64, device=accelerator.device)
    everyone = accelerator.gather(mine).view(accelerator.num_processes, len(hashes))
    for i, (name, value) in enumerate(facts.items()):
        if bool((everyone[:, i] != everyone[0, i]).any()):
            raise refuse(
                f"ranks disagree on {name} (rank {accelerator.process_index} has {value})",
                "the same command, code, model and data on every rank",
                "compare what each of them was started with",
            )


def require_sharding(accelerator: Any, *, asked: bool) -> None:
    """Raise if FSDP was asked for, here or through `accelerate launch`, and accelerate runs something else.

    On CPUs accelerate takes the request and runs plain data parallel, without a word.
    """
    kind = accelerator.distributed_type
    if (asked or parse_flag_from_env("ACCELERATE_USE_FSDP")) and kind != DistributedType.FSDP:
        raise refuse(
            f"fsdp was asked for, but accelerate would run {kind.value} on {accelerator.device.type}",
            "several processes on accelerators that it shards over",
            "leave fsdp out, or start the same command with torchrun on GPUs",
        )


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def reshard(model: Any) -> None:
    """Let FSDP put away what it gathered: after a forward pass alone a write would go to a copy that is dropped."""
    for module in model.modules():
        if hasattr(module, "reshard"):  # `torch.distributed.fsdp.FSDPModule`
            module.reshard()
