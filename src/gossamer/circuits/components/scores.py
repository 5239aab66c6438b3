"""How much each edge between components matters: exact patching, attribution (EAP) and along a path (EAP-IG).

    score(w -> r) = mean over prompts of  m(edge ablated) - m(clean)                          exact
                  ~ (abl_w - out_w) . dm / d(input of r)                                      EAP
                    with that gradient averaged over `steps` inputs between ablated and clean  EAP-IG

A score is what ablating the edge does to the metric, so an edge that helps has a negative one. Exact patching
costs one forward pass per edge and prompt, batched; EAP two forwards and a backward for all edges together;
EAP-IG a forward and a backward per step. Where all is linear they agree exactly. The EAP-IG scores of the
edges out of the input sum to m(input ablated) - m(clean), the more exactly the more steps (completeness of
integrated gradients), in a model without gates.

Gradients pass a gate straight through (`gradient.py`) unless the true ones are asked for, and `Scores` says which: a
closed gate that could open is heard, and scores of a gated model are not complete. Nor are they with true gradients
where a gate changes along the path. Five points may all lie where it is closed: of a sparse model ask with more
(LOG.md, 2026-11-24: 554 edges with five steps, 54 with ten). Source: EAP, arXiv 2310.10348; EAP-IG, 2403.17806, its
variant that interpolates the input; midpoints are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...data.pairs import Batch
from ...errors import refuse, require_choice
from ...models.forward import evaluating, first_output
from ...training.counted import counted
from .component_model import ComponentModel, Reader
from .gradient import through_gates
from .one_edge import OneEdgeEach
from .run import ablated_outputs, hooks, writer_outputs

METHODS = ("eap", "eap-ig", "exact")


@dataclass(frozen=True)
class Scores:
    """Scores of all edges on some prompts.

    Attributes:
        edges: (W, R) float64, 0 where there is no edge.
        method, ablation, task, n: how, against what, on what, on how many prompts.
        gradient: which one passes gates, one of `GRADIENTS`; none for exact patching.
    """

    edges: Tensor
    method: str
    ablation: str
    task: str
    n: int
    gradient: str = "none"


def score_edges(
    components: ComponentModel,
    batches: Sequence[Batch],
    *,
    method: str = "eap-ig",
    ablation: str = "resample",
    steps: int = 5,
    rows: int = 512,
    gradient: str = "straight-through",
) -> Scores:
    """Score every edge of a model on a task.

    Args:
        batches: clean and corrupt prompts, each batch of one length.
        method: exact, eap, or eap-ig.
        ablation: what a patched edge carries instead; resample, mean or zero.
        steps: points of the integration, for eap-ig.
        rows: prompts times edges per forward pass, for exact.
        gradient: through gates, straight-through or true.
    Raises: `GossamerError` on an unknown method, ablation or gradient, no prompts, or steps below 1.
    """
    require_choice("method", method, METHODS)
    if not batches or steps < 1:
        raise refuse(f"{len(batches)} batches, {steps} steps", "at least one of each", "pass more")
    total = torch.zeros(components.graph.n_writers, components.graph.n_readers, dtype=torch.float64)
    with evaluating(components.model), through_gates(components.model, gradient):
        for batch in counted(batches, "batches scored"):
            clean, _ = writer_outputs(components, batch.clean)
            corrupt, _ = writer_outputs(components, batch.corrupt)
            change = ablated_outputs(components, clean, corrupt, ablation) - clean
            if method == "exact":
                total += _exact(components, batch, change, rows)
            else:
                points = [1.0] if method == "eap" else [(k + 0.5) / steps for k in range(steps)]
                for point in counted(points, "steps"):
                    start = clean[0] + (1 - point) * change[0]
                    total += _attribute(components, batch, start, change) / len(points)
    n = sum(map(len, batches))
    return Scores(total / n, method, ablation, batches[0].task, n, "none" if method == "exact" else gradient)


class _Tape:
    """What a backward pass needs: each norm's input and each place whose gradient is asked for."""

    def __init__(self, components: ComponentModel) -> None:
        self.components = components
        self.inputs: dict[nn.Module, Tensor] = {}
        self.places: list[Tensor] = []
        self.owners: list[tuple[str, int, int]] = []

    def handles(self, start: Tensor) -> list[Any]:
        """Hooks that feed `start` into the first block and note what passes."""
        components = self.components
        found = [*components.ungrouped(), _feed(components, start)]
        for layer, (norm, mlp_norm, mlp) in enumerate(one.stream for one in components.anatomy):
            found += [module.register_forward_pre_hook(self._note) for module in (norm, mlp_norm)]
            for slot, reader in enumerate(components.readers[layer]):
                found.append(reader.module.register_forward_hook(self._attention(layer, slot)))
            found.append(mlp.register_forward_pre_hook(self._mlp(layer)))
        found.append(components.anatomy.final_norm.register_forward_pre_hook(self._final))
        return found

    def _note(self, module: nn.Module, given: tuple) -> None:
        self.inputs[module] = given[0].detach()

    def _attention(self, layer: int, slot: int) -> Any:
        def hook(module: nn.Module, given: tuple, output: Tensor) -> None:
            self.places.append(output)
            self.owners.append(("attention", layer, slot))

        return hook

    def _mlp(self, layer: int) -> Any:
        def hook(module: nn.Module, given: tuple) -> tuple:
            # A tensor of its own, for a norm may hand on its input, which others read as well.
            read = given[0].view_as(given[0])
            self.places.append(read)
            self.owners.append(("mlp", layer, 0))
            return (read,)

        return hook

    def _final(self, module: nn.Module, given: tuple) -> None:
        self.places.append(given[0])
        self.owners.append(("logits", 0, 0))


