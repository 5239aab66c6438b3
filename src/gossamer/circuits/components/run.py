"""Running a Hugging Face model with some edges between its components ablated, by hooks.

Letters as in `wiring.py`; W writers, R readers. With out_w the output of writer w in this very run, abl_w
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
from ...models.anatomy import Block
from ...models.forward import first_output
from .wiring import Wiring

ABLATIONS = ("resample", "mean", "zero")


@contextmanager
def hooks(*handles: Any) -> Iterator[None]:
    """Remove hooks at the end of the block, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def heads_out(wires: Wiring, layer: int, mixed: Tensor) -> Tensor:
    """What each head writes: (B, T, H * D) -> (H, B, T, M)."""
    split = mixed.unflatten(-1, (wires.graph.n_heads, -1))
    return torch.einsum("bthd,hdm->hbtm", split, wires.out_weight(layer))


@torch.no_grad()
def writer_outputs(wires: Wiring, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Every writer's output on some prompts, (W, B, T, M), and the last position's logits, (B, V)."""
    found: list[Tensor] = []

    def note_input(module: nn.Module, given: tuple) -> None:
        found.append(given[0][None])

    handles = [wires.blocks[0].norm.register_forward_pre_hook(note_input)]
    for layer, block in enumerate(wires.blocks):
        note = _noting(lambda x, layer=layer: found.append(heads_out(wires, layer, x)))
        handles.append(block.out.register_forward_pre_hook(note))
        handles.append(block.mlp.register_forward_hook(lambda m, given, out: found.append(out[None])))
    with hooks(*handles):
        logits = first_output(wires.model, {"input_ids": ids, "logits_to_keep": 1})[:, -1]
    return torch.cat(found), logits


def _noting(note: Callable[[Tensor], None]) -> Callable[[nn.Module, tuple], None]:
    def hook(module: nn.Module, given: tuple) -> None:
        note(given[0])

    return hook


def ablated_outputs(wires: Wiring, clean: Tensor, corrupt: Tensor, ablation: str) -> Tensor:
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


def project(block: Block, number: int, n_heads: int, x: Tensor) -> Tensor:
    """One of the block's projections of already separate inputs: (B, T, S, H, M) -> (B, T, S, H, D)."""
    weight, bias = block.projections[number].weights(n_heads)
    out = torch.einsum("btshm,mshd->btshd", block.norm.forward(x), weight)
    return out if bias is None else out + bias


class AblatedRun:
    """A forward pass in which readers see their ablated edges replaced; use `run`.

    Args:
        kept: (W, R) or, for another circuit on each row, (B, W, R) bool; what is False is ablated.
        ablated: (W, B, T, M), broadcastable.
    """

    def __init__(self, wires: Wiring, kept: Tensor, ablated: Tensor) -> None:
        self.wires, self.ablated = wires, ablated
        self.dropped = wires.graph.exists.to(kept.device) & ~kept
        self.written: list[Tensor] = []
        self.residual: Tensor

    def correction(self, readers: slice) -> Tensor | None:
        """sum of (abl_w - out_w) over the dropped edges into some readers: (B, T, readers, M)."""
        written = torch.cat(self.written)
        dropped = self.dropped[..., : len(written), readers]
        if not bool(dropped.any()):
            return None
        change = self.ablated[: len(written)] - written
        shape = "bwr" if dropped.dim() == 3 else "wr"
        return torch.einsum(f"{shape},wbtm->btrm", dropped.to(change.dtype), change)

    def run(self, ids: Tensor) -> Tensor:
        """(B, V) logits at the last position."""
        with ExitStack() as stack:
            stack.enter_context(hooks(*self._handles()))
            return first_output(self.wires.model, {"input_ids": ids, "logits_to_keep": 1})[:, -1]

    def _handles(self) -> list[Any]:
        wires = self.wires
        handles = [*wires.ungrouped(), wires.final_norm.register_forward_pre_hook(self._final)]
        for layer, block in enumerate(wires.blocks):
            handles.append(block.norm.register_forward_pre_hook(self._enter(layer)))
            for number, projection in enumerate(block.projections):
                handles.append(projection.module.register_forward_hook(self._attention(layer, number)))
            handles.append(block.out.register_forward_pre_hook(self._heads(layer)))
            handles.append(block.mlp_norm.register_forward_pre_hook(_noting(self._note_residual)))
            handles.append(block.mlp.register_forward_pre_hook(self._mlp(layer)))
            handles.append(
                block.mlp.register_forward_hook(lambda m, given, out: self.written.append(out[None]))
            )
        return handles

    def _note_residual(self, x: Tensor) -> None:
        self.residual = x

    def _enter(self, layer: int) -> Callable[[nn.Module, tuple], None]:
        def hook(module: nn.Module, given: tuple) -> None:
            self.residual = given[0]
            if layer == 0:
                self.written.append(given[0][None])

        return hook

    def _attention(self, layer: int, number: int) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        graph, block = self.wires.graph, self.wires.blocks[layer]
        slots = block.projections[number].slots
        start = graph.into_attention(layer).start
        readers = slice(start + slots[0] * graph.n_heads, start + (slots[-1] + 1) * graph.n_heads)

        def hook(module: nn.Module, given: tuple, output: Tensor) -> Tensor:
            change = self.correction(readers)
            if change is None:
                return output
            each = self.residual[:, :, None, None] + change.unflatten(2, (len(slots), graph.n_heads))
            replaced = output.clone()
            block.projections[number].split(replaced, graph.n_heads).copy_(
                project(block, number, graph.n_heads, each)
            )
            return replaced

        return hook

    def _heads(self, layer: int) -> Callable[[nn.Module, tuple], None]:
        return _noting(lambda mixed: self.written.append(heads_out(self.wires, layer, mixed)))

    def _mlp(self, layer: int) -> Callable[[nn.Module, tuple], tuple | None]:
        reader = self.wires.graph.into_mlp(layer)

        def hook(module: nn.Module, given: tuple) -> tuple | None:
            change = self.correction(slice(reader, reader + 1))
            if change is None:
                return None
            return (self.wires.blocks[layer].mlp_norm.forward(self.residual + change[:, :, 0]),)

        return hook

    def _final(self, module: nn.Module, given: tuple) -> tuple | None:
        change = self.correction(slice(self.wires.graph.n_readers - 1, None))
        return None if change is None else (given[0] + change[:, :, 0],)
