"""Interchange on an adding model: parts of it carry what they carry on other sums, everything else runs on.

An edge (layer, head, query, key) writes gate * weight * value into its head's output at the query; a head output
(layer, head, query) is that whole output. An interchange gives them what they are on sum x' instead of x. Edges
are added to what their head writes, head outputs replace it, whatever earlier interchanges have done to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ....circuits.circuit import Edge
from ....gates.attention.eager import attention_weights, repeat_heads
from ....gates.attention_call import AttentionCall
from ....models.attach import gates_of
from ....models.forward import device_of, evaluating, first_output
from .facts import Truth, slot_of
from .program import HeadOutput

Part = Edge | HeadOutput
FIRST = (100, 500)  # sums on which a claim is tried before it is tried on all; assumed


class Interchange:
    """An adding model on the sums of `truth`, with what each edge and head output of interest writes kept.

    Args:
        model: gated.
        truth: of the sums that are looked at; their places in it are the rows below.
        edges, head outputs: those that may be exchanged.
        batch_size: sums per forward pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        truth: Truth,
        edges: Sequence[Edge] = (),
        head_outputs: Sequence[HeadOutput] = (),
        batch_size: int = 2048,
    ) -> None:
        self.model, self.task, self.batch_size = model, truth.task, batch_size
        self.inputs, _ = truth.encode()
        self.slots = [slot_of(self.task, place) for place in range(self.task.digits + 1)]
        self._kept: dict[Part, list[Tensor]] = {part: [] for part in (*edges, *head_outputs)}
        with self._observing(self._keep):
            self.own = self._answers(torch.arange(truth.n_sums))  # (n_sums, slots), units first
        self.written = {part: torch.cat(found) for part, found in self._kept.items()}  # (n_sums, D)

    @contextmanager
    def _observing(self, observer: Callable[[AttentionCall], None]) -> Iterator[None]:
        gates = gates_of(self.model)
        with evaluating(self.model), gates.using(impl="eager", sampling=False), gates.observing(observer):
            yield

    def _answers(self, rows: Tensor) -> np.ndarray:
        found = []
        for part in torch.arange(len(rows)).split(self.batch_size):
            self._part = part
            logits = first_output(
                self.model, {"input_ids": self.inputs[rows[part]].to(device_of(self.model))}
            )
            found.append(logits[:, self.slots].argmax(-1).cpu())
        return torch.cat(found).numpy()

    def _keep(self, call: AttentionCall) -> None:
        here = [part for part in self._kept if part[0] == call.layer]
        edges = [part for part in here if len(part) == 4]
        for _, head, query in (part for part in here if len(part) == 3):
            self._kept[call.layer, head, query].append(call.out[:, head, query].clone())
        if not edges:
            return
        logits = call.logits()
        weights = attention_weights(logits, call.visibility.all_pairs(), call.sinks)
        weights = weights * call.open_gates(logits, gates_of(self.model).bias)
        values = repeat_heads(call.v, call.q.shape[1] // call.v.shape[1])
        for _, head, query, key in edges:
            moved = weights[:, head, query, key, None] * values[:, head, key]
            self._kept[call.layer, head, query, key].append(moved)

    def answers(self, rows: Tensor, others: Mapping[Part, Tensor]) -> np.ndarray:
        """(R, slots) answers on sums `rows` (R,) when each part carries what it carries on sums `others` (R,)."""

        def exchange(call: AttentionCall) -> None:
            for part, sums in others.items():
                if part[0] != call.layer:
                    continue
                written, other = self.written[part], sums[self._part]
                if len(part) == 4:
                    call.out[:, part[1], part[2]] += written[other] - written[rows[self._part]]
                else:
                    call.out[:, part[1], part[2]] = written[other]

        with self._observing(exchange):
            return self._answers(rows)

    def unchanged(self, rows: Tensor, others: Mapping[Part, Tensor]) -> int:
        """On how many of the sums `rows` the answers stay the model's own; `others` is (n_sums,) by sum."""
        drawn = {part: sums[rows] for part, sums in others.items()}
        return int((self.answers(rows, drawn) == self.own[rows.numpy()]).all(1).sum())

    def holds(self, order: Tensor, others: Mapping[Part, Tensor], limit: int) -> tuple[int, bool]:
        """On how many of all sums the answers stay, and whether all but `limit` do.

        Args:
            order: (n_sums,) all sums; the first of them are tried first, and if too many fail, the count is
                extrapolated from them.
            others: part -> the sums that it is taken from, (n_sums,) by sum.
        """
        n = len(order)
        same, size = 0, 0
        for size in (*(first for first in FIRST if first < n), n):
            same = self.unchanged(order[:size], others)
            if size - same > (limit if size == n else max(2, 4 * limit * size // n)):
                return round(same / size * n), False
        return same, True


def same_value(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For every sum, the number of a random sum with the same value."""
    found = np.empty(len(values), dtype=np.int64)
    for value in np.unique(values):
        members = np.flatnonzero(values == value)
        found[members] = rng.choice(members, len(members))
    return found
