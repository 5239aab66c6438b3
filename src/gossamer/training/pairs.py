"""Which pairs of positions two models see: the base and the sparse one must see the same.

Packed rows hold several sequences, told apart by `position_ids` that start again. Transformers reads them so only
where there is neither a cache nor an `attention_mask`, and not in every architecture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModel, refuse
from ..gates.attention_call import AttentionCall
from ..models.attach import gated
from ..models.forward import evaluating, first_output
from ..models.interface import attention_modules


class SamePairs:
    """Checks, once for each form of batch, that a model and its base see the same pairs, and packed sequences apart.

    Args:
        sharded: ranks hold parts of the model and must all run it, so packed and other batches are one form.
    """

    def __init__(self, *, sharded: bool = False) -> None:
        self.sharded = sharded
        self._checked: set[tuple[Any, ...]] = set()

    def require(self, model: nn.Module, base: nn.Module | None, inputs: dict[str, Any]) -> None:
        """Raise `UnsupportedModel` where they do not; nothing happens for a form that was seen before."""
        most = None if self.sharded else most_pairs(model, inputs)
        form = (*sorted(inputs), most is not None)
        if form in self._checked:
            return
        self._checked.add(form)
        ours = visible_pairs(model, inputs)
        theirs = None if base is None else visible_pairs(base, inputs)
        if ours is not None and most is not None:
            _require_apart(model, ours.amax((0, 2)), most)
        if ours is not None and theirs is not None and not _same(ours, theirs.to(ours.device)):
            raise refuse(
                f"the base model sees {int(theirs.sum())} pairs of a batch and the sparse one {int(ours.sum())}",
                "the same pairs, as any other difference would be taken for divergence",
                f"give both the same mask, window and use_cache (inputs: {', '.join(sorted(inputs))})",
                UnsupportedModel,
            )


def visible_pairs(model: nn.Module, inputs: dict[str, Any]) -> Tensor | None:
    """Visible pairs per layer, row and head, (L, B, H); None for a model whose attention cannot be looked into."""
    inner = next((x for x in model.modules() if isinstance(x, PreTrainedModel)), None)
    if inner is None or not attention_modules(inner):
        return None
    seen: list[Tensor] = []

    def note(call: AttentionCall) -> None:
        seen.append(call.visible)

    with gated(inner, check=False) as gates, evaluating(model), gates.observing(note):
        first_output(model, inputs)
    return torch.stack(seen)


def most_pairs(model: nn.Module, inputs: dict[str, Any]) -> Tensor | None:
    """The most pairs that each row of a packed batch may have, (B,); None where nothing is packed."""
    positions, mask = inputs.get("position_ids"), inputs.get("attention_mask")
    if positions is None or positions.dim() != 2 or (mask is not None and mask.dim() != 2):
        return None
    real = torch.ones_like(positions, dtype=torch.bool) if mask is None else mask.bool()
    real, positions = torch.broadcast_tensors(real, positions)
    begins = real.clone()
    begins[:, 1:] &= (positions.diff(dim=-1) != 1) | ~real[:, :-1]
    if bool((begins.sum(-1) <= 1).all()):
        return None
    number = (begins.cumsum(-1) - 1).clamp_min(0)
    lengths = torch.zeros_like(positions).scatter_add_(1, number, real.long())
    causal = all(getattr(m, "is_causal", False) for m in attention_modules(model))
    return (lengths * (lengths + 1) // 2 if causal else lengths**2).sum(-1)


def _require_apart(model: nn.Module, visible: Tensor, most: Tensor) -> None:
    if bool((visible > most.to(visible.device)).any()):
        raise refuse(
            f"position_ids that start again, which {type(model).__name__} does not read as sequences apart: "
            f"{int(visible.sum())} visible pairs where they have {int(most.sum())}",
            "packed rows without attention_mask in an architecture that reads them, or a mask (B, 1, T, T)",
            "pass one sequence a row, or such a mask",
            UnsupportedModel,
        )


def _same(ours: Tensor, theirs: Tensor) -> bool:
    """Models of other sizes are compared by what their widest head sees."""
    if ours.shape != theirs.shape:
        ours, theirs = ours.amax((0, 2)), theirs.amax((0, 2))
    return torch.equal(ours, theirs)
