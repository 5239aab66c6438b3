"""How many attention edges a prompt needs: (layer, head, query, key), ranked by attribution, measured by ablation.

    out[b, t, h] = sum over retained s of  a[b, h, t, s] v[b, h, s]  +  sum over dropped s of  abl[b, h, t, s]

a is the attention weight behind its gate, 0 where that is closed, in this very run; abl is what the edge carries
instead: on the corrupt prompt (resample), in the mean over all clean and corrupt prompts of that length, edge by
edge (mean; "mean-positional" elsewhere), or nothing (zero). A dense model runs with all gates open meanwhile, so both
kinds of model are measured by the same lines.

    score(b, h, t, s) = (abl - a v)[b, h, t, s] . dm / d out[b, t, h]     the gradient averaged over `steps` inputs
                                                                         between the clean and the corrupt one

Every prompt keeps the n edges of largest |score| of its own, for attention depends on the prompt; so they are scored on
the prompts that they are measured on. An edge that is closed on both prompts scores 0. If closing it is what the
prompt needs (open on the corrupt prompt, closed on the clean one), keeping it closed counts as an edge.

Letters: B prompts, H query heads, T queries, S keys, D head width. Price: a (B, H, T, S) tensor per layer.
Source of the scores: EAP-IG (2403.17806), applied to attention edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...data.pairs import Batch
from ...errors import require_choice
from ...gates.attention.eager import attention_weights, repeat_heads
from ...gates.attention_call import AttentionCall
from ...gates.edges import EdgeGates
from ...models.attach import gated
from ...models.forward import evaluating, first_output
from ...training.counted import counted, under_way
from .component_model import ComponentModel
from .curve import Curve, Point
from .effect import Effect, sizes_around_first
from .gradient import through_gates
from .run import ABLATIONS, hooks


class Read(NamedTuple):
    """What one layer's attention reads: weight (B, H, T, S), value (B, H, S, D)."""

    weight: Tensor
    value: Tensor

    def mixed(self, edge_mask: Tensor) -> Tensor:
        """(B, T, H, D): what the edges in a (B, H, T, S) mask bring."""
        return torch.einsum("bhts,bhsd->bthd", edge_mask * self.weight, self.value)

    def along(self, gradient: Tensor) -> Tensor:
        """(B, H, T, S): what each edge brings, along a gradient (B, T, H, D)."""
        return self.weight * torch.einsum("bthd,bhsd->bhts", gradient, self.value)


class Mean(NamedTuple):
    """The same for what edges bring in the mean over prompts: moved (H, T, S, D)."""

    moved: Tensor

    @classmethod
    def of(cls, reads: Sequence[Read]) -> Mean:
        """The mean over some runs of equally many prompts."""
        sums = [torch.einsum("bhts,bhsd->htsd", read.weight, read.value) / len(read.value) for read in reads]
        return cls(torch.stack(sums).mean(0))

    def mixed(self, edge_mask: Tensor) -> Tensor:
        """As `Read.mixed`."""
        return torch.einsum("bhts,htsd->bthd", edge_mask, self.moved)

    def along(self, gradient: Tensor) -> Tensor:
        """As `Read.along`."""
        return torch.einsum("bthd,htsd->bhts", gradient, self.moved)


