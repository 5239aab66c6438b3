"""A data set that fits in memory, as tensors: one index operation per batch, no per-row Python."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import refuse


class TensorRows(Dataset):
    """Rows of equally long tensors under names; pass `collate_rows` as the data
    collator and `remove_unused_columns=False` as the training argument.

    Args:
        columns: name -> tensor (N, ...).
    """

    def __init__(self, **columns: Tensor) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise refuse(f"columns of lengths {lengths}", "one length for all", "cut them alike")
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(indices)
        return {name: column[chosen] for name, column in self.columns.items()}


def collate_rows(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hand on what `TensorRows.__getitems__` already batched."""
    return batch


IGNORED = -100  # the label that transformers leaves out of a loss
