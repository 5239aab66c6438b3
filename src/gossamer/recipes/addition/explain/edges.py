"""What each single edge of an adding model carries, found on all sums; head outputs have a file of their own.

An edge (layer, head, query, key) writes c(x) = gate * weight * value into its head's output at the query, on
sum x. An interchange gives it c(x') of another sum x' instead, everything else as on x. A fact Z (see
`algorithm`) is what the edge carries if the model's answers stay what they were whenever Z(x') = Z(x). The
label is the coarsest such fact, one under which at most `allowed` answers change.

That is a weak claim where two heads stand in for each other (each then carries nothing alone), and no claim
where two keys of one head share a softmax denominator (neither weight is a function of its own digit). What is
certain of a single edge is its gate: `Gate` says, without tolerance, on which digits it depends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ....circuits.circuit import Circuit, Edge
from ..task import Addition
from .facts import Fact, Truth, digits_of, listed, position_name
from .interchange import Interchange, same_value


@dataclass(frozen=True)
class Gate:
    """On which operand digits a gate depends, exactly and with as few of them as possible.

    Attributes:
        digits: their positions; none for a gate that is open on all sums or on none.
        values: those of the one digit that open it, if it is one.
        share: of the sums that open it.
    """

    digits: tuple[int, ...]
    values: tuple[int, ...]
    share: float

    def words(self, task: Addition) -> str:
        """When the gate is open, in words."""
        if not self.digits:
            return "always open" if self.share else "never open"
        names = [f"the {position_name(task, position)}" for position in self.digits]
        percent = f"{100 * self.share:.1f}" if self.share >= 0.001 else "less than 0.1"
        often = f"open on {percent} % of the sums"
        if self.values:
            return f"{often}, exactly where {names[0]} is {listed(self.values)}"
        return f"{often}, by {' and '.join(names)}"


def gate_of(truth: Truth, opened: np.ndarray) -> Gate:
    """The gate of an edge that is open on the sums `opened`, (n_sums,) bool: exhaustive, nothing assumed."""
    digits = sorted(position for position, (kind, _) in truth.task.place.items() if kind == "digit")
    share = float(opened.mean())
    for size in range(len(digits) + 1):
        for chosen in combinations(digits, size):
            classes = truth.classes([Fact("digit", truth.task.place[p][1], p) for p in chosen])
            counts, hits = np.bincount(classes), np.bincount(classes, weights=opened)
            if ((hits == 0) | (hits == counts)).all():
                values = tuple(int(v) for v in np.flatnonzero(hits)) if size == 1 else ()
                return Gate(chosen, values, share)
    raise AssertionError("all digits together tell the sums apart")


def opened_by(circuit: Circuit, outputs: list[int]) -> dict[Edge, np.ndarray]:
    """Every edge that is live on any prompt, with the prompts that open it, (n_prompts,) bool."""
    found = {edge: np.zeros(circuit.n_prompts, dtype=bool) for edge in circuit.live(outputs).edges()}
    places = zip(circuit.layer.tolist(), circuit.head.tolist(), circuit.query.tolist(), circuit.key.tolist(),
                 strict=True)  # fmt: skip
    for prompt, edge in zip(circuit.prompt.tolist(), places, strict=True):
        if edge in found:
            found[edge][prompt] = True
    return found


@dataclass(frozen=True)
class EdgeFinding:
    """What one edge carries.

    Attributes:
        edge: (layer, head, query, key).
        gate: when it is open.
        fact: the label; "something else" is told by `held` being below `n - allowed`.
        held: sums of `n` whose answer stays under an interchange within the label.
        certain: whether `held` reached what was asked for.
    """

    edge: Edge
    gate: Gate
    fact: Fact
    held: int
    n: int
    certain: bool

    def sentence(self, task: Addition) -> str:
        """One sentence: where, when, what, and how surely."""
        layer, head, query, key = self.edge
        where = f"Layer {layer}, head {head}, {position_name(task, key)} -> {position_name(task, query)}"
        what = self.fact.words(task) if self.certain else f"something else (nearest: {self.fact.words(task)})"
        held = f"held on {100 * self.held / self.n:.2f} % of {self.n:,} sums"
        return f"{where}: {self.gate.words(task)}; carries alone {what}, {held}."


def candidates(task: Addition, key: int, truth: Truth) -> list[Fact]:
    """The facts that may travel from position `key`, from the fewest values to the most."""
    facts = [Fact("nothing")]
    if key in task.place and task.place[key][0] == "digit":
        facts.append(Fact("digit", task.place[key][1], key))
    for place in range(task.digits):
        facts += [Fact("carry", place), Fact("answer", place), Fact("pair", place)]
        facts += [Fact("digit", place, position) for position in digits_of(task, place) if position != key]
    return sorted(facts, key=lambda fact: len(np.unique(truth.of(fact))))


def label_edges(
    patched: Interchange, truth: Truth, opened: Mapping[Edge, np.ndarray], limit: int, *, seed: int = 0
) -> list[EdgeFinding]:
    """What every edge carries alone, in the order of the layers.

    Args:
        bench: keeps these edges.
        opened: edge -> on which sums it is open, (n_sums,) bool.
        limit: sums whose answer may change although the label says that it must not.
        seed: of the draws of x'.
    """
    rng, n, found = np.random.default_rng(seed), truth.n_sums, []
    for edge in sorted(opened):
        fact, held = _label(patched, truth, edge, limit, rng)
        found.append(EdgeFinding(edge, gate_of(truth, opened[edge]), fact, held, n, held >= n - limit))
    return found


def _label(
    patched: Interchange, truth: Truth, edge: Edge, limit: int, rng: np.random.Generator
) -> tuple[Fact, int]:
    """The coarsest fact that holds, or else the best, with the number of sums on which it holds."""
    n = truth.n_sums
    best: tuple[Fact, int] = (Fact("nothing"), -1)
    order = torch.from_numpy(rng.permutation(n))
    for fact in candidates(patched.task, edge[3], truth):
        others = torch.from_numpy(same_value(truth.of(fact), rng))
        held, holds = patched.holds(order, {edge: others}, limit)
        if holds:
            return fact, held
        if held > best[1]:
            best = fact, held
    return best