def _through(norm: nn.Module, x: Tensor, cotangent: Tensor) -> Tensor:
    """The gradient before a norm, for many gradients after it: (B, T, K, M) -> (B, T, K, M)."""
    before = x.unsqueeze(2).expand(*cotangent.shape).detach().requires_grad_()
    with torch.enable_grad():
        after = norm.forward(before)
    return torch.autograd.grad(after, before, cotangent)[0]


def _into_attention(norm: nn.Module, reader: Reader, x: Tensor, gradient: Tensor) -> Tensor:
    """(B, T, features) after the projection -> (B, T, H, M) before the norm."""
    weights = reader.weights().detach()
    return _through(norm, x, torch.einsum("bthd,hdm->bthm", reader.split(gradient), weights))


def _attribute(components: ComponentModel, batch: Batch, start: Tensor, change: Tensor) -> Tensor:
    """(W, R) sum over the batch of change . gradient, with the first block fed `start`."""
    graph, tape = components.graph, _Tape(components)
    leaf = start.detach().requires_grad_()
    with torch.enable_grad(), hooks(*tape.handles(leaf)):
        value = batch.measure(
            first_output(components.model, {"input_ids": batch.clean, "logits_to_keep": 1})
        ).sum()
    gradients = torch.autograd.grad(value, tape.places)
    total = torch.zeros(graph.n_writers, graph.n_readers, dtype=torch.float64)
    for (kind, layer, slot), gradient in zip(tape.owners, gradients, strict=True):
        norm, mlp_norm, _ = components.anatomy[layer].stream
        if kind == "logits":
            into, columns = gradient.unsqueeze(2), slice(graph.n_readers - 1, graph.n_readers)
        elif kind == "mlp":
            into = _through(mlp_norm, tape.inputs[mlp_norm], gradient.unsqueeze(2))
            columns = slice(graph.into_mlp(layer), graph.into_mlp(layer) + 1)
        else:
            into = _into_attention(norm, components.readers[layer][slot], tape.inputs[norm], gradient)
            columns = graph.into_slot(layer, slot)
        writers = int(graph.exists[:, columns.start].nonzero()[-1]) + 1
        moved = change[:writers].expand(-1, *into.shape[:2], -1)
        part = torch.einsum("wbtm,btrm->wr", moved, into)
        total[:writers, columns] += part.double().cpu()
    return total


def _feed(components: ComponentModel, start: Tensor) -> Any:
    """A hook that makes the first block read `start` instead of the embeddings."""
    return components.anatomy[0].block.register_forward_pre_hook(
        lambda module, args, kwargs: (
            ((start, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": start})
        ),
        with_kwargs=True,
    )


@torch.no_grad()
def _exact(components: ComponentModel, batch: Batch, change: Tensor, rows: int) -> Tensor:
    """(W, R) sum over the batch of m(one edge ablated) - m(clean), several edges to a forward pass."""
    graph = components.graph
    own = batch.measure(first_output(components.model, {"input_ids": batch.clean, "logits_to_keep": 1}))
    pairs = graph.exists.nonzero()
    total = torch.zeros(graph.n_writers, graph.n_readers, dtype=torch.float64)
    for part in pairs.split(max(1, rows // len(batch))):
        patched = OneEdgeEach(components, part, change).run(batch.clean.repeat(len(part), 1))
        values = _measure_many(batch, patched, len(part))
        total[part[:, 0], part[:, 1]] = (values - own).sum(1).double().cpu()
    return total


def _measure_many(batch: Batch, logits: Tensor, times: int) -> Tensor:
    """(times, N) the metric of the batch repeated `times` times."""
    return torch.stack([batch.measure(part) for part in logits.unflatten(0, (times, -1))])
