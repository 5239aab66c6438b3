"""Where the components of a Hugging Face model read and write: its anatomy, with a key and a value for every head.

Letters: B row, T position, M width of the residual stream, H heads, G key-value heads, D width of a head.
Pre-norm decoders: GPT-2, GPT-NeoX (Pythia), Llama, Mistral, Qwen2, Qwen3. Nothing is copied or rewritten; what is
told here is only where to hang hooks and how a projection's output is laid out.

Where several query heads share one key and value (GQA), each head still reads a k and a v of its own, as EAP-IG
and MIB count them: while hooks run, `Wiring.ungrouped` repeats the projections' outputs per query head, so that one
head's copy can be patched and the others' not. That leaves the model's function as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import UnsupportedModel, refuse
from ...models.anatomy import Anatomy, LayerAnatomy
from ...models.parts import named
from ...models.projections import Projection
from .graph import ComponentGraph


@dataclass(frozen=True)
class Reader:
    """One of q, k and v of a layer, for every query head.

    Attributes:
        made: as the model has it.
        shared_by: query heads that read one of its units; above 1 for k and v under GQA.
    """

    made: Projection
    shared_by: int

    @property
    def module(self) -> nn.Module:
        """The linear layer that makes it, and perhaps others of q, k and v."""
        return self.made.module

    def split(self, output: Tensor) -> Tensor:
        """(..., features) -> (..., H, D), a view, of an output that is repeated where heads share."""
        return replace(self.made, count=self.made.count * self.shared_by).split(output)

    def weights(self) -> Tensor:
        """(H, D, M)."""
        weights = self.made.weights()
        return weights if self.shared_by == 1 else weights.repeat_interleave(self.shared_by, 0)

    def biases(self) -> Tensor | None:
        """(H, D), or None."""
        biases = self.made.biases()
        return None if biases is None else biases.repeat_interleave(self.shared_by, 0)

    def repeat(self, module: nn.Module, given: tuple, output: Tensor) -> Tensor:
        """A hook: (..., G * D) -> (..., H * D), every query head's own copy, the heads of a group in a row."""
        return self.made.split(output).repeat_interleave(self.shared_by, -2).flatten(-2)


@dataclass(frozen=True)
class ComponentModel:
    """A model's components; `readers` are q, k and v of every layer."""

    model: PreTrainedModel
    graph: ComponentGraph
    anatomy: Anatomy
    readers: tuple[tuple[Reader, Reader, Reader], ...]

    def ungrouped(self) -> list[Any]:
        """Handles, to be removed: until then every query head has its own copy of its key and value.

        They must be registered before any hook that reads a projection's output per head.
        """
        found: list[Any] = []
        for layer, readers in zip(self.anatomy, self.readers, strict=True):
            shared = [reader for reader in readers if reader.shared_by > 1]
            found += [reader.module.register_forward_hook(reader.repeat) for reader in shared]
            if shared:
                found.append(_OneToOne(layer.attention))
        return found


def _readers(layer: LayerAnatomy) -> tuple[Reader, Reader, Reader]:
    shared_by = layer.n_heads // layer.n_kv_heads
    if shared_by > 1 and layer.k.features != layer.k.count * layer.k.width:
        raise layer.unknown(
            "heads share keys that are made together with values", "k and v in layers of their own"
        )
    return Reader(layer.q, 1), Reader(layer.k, shared_by), Reader(layer.v, shared_by)


class _OneToOne:
    """Tells an attention module that keys and values are already one per query head, until removed."""

    def __init__(self, attention: Any) -> None:
        self.attention, self.before = attention, attention.num_key_value_groups
        attention.num_key_value_groups = 1

    def remove(self) -> None:
        """Put the number back."""
        self.attention.num_key_value_groups = self.before


def components_of(model: PreTrainedModel) -> ComponentModel:
    """Find the components of a model.

    Raises: `UnsupportedModel` naming an architecture that is not known, or what of it is not.
    """
    anatomy = Anatomy.of(model)
    parallel, heads = anatomy.parallel, {layer.n_heads for layer in anatomy}
    if len(heads) > 1:
        raise refuse(
            f"layers of {named(model)} with {', '.join(map(str, sorted(heads)))} heads",
            "as many heads in every layer",
            "trace attention edges, which works on any gated model",
            UnsupportedModel,
        )
    graph = ComponentGraph(len(anatomy), heads.pop(), parallel)
    return ComponentModel(model, graph, anatomy, tuple(_readers(layer) for layer in anatomy))
