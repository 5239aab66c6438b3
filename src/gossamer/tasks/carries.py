"""What each edge of an adding model carries, found by interchange interventions on all sums.

An edge (layer, head, query, key) writes c(x) = gate * weight * value into its head's output at the query, on
sum x. An interchange gives it c(x') of another sum x' instead, everything else as on x. A fact Z (see
`algorithm`) is what the edge carries if

    held    with x' drawn among the sums with Z(x') = Z(x), the model's answers stay what they were
    moved   with x' drawn among all sums, the model answers as the program does when Z(x') is handed over
    instead

each counted over all sums. `held` finds the label: the coarsest fact under which at most `allowed` answers
change, facts ordered by how many values they have. `moved` needs the labels of all edges, and is the test of
them: nothing in the program was fitted to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..attention.eager import attention_weights, repeat_heads
from ..circuit import Circuit, Edge
from ..errors import require_range
from ..intervals import wilson
from ..modeling import AttentionCall, gates_of
from ..probe import evaluating, first_output
from .addition import Addition
from .algorithm import Fact, Program, Truth, digits_of, position_name, slot_of

FIRST = 500  # sums on which a fact is tried before it is tried on all; assumed


@dataclass(frozen=True)
class Carried:
    """What one edge carries.

    Attributes:
        edge: (layer, head, query, key).
        fact: the label; "something else" is told by `held` being below `n - allowed`.
        held, moved: sums of `n` that came out as the label says.
        opened: sums on which the edge is open.
        certain: whether `held` reached what was asked for.
    """

    edge: Edge
    fact: Fact
    held: int
    moved: int
    opened: int
    n: int
    certain: bool

    def sentence(self, task: Addition) -> str:
        """One sentence: where, what, and how surely."""
        layer, head, query, key = self.edge
        where = (
            f"Layer {layer + 1}, head {head + 1}, {position_name(task, key)} -> {position_name(task, query)}"
        )
        what = self.fact.words(task) if self.certain else f"something else (nearest: {self.fact.words(task)})"
        held, moved, opened = (100 * count / self.n for count in (self.held, self.moved, self.opened))
        counts = f"held on {held:.2f} % and moved as told on {moved:.2f} % of {self.n:,} sums"
        return f"{where}: {what}; {counts}, open in {opened:.1f} %."


@dataclass(frozen=True)
class Explanation:
    """The edges of an adding model, what they carry, and whether the program made of them adds.

    Attributes:
        task, edges: as found.
        program: executable.
        correct: sums of `n` that the program answers rightly.
        agrees: sums on which it answers as the model does.
    """

    task: Addition
    edges: tuple[Carried, ...]
    program: Program
    correct: int
    agrees: int
    n: int

    def sentences(self) -> list[str]:
        """One sentence per edge, in the order of the layers."""
        return [edge.sentence(self.task) for edge in self.edges]

    def as_record(self) -> dict[str, Any]:
        """Plain numbers and sentences."""
        edges = [
            {"edge": list(e.edge), "fact": e.fact.name, "place": e.fact.place, "held": e.held,
             "moved": e.moved, "open": e.opened, "certain": e.certain, "sentence": e.sentence(self.task)}
            for e in self.edges
        ]  # fmt: skip
        program = {"words": self.program.words(), "correct": self.correct, "agrees": self.agrees, "n": self.n}
        return {"edges": edges, "program": {**program, "interval": wilson(self.correct, self.n)}}


class Interchange:
    """An adding model on all sums, with the contribution of every edge of interest kept.

    Args:
        model: gated.
        edges: those whose contributions may be exchanged.
    """

    def __init__(
        self, model: PreTrainedModel, task: Addition, edges: list[Edge], batch_size: int = 2048
    ) -> None:
        self.model, self.task, self.batch_size = model, task, batch_size
        self.inputs, _ = task.encode(torch.arange(task.n_sums))
        self.slots = [slot_of(task, place) for place in range(task.digits + 1)]
        self.kept: dict[Edge, list[Tensor]] = {edge: [] for edge in edges}
        with self._observing(self._keep):
            self.own = self._answers(torch.arange(task.n_sums))
        self.contributions = {edge: torch.cat(parts) for edge, parts in self.kept.items()}  # (n_sums, D)

    @contextmanager
    def _observing(self, observer: Any) -> Iterator[None]:
        gates = gates_of(self.model)
        with evaluating(self.model), gates.using(impl="eager", sampling=False), gates.observing(observer):
            yield

    def _answers(self, rows: Tensor) -> np.ndarray:
        found = []
        for part in rows.split(self.batch_size):
            self.rows = part
            logits = first_output(self.model, {"input_ids": self.inputs[part].to(self.model.device)})
            found.append(logits[:, self.slots].argmax(-1).cpu())
        return torch.cat(found).numpy()

    def _keep(self, call: AttentionCall) -> None:
        here = [edge for edge in self.kept if edge[0] == call.layer]
        if not here:
            return
        logits = call.logits()
        weights = attention_weights(logits, call.visibility.all_pairs(), call.sinks)
        weights = weights * call.open_gates(logits, gates_of(self.model).bias)
        values = repeat_heads(call.v, call.q.shape[1] // call.v.shape[1])
        for edge in here:
            _, head, query, key = edge
            self.kept[edge].append(weights[:, head, query, key, None] * values[:, head, key])

    def answers(self, edge: Edge, rows: Tensor, others: Tensor) -> np.ndarray:
        """(R, slots) answers on sums `rows` when `edge` carries what it carries on sums `others`."""
        layer, head, query, _ = edge
        moved = self.contributions[edge][others] - self.contributions[edge][rows]
        place = {int(row): number for number, row in enumerate(rows)}

        def exchange(call: AttentionCall) -> None:
            if call.layer == layer:
                numbers = [place[int(row)] for row in self.rows]
                call.out[:, head, query] += moved[numbers]

        with self._observing(exchange):
            return self._answers(rows)


def candidates(task: Addition, key: int, truth: Truth) -> list[Fact]:
    """The facts that may travel from position `key`, from the fewest values to the most."""
    facts = [Fact("nothing")]
    if key in task.place and task.place[key][0] == "digit":
        facts.append(Fact("digit", task.place[key][1], key))
    for place in range(task.digits):
        facts += [Fact("carry", place), Fact("answer", place), Fact("pair", place)]
        facts += [Fact("digit", place, position) for position in digits_of(task, place) if position != key]
    return sorted(facts, key=lambda fact: len(np.unique(truth.of(fact))))


def same_value(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For every sum, the number of a random sum with the same value."""
    found = np.empty(len(values), dtype=np.int64)
    for value in np.unique(values):
        members = np.flatnonzero(values == value)
        found[members] = rng.choice(members, len(members))
    return found


