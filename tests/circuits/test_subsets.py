"""Random subsets of removed edges: counts that are known by hand, and a cancellation that total ablation hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gossamer.circuits.intervene import PatchedModel
from gossamer.circuits.subsets import Subsets, joined, removed_edges, subsets
from gossamer.circuits.trace import trace
from gossamer.circuits.verify import all_claims_hold, prove
from helpers.zoo import prompts, tiny_gated


def test_nothing_removed_changes_nothing_and_everything_removed_is_the_total_ablation():
    model, ids = tiny_gated(), prompts(n=20)
    circuit = trace(model, ids, outputs=[-1])
    with PatchedModel(model, circuit, ids, batch_size=7).ready() as patched:
        none = subsets(patched, np.zeros(len(circuit), dtype=bool), circuit="live", draws=3)
        every = subsets(patched, np.ones(len(circuit), dtype=bool), circuit="live", draws=40)
        own = patched.run(patched.all_rows)
        closed = patched.run(patched.all_rows, patched.keep_edges([]))
    assert (none.removed, none.all_removed, none.same, none.always) == (0, 20, (20, 20, 20), 20)
    assert every.all_removed == int((closed == own).all(1).sum()) < 20
    assert every.always <= every.worst < 20
    assert len(set(every.same)) > 1, "draws that are all alike are one draw"


def test_a_draw_closes_the_edges_of_its_own_prompt_alone():
    model, ids = tiny_gated(), prompts(n=6)
    circuit = trace(model, ids, outputs=[-1])
    removed = circuit.prompt == 3
    with PatchedModel(model, circuit, ids, batch_size=4).ready() as patched:
        alone = subsets(patched, removed, circuit="live", draws=8, seed=5)
    with PatchedModel(model, circuit.of_prompt(3), ids[3:4]).ready() as patched:
        single = subsets(patched, np.ones(int(removed.sum()), dtype=bool), circuit="live", draws=8, seed=5)
    assert alone.same == tuple(5 + same for same in single.same)
    assert alone.all_removed == 5 + single.all_removed


def test_errors_that_cancel_pass_the_total_ablation_and_fail_the_subsets(monkeypatch):
    model, ids = tiny_gated(), prompts(n=4)
    circuit = trace(model, ids, outputs=[-1])
    pair = circuit.live().edges()[:2]
    removed = removed_edges(circuit, pair, keep=False)

    def run(patched, rows, keep=None, **gates):
        """A model whose answer changes if exactly one of two edges is closed."""
        if keep is None:
            return torch.zeros(len(rows), 1)
        masks, own = keep(torch.arange(len(rows))), patched.keep_own()(patched.all_rows)
        gone = [own[a][rows, b, c, d].long() - masks[a][:, b, c, d].long() for a, b, c, d in pair]
        return (sum(gone) % 2)[:, None]

    monkeypatch.setattr(PatchedModel, "run", run)
    with PatchedModel(model, circuit, ids).ready() as patched:
        found = subsets(patched, removed, circuit="live", draws=16)
    both = np.bincount(circuit.prompt[removed], minlength=4) == 2
    assert both.any(), "an empty test: no prompt opens both edges"
    assert found.all_removed == int((np.bincount(circuit.prompt[removed], minlength=4) != 1).sum())
    assert found.worst < found.all_removed
    assert found.always <= found.worst


def test_a_proof_has_its_subsets_when_asked_and_their_worst_case_decides():
    model, ids = tiny_gated(), prompts(n=5, length=5)
    circuit = trace(model, ids, outputs=[-1])
    assert prove(model, circuit, ids, smallest=False).subsets == ()
    proof = prove(model, circuit, ids, draws=4)
    assert [one.circuit for one in proof.subsets] == ["live", "necessary", "smallest"]
    live, necessary, smallest = proof.subsets
    assert live.removed == len(circuit) - len(circuit.live())
    redundant = set(proof.necessity.redundant)
    rows = zip(circuit.layer, circuit.head, circuit.query, circuit.key, strict=True)
    assert necessary.removed == int(
        (np.array([edge in redundant for edge in rows]) & circuit.live_mask()).sum()
    )
    assert smallest.all_removed == 5, "the search says that the subset works"
    assert proof.as_record()["subsets"][0]["worst"]["n"] == 5


@pytest.mark.parametrize(("circuit", "holds"), [("live", False), ("smallest", False), ("necessary", True)])
def test_a_claim_fails_with_its_worst_draw(circuit, holds):
    from dataclasses import replace

    from gossamer.circuits.intervene import Necessity, Sufficiency
    from gossamer.circuits.verify import Proof

    good = Sufficiency("prompt", 4, 4)
    necessity = Necessity(np.zeros(0, dtype=int), np.zeros(0, dtype=bool), {}, 4)
    proof = Proof({"prompt": good}, good, necessity, None, 0, 4)
    assert all_claims_hold(proof)
    assert all_claims_hold(replace(proof, subsets=(Subsets(circuit, 3, 4, (4, 3), 3, 4),))) == holds


def test_parts_are_joined_draw_by_draw():
    whole = joined([Subsets("live", 3, 4, (4, 3), 3, 4), Subsets("live", 1, 5, (2, 5), 2, 6)])
    assert whole == Subsets("live", 4, 9, (6, 8), 5, 10)
    assert whole.worst == 6
