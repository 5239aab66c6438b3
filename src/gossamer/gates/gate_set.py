"""What a kind of gate is to everything that trains, counts and saves it: a gate set, and several of them together.

A gate set closes units of a model: attention edges, heads, neurons, weights. Units lie in groups (for edges: the
heads of a layer). What the trainer needs of one is below; it knows no kind by name, and a new kind is one file here.
Edges depend on the input and own no parameter; a static kind owns one logit per unit.

    A = sum_k price_k expected_k p_open(parent_k) / sum_k price_k visible_k        over the sets k

A unit whose `parent` is closed is not open: an edge in a closed head. p_open(parent) is the parent's own
expected share.

Letters: B batch row, L layer, G groups of a layer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import refuse


@dataclass
class Openness:
    """What one forward pass said of one gate set: per layer, in call order, sums over the units of each group.

    Attributes:
        layers: their numbers.
        expected: sum of sigma(g) over visible units, (..., G), with a gradient.
        visible: units that could be open, the same shape, int64.
        excess: where logits are limited, each layer's sum of squared excesses and how many pairs it is over.
        weight: of their mean in the objective.
    """

    layers: list[int] = field(default_factory=list)
    expected: list[Tensor] = field(default_factory=list)
    visible: list[Tensor] = field(default_factory=list)
    excess: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    weight: float = 0.0

    def total_expected(self, slope: float = 0.0, parent: dict[int, Tensor] | None = None) -> Tensor:
        """Expected open units, a scalar with a gradient; one of layer l counts 1 + slope * l times.

        Args:
            parent: layer -> (G,), the probability that a group's parent is open.
        """
        parts = []
        for layer, x in zip(self.layers, self.expected, strict=True):
            x = x if parent is None else x * parent[layer]
            parts.append(x.sum() * (1 + slope * layer))
        return torch.stack(parts).sum()

    def total_visible(self) -> Tensor:
        """How many units could be open: a scalar, left on the device."""
        return torch.stack([x.sum() for x in self.visible]).sum()

    def density(self) -> Tensor:
        """The expected share of open units, all layers together: a scalar with a gradient."""
        return self.total_expected() / self.total_visible()

    def shares(self) -> dict[int, Tensor]:
        """Layer -> (G,): the expected share of open units in each group, for the sets whose parent this is."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for layer, x, n in zip(self.layers, self.expected, self.visible, strict=True):
            total = (x.flatten(0, -2).sum(0), n.flatten(0, -2).sum(0)) if x.dim() > 1 else (x, n)
            before = found.get(layer)
            found[layer] = total if before is None else (before[0] + total[0], before[1] + total[1])
        return {layer: x / n.clamp_min(1) for layer, (x, n) in found.items()}

    def mean_excess(self) -> Tensor:
        """Mean of max(0, |s| - limit)^2 over the pairs looked at: a scalar with a gradient."""
        sums, pairs = zip(*self.excess, strict=True)
        return torch.stack(sums).sum() / torch.stack(pairs).sum()


class Count(NamedTuple):
    """One layer of one batch, counted on hard gates: (B, G) each; a static kind says the same of each row.

    `visible`, `expected` and `hard` are units, `queries` those that see something.
    """

    kind: str
    price: float
    layer: int
    visible: Tensor
    expected: Tensor
    hard: Tensor
    queries: Tensor


