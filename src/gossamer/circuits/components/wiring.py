"""Where the components of a Hugging Face model are: its norms, projections and MLPs, by architecture.

Letters: B row, T position, M width of the residual stream, H heads, D width of a head, S slots (q, k, v).
Pre-norm decoders: GPT-2, GPT-NeoX (Pythia), Llama, Mistral, Qwen2, Qwen3. Nothing is copied or rewritten; what is
told here is only where to hang hooks and how a projection's output is laid out.

Where several query heads share one key and value (GQA), each head still reads a k and a v of its own, as EAP-IG
and MIB count them: while hooks run, `Wiring.ungrouped` repeats the projections' outputs per query head, so that one
head's copy can be patched and the others' not. That leaves the model's function as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import UnsupportedModel, refuse
from ...models.anatomy import ARCHITECTURES, Block, Projection, per_head
from .graph import ComponentGraph


@dataclass(frozen=True)
class Wiring:
    """A model's components."""

    model: PreTrainedModel
    graph: ComponentGraph
    blocks: tuple[Block, ...]
    final_norm: nn.Module

    def out_weight(self, layer: int) -> Tensor:
        """(H, D, M): what each head's output is multiplied with."""
        return per_head(self.blocks[layer].out, self.graph.n_heads)

    def ungrouped(self) -> list[Any]:
        """Handles, to be removed: until then every query head has its own copy of its key and value.

        They must be registered before any hook that reads a projection's output per head.
        """
        found: list[Any] = []
        for block in self.blocks:
            for projection in block.projections:
                if projection.shared_by > 1:
                    found.append(projection.module.register_forward_hook(self._repeating(projection)))
            if any(projection.shared_by > 1 for projection in block.projections):
                found.append(_OneToOne(block.attention))
        return found

    def _repeating(self, projection: Projection) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        return lambda module, given, output: projection.repeat(output, self.graph.n_heads)


class _OneToOne:
    """Tells an attention module that keys and values are already one per query head, until removed."""

    def __init__(self, attention: Any) -> None:
        self.attention, self.before = attention, attention.num_key_value_groups
        attention.num_key_value_groups = 1

    def remove(self) -> None:
        """Put the number back."""
        self.attention.num_key_value_groups = self.before


def wiring(model: PreTrainedModel) -> Wiring:
    """Find the components of a model.

    Raises: `UnsupportedModel` naming an architecture that is not told here.
    """
    config = model.config
    kind = config.model_type
    if kind not in ARCHITECTURES or getattr(config, "add_cross_attention", False):
        raise refuse(
            f"component circuits of {type(model).__name__} ({kind})",
            f"possible: {', '.join(ARCHITECTURES)}",
            "choose one, or trace its attention edges, which works on any gated model",
            UnsupportedModel,
        )
    heads = config.num_attention_heads
    blocks, final = ARCHITECTURES[kind](model)
    parallel = bool(getattr(config, "use_parallel_residual", False))
    return Wiring(model, ComponentGraph(len(blocks), heads, parallel), tuple(blocks), final)
