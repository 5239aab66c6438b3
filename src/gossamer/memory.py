"""Out of memory, told in one line with what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import GossamerError, refuse

# What PyTorch's allocators say; on the CPU it is a plain RuntimeError.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def told_when_out_of_memory(batch: int, length: int) -> Iterator[None]:
    """Turn an allocator's error inside the `with` block into a `GossamerError` that says what to lower."""
    try:
        yield
    except GossamerError:
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not memory and not any(sign in str(error) for sign in SIGNS):
            raise
        raise refuse(
            f"out of memory at {batch} rows of {length} tokens",
            "possible: less at a time; the last checkpoint is intact",
            f"--resume with --batch {max(1, batch // 2)} and twice the --accumulate, or --checkpointing",
        ) from error
