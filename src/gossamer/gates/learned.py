"""Gates that do not depend on the input: one learned logit per unit, multiplied onto a weight matrix.

    g      = l                             l: the unit's logit in nats, learned, `OPEN` at first
    z      = 1[ g + n > 0 ]                n: logistic noise while training, 0 otherwise; the gradient of `gate.py`
    W_used = W * z                         z spread over what the unit owns of W

A kind is a subclass that says which matrices have gates and how its units lie on them (`masks`). Closed units are
closed where they are read: a head is the columns of the output projection that read it, a neuron the columns of the
MLP's second matrix. Multiplying the matrix and not what it reads costs F * M a call instead of T * F, and the same for
any length. The module computes with W_used as it does with W, so a matrix may have gates of several kinds.

The logits are parameters of the model, `<block>.logits.<layer>`: trained at a rate of their own, without decay. The
gate bias does not move them: it is there for gates whose logits have another job, and a learned logit has none. Only
c = +inf opens every gate here too.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, refuse
from .gate import hard_gate
from .gate_set import GateSet
from .host import Host, Options
from .masks import Mask, require_float, require_own
from .noise import NoiseKey, edge_uniform
from .openness import Count, Openness
from .uniform import require_alike, shared_logits

OPEN = (
    4.0  # where a logit starts, in nats: sigma(4) = 0.98, so that sampled gates are nearly all open (assumed)
)


class Drawn(NamedTuple):
    """The gates of a layer in one forward pass: z and p of every unit, for so many rows of so many tokens."""

    z: Tensor
    p: Tensor
    rows: int
    tokens: int


class LearnedGates(nn.Module, GateSet):
    """One learned logit per unit of each layer.

    Attributes:
        logits: by the number of the layer, (units,) in nats.
        places: by the number of the layer, where its units lie on its matrices.
        keep: per layer, a {0, 1} tensor (units,) multiplied onto the gates; for interventions.
        stream: of the noise, one for each kind.
    """

    stream: ClassVar[int]
    one_by_one: ClassVar[bool] = False  # whether each unit is a group of its own; else a group is a matrix

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.sampling, self.seed, self.step = math.inf, True, 0, 0
        self.keep: dict[int, Tensor] | None = None
        self.logits = nn.ParameterDict()
        self.places: dict[int, list[Mask]] = {}
        self._hooks: list[Any] = []
        self._drawn: dict[int, Drawn] = {}  # by layer, of the forward pass that runs
        self._seen: list[Openness] = []
        self._adders: list[Callable[[Count], None]] = []

    # ---- what a kind says ----

    @abstractmethod
    def masks(self, layer: Any) -> list[Mask]:
        """Where the units of a layer (`gossamer.models.anatomy.LayerAnatomy`) lie, in the order in which it runs."""

    @abstractmethod
    def multiply_adds(self, layer: Any) -> float:
        """Multiply-adds a token that one open unit of a layer costs."""

    def groups_of(self, layer: Any) -> int:
        """How many groups a layer's units are in, all of one size; by default each is one of its own."""
        return self.masks(layer)[-1].units.stop

    @property
    def learns(self) -> bool:
        """Whether the penalty trains the logits, which what is measured does without."""
        return super().learns and self.reads == LearnedGates.reads

    # ---- on a model ----

    @property
    def layer_numbers(self) -> tuple[int, ...]:
        """The layers that have gates: those that attend."""
        return tuple(self.places)

    @classmethod
    def made(cls, options: Options) -> Self:
        """Open gates that read what the run asks for, where they can."""
        made = cls()
        made.reads = options.reads if options.reads in cls.readings else cls.reads
        made.uniform = options.uniform and cls.can_be_uniform
        return made

    def require(self, options: Options) -> None:
        """Raise for a set with a count in each layer, if the run wants one in all."""
        if options.uniform and self.can_be_uniform and not self.uniform:
            what = f"gate.uniform for gates on {self.kind} with a count of their own in each layer"
            raise refuse(what, "gates that were trained with gate.uniform", "start from the dense model")

    def state(self) -> dict[str, Any]:
        """The block in config.json, with what the gates read where it is no logit, and whether counts are shared."""
        reads = {} if self.reads == "logit" else {"reads": self.reads}
        return super().state() | reads | ({"uniform": True} if self.uniform else {})

    @classmethod
    def from_state(cls, state: Any, where: object, options: Options) -> Self:
        """The gates that a block describes."""
        made = super().from_state(state, where, options)
        for name, possible in (("reads", cls.readings), ("uniform", (False, True)[: 1 + cls.can_be_uniform])):
            value = state.get(name, getattr(cls, name))
            if value not in possible:
                raise refuse(
                    f"{where}: gates on {cls.kind} with {name} {value!r}",
                    f"one of {', '.join(map(str, possible))}",
                    "save it again",
                    CheckpointError,
                )
            setattr(made, name, value)
        return made

    def attach(self, host: Host) -> None:
        """Put the gates on the matrices of every layer."""
        if host.model._modules.get(self.block) is not None:
            raise refuse(f"gates on {self.kind} twice", "one set of a kind", "detach the first")
        layers = list(host.anatomy)
        self.places = {layer.number: self.masks(layer) for layer in layers}
        require_float(self.kind, self.places)
        require_own(self.kind, self.places)
        self._groups = self.groups_of(layers[0])
        if self.uniform:
            require_alike(self.kind, [(self.masks(x)[-1].units.stop, self.groups_of(x)) for x in layers])
        self.n_layers = 1 + max(self.places)
        self.price = sum(self.multiply_adds(layer) for layer in layers) / len(layers)
        for number, masks in self.places.items():
            opened = torch.full((masks[-1].units.stop,), OPEN, device=host.device)
            self.logits.setdefault(str(number), nn.Parameter(opened))
        host.model.add_module(self.block, self)
        add = self._hooks.append
        for layer in layers:
            add(layer.block.register_forward_pre_hook(partial(self._draw, layer.number), with_kwargs=True))
            for mask in self.places[layer.number]:
                add(mask.module.register_forward_pre_hook(partial(self._close, layer.number, mask)))
                add(mask.module.register_forward_hook(_restore, always_call=True))

    def detach(self, host: Host) -> None:
        """Take the gates off again; the weights were never changed."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        host.model._modules.pop(self.block, None)

    def require_whole(self, model: nn.Module) -> None:
        """Raise if an adapter was wrapped around a gated matrix: it would pass closed units by."""
        for mask in (mask for masks in self.places.values() for mask in masks):
            for name, module in model.named_modules():
                if getattr(module, "base_layer", None) is mask.module:
                    raise refuse(
                        f"an adapter on {name}, which has gates on {self.kind}",
                        "adapters on other layers",
                        "leave it out of target_modules, or train all weights",
                    )

    # ---- in a forward pass ----

    def opened(self) -> Any:
        """A context in which every gate is open, whatever its logit."""
        return self.using(bias=math.inf)

    def hard(self, layer: int) -> Tensor:
        """z of the deterministic gates of a layer, {0, 1}, (units,), without a gradient."""
        with torch.no_grad():
            return self._kept(layer, self._decide(layer, training=False)[0])

    def _decide(self, layer: int, *, training: bool) -> tuple[Tensor, Tensor]:
        """(z, p) of a layer's units; sampled in training, and with a gradient through z there."""
        logits = self._deciding(layer)
        if math.isinf(self.bias):
            return torch.ones_like(logits), torch.ones_like(logits)
        if not self.learns:
            return hard_gate(logits.detach())
        noise = self._noise(layer, logits) if training and self.sampling else None
        least = self.least_slope if training else 0.0
        return hard_gate(logits, noise, straight_through=self.straight_through or training, least_slope=least)

    def _deciding(self, layer: int) -> Tensor:
        """The logits that decide a layer's gates, with a gradient to its own."""
        own = self.logits[str(layer)].float()
        if not self.uniform:
            return own
        with torch.no_grad():
            every = torch.stack([self.logits[str(number)].float() for number in self.places])
            shared = shared_logits(every.view(len(every), self._groups, -1))
        return shared[list(self.places).index(layer)].flatten() + (own - own.detach())

    def _noise(self, layer: int, logits: Tensor) -> Tensor:
        key, at = NoiseKey(self.seed, self.step, layer), logits.device
        one = range(1) if at.type == "cpu" else torch.zeros(1, dtype=torch.int64, device=at)
        return edge_uniform(key, heads=one, queries=one, n_keys=len(logits), stream=self.stream)[0, 0]

    def _kept(self, layer: int, z: Tensor) -> Tensor:
        return z if self.keep is None or layer not in self.keep else z * self.keep[layer].to(z)

    def _draw(self, layer: int, block: nn.Module, args: Any, kwargs: Any) -> None:
        """Decide the gates of a layer when it begins, once for all of its matrices."""
        x = args[0] if args else kwargs["hidden_states"]
        z, p = self._decide(layer, training=block.training)
        self._drawn[layer] = Drawn(self._kept(layer, z), p, *x.shape[:2])

    def _close(self, layer: int, mask: Mask, module: nn.Module, args: Any) -> None:
        """Let a module compute without its closed units; the first of a layer says how many are open."""
        drawn = self._drawn[layer]
        if mask is self.places[layer][0]:
            self._tell(layer, drawn)
        if not math.isinf(self.bias) or self.keep:
            weight = module.weight  # that of another kind's gates, where there are some
            module.__dict__["weight"] = weight * mask.spread(drawn.z[mask.units].to(weight.dtype))  # type: ignore

    def _tell(self, layer: int, drawn: Drawn) -> None:
        def grouped(x: Tensor) -> Tensor:
            parts = x if self.one_by_one else torch.stack([x[m.units].sum() for m in self.places[layer]])
            return parts.expand(drawn.rows, -1)

        if not (self._seen or self._adders):
            return
        expected, visible = grouped(drawn.p), grouped(torch.ones_like(drawn.p)).long()
        for seen in self._seen:
            seen.tokens = drawn.tokens
            seen.layers.append(layer)
            seen.expected.append(expected)
            seen.visible.append(visible)
        hard = grouped((drawn.z > 0).float()).long()
        for add in self._adders:
            add(
                Count(
                    self.kind,
                    self.price * self.emphasis * drawn.tokens,
                    layer,
                    visible,
                    expected.detach(),
                    hard,
                )
            )

    @contextmanager
    def recording(self) -> Iterator[Openness]:
        """Collect the expected open units of every layer inside the `with` block, the same for each row."""
        seen = Openness()
        self._seen.append(seen)
        try:
            yield seen
        finally:
            self._seen.remove(seen)

    @contextmanager
    def counting(self, add: Callable[[Count], None]) -> Iterator[None]:
        """Tell `add` of every layer, on hard gates, interventions honoured."""
        self._adders.append(add)
        try:
            yield
        finally:
            self._adders.remove(add)


def _restore(module: nn.Module, args: Any, output: Any) -> None:
    """Give a module its own weight back."""
    module.__dict__.pop("weight", None)
