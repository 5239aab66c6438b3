"""The neurons that are left of an adding model: what each responds to, and what closing it alone changes.

A neuron's response is the number that the MLP's second matrix reads, at one position, on all sums:

    eta(Z) = Var_x E[a(x) | Z(x)] / Var_x a(x)        the share of its variance that a fact Z explains

The position is the answer slot that closing the neuron changes most, if its response varies there; else where it varies
most over the sums. A neuron *responds to* the coarsest fact (`facts.py`) whose eta is at least `EXPLAINED`. That is
correlation; what it is for is measured by closing it alone: on which sums the answer becomes wrong, and in which slots.
Neurons are closed in the model without its closed units, which is the same function (`models/shrink.py`) and takes 0.9
and not 2.3 processor seconds for all sums (an adder with 6 heads and 72 neurons left, one thread).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ....gates.neurons import NeuronGates
from ....models.anatomy import Anatomy
from ....models.forward import device_of, evaluating, first_output
from ....models.levels import PER_LAYER
from ....models.shrink import shrunk
from ..task import Addition
from .facts import Fact, Truth, digits_of, place_name, position_name

EXPLAINED = 0.9  # of the variance, from where on a fact is said to be what a neuron responds to (assumed)
CONSTANT = 1e-10  # variance of a response up to which it is rounding


@dataclass(frozen=True)
class NeuronFinding:
    """One neuron that is left.

    Attributes:
        layer, neuron: where it is.
        position: of the token at which its response is looked at.
        fact: what it responds to there, or the fact that comes nearest.
        eta: the share of the variance that the fact explains; 0 where the response is constant.
        wrong: sums of `n` that are answered rightly with it and wrongly without it.
        wrong_slots: place of an answer slot -> on how many of all sums that slot's token changes without it.
    """

    layer: int
    neuron: int
    position: int
    fact: Fact
    eta: float
    wrong: int
    wrong_slots: dict[int, int]
    n: int

    @property
    def certain(self) -> bool:
        """Whether the fact explains as much as is asked for."""
        return self.eta >= EXPLAINED

    def responds_to(self, task: Addition) -> str:
        """What it responds to, in words."""
        if not self.eta:
            return "nothing: its response is the same on all sums"
        at = f"at the {position_name(task, self.position).removeprefix('the ')}"
        fact = self.fact.words(task)
        if not self.certain:
            return f"no single fact {at} (nearest: {fact}, {100 * self.eta:.0f} % of its variance)"
        return f"{fact}, {at} ({100 * self.eta:.0f} % of its variance)"

    def changes(self) -> str:
        """What closing it alone changes, in words."""
        if not self.wrong_slots:
            return "changes no answer"
        slots = ", ".join(
            f"{place_name(place)} slot on {count:,}" for place, count in self.wrong_slots.items()
        )
        return f"makes {self.wrong:,} of {self.n:,} sums wrong ({slots} changed)"

    def sentence(self, task: Addition) -> str:
        """One sentence: where, to what, what for."""
        where = f"Layer {self.layer}, neuron {self.neuron}"
        return f"{where}: responds to {self.responds_to(task)}; closing it alone {self.changes()}."

    def as_record(self, task: Addition) -> dict[str, Any]:
        """Plain numbers and sentences."""
        return {
            "layer": self.layer,
            "neuron": self.neuron,
            "position": self.position,
            "fact": self.fact._asdict(),
            "eta": self.eta,
            "certain": self.certain,
            "wrong": self.wrong,
            "wrong_slots": {str(place): count for place, count in self.wrong_slots.items()},
            "responds_to": self.responds_to(task),
            "closing": self.changes(),
            "sentence": self.sentence(task),
        }


def label_neurons(model: PreTrainedModel, truth: Truth, *, batch: int = 2000) -> list[NeuronFinding]:
    """Every open neuron in the order of the layers; an empty list for a model without gates on neurons.

    Costs one forward pass over all sums for each neuron that is open.
    """
    gates = NeuronGates.on(model)
    if gates is None:
        return []
    task = truth.task
    inputs, labels = truth.encode()
    slots = [(position, place) for position, (kind, place) in task.place.items() if kind == "slot"]
    responses, _ = _run(model, inputs, batch, gates)
    small = _without_closed_units(model, gates)
    _, own = _run(small, inputs, batch)
    right = (own == labels).all(1)
    codes = _codes(truth)
    found = []
    for layer, response in responses.items():
        opened = torch.nonzero(gates.hard(layer))[:, 0].tolist()
        for index, neuron in enumerate(opened):
            with _closing(small, layer, index):
                _, without = _run(small, inputs, batch)
            changed = {place: int((without != own)[:, position].sum()) for position, place in slots}
            best = max(slots, key=lambda slot: changed[slot[1]])
            first = best[0] if changed[best[1]] else None
            position, fact, eta = _explained(response[:, :, index], codes, first)
            found.append(
                NeuronFinding(
                    layer=layer,
                    neuron=neuron,
                    position=position,
                    fact=fact,
                    eta=eta,
                    wrong=int((right & (without != labels).any(1)).sum()),
                    wrong_slots={place: n for place, n in sorted(changed.items()) if n},
                    n=truth.n_sums,
                )
            )
    return found


def count_open(model: PreTrainedModel) -> int:
    """How many neurons `label_neurons` closes; 0 for a model without gates on neurons."""
    gates = NeuronGates.on(model)
    return 0 if gates is None else sum(int(gates.hard(layer).sum()) for layer in gates.places)


def _without_closed_units(model: PreTrainedModel, gates: NeuronGates) -> PreTrainedModel:
    """The model with the open neurons of each layer alone, in their order; itself where all are open."""
    return model if all(gates.hard(layer).all() for layer in gates.places) else shrunk(model, PER_LAYER)[0]


@contextmanager
def _closing(model: PreTrainedModel, layer: int, index: int) -> Iterator[None]:
    """The matrix that reads a layer's neurons gets zeros for one of them."""

    def close(module: nn.Module, args: Any) -> tuple[Tensor, ...]:
        x = args[0].clone()
        x[..., index] = 0.0
        return (x, *args[1:])

    hook = Anatomy.of(model)[layer].mlp.out.module.register_forward_pre_hook(close)
    try:
        yield
    finally:
        hook.remove()


