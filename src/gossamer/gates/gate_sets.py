"""The gate sets of one model together: the objective's openness, and what moves them all.

    A = sum_k price_k expected_k p_open(parent_k) / sum_k price_k visible_k        over the sets k

A unit whose `parent` is closed is not open: an edge in a closed head. p_open(parent) is the parent's own
expected share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..errors import refuse
from .gate_set import DEFINED, GateSet
from .openness import FLAT, Count, Openness, Slopes


class GateSets(tuple[GateSet, ...]):
    """The gate sets of one model, which the trainer moves together."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are there."""
        return tuple(one.kind for one in self)

    @property
    def bias(self) -> float:
        """The common gate bias, in nats; the lowest, where a set came open to others that are in use."""
        return min(one.bias for one in self)

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

    @property
    def reads(self) -> str:
        """What the gates read for which a run may choose, if it is no logit; `logit` else."""
        return next((one.reads for one in self._free if one.reads != GateSet.reads), GateSet.reads)

    @reads.setter
    def reads(self, value: str) -> None:
        for one in self:
            one.reads = value if value in one.choices else one.reads

    @property
    def readings(self) -> tuple[str, ...]:
        """What a run may choose from: of the sets that leave a choice, else what the first one reads."""
        return tuple(dict.fromkeys(reading for one in self._free for reading in one.choices))

    @property
    def _free(self) -> Sequence[GateSet]:
        return [one for one in self if len(one.choices) > 1] or self[:1]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of all sets, which get no weight decay, by their names in the model that they are on."""
        for one in self:
            if isinstance(one, nn.Module):
                yield from one.named_parameters(prefix=one.block)

    def let_parents_learn(self, whether: bool) -> None:
        """Let the gates that hold others learn, or wait with hard gates; whether there are others or not."""
        held = {one.parent for one in DEFINED.values()}
        for one in self:
            if one.kind in held:
                one.waits = not whether

    def only(self, wanted: Collection[str]) -> GateSets:
        """The sets of some kinds, which then learn; the others stay as they are: hard, without a gradient."""
        for one in self:
            one.waits = one.kind not in wanted
            one.sampling = one.sampling and not one.waits
            if isinstance(one, nn.Module):
                one.requires_grad_(one.learns)  # where it goes by what is measured, it learns nothing
        return GateSets(one for one in self if not one.waits)

    def slope_at_least(self, least: float) -> None:
        """Give learning gates on edges and weights this least straight-through slope; whole units have none."""
        for one in self:
            one.least_slope = least if one.has_least_slope else 0.0

    def name_noise(self, *, seed: int | None = None, step: int | None = None) -> None:
        """Name the noise of the forward passes that follow."""
        for one in self:
            one.seed = one.seed if seed is None else seed
            one.step = one.step if step is None else step

    def of_kind(self, kind: str) -> GateSet:
        """The set of one kind."""
        found = [one for one in self if one.kind == kind]
        if not found:
            raise refuse(f"no gates on {kind}", ", ".join(self.kinds), "attach them")
        return found[0]

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """A context whose forward passes are measured, until `settle`."""
        with ExitStack() as stack:
            for one in self:
                stack.enter_context(one.using(measuring=True))
            yield

    def settle(self, total: Callable[[Tensor], Tensor]) -> None:
        """Let every set take in what it measured; `total` sums over all processes."""
        for one in self:
            one.settle(total)

    def scale(self, lost: Callable[[], float]) -> None:
        """Let every set that measures find what closing its units costs; `lost` is what the model loses as it is."""
        for one in self:
            one.scale(lost)

    def shift(self, nats: float) -> None:
        """Add to what decides every gate, in sets that go by what they measure."""
        for one in self:
            one.shift(nats)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A context in which every gate of every set is open: the base model."""
        with ExitStack() as stack:
            for one in self:
                stack.enter_context(one.opened())
            yield

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

    def penalty(self, seen: Sequence[Openness], slopes: Slopes = FLAT) -> Tensor:
        """A of the module docstring, with a gradient; edges of later layers and heads may cost more."""
        named = {one.kind: openness for one, openness in zip(self, seen, strict=True)}
        opened, visible = [], []
        for one, openness in zip(self, seen, strict=True):
            parent = named[one.parent].shares() if one.parent in named else _open_parents(one, openness)
            price = one.price * one.emphasis * openness.tokens
            opened.append(price * openness.total_expected(slopes if one.priced_by_layer else FLAT, parent))
            visible.append(price * openness.total_visible())
        return torch.stack(opened).sum() / torch.stack(visible).sum()

    def pull(self, seen: Sequence[Openness]) -> Tensor | float:
        """The weighted mean excess of limited logits; 0 where none are."""
        return sum((x.weight * x.mean_excess() for x in seen if x.excess), 0.0)

    def require_gradient(self, seen: Sequence[Openness]) -> None:
        """Raise unless the penalty can train anything: a reentrant checkpoint or frozen layers would drop it."""
        trained = [x for one, x in zip(self, seen, strict=True) if one.learns and x.expected]
        if torch.is_grad_enabled() and not all(x.expected[-1].requires_grad for x in trained):
            raise refuse(
                "the penalty has no gradient",
                "trainable query and key projections, non-reentrant gradient checkpointing",
                "unfreeze q and k (LoRA: target them), or set use_reentrant=False",
            )


def _open_parents(one: GateSet, openness: Openness) -> dict[int, Tensor] | None:
    """Layer -> (G,) {0, 1}: which groups lie in open units of a holder that does not learn; None for all."""
    found = {layer: one.holder.open_groups(layer) for layer in set(openness.layers)} if one.holder else {}
    return {layer: opened for layer, opened in found.items() if opened is not None} or None
