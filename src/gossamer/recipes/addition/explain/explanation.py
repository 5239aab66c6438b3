"""An adding model in words: its edges, its bundles, and the program made of them, checked on all sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from ....circuits.circuit import Circuit
from ....circuits.statistics import wilson
from ....errors import require_range
from ..task import Addition
from .bundles import Handed, Told, bundles_of, label_bundles, scrubbed, told_positions
from .edges import Carried, label_edges, opened_by
from .facts import Truth, slot_of
from .interchange import Interchange
from .program import Program


@dataclass(frozen=True)
class Explanation:
    """The edges and bundles of an adding model, what they carry, and whether the program made of them adds.

    Attributes:
        task, edges, bundles, told: as found.
        program: executable; its messages are those of `bundles`.
        entries: of all messages together, were they tables.
        correct: sums of `n` that the program answers rightly.
        agrees: sums on which it answers as the model does.
        scrubbed: sums on which the model's answer stays with all bundles exchanged at once within their values.
    """

    task: Addition
    edges: tuple[Carried, ...]
    bundles: tuple[Handed, ...]
    told: tuple[Told, ...]
    program: Program
    entries: int
    correct: int
    agrees: int
    scrubbed: int
    n: int

    def sentences(self) -> list[str]:
        """One sentence per edge, one per bundle, one per position that is told something, in this order."""
        return [part.sentence(self.task) for part in (*self.edges, *self.bundles, *self.told)]

    def as_record(self) -> dict[str, Any]:
        """Plain numbers and sentences."""
        edges = [
            {"edge": list(e.edge), "gate": {"digits": list(e.gate.digits), "values": list(e.gate.values)},
             "open": e.gate.share, "when": e.gate.words(self.task), "carries": e.fact.words(self.task),
             "fact": e.fact.name, "place": e.fact.place, "held": e.held,
             "certain": e.certain, "sentence": e.sentence(self.task)}
            for e in self.edges
        ]  # fmt: skip
        bundles = [
            {"bundle": list(b.bundle), "reads": list(b.message.keys), "entries": b.entries, "held": b.held,
             "hands": b.message.words(self.task), "facts": [fact._asdict() for fact in b.message.facts],
             "certain": b.certain, "sentence": b.sentence(self.task)}
            for b in self.bundles
        ]  # fmt: skip
        told = [
            {"position": t.query, "bundles": [list(b) for b in t.bundles], "digits": list(t.digits),
             "moved": t.moved, "foreseen": t.foreseen, "sentence": t.sentence(self.task)}
            for t in self.told
        ]  # fmt: skip
        counts = {name: getattr(self, name) for name in ("correct", "agrees", "scrubbed", "entries", "n")}
        program = {"words": self.program.words(), **counts, "interval": wilson(self.correct, self.n)}
        return {"edges": edges, "bundles": bundles, "told": told, "program": program}


def explain(
    model: PreTrainedModel, task: Addition, circuit: Circuit, *, allowed: float = 0.001, seed: int = 0
) -> Explanation:
    """Say what every live edge and bundle of an adding model carries, and check the program made of them.

    Args:
        model: gated, and trained on `task`.
        circuit: traced on all sums, in order, with the answer slots among its outputs.
        allowed: share of sums whose answer may change although a label says that it must not.
        seed: of the draws of x'.
    """
    require_range("allowed", allowed, 0.0, 1.0)
    truth, limit = Truth(task), int(allowed * task.n_sums)
    opened = opened_by(circuit, [slot_of(task, place) for place in range(task.digits + 1)])
    bench = Interchange(model, task, list(opened), list(bundles_of(opened)))
    bundles = label_bundles(bench, truth, opened, limit, seed=seed)
    program = Program(task, {one.bundle: one.message for one in bundles})
    return Explanation(
        task=task,
        edges=tuple(label_edges(bench, truth, opened, limit, seed=seed)),
        bundles=tuple(bundles),
        told=tuple(told_positions(bench, truth, program, seed=seed + 2)),
        program=program,
        entries=sum(program.entries(truth).values()),
        correct=int(program.correct(truth).sum()),
        agrees=int((program.run(truth) == bench.own).all(1).sum()),
        scrubbed=scrubbed(bench, truth, program, seed=seed + 1),
        n=task.n_sums,
    )
