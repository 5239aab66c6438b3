"""Running a Hugging Face model with some edges between its components ablated, by hooks.

Letters as in `component_model.py`; W writers, R readers. With out_w the output of writer w in this very run, abl_w
what it is replaced by, and x the residual stream, a reader r whose edges from the set A(r) are ablated reads

    x + sum over w in A(r) of (abl_w - out_w)

instead of x. Norms, attention and MLPs then do their own work on it. Biases of output projections are no
component and stay. Ablations: resample (abl_w is the writer's output on the corrupt prompt), mean (its mean
over all clean and corrupt prompts and positions), zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import require_choice
from ...models.forward import first_output
from .component_model import ComponentModel, Reader

ABLATIONS = ("resample", "mean", "zero")


@contextmanager
def hooks(*handles: Any) -> Iterator[None]:
    """Remove hooks at the end of the block, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def heads_out(components: ComponentModel, layer: int, mixed: Tensor) -> Tensor:
    """What each head writes: (B, T, H * D) -> (H, B, T, M)."""
    split = mixed.unflatten(-1, (components.graph.n_heads, -1))
    return torch.einsum("bthd,hdm->hbtm", split, components.anatomy[layer].o.weights())


@torch.no_grad()
def writer_outputs(components: ComponentModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Every writer's output on some prompts, (W, B, T, M), and the last position's logits, (B, V)."""
    found: list[Tensor] = []

    def note_input(module: nn.Module, given: tuple) -> None:
        found.append(given[0][None])

    handles = [components.anatomy[0].stream.norm.register_forward_pre_hook(note_input)]
    for layer in components.anatomy:
        note = _noting(lambda x, number=layer.number: found.append(heads_out(components, number, x)))
        handles.append(layer.o.module.register_forward_pre_hook(note))
        handles.append(layer.stream.mlp.register_forward_hook(lambda m, given, out: found.append(out[None])))
    with hooks(*handles):
        logits = first_output(components.model, {"input_ids": ids, "logits_to_keep": 1})[:, -1]
    return torch.cat(found), logits


def _noting(note: Callable[[Tensor], None]) -> Callable[[nn.Module, tuple], None]:
    def hook(module: nn.Module, given: tuple) -> None:
        note(given[0])

    return hook


def ablated_outputs(components: ComponentModel, clean: Tensor, corrupt: Tensor, ablation: str) -> Tensor:
    """abl_w for every writer: (W, B, T, M), broadcastable.

    Args:
        clean, corrupt: outputs of all writers, (W, B, T, M).
        ablation: one of `ABLATIONS`.
    """
    require_choice("ablation", ablation, ABLATIONS)
    if ablation == "resample":
        return corrupt
    if ablation == "zero":
        return torch.zeros_like(clean[:, :1, :1])
    return (clean.mean((1, 2), keepdim=True) + corrupt.mean((1, 2), keepdim=True)) / 2


def project(norm: nn.Module, reader: Reader, x: Tensor) -> Tensor:
    """What a reader makes of already separate inputs, through a norm: (B, T, H, M) -> (B, T, H, D)."""
    out = torch.einsum("bthm,hdm->bthd", norm.forward(x), reader.weights())
    bias = reader.biases()
    return out if bias is None else out + bias


class AblatedRun:
    """A forward pass in which readers see their ablated edges replaced; use `run`.

    Args:
        edge_mask: (W, R) or, for another circuit on each row, (B, W, R) bool; what is False is ablated.
        ablated: (W, B, T, M), broadcastable.
    """

    def __init__(self, components: ComponentModel, edge_mask: Tensor, ablated: Tensor) -> None:
        self.components, self.ablated = components, ablated
        self.dropped = components.graph.exists.to(edge_mask.device) & ~edge_mask
        self.changes: Tensor  # (W, B, T, M): abl_w - out_w of the first n_written writers
        self.n_written = 0
        self.residual: Tensor
        self.into_attention: Tensor | None = None

    def correction(self, readers: slice) -> Tensor | None:
        """sum of (abl_w - out_w) over the dropped edges into some readers: (B, T, readers, M)."""
        dropped = self.dropped[..., : self.n_written, readers]
        if not bool(dropped.any()):
            return None
        change = self.changes[: self.n_written]
        shape = "bwr" if dropped.dim() == 3 else "wr"
        return torch.einsum(f"{shape},wbtm->btrm", dropped.to(change.dtype), change)

    def note_written(self, outputs: Tensor) -> None:
        """Take in what the next writers wrote, (w, B, T, M)."""
        if not self.n_written:
            self.changes = outputs.new_empty(self.components.graph.n_writers, *outputs.shape[1:])
        new = slice(self.n_written, self.n_written + len(outputs))
        self.changes[new] = self.ablated[new] - outputs
        self.n_written = new.stop

    @torch.no_grad()
    def run(self, ids: Tensor) -> Tensor:
        """(B, V) logits at the last position, without gradients."""
        with ExitStack() as stack:
            stack.enter_context(hooks(*self._handles()))
            return first_output(self.components.model, {"input_ids": ids, "logits_to_keep": 1})[:, -1]

    def _handles(self) -> list[Any]:
        components = self.components
        handles = [
            *components.ungrouped(),
            components.anatomy.final_norm.register_forward_pre_hook(self._final),
        ]
        for layer, (norm, mlp_norm, mlp) in enumerate(one.stream for one in components.anatomy):
            handles.append(norm.register_forward_pre_hook(self._enter(layer)))
            for slot, reader in enumerate(components.readers[layer]):
                handles.append(reader.module.register_forward_hook(self._attention(layer, slot)))
            handles.append(components.anatomy[layer].o.module.register_forward_pre_hook(self._heads(layer)))
            handles.append(mlp_norm.register_forward_pre_hook(_noting(self._note_residual)))
            handles.append(mlp.register_forward_pre_hook(self._mlp(layer, mlp_norm)))
            handles.append(mlp.register_forward_hook(lambda m, given, out: self.note_written(out[None])))
        return handles

    def _note_residual(self, x: Tensor) -> None:
        self.residual = x

    def _enter(self, layer: int) -> Callable[[nn.Module, tuple], None]:
        def hook(module: nn.Module, given: tuple) -> None:
            self.residual = given[0]
            if layer == 0:
                self.note_written(given[0][None])
            self.into_attention = self.correction(self.components.graph.into_attention(layer))

        return hook

    def _attention(self, layer: int, slot: int) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        norm, reader = self.components.anatomy[layer].stream.norm, self.components.readers[layer][slot]
        heads = slice(slot * self.components.graph.n_heads, (slot + 1) * self.components.graph.n_heads)

        def hook(module: nn.Module, given: tuple, output: Tensor) -> Tensor:
            if self.into_attention is None:
                return output
            replaced, read = output.clone(), self.residual[:, :, None] + self.into_attention[:, :, heads]
            reader.split(replaced).copy_(project(norm, reader, read))
            return replaced

        return hook

    def _heads(self, layer: int) -> Callable[[nn.Module, tuple], None]:
        return _noting(lambda mixed: self.note_written(heads_out(self.components, layer, mixed)))

    def _mlp(self, layer: int, norm: nn.Module) -> Callable[[nn.Module, tuple], tuple | None]:
        reader = self.components.graph.into_mlp(layer)

        def hook(module: nn.Module, given: tuple) -> tuple | None:
            change = self.correction(slice(reader, reader + 1))
            if change is None:
                return None
            return (norm.forward(self.residual + change[:, :, 0]),)

        return hook

    def _final(self, module: nn.Module, given: tuple) -> tuple | None:
        change = self.correction(slice(self.components.graph.n_readers - 1, None))
        return None if change is None else (given[0] + change[:, :, 0],)
