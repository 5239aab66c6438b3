"""An adding model in words: its edges, its head outputs, and the program made of them, checked on all sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ....circuits.circuit import Circuit
from ....circuits.statistics import wilson
from ....errors import require_range
from ..task import Addition
from .edges import EdgeFinding, label_edges, opened_by
from .facts import Truth, slot_of
from .head_outputs import (
    HeadFinding,
    PositionFinding,
    causal_scrubbing,
    head_outputs_of,
    label_head_outputs,
    position_findings,
)
from .interchange import Interchange
from .neurons import NeuronFinding, label_neurons
from .program import Program


@dataclass(frozen=True)
class Explanation:
    """The edges and head outputs of an adding model, what they carry, and whether the program made of them adds.

    Attributes:
        task, edges, head_outputs, positions, neurons: as found; neurons where they have gates.
        program: executable; its messages are those of `head outputs`.
        entries: of all messages together, were they tables.
        correct: sums of `n` that the program answers rightly.
        agrees: sums on which it answers as the model does.
        scrubbed: sums on which the model's answer stays with all head outputs exchanged at once within their values.
    """

    task: Addition
    edges: tuple[EdgeFinding, ...]
    head_outputs: tuple[HeadFinding, ...]
    positions: tuple[PositionFinding, ...]
    neurons: tuple[NeuronFinding, ...]
    program: Program
    entries: int
    correct: int
    agrees: int
    causal_scrubbing: int
    n: int

    def sentences(self) -> list[str]:
        """One sentence per edge, one per head output, one per position that is told something, one per neuron."""
        return [
            part.sentence(self.task)
            for part in (*self.edges, *self.head_outputs, *self.positions, *self.neurons)
        ]

    def as_record(self) -> dict[str, Any]:
        """Plain numbers and sentences."""
        edges = [
            {"edge": list(e.edge), "gate": {"digits": list(e.gate.digits), "values": list(e.gate.values)},
             "open": e.gate.share, "when": e.gate.words(self.task), "carries": e.fact.words(self.task),
             "fact": e.fact.name, "place": e.fact.place, "held": e.held,
             "certain": e.certain, "sentence": e.sentence(self.task)}
            for e in self.edges
        ]  # fmt: skip
        head_outputs = [
            {"head_output": list(b.head_output), "reads": list(b.message.keys), "entries": b.entries, "held": b.held,
             "hands": b.message.words(self.task), "facts": [fact._asdict() for fact in b.message.facts],
             "certain": b.certain, "sentence": b.sentence(self.task)}
            for b in self.head_outputs
        ]  # fmt: skip
        positions = [
            {"position": t.query, "head_outputs": [list(b) for b in t.head_outputs], "digits": list(t.digits),
             "moved": t.moved, "foreseen": t.foreseen, "sentence": t.sentence(self.task)}
            for t in self.positions
        ]  # fmt: skip
        counts = {
            name: getattr(self, name) for name in ("correct", "agrees", "causal_scrubbing", "entries", "n")
        }
        program = {"words": self.program.words(), **counts, "interval": wilson(self.correct, self.n)}
        neurons = [one.as_record(self.task) for one in self.neurons]
        found = {"edges": edges, "head_outputs": head_outputs, "positions": positions, "neurons": neurons}
        return found | {"program": program}


def explain(
    model: PreTrainedModel,
    task: Addition,
    circuit: Circuit,
    *,
    sums: Tensor | None = None,
    allowed: float = 0.001,
    seed: int = 0,
) -> Explanation:
    """Say what every live edge and head output of an adding model carries, and check the program made of them.

    Args:
        model: gated, and trained on `task`.
        circuit: traced on these sums, in order, with the answer slots among its outputs.
        sums: the numbers of the sums to look at; by default all.
        allowed: share of sums whose answer may change although a label says that it must not.
        seed: of the draws of x'.
    """
    require_range("allowed", allowed, 0.0, 1.0)
    truth = Truth(task, sums)
    limit = int(allowed * truth.n_sums)
    opened = opened_by(circuit, [slot_of(task, place) for place in range(task.digits + 1)])
    patched = Interchange(model, truth, list(opened), list(head_outputs_of(opened)))
    head_outputs = label_head_outputs(patched, truth, opened, limit, seed=seed)
    program = Program(task, {one.head_output: one.message for one in head_outputs})
    return Explanation(
        task=task,
        edges=tuple(label_edges(patched, truth, opened, limit, seed=seed)),
        head_outputs=tuple(head_outputs),
        positions=tuple(position_findings(patched, truth, program, seed=seed + 2)),
        neurons=tuple(label_neurons(model, truth)),
        program=program,
        entries=sum(program.entries(truth).values()),
        correct=int(program.correct(truth).sum()),
        agrees=int((program.run(truth) == patched.own).all(1).sum()),
        causal_scrubbing=causal_scrubbing(patched, truth, program, seed=seed + 1),
        n=truth.n_sums,
    )
