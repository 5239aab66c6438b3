"""Gates on units that one matrix reads: by a logit that is learned, or by what the unit adds to the residual stream.

    s_u = E |W_u x_u|^2 / E |h|^2          x_u: what a unit gives the matrix, W_u: the columns that read it,
                                           h: the stream as the layer finds it
    k   = D(cheapest) / sum of their s     of a layer: what the dense model loses without the quarter of its units
                                           whose s is least
    g_u = log(k s_u / m_u) + c             m_u: multiply-adds of the unit for each feature of the stream

    reads = logit            l is trained against the price, as in `learned.py`
    reads = contribution     nothing is learned: the controller moves c, and a unit is open while closing it loses
                             more than exp(-c) nats, or what else the ceiling counts, for what it costs

s ranks the units of a layer, k makes layers and kinds comparable. k is measured once, before training; E is over the
tokens that the model reads, padding included, and in training a mean that forgets a twentieth a step. A closed unit is
measured as well, by what it would add, so that it can come back; it has to be worth e^(1/2) times what keeps one open.
Learned logits without noise know what a unit is worth only once it is closed: on a trained GPT-2 they all fell alike
(LOG.md, 2026-11-27).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, refuse
from .host import Host, Options
from .learned import LearnedGates
from .masks import Mask
from .reads import CONTRIBUTION

UNMEASURED = 100.0  # nats, instead of log(k s / m): open at every bias that a recipe has
NEWEST = 0.05  # what the tokens of one step weigh in the mean (assumed: the ranking moves slowly)
CHEAPEST = 0.25  # of a layer's units, closed to see what they are worth (assumed)
MARGIN = 0.5  # nats; without it all heads of one rank open and close by turns where the ceiling is just held (LOG.md)
LEAST = 1e-30  # of s and k, whose logarithms are taken


class ContributionGates(LearnedGates):
    """Gates of a kind whose units are the inputs of one matrix a layer.

    Attributes:
        readers: by the number of the layer, the projection that reads its units.
        scales: k by the number of the layer; 1 where it was not measured.
    """

    readings: ClassVar[tuple[str, ...]] = ("logit", CONTRIBUTION)

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, Any] = {}
        self.scales: dict[int, float] = {}
        # By layer: (units + 1,), the sums of |W x|^2 and of |h|^2 since the last `settle`.
        self._sums: dict[int, Tensor] = {}
        self._stream: dict[int, Tensor] = {}  # by layer, of the forward pass that runs
        self._costs: dict[int, float] = {}

    @property
    def choices(self) -> tuple[str, ...]:
        """Its own: whether logits are parameters that are trained is settled before the model is wrapped."""
        return (self.reads,)

    @property
    def measures(self) -> bool:
        """Whether the forward pass that runs is measured."""
        return self.measuring and self.reads == CONTRIBUTION

    @abstractmethod
    def reader(self, layer: Any) -> Any:
        """The projection of a layer that reads the units (`gossamer.models.projections.Projection`)."""

    def masks(self, layer: Any) -> list[Mask]:
        """The columns of that matrix."""
        reader = self.reader(layer)
        return [Mask(reader.path, reader.module, slice(0, reader.count), reader.over)]

    # ---- on a model, in a folder ----

    @classmethod
    def made(cls, options: Options) -> Self:
        """Open gates; where others read a weight or its magnitude, and so learn no logit, these learn none either."""
        made = super().made(options)
        if options.reads is not None and options.reads not in cls.readings:
            made.reads = CONTRIBUTION
        return made

    def attach(self, host: Host) -> None:
        """Put the gates on the matrices of every layer."""
        fresh = not self.logits
        super().attach(host)
        for layer in host.anatomy:
            reader = self.readers[layer.number] = self.reader(layer)
            self._costs[layer.number] = self.multiply_adds(layer) / reader.across
        if self.reads == CONTRIBUTION:
            for logits in self.logits.values():
                logits.requires_grad_(False)
                if fresh:
                    logits.fill_(UNMEASURED)

    def state(self) -> dict[str, Any]:
        """The block in config.json, with k of each layer, by which a run that is resumed goes on."""
        return super().state() | (
            {"scales": {str(n): k for n, k in self.scales.items()}} if self.scales else {}
        )

    @classmethod
    def from_state(cls, state: Any, where: object, options: Options) -> Self:
        """The gates that a block describes."""
        made = super().from_state(state, where, options)
        try:
            made.go_on(state)
        except (AttributeError, TypeError, ValueError):
            raise refuse(
                f"{where}: gates on {cls.kind} with scales {state['scales']!r}",
                "a number for each layer",
                "save it again",
                CheckpointError,
            ) from None
        return made

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Take k of each layer from a block."""
        self.scales = {int(n): float(k) for n, k in state.get("scales", {}).items()}

    # ---- in a forward pass ----

    def _deciding(self, layer: int) -> Tensor:
        logits = super()._deciding(layer)
        return logits + self.bias if self.reads == CONTRIBUTION else logits

    def _decide(self, layer: int, *, training: bool) -> tuple[Tensor, Tensor]:
        z, p = super()._decide(layer, training=training)
        return z, z if self.reads == CONTRIBUTION else p  # nothing is drawn

    def _draw(self, layer: int, block: nn.Module, args: Any, kwargs: Any) -> None:
        super()._draw(layer, block, args, kwargs)
        if self.measures:
            h = args[0] if args else kwargs["hidden_states"]
            self._stream[layer] = h.detach().float().square().sum()[None]

    def _close(self, layer: int, mask: Mask, module: nn.Module, args: Any) -> None:
        if self.measures:
            added = torch.cat([_added(self.readers[layer], args[0]), self._stream.pop(layer)])
            self._sums[layer] = self._sums[layer] + added if layer in self._sums else added
        super()._close(layer, mask, module, args)

    # ---- what was measured ----

    @torch.no_grad()
    def settle(self, total: Callable[[Tensor], Tensor]) -> None:
        """Take what was measured since the last time into the gates.

        Args:
            total: the sum over all processes.
        """
        for layer in sorted(self._sums):
            sums = total(self._sums.pop(layer))
            factor = self.scales.get(layer, 1.0) / self._costs[layer]
            new, old = factor * (sums[:-1] / sums[-1]).clamp_min(LEAST), self._whole(layer)
            new = torch.where(self._drawn[layer].z > 0, new, new * math.exp(-MARGIN))
            self._write(layer, torch.where(old == UNMEASURED, new, old.exp().lerp(new, NEWEST)).log())

    @torch.no_grad()
    def scale(self, lost: Callable[[], float]) -> None:
        """Measure k of each layer, of a dense model whose units were measured.

        Args:
            lost: what the model loses as it is when it is called.
        """
        for layer in self.layer_numbers if self.reads == CONTRIBUTION else ():
            logits = self._whole(layer)
            cheapest = logits.argsort()[: max(1, int(CHEAPEST * len(logits)))]
            with self.using(keep={layer: torch.ones_like(logits).index_fill_(0, cheapest, 0.0)}):
                loses = lost()
            added = self._costs[layer] * float(logits[cheapest].exp().sum())
            self.scales[layer] = max(loses / max(added, LEAST), LEAST)
            self._write(layer, logits + math.log(self.scales[layer]))

    @torch.no_grad()
    def shift(self, nats: float) -> None:
        """Multiply k of each layer by exp(nats)."""
        for layer in self.layer_numbers if self.reads == CONTRIBUTION else ():
            self.scales[layer] = self.scales.get(layer, 1.0) * math.exp(nats)
            self._write(layer, self._whole(layer) + nats)

    def _whole(self, layer: int) -> Tensor:
        logits = self.logits[str(layer)]
        # FSDP keeps a part of a parameter on each process.
        return (logits.full_tensor() if hasattr(logits, "full_tensor") else logits).float()

    def _write(self, layer: int, values: Tensor) -> None:
        logits = self.logits[str(layer)]
        if hasattr(logits, "full_tensor"):
            from torch.distributed.tensor import distribute_tensor

            values = distribute_tensor(values, logits.device_mesh, logits.placements)  # type: ignore[arg-type]
        logits.copy_(values)


@torch.no_grad()
def _added(reader: Any, x: Tensor) -> Tensor:
    """(N,): the sum over tokens of |W_u x_u|^2, of an input (..., F) of a projection with N units."""
    units = reader.split(x.detach().float().flatten(0, -2))  # (T, N, D)
    columns = reader.weights().detach().float()  # (N, D, M)
    if units.shape[-1] == 1:
        return units.square().sum(0)[:, 0] * columns.square().sum((1, 2))
    moments = torch.einsum("tnd,tne->nde", units, units)
    return (moments * (columns @ columns.mT)).sum((1, 2))
