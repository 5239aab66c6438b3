"""What a kind of gate is to everything that trains, counts, saves and loads it.

A gate set closes units of a model: attention edges, heads, neurons, weights. Units lie in groups (for edges: the
heads of a layer). Everything that is asked of one is below, and nobody knows a kind by name: a kind is a subclass in a
file of this folder, which is found by being defined (`kinds.py`). Edges depend on the input and own no parameter. A
static kind owns one logit per unit: it is an `nn.Module` too, and the part `block` of the model that it is on, so that
optimizer, checkpoints and whatever distributes the model see its parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeGuard

from torch import Tensor, nn

from ..errors import CheckpointError, refuse
from .host import Host, Options
from .openness import Count

SUFFIX = "_gates"  # of every block in config.json, so that one of an unknown kind is not passed over
DEFINED: dict[str, type[GateSet]] = {}  # by kind; `kinds.py` reads it


class GateSet(ABC):
    """All gates of one kind on one model.

    Attributes:
        kind: the name under which it is asked for, counted and saved; a class that declares one is a kind.
        block: the name of its block in config.json, and of the attribute by which it is found on a model.
        version: of that block.
        parent: the kind whose units hold this one's, or None.
        reads: what a gate adds the bias to, one of `readings`.
        price: multiply-adds of an open unit, of an edge as such and of a static unit for each token; alone on a model,
            a kind's price does not matter.
        emphasis: factor on the price in the objective; a run sets it so that every whole kind costs the same, if its
            recipe says so.
        priced_by_layer: a unit of a later layer may cost more, if the recipe says so.
        has_least_slope: the recipe's least slope holds for its gates: a single connection that is missed may come back;
            whole heads and neurons were kept open by it (LOG.md, 2026-11-28).
        can_be_uniform: the units have a shape, of which every layer may keep as many.
        uniform: every layer has the same count of open units (`uniform.py`).
        measuring: the forward passes are to be measured, by gates that read what is measured.
        waits: a run does not let the gates learn, or not yet: they are hard, and get no gradient.
        holder: the set of the kind `parent` on the same model, or None.
        bias: c in nats, added to every gate; +inf opens all.
        sampling: draw logistic noise while the model is in training mode.
        straight_through: pass gradients through hard gates in evaluation mode too, as attribution may ask; without it
            they are the derivative of what the model computes.
        least_slope: the least straight-through gradient of a gate while it learns, see `gate.py`.
        seed, step: name the noise.
        n_layers: how many layers the model has.
        layer_numbers: those that have gates, by default all; each must run once, or `attach` refuses the model.
    """

    kind: ClassVar[str]
    block: ClassVar[str]
    version: ClassVar[int] = 1
    parent: ClassVar[str | None] = None
    readings: ClassVar[tuple[str, ...]] = ("logit",)
    priced_by_layer: ClassVar[bool] = False
    has_least_slope: ClassVar[bool] = False
    can_be_uniform: ClassVar[bool] = False
    uniform: bool = False
    reads: str = "logit"
    measuring: bool = False
    waits: bool = False
    price: float = 1.0
    emphasis: float = 1.0
    straight_through: bool = False
    least_slope: float = 0.0
    holder: GateSet | None = None
    bias: float
    sampling: bool
    seed: int
    step: int
    n_layers: int

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in cls.__dict__:
            other = DEFINED.setdefault(cls.kind, cls)
            assert (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__), other
            assert cls.block.endswith(SUFFIX), cls.block
            DEFINED[cls.kind] = cls

    @property
    def learns(self) -> bool:
        """Whether the penalty trains something."""
        return not self.waits

    @property
    def choices(self) -> tuple[str, ...]:
        """What a run may still let the gates read, when it measures where to start."""
        return self.readings

    @property
    def layer_numbers(self) -> Sequence[int]:
        """The layers that have gates."""
        return range(self.n_layers)

    # ---- on a model ----

    @classmethod
    def made(cls, options: Options) -> Self:
        """A set for a run, to be put on its model."""
        return cls()

    def require(self, options: Options) -> None:  # noqa: B027  (most kinds have nothing to ask)
        """Raise if a set that is on a model already is not what a run asks for."""

    @classmethod
    def on(cls, model: nn.Module) -> Self | None:
        """The gates of this kind on a model, or None."""
        for module in model.modules():
            found = module.__dict__.get(cls.block) or module._modules.get(cls.block)
            if isinstance(found, cls):
                return found
        return None

    @abstractmethod
    def attach(self, host: Host) -> None:
        """Put the set on a model, under the attribute `block`."""

    @abstractmethod
    def detach(self, host: Host) -> None:
        """Take the set off a model, which is then as it was."""

    # ---- in a folder; parameters are saved with the model's ----

    def state(self) -> dict[str, Any]:
        """What a reload needs besides parameters, as JSON values: the block in config.json."""
        return {"version": self.version, "bias": self.bias if math.isfinite(self.bias) else "open"}

    @classmethod
    def from_state(cls, state: Any, where: object, options: Options) -> Self:
        """The set that a block describes, to be put on its model.

        Raises: `CheckpointError`, naming `where`, for a newer block and for one that means nothing.
        """
        block: Mapping[str, Any] = state if isinstance(state, Mapping) else {}
        version, bias = block.get("version"), block.get("bias")
        if (
            type(version) is not int
            or version < 1
            or not (bias == "open" or (_is_bias(bias) and bias < math.inf))
        ):
            raise refuse(
                f"{where}: {cls.block} is {state!r}", "{version, bias}", "save it again", CheckpointError
            )
        if version > cls.version:
            raise refuse(
                f"{where} was written by a newer gossamer ({cls.block} version {version})",
                f"versions up to {cls.version}",
                "upgrade gossamer",
                CheckpointError,
            )
        made = cls.made(options)
        made.bias = math.inf if bias == "open" else float(bias)
        return made

    def go_on(self, state: Mapping[str, Any]) -> None:  # noqa: B027  (most kinds measure nothing)
        """Take what was measured before from a block, for more training."""

    # ---- in use ----

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

    def opened(self) -> Any:
        """A context in which every gate is open: the base model."""
        return self.using(bias=math.inf)

    def require_whole(self, model: nn.Module) -> None:  # noqa: B027  (edges are decided beside every adapter)
        """Raise if something was put on the model later that passes closed units by."""

    def open_groups(self, layer: int) -> Tensor | None:
        """(G,) {0, 1}: which groups of a layer hold open units of the kinds whose parent this is; None for all."""
        return None

    def weigh(self, host: Host) -> None:  # noqa: B027  (a kind may know its price when it is attached)
        """Set the price, once there are several kinds on the model."""

    def limit_logits(self, limit: float, weight: float) -> None:  # noqa: B027  (most kinds have nothing to do)
        """Pull logits that exceed `limit` nats, with this weight; nothing happens where gates read no logits."""

    def settle(self, total: Callable[[Tensor], Tensor]) -> None:  # noqa: B027  (most kinds measure nothing)
        """Take what was measured into the gates; `total` sums over all processes."""

    def scale(self, lost: Callable[[], float]) -> None:  # noqa: B027
        """Measure what closing units costs, on the dense model; `lost` is what the model loses as it is."""

    def shift(self, nats: float) -> None:  # noqa: B027
        """Add to what decides every gate, where that was measured."""

    @abstractmethod
    def recording(self) -> Any:
        """A context that yields the `Openness` of the forward passes inside it."""

    @abstractmethod
    def counting(self, add: Callable[[Count], None]) -> Any:
        """A context in which `add` is told of every layer, on hard gates, interventions honoured."""


def _is_bias(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value <= math.inf