class GateSet(ABC):
    """All gates of one kind on one model.

    Attributes:
        kind: the name under which it is asked for, counted and saved.
        block: the name of its block in config.json.
        parent: the kind whose units hold this one's, or None.
        price: of an open unit in the objective, relative to other kinds.
        bias: c in nats, added to every gate; +inf opens all.
        sampling: draw logistic noise while the model is in training mode.
        seed, step: name the noise.
    """

    kind: ClassVar[str]
    block: ClassVar[str]
    parent: ClassVar[str | None] = None
    price: float = 1.0
    bias: float
    sampling: bool
    seed: int
    step: int

    @contextmanager
    def using(self, **settings: Any) -> Iterator[Any]:
        """Change settings inside a `with` block and put them back, whatever happens."""
        before = {name: getattr(self, name) for name in settings}
        try:
            for name, value in settings.items():
                setattr(self, name, value)
            yield self
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of its own, which get no weight decay; none where the gates read what the model computes."""
        return iter(())

    def opened(self) -> Any:
        """A context in which every gate is open: the base model."""
        return self.using(bias=math.inf)

    def limit_logits(self, limit: float, weight: float) -> None:  # noqa: B027  (most kinds have nothing to do)
        """Pull logits that exceed `limit` nats, with this weight; nothing happens where gates read no logits."""

    @abstractmethod
    def recording(self) -> Any:
        """A context that yields the `Openness` of the forward passes inside it."""

    @abstractmethod
    def counting(self, add: Callable[[Count], None]) -> Any:
        """A context in which `add` is told of every layer, on hard gates, interventions honoured."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a reload needs, as JSON values: the block in config.json."""


class GateSets(tuple[GateSet, ...]):
    """The gate sets of one model, which the trainer moves together."""

    @property
    def bias(self) -> float:
        """The common gate bias, in nats."""
        return self[0].bias

    @bias.setter
    def bias(self, value: float) -> None:
        for one in self:
            one.bias = value

    @property
    def sampling(self) -> bool:
        """Whether gates are sampled in training mode."""
        return self[0].sampling

    @sampling.setter
    def sampling(self, value: bool) -> None:
        for one in self:
            one.sampling = value

    def name_noise(self, *, seed: int | None = None, step: int | None = None) -> None:
        """Name the noise of the forward passes that follow."""
        for one in self:
            one.seed = one.seed if seed is None else seed
            one.step = one.step if step is None else step

    def of_kind(self, kind: str) -> GateSet:
        """The set of one kind."""
        found = [one for one in self if one.kind == kind]
        if not found:
            raise refuse(f"no gates on {kind}", f"{', '.join(one.kind for one in self)}", "attach them")
        return found[0]

    @contextmanager
    def recording(self) -> Iterator[list[Openness]]:
        """Collect what the gates of every set say inside the `with` block, in the order of the sets."""
        with ExitStack() as stack:
            yield [stack.enter_context(one.recording()) for one in self]

    @contextmanager
    def counting(self, add: Callable[[Count], None]) -> Iterator[None]:
        """Tell `add` of every layer of every set inside the `with` block."""
        with ExitStack() as stack:
            for one in self:
                stack.enter_context(one.counting(add))
            yield

    def penalty(self, seen: Sequence[Openness], slope: float = 0.0) -> Tensor:
        """A of the module docstring, with a gradient; a unit of layer l costs 1 + slope * l times its price."""
        named = {one.kind: openness for one, openness in zip(self, seen, strict=True)}
        opened, visible = [], []
        for one, openness in zip(self, seen, strict=True):
            parent = named[one.parent].shares() if one.parent in named else None
            opened.append(one.price * openness.total_expected(slope, parent))
            visible.append(one.price * openness.total_visible())
        return torch.stack(opened).sum() / torch.stack(visible).sum()

    def pull(self, seen: Sequence[Openness]) -> Tensor | float:
        """The weighted mean excess of limited logits; 0 where none are."""
        return sum((x.weight * x.mean_excess() for x in seen if x.excess), 0.0)

    def require_gradient(self, seen: Sequence[Openness]) -> None:
        """Raise unless the penalty can train anything: a reentrant checkpoint or frozen layers would drop it."""
        if torch.is_grad_enabled() and any(x.expected and not x.expected[-1].requires_grad for x in seen):
            raise refuse(
                "the penalty has no gradient",
                "trainable query and key projections, non-reentrant gradient checkpointing",
                "unfreeze q and k (LoRA: target them), or set use_reentrant=False",
            )