def explain(
    model: PreTrainedModel, task: Addition, circuit: Circuit, *, allowed: float = 0.001, seed: int = 0
) -> Explanation:
    """Label every live edge of an adding model, and check the labels and the program made of them on all
    sums.

    Args:
        model: gated, and trained on `task`.
        circuit: traced on all sums, in order, with the answer slots among its outputs.
        allowed: share of sums whose answer may change although the label says that it must not.
        seed: of the draws of x'.
    """
    require_range("allowed", allowed, 0.0, 1.0)
    slots = [slot_of(task, place) for place in range(task.digits + 1)]
    live = circuit.live(slots)
    opened = {edge: round(share * live.n_prompts) for edge, share in live.frequency().items()}
    bench, truth, rng = Interchange(model, task, list(opened)), Truth(task), np.random.default_rng(seed)
    limit = int(allowed * task.n_sums)
    labels = {edge: _label(bench, truth, edge, limit, rng) for edge in sorted(opened)}
    program = Program(task, {edge: fact for edge, (fact, _) in labels.items()})
    found = tuple(
        Carried(edge, fact, held, _moved(bench, program, truth, edge, rng), opened[edge], task.n_sums,
                held >= task.n_sums - limit)
        for edge, (fact, held) in labels.items()
    )  # fmt: skip
    agrees = int((program.run(truth)[:, : bench.own.shape[1]] == bench.own).all(1).sum())
    return Explanation(task, found, program, int(program.correct(truth).sum()), agrees, task.n_sums)


def _label(
    bench: Interchange, truth: Truth, edge: Edge, limit: int, rng: np.random.Generator
) -> tuple[Fact, int]:
    """The coarsest fact that holds, or else the best, with the number of sums on which it holds."""
    best: tuple[Fact, int] = (Fact("nothing"), -1)
    some = torch.from_numpy(rng.permutation(bench.task.n_sums)[:FIRST])
    for fact in candidates(bench.task, edge[3], truth):
        others = torch.from_numpy(same_value(truth.of(fact), rng))
        tried = int((bench.answers(edge, some, others[some]) != bench.own[some]).any(1).sum())
        if tried > max(2, 4 * limit * len(some) // bench.task.n_sums):
            held = round((1 - tried / len(some)) * bench.task.n_sums)
        else:
            rows = torch.arange(bench.task.n_sums)
            held = int((bench.answers(edge, rows, others) == bench.own).all(1).sum())
            if held >= bench.task.n_sums - limit:
                return fact, held
        if held > best[1]:
            best = fact, held
    return best


def _moved(bench: Interchange, program: Program, truth: Truth, edge: Edge, rng: np.random.Generator) -> int:
    """Sums that are answered as the program says when the edge's fact is that of any other sum."""
    others = rng.integers(0, bench.task.n_sums, bench.task.n_sums)
    told = program.run(truth, instead=(edge, truth.of(program.labels[edge])[others]))
    patched = bench.answers(edge, torch.arange(bench.task.n_sums), torch.from_numpy(others))
    return int((patched == told).all(1).sum())
