"""What each head output of an adding model hands over, found by interchange on all sums, layer by layer.

A head output (layer, head, query) is all that one head brings to one position. A set of facts (see `algorithm`) is
what it hands over if, on every sum x, it may carry what it carries on any sum x' with the same values of these
facts, *while every head output below is exchanged in the same way with sums of its own*, and no answer changes. So
two heads that stand in for each other are not both called redundant, and the message holds of all at once.

Only facts are tried that the program can work out from what is known at the head output's declared inputs, the
coarsest first (fewest combinations of values). `moved` then tests the program, to which nothing was fitted:
all that a position is told about some digits is exchanged at once with what it is told on any other sum, and the
model must answer as the program does. Where other heads tell a slot otherwise, the program says nothing of that
slot, and it is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from ....circuits.circuit import Edge
from ..task import Addition
from .edges import gate_of
from .facts import Fact, Knowledge, Truth, derive, digits_of, pool, position_name
from .interchange import Interchange, Part, same_value
from .program import HeadOutput, Message, Program


@dataclass(frozen=True)
class HeadFinding:
    """What one head output hands over.

    Attributes:
        head output, message: (layer, head, query), and what it reads and says.
        entries: combinations of values of its facts, the size of the message as a table.
        held: sums of `n` whose answer stays when this head output and all below it are exchanged within their values.
        certain: whether `held` reached what was asked for.
    """

    head_output: HeadOutput
    message: Message
    entries: int
    held: int
    n: int
    certain: bool

    def sentence(self, task: Addition) -> str:
        """One sentence: where, from where, what, and how surely."""
        layer, head, query = self.head_output
        sources = " and ".join(f"the {position_name(task, key)}" for key in self.message.keys)
        what = self.message.words(task)
        text = what if self.certain else f"something else (nearest: {what})"
        return (
            f"Layer {layer}, head {head}, {position_name(task, query)}: from {sources}, {text} "
            f"({self.entries:,} {'value' if self.entries == 1 else 'values'}); "
            f"held on {100 * self.held / self.n:.2f} % of {self.n:,} sums."
        )


@dataclass(frozen=True)
class PositionFinding:
    """All that a position is told about some digits, by however many head outputs, exchanged at once.

    Attributes:
        query, head outputs, digits: who is told, by whom, about which operand positions.
        moved: sums of `n` on which the model then answers as the program does, wherever it does.
        foreseen: answers of `n` times the slots that the program gives.
    """

    query: int
    head_outputs: tuple[HeadOutput, ...]
    digits: tuple[int, ...]
    moved: int
    foreseen: int
    n: int

    def sentence(self, task: Addition) -> str:
        """One sentence: who, what, by how many, and how surely."""
        heads = f"{len(self.head_outputs)} {'head' if len(self.head_outputs) == 1 else 'heads'}"
        about = " and ".join(f"the {position_name(task, position)}" for position in self.digits)
        share = self.foreseen / (self.n * (task.digits + 1))
        return (
            f"The {position_name(task, self.query)} is told about {about} by {heads}; told as on another sum, the "
            f"model answers as the program says on {100 * self.moved / self.n:.2f} % of {self.n:,} sums "
            f"({100 * share:.1f} % of the answers foreseen)."
        )


def candidates(task: Addition, truth: Truth, seen: tuple[Fact, ...] = ()) -> list[tuple[Fact, ...]]:
    """Sets of facts that a head output may hand over, from the fewest combinations of values to the most.

    Args:
        seen: digits that the head output's edges see in part.
    """
    places = []
    for place in range(task.digits):
        first, second = (Fact("digit", place, position) for position in digits_of(task, place))
        single = [Fact(name, place) for name in ("carry", "step", "answer", "pair")]
        part = tuple(fact for fact in seen if fact.place == place)
        options = [(), *((fact,) for fact in (*single, first, second, *part)), (first, second), part]
        places.append(list(dict.fromkeys(options)))
    found = [tuple(fact for part in parts for fact in part) for parts in product(*places)]
    return sorted(found, key=lambda facts: (truth.entries(facts), len(facts)))


def label_head_outputs(
    patched: Interchange, truth: Truth, opened: Mapping[Edge, np.ndarray], limit: int, *, seed: int = 0
) -> list[HeadFinding]:
    """What every head output hands over, from the lowest layer up.

    Args:
        bench: keeps the head outputs of these edges.
        opened: edge -> on which sums it is open, (n_sums,) bool.
        limit: sums whose answer may change, all head outputs so far exchanged together.
    """
    rng = np.random.default_rng(seed)
    reads = head_outputs_of(opened)
    messages: dict[HeadOutput, Message] = {}
    exchanged: dict[Part, torch.Tensor] = {}
    found = []
    for layer in sorted({head_output[0] for head_output in reads}):
        states = Program(patched.task, messages).knowledge(truth)
        for head_output in sorted(head_output for head_output in reads if head_output[0] == layer):
            inputs = pool(states[position] for position in (*reads[head_output], head_output[2]))
            options = candidates(patched.task, truth, _seen(truth, head_output, reads[head_output], opened))
            possible = (facts for facts in options if _follows(patched.task, inputs, facts, truth))
            facts, held, others = _coarsest(patched, truth, head_output, possible, exchanged, limit, rng)
            certain = held >= truth.n_sums - limit
            if certain:
                exchanged[head_output] = others
            messages[head_output] = Message(reads[head_output], facts)
            found.append(
                HeadFinding(
                    head_output,
                    messages[head_output],
                    truth.entries(facts),
                    held,
                    truth.n_sums,
                    certain,
                )
            )
    return found


def head_outputs_of(edges: Iterable[Edge]) -> dict[HeadOutput, tuple[int, ...]]:
    """The positions that each head output reads."""
    found: dict[HeadOutput, tuple[int, ...]] = {}
    for layer, head, query, key in sorted(edges):
        found[layer, head, query] = (*found.get((layer, head, query), ()), key)
    return found


def _seen(
    truth: Truth, head_output: HeadOutput, keys: tuple[int, ...], opened: Mapping[Edge, np.ndarray]
) -> tuple[Fact, ...]:
    """The digits that the head output reads by gates that depend on the very digit, each in part."""
    gates = {key: gate_of(truth, opened[(*head_output, key)]) for key in keys}
    return tuple(
        Fact("seen", truth.task.place[key][1], key, gate.values)
        for key, gate in gates.items()
        if gate.digits == (key,)
    )


def _follows(task: Addition, inputs: Knowledge, facts: tuple[Fact, ...], truth: Truth) -> bool:
    n = len(truth.columns)
    return all((derive(task, inputs, fact, n) >= 0).all() for fact in facts)


def _coarsest(
    patched: Interchange, truth: Truth, head_output: HeadOutput, possible: Iterator[tuple[Fact, ...]],
    exchanged: dict[Part, torch.Tensor], limit: int, rng: np.random.Generator,
) -> tuple[tuple[Fact, ...], int, torch.Tensor]:  # fmt: skip
    """The first set of facts that holds, or else the best, with the sums on which it holds and the draw."""
    n = truth.n_sums
    order = torch.from_numpy(rng.permutation(n))
    best: tuple[tuple[Fact, ...], int, torch.Tensor] = ((), -1, order)
    for facts in possible:
        others = torch.from_numpy(same_value(truth.classes(facts), rng))
        held, holds = patched.holds(order, {**exchanged, head_output: others}, limit)
        if holds:
            return facts, held, others
        if held > best[1]:
            best = facts, held, others
    return best


def causal_scrubbing(patched: Interchange, truth: Truth, program: Program, *, seed: int = 1) -> int:
    """Sums whose answer stays when all head outputs at once carry what they carry on sums of the same values.

    The draws are fresh ones: nothing was fitted to them.
    """
    rng = np.random.default_rng(seed)
    others: dict[Part, torch.Tensor] = {
        head_output: torch.from_numpy(same_value(truth.classes(message.facts), rng))
        for head_output, message in program.messages.items()
    }
    return patched.unchanged(torch.arange(truth.n_sums), others)


def position_findings(
    patched: Interchange, truth: Truth, program: Program, *, seed: int = 2
) -> list[PositionFinding]:
    """For every position and what it is told about digits of its own kind, whether the program foresees a change.

    Head outputs that speak of the same digits to one position belong together; they are exchanged with the same sum.
    """
    rng, n = np.random.default_rng(seed), truth.n_sums
    found = []
    for query, digits, head_outputs in _groups(program):
        others = rng.integers(0, n, n)
        foreseen = program.run(truth, instead=dict.fromkeys(head_outputs, others))
        drawn = torch.from_numpy(others)
        answers = patched.answers(torch.arange(n), dict.fromkeys(head_outputs, drawn))
        moved = int(((answers == foreseen) | (foreseen < 0)).all(1).sum())
        found.append(
            PositionFinding(
                query, tuple(head_outputs), tuple(sorted(digits)), moved, int((foreseen >= 0).sum()), n
            )
        )
    return found


def _groups(program: Program) -> list[tuple[int, set[int], list[HeadOutput]]]:
    """Head outputs by the position they speak to and the digits they speak of, joined where these overlap."""
    groups: list[tuple[int, set[int], list[HeadOutput]]] = []
    for head_output, message in sorted(program.messages.items()):
        if not message.facts:
            continue
        query, digits, joined = head_output[2], _digits(program.task, message.facts), [head_output]
        for group in [group for group in groups if group[0] == query and group[1] & digits]:
            digits, joined = digits | group[1], group[2] + joined
            groups.remove(group)
        groups.append((query, digits, joined))
    return groups


def _digits(task: Addition, facts: tuple[Fact, ...]) -> set[int]:
    """The operand positions that some facts depend on."""
    found: set[int] = set()
    for fact in facts:
        if fact.name in ("digit", "seen"):
            found.add(fact.position)
        elif fact.name in ("pair", "step"):
            found.update(digits_of(task, fact.place))
        else:
            found.update(p for place in range(fact.place + 1) for p in digits_of(task, place))
    return found
