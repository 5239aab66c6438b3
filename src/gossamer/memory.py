"""Out of memory, told in one line with what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import GossamerError, refuse

# What PyTorch's allocators say; on the CPU it is a plain RuntimeError.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def told_when_out_of_memory(batch: int, length: int, lower: str) -> Iterator[None]:
    """Turn an allocator's error inside the `with` block into a `GossamerError` that says what to lower.

    Args:
        batch, length: rows of a micro-batch, and their tokens.
        lower: what takes most by the estimate, and what to do about it (`estimate.what_to_lower`).
    """
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
            f"by the estimate {lower}; then --resume, or a new --out if the model, --length or --lora changed",
        ) from error