class EdgePatcher:
    """A model with its gates on, ready to run with some edges replaced.

    Args:
        gates: of the model; nothing else may intervene on them meanwhile.
    """

    def __init__(self, components: ComponentModel, gates: EdgeGates) -> None:
        self.components, self.gates = components, gates

    def run(self, ids: Tensor, *extra: Any, edge_mask: Sequence[Tensor] | None = None,
            instead: Sequence[Read | Mean] = ()) -> tuple[Tensor, list[Read], list[Tensor]]:  # fmt: skip
        """Logits (B, V) at the last position, what every layer read, and what entered its output projection.

        Args:
            extra: further hooks' handles, which are removed at the end.
            edge_mask: (B, H, T, S) by layer; the other edges bring what `instead` says. By default all are retained.
        """
        reads: list[Read] = []
        entered: list[Tensor] = []

        def project(module: nn.Module, given: tuple) -> tuple | None:
            layer, mixed = len(entered), given[0]
            if edge_mask is not None:
                own, other = reads[layer].mixed(edge_mask[layer]), instead[layer].mixed(1 - edge_mask[layer])
                mixed = (own + other).flatten(2)
            entered.append(mixed)
            return None if edge_mask is None else (mixed,)

        handles = [layer.o.module.register_forward_pre_hook(project) for layer in self.components.anatomy]
        with ExitStack() as stack:
            stack.enter_context(hooks(*handles, *extra))
            stack.enter_context(self.gates.using(keep=None, impl="eager", sampling=False))
            stack.enter_context(self.gates.observing(lambda call: reads.append(self._read(call))))
            logits = first_output(self.components.model, {"input_ids": ids, "logits_to_keep": 1})[:, -1]
        return logits, reads, entered

    def _read(self, call: AttentionCall) -> Read:
        logits = call.logits().detach()
        weight = attention_weights(logits, call.visibility.all_pairs(), call.sinks)
        opened = call.open_gates(logits, self.gates.bias).to(weight.dtype)
        return Read(weight * opened, repeat_heads(call.v, call.q.shape[1] // call.v.shape[1]).detach())


def replacements(patcher: EdgePatcher, batch: Batch, ablation: str) -> list[Read | Mean]:
    """What dropped edges bring instead, layer by layer."""
    require_choice("ablation", ablation, ABLATIONS)
    _, clean, _ = patcher.run(batch.clean)
    _, corrupt, _ = patcher.run(batch.corrupt)
    if ablation == "mean":
        return [Mean.of(both) for both in zip(clean, corrupt, strict=True)]
    nothing = 0.0 if ablation == "zero" else 1.0
    return [Read(nothing * read.weight, read.value) for read in corrupt]


def edge_scores(
    patcher: EdgePatcher,
    batch: Batch,
    instead: Sequence[Read | Mean],
    steps: int = 5,
    gradient: str = "straight-through",
) -> Tensor:
    """(B, L, H, T, S): what ablating each edge of each prompt does to that prompt's metric, to first order.

    Args:
        gradient: through the gates of later layers, straight-through or true.
    """
    _, reads, _ = patcher.run(batch.clean)
    embed = patcher.components.model.get_input_embeddings()
    change = embed(batch.corrupt) - embed(batch.clean)
    total = [torch.zeros_like(read.weight) for read in reads]
    for step in range(steps):
        moved = (step + 0.5) / steps * change
        with torch.enable_grad(), through_gates(patcher.components.model, gradient):
            handle = embed.register_forward_hook(
                lambda m, given, out, moved=moved: (out + moved).requires_grad_()
            )
            logits, _, entered = patcher.run(batch.clean, handle)
            found = torch.autograd.grad(batch.measure(logits).sum(), entered)
        for layer, flat in enumerate(found):
            here = flat.unflatten(2, (patcher.components.graph.n_heads, -1))
            total[layer] += (instead[layer].along(here) - reads[layer].along(here)) / steps
    return torch.stack(total, 1)


def best_of_each(scores: Tensor, n: int) -> list[Tensor]:
    """(B, H, T, S) masks by layer, 0 or 1: the `n` edges of largest |score| of every prompt."""
    flat = scores.abs().flatten(1)
    edge_mask = torch.zeros_like(flat).scatter_(1, flat.topk(min(n, flat.shape[1]), dim=1).indices, 1.0)
    return list(edge_mask.view_as(scores).unbind(1))


def needed_attention_edges(
    components: ComponentModel,
    batches: Sequence[Batch],
    *,
    ablation: str = "resample",
    share: float = 0.9,
    steps: int = 5,
    gradient: str = "straight-through",
) -> Curve:
    """The curve up to the smallest n with which the n best edges of each prompt keep `share` of the effect.

    Args:
        gradient: as of `edge_scores`.
    Returns: a curve of kind "attention edges a prompt"; `of` is the visible pairs of a prompt, all heads, in the mean.
    Raises: `GossamerError` where there is no effect to explain, or on an unknown ablation.
    """
    with gated(components.model) as gates, evaluating(components.model):
        patcher = EdgePatcher(components, gates)
        instead = [replacements(patcher, batch, ablation) for batch in batches]
        pairs = counted(list(zip(batches, instead, strict=True)), "batches scored by attention edge")
        scores = [edge_scores(patcher, *pair, steps, gradient) for pair in pairs]

        def values(n: int) -> Tensor:
            found = []
            for batch, other, score in zip(batches, instead, scores, strict=True):
                logits, *_ = patcher.run(batch.clean, edge_mask=best_of_each(score, n), instead=other)
                found.append(batch.measure(logits).double().cpu())
            return torch.cat(found)

        most = max(score[0].numel() for score in scores)
        effect = Effect(batches, ablation, values(most), values(0))
        effect.require()
        with under_way("sizes of attention edges tried") as search:

            def reaches(n: int) -> bool:
                search.done += 1
                return effect.share(values(n)) >= share

            sizes = sizes_around_first(reaches, most)
        points = tuple(
            Point(n, n, effect.share(values(n))) for n in counted(sizes, "sizes of attention edges")
        )
        visible = sum(_visible(patcher, batch) for batch in batches) // effect.n
    settings = (ablation, "eap-ig, absolute, by prompt", batches[0].task, effect.n)
    return Curve("attention edges a prompt", visible, *settings, points, gradient)


def _visible(patcher: EdgePatcher, batch: Batch) -> int:
    """Visible pairs of all prompts, layers and heads."""
    seen: list[int] = []
    with patcher.gates.observing(lambda call: seen.append(int(call.visible.sum()))):
        patcher.run(batch.clean)
    return sum(seen)
