"""The theorems of a circuit on random gated models, and the interventions that prove or refute one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from gossamer.circuits.intervene import PatchedModel, leaks, necessary, sufficient
from gossamer.circuits.minimal import minimal
from gossamer.circuits.stability import jaccard, match_heads, overlap, paraphrased, resampled, stable
from gossamer.circuits.statistics import bootstrap, wilson
from gossamer.circuits.trace import trace
from gossamer.circuits.verify import all_claims_hold, answers, prove, verify
from gossamer.errors import GossamerError
from gossamer.gates.edges import EdgeGates
from gossamer.models.attach import gates_of
from gossamer.models.forward import evaluating, first_output
from gossamer.training.metrics import Tally, counting
from helpers.zoo import prompts, tiny, tiny_gated

KINDS = ("gpt2", "bert")


def outputs_of(model, ids, positions):
    with evaluating(model):
        return first_output(model, {"input_ids": ids})[:, positions]


def live_alone_and_own(kind, seed, renormalise):
    """Outputs at the chosen position with only the live edges held open, and of the model as it is."""
    model, ids = tiny_gated(kind, seed=seed), prompts(seed=seed)
    with gates_of(model).using(renormalise=renormalise):
        circuit = trace(model, ids, outputs=[-1])
        live = circuit.live()
        assert 0 < len(live) < len(circuit), "an empty test: no edge is dead, or all are"
        with PatchedModel(model, live, ids).ready() as patched:
            with patched.gates.using(bias=math.inf, keep=patched.keep_own()(patched.all_rows)):
                alone = outputs_of(model, ids, [-1])
            return alone, outputs_of(model, ids, [-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_edges_that_are_not_live_never_matter_without_the_denominator(kind, seed):
    alone, own = live_alone_and_own(kind, seed, renormalise=True)
    torch.testing.assert_close(alone, own, rtol=0, atol=1e-6)


def test_the_denominator_is_a_door_that_dead_edges_can_use():
    alone, own = live_alone_and_own("gpt2", 0, renormalise=False)
    assert (alone - own).abs().max() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_held_open_edges_are_the_hard_gates(kind):
    model, ids = tiny_gated(kind), prompts()
    circuit = trace(model, ids)
    patched = PatchedModel(model, circuit, ids)
    with patched.ready(), patched.gates.using(bias=math.inf, keep=patched.keep_own()(patched.all_rows)):
        again = trace(model, ids)
        same = outputs_of(model, ids, slice(None))
    for name in ("prompt", "layer", "head", "query", "key", "logit", "weight", "contribution"):
        np.testing.assert_array_equal(getattr(circuit, name), getattr(again, name))
    torch.testing.assert_close(same, outputs_of(model, ids, slice(None)), rtol=0, atol=1e-6)


def test_a_circuit_is_sufficient_in_every_scope_that_says_so():
    model, ids = tiny_gated(), prompts()
    circuit = trace(model, ids, outputs=[-1])
    with PatchedModel(model, circuit, ids).ready() as patched:
        assert sufficient(patched, scope="prompt").same == len(ids)
        assert sufficient(patched, scope="union").same == len(ids)
        record = sufficient(patched, scope="static").as_record()
    assert record["n"] == len(ids)
    assert record["interval"] == wilson(record["same"], len(ids))


def test_a_circuit_without_its_edges_is_not_sufficient():
    model, ids = tiny_gated(), prompts(n=40)
    circuit = trace(model, ids, outputs=[-1])
    with PatchedModel(model, circuit.select(np.array([0])), ids).ready() as patched:
        assert sufficient(patched).same < len(ids)


def test_necessity_is_what_one_prompt_at_a_time_gives():
    model, ids = tiny_gated(), prompts(n=2, length=5)
    circuit = trace(model, ids, outputs=[-1])
    with PatchedModel(model, circuit, ids, batch_size=7).ready() as patched:
        found = necessary(patched)
        for number, broken in zip(found.number, found.broken, strict=True):
            row = torch.tensor([int(circuit.prompt[number])])
            keep = patched.blank(1, True)
            place = [int(getattr(circuit, name)[number]) for name in ("head", "query", "key")]
            keep[int(circuit.layer[number])][0, place[0], place[1], place[2]] = False
            before, after = patched.run(row), patched.run(row, lambda part, keep=keep: keep)
            assert bool((before != after).any()) == bool(broken)
    assert sum(broken for broken, _ in found.edges.values()) == found.broken.sum()
    assert found.as_record()["redundant"] == len(found.redundant)


def test_exhaustive_search_is_never_beaten_by_greedy():
    model, ids = tiny_gated(), prompts(n=1, length=4)
    gates_of(model).bias = -0.2
    circuit = trace(model, ids, outputs=[-1])
    assert 2 <= len(circuit.live()) <= 12, len(circuit.live())
    with PatchedModel(model, circuit, ids).ready() as patched:
        best, quick = minimal(patched, method="exhaustive"), minimal(patched, method="greedy")
    assert best.same == quick.same == best.n
    assert len(best.edges) <= len(quick.edges)
    assert (best.method, quick.method, quick.ties) == ("exhaustive", "greedy", None)
    assert best.ties is not None
    assert best.ties >= 1


def test_greedy_leaves_no_edge_that_could_go():
    model, ids = tiny_gated(), prompts(n=5, length=5)
    circuit = trace(model, ids, outputs=[-1])
    with PatchedModel(model, circuit, ids).ready() as patched:
        found = minimal(patched, method="greedy")
        own = patched.run(patched.all_rows)
        assert (patched.run(patched.all_rows, patched.keep_edges(found.edges)) == own).all()
        for edge in found.edges:
            rest = [other for other in found.edges if other != edge]
            assert (patched.run(patched.all_rows, patched.keep_edges(rest)) != own).any()


def test_leaks_compares_with_the_renormalised_run():
    model, ids = tiny_gated(), prompts(n=30)
    circuit = trace(model, ids)
    with PatchedModel(model, circuit, ids).ready() as patched:
        found = leaks(patched)
    assert 0 < found <= len(ids), "random gated models leak"
    dense = tiny()
    with PatchedModel(dense, trace(dense, ids), ids).ready() as patched:
        assert leaks(patched) == 0
    assert EdgeGates.on(dense) is None


def test_a_dense_model_has_edges_by_threshold_or_rank():
    model, ids = tiny(), prompts()
    everything = trace(model, ids)
    assert len(everything) == sum(everything.visible)
    strong = trace(model, ids, threshold=0.3)
    assert (strong.weight >= np.float32(0.3)).all()
    assert len(strong) == (everything.weight >= np.float32(0.3)).sum()
    best = trace(model, ids, top_k=1)
    assert len(best) == everything.n_prompts * 3 * 2 * ids.shape[1]
    with PatchedModel(model, strong, ids).ready() as patched:
        assert sufficient(patched).n == len(ids)


def test_what_an_intervention_closes_is_not_counted_as_open():
    model = tiny_gated()
    gates, tally = gates_of(model), Tally()
    closed = {layer: torch.zeros(1, 1, 1, 1) for layer in range(gates.n_layers)}
    closed[1] = torch.ones(1, gates.n_heads, 1, 1)
    closed[1][:, 0] = 0
    with torch.no_grad(), gates.using(keep=closed), counting(gates, tally):
        model(input_ids=prompts())
    per_head = tally.per_group("edges")
    assert per_head[1][1] > 0
    assert [sum(per_head[0]), per_head[1][0], sum(per_head[2])] == [0, 0, 0]


def test_always_sometimes_and_never_add_up():
    model, ids = tiny_gated(), prompts(n=20)
    circuit = trace(model, ids)
    always, sometimes, never = circuit.standing()
    assert never is not None
    assert len(always) + len(sometimes) + never == circuit.visible[0]
    assert set(circuit.edges()) == always | set(sometimes)
    assert not set(circuit.without_rare(0.5).edges()) & {e for e, share in sometimes.items() if share < 0.5}


def test_left_padding_takes_part_in_nothing():
    model = tiny_gated()
    ids = prompts(n=3, length=6)
    padded = torch.cat([torch.zeros(3, 2, dtype=torch.int64), ids], dim=1)
    mask = (torch.arange(8) >= 2).long().expand(3, 8)
    short, long = trace(model, ids, outputs=[-1]), trace(model, padded, attention_mask=mask, outputs=[-1])
    assert short.visible == long.visible
    assert min(long.key.min(), long.query.min()) >= 2
    with PatchedModel(model, long, padded, mask).ready() as patched:
        assert sufficient(patched).same == 3


def test_overlap_knows_heads_have_no_names():
    model, ids = tiny_gated(), prompts()
    circuit = trace(model, ids)
    from dataclasses import replace

    swapped = replace(circuit, head=(1 - circuit.head).astype(np.int32))
    found = overlap(circuit, swapped)
    assert found.up_to_heads == 1.0
    assert found.pairs == 1.0
    assert found.edges < 1.0
    assert overlap(circuit, circuit).edges == 1.0
    record = stable([circuit, swapped, circuit]).as_record()
    assert record["comparisons"] == 3
    assert record["edges_min"] < record["edges_mean"] < 1
    assert 0 < resampled(circuit, draws=3, share=0.4).as_record()["edges_mean"] <= 1


def test_paraphrases_are_compared_by_the_heads_that_they_use():
    from dataclasses import replace

    model, ids = tiny_gated(), prompts(n=6)
    circuit = trace(model, ids, outputs=[-1])
    first, second = [0] * 6, [1] * 6
    assert paraphrased([(circuit, first)]) is None
    same = paraphrased([(circuit, first), (circuit, second)])
    assert same is not None
    assert same.as_record() == {"templates": 2, "heads_mean": 1.0, "heads_min": 1.0}
    elsewhere = replace(circuit, head=np.zeros_like(circuit.head))
    used = {(layer, head) for layer, head, _, _ in circuit.live().edges()}
    apart = paraphrased([(circuit, first), (elsewhere, second)], share=0.0)
    assert apart is not None
    assert apart.heads == (jaccard(used, {(layer, 0) for layer, _, _, _ in elsewhere.live().edges()}),)
    assert apart.heads[0] < 1


def test_matching_heads_greedily_finds_a_clear_permutation():
    edges = {(0, head, head, key) for head in range(8) for key in range(head)}
    renamed = {(0, (head * 3) % 8, query, key) for _, head, query, key in edges}
    assert match_heads(renamed, edges, 1, 8) == edges
    assert jaccard(set(), set()) == 1.0


def test_intervals():
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(10_000, 10_000)
    assert low == pytest.approx(0.99962, abs=1e-5)  # n / (n + z^2)
    assert high == 1.0
    low, high = bootstrap(np.array([0.0, 1.0] * 50), seed=1)
    assert 0.38 < low < 0.5 < high < 0.62
    with pytest.raises(GossamerError, match="expected 0 <= hits <= n"):
        wilson(2, 1)


def broken_inputs():
    model, ids = tiny_gated(), prompts()
    circuit = trace(model, ids)
    from dataclasses import replace

    high = replace(circuit, head=circuit.head + 2)
    ahead = replace(circuit, query=circuit.key, key=circuit.query)
    empty = circuit.select(np.array([], dtype=int))
    return model, ids, circuit, high, ahead, empty


def test_leaks_that_are_measured_already_are_the_leaks_of_the_proof():
    model, ids = tiny_gated(), prompts()
    checked = verify(tiny(), model, ids, ids, outputs=(-1,))
    again = prove(model, checked.circuit, ids, smallest=False)
    given = prove(model, checked.circuit, ids, smallest=False, leaking=checked.leaking)
    assert 0 < given.leaks == again.leaks <= checked.leaks


def test_bad_input_is_one_clear_line():
    model, ids, circuit, high, ahead, empty = broken_inputs()
    with (
        pytest.raises(GossamerError, match="an edge with head 3: expected 0 to 1"),
        PatchedModel(model, high, ids).ready(),
    ):
        pass
    with pytest.raises(GossamerError, match="in a causal model"), PatchedModel(model, ahead, ids).ready():
        pass
    with (
        pytest.raises(GossamerError, match="an empty circuit"),
        PatchedModel(model, empty, ids).ready() as patched,
    ):
        necessary(patched)
    with pytest.raises(GossamerError, match="the prompts that were traced"):
        PatchedModel(model, circuit, ids[:2])
    half = pytest.raises(
        GossamerError, match=r"scope='half' is not known: expected one of prompt, union, static"
    )
    with half, PatchedModel(model, circuit, ids).ready() as patched:
        sufficient(patched, scope="half")
    with pytest.raises(GossamerError, match="top_k=0"):
        trace(model, ids, top_k=0)
    with pytest.raises(GossamerError, match="outputs"):
        trace(model, ids, outputs=[9])
    with pytest.raises(GossamerError, match="two or more"):
        stable([circuit])
    assert gates_of(model).keep is None


def test_a_proof_holds_every_number_with_its_denominator():
    model, ids = tiny_gated(), prompts(n=5, length=5)
    gates_of(model).bias = -0.2
    circuit = trace(model, ids, outputs=[-1])
    proof = prove(model, circuit, ids)
    record = proof.as_record()
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(record, allow_nan=False))
    assert record["sufficient"]["prompt"]["same"] == record["n"] == 5
    assert record["minimal"]["same"] == 5
    assert record["leaks"]["n"] == 5
    assert all_claims_hold(proof) == (not proof.necessity.redundant and proof.leaks == 0)


def test_verify_compares_base_and_sparse():
    base, ids = tiny(), prompts()
    sparse = tiny_gated()
    labels = answers(base, ids)
    found = verify(base, sparse, ids, labels)
    assert found.base_exact == len(ids)
    assert found.sparse_exact == found.same_row == int((answers(sparse, ids) == labels).all(1).sum())
    with pytest.raises(GossamerError, match=r"expected \(N, T\) twice"):
        verify(base, sparse, ids, labels[:, :2])
    with pytest.raises(GossamerError, match="has no gates"):
        verify(base, base, ids, labels)
