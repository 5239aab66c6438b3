"""What a kind of gate may ask: of the model that it is put on, and of the run that it is made for.

The cut between two packages. A kind says here what it needs of a model, and knows no transformers;
`gossamer.models.host` gives it, and knows no kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn


class Host(Protocol):
    """A model, as a kind sees it that is put on or taken off."""

    @property
    def model(self) -> nn.Module:
        """The model of transformers, inside whatever wraps it."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    @property
    def anatomy(self) -> Any:
        """Where its heads and neurons are: `gossamer.models.anatomy.Anatomy`."""
        ...

    @property
    def n_heads(self) -> int:
        """H: query heads of a layer."""
        ...

    def take_attention(self) -> tuple[Mapping[int, nn.Module], int]:
        """Send attention through the set on each attention module; returns these by the number of their layer, in the
        order of execution, and how many layers the model has."""
        ...

    def give_attention_back(self) -> None:
        """Let the model attend as it did without gates."""
        ...


class Options(NamedTuple):
    """What a run asks of its gates; each kind reads what concerns it.

    Attributes:
        impl: implementation of gated attention; auto is resolved by the model's device.
        reads: what gates add the bias to; None for each kind's own.
        uniform: every layer has as many open units of a kind whose units have a shape.
    """

    impl: str = "auto"
    reads: str | None = None
    uniform: bool = False