def _run(
    model: PreTrainedModel, inputs: Tensor, batch: int, gates: NeuronGates | None = None
) -> tuple[dict[int, np.ndarray], Tensor]:
    """Responses of the open neurons of each layer, (n, T, open), where gates are given; and the answers, (n, T)."""
    parts: dict[int, list[Tensor]] = {}
    with _listening(model, gates, parts), evaluating(model):
        rows = inputs.to(device_of(model)).split(batch)
        answers = [first_output(model, {"input_ids": ids}).argmax(-1).cpu() for ids in rows]
    return {layer: torch.cat(seen).numpy() for layer, seen in parts.items()}, torch.cat(answers)


@contextmanager
def _listening(
    model: PreTrainedModel, gates: NeuronGates | None, parts: dict[int, list[Tensor]]
) -> Iterator[None]:
    hooks = []
    for layer in Anatomy.of(model) if gates is not None else ():
        assert gates is not None
        opened = torch.nonzero(gates.hard(layer.number))[:, 0]

        def hear(module: nn.Module, args: Any, number: int = layer.number, opened: Tensor = opened) -> None:
            x = args[0][..., opened]
            parts.setdefault(number, []).append(x.float().cpu())

        hooks.append(layer.mlp.out.module.register_forward_pre_hook(hear))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _codes(truth: Truth) -> list[tuple[Fact, np.ndarray]]:
    """Every fact that a neuron may respond to with its classes, (n_sums,), from the fewest values to the most."""
    facts = []
    for place in range(truth.task.digits):
        facts += [Fact(name, place) for name in ("carry", "step", "answer", "pair")]
        facts += [Fact("digit", place, position) for position in digits_of(truth.task, place)]
    return sorted(((fact, truth.classes([fact])) for fact in facts), key=lambda one: int(one[1].max()))


def _explained(
    response: np.ndarray, codes: list[tuple[Fact, np.ndarray]], first: int | None = None
) -> tuple[int, Fact, float]:
    """(position, fact, eta) for a neuron's response (n_sums, T); at `first`, if it varies there."""
    spread = response.var(0, dtype=np.float64)
    position = int(spread.argmax()) if first is None or spread[first] <= CONSTANT else first
    if spread[position] <= CONSTANT:
        return position, Fact("nothing"), 0.0
    shares = [(fact, _eta(response[:, position], classes)) for fact, classes in codes]
    enough = (one for one in shares if one[1] >= EXPLAINED)
    return position, *next(enough, max(shares, key=lambda one: one[1]))


def _eta(x: np.ndarray, classes: np.ndarray) -> float:
    x = x.astype(np.float64)
    counts = np.bincount(classes)
    means = np.bincount(classes, weights=x) / np.maximum(counts, 1)
    return float((counts * (means - x.mean()) ** 2).sum() / len(x) / x.var())
