"""Component circuits: counts as the field has them, theorems on linear models, curves and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gated_models import GROUPED, prompts, tiny, tiny_gated
from torch import nn

from gossamer.components.curve import Ablator, best_edges, edge_curve, head_curve, needed_edges
from gossamer.components.graph import ComponentGraph
from gossamer.components.run import AblatedRun, writer_outputs
from gossamer.components.scores import score_edges
from gossamer.components.wiring import wiring
from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.probe import evaluating, first_output
from gossamer.tasks.pairs import Batch

KINDS = ("gpt2", "gpt_neox", "llama", *GROUPED)


def batch(n: int = 3, length: int = 5, metric: str = "logit_difference") -> Batch:
    right, wrong = (torch.zeros(n, 13, dtype=torch.bool) for _ in range(2))
    right[:, 3] = True
    wrong[:, [4, 7]] = True
    ids = prompts(n, length, 1), prompts(n, length, 2)
    return Batch(*ids, right, wrong, metric, "made up", torch.zeros(n, dtype=torch.int64))


def linear_model():
    """GPT-2 without anything bent: no norms, uniform attention weights, linear MLPs."""
    model = tiny("gpt2", scale=1.0, activation_function="linear").double()
    for block in model.transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
        with torch.no_grad():
            block.attn.c_attn.weight[:, :32] = 0
            block.attn.c_attn.bias[:32] = 0
    model.transformer.ln_f = nn.Identity()
    return model


def linear_with_groups():
    """Llama with two query heads per key and value, without norms, with uniform attention and linear MLPs."""
    model = tiny("llama-gqa", scale=1.0).double()
    for block in model.model.layers:
        block.input_layernorm, block.post_attention_layernorm = nn.Identity(), nn.Identity()
        block.mlp = nn.Linear(16, 16).double()
        with torch.no_grad():
            block.self_attn.q_proj.weight.zero_()
            for projection in (block.self_attn.v_proj, block.self_attn.o_proj):
                projection.weight.mul_(20)
    model.model.norm = nn.Identity()
    return model


@pytest.mark.parametrize(
    ("layers", "heads", "parallel", "edges", "nodes"),
    [(12, 12, False, 32_491, 158), (24, 14, False, 179_749, 362), (26, 8, False, 74_218, 236)],
)
def test_edges_are_counted_as_the_field_counts_them(layers, heads, parallel, edges, nodes):
    graph = ComponentGraph(layers, heads, parallel)
    assert graph.n_edges == int(graph.exists.sum()) == len(graph.edge_names()) == edges
    assert graph.n_nodes == nodes
    one_by_one = ComponentGraph(layers, heads)
    assert one_by_one.n_edges - ComponentGraph(layers, heads, True).n_edges == layers * heads
    into_heads = sum(3 * heads * (1 + (heads + 1) * layer) for layer in range(layers))
    assert (
        int(graph.exists[:, [i for i, name in enumerate(graph.readers) if "<" in name]].sum()) == into_heads
    )


def test_names_find_their_edges():
    graph = ComponentGraph(2, 2)
    names = graph.edge_names()
    assert "input->a0.h1<k>" in names
    assert "a0.h1->m0" in names
    for name in names:
        writer, reader = graph.edge(name)
        assert graph.exists[writer, reader]
    with pytest.raises(GossamerError, match="check its order"):
        graph.edge("m1->a0.h0<q>")
    with pytest.raises(GossamerError, match="possible: names such as"):
        graph.edge("a9.h9->logits")
    with pytest.raises(GossamerError, match="which this model does not have"):
        graph.require_mask(torch.ones_like(graph.exists))


def test_dead_ends_are_pruned():
    graph = ComponentGraph(2, 2)
    kept = torch.zeros_like(graph.exists)
    for name in ("input->a0.h0<v>", "a0.h0->logits", "input->m1", "a0.h1->logits"):
        kept[graph.edge(name)] = True
    assert graph.edge_names(graph.prune(kept)) == ["input->a0.h0<v>", "a0.h0->logits"]


@pytest.mark.parametrize("kind", KINDS)
def test_writers_add_up_to_the_residual_stream(kind):
    model = tiny(kind).double()
    wires, ids = wiring(model), prompts()
    seen = {}
    handle = wires.final_norm.register_forward_pre_hook(lambda m, given: seen.update(x=given[0]))
    with evaluating(model):
        written, logits = writer_outputs(wires, ids)
        biases = sum(block.out.bias for block in wires.blocks if block.out.bias is not None)
    handle.remove()
    torch.testing.assert_close(written.sum(0) + biases, seen["x"])
    assert logits.shape == (6, 13)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ablated_run_keeps_or_exchanges_everything(kind):
    model, task = tiny(kind).double(), batch()
    wires = wiring(model)
    with evaluating(model):
        (clean, own), (corrupt, theirs) = (writer_outputs(wires, ids) for ids in (task.clean, task.corrupt))
        del clean
        everything = AblatedRun(wires, wires.graph.exists, corrupt).run(task.clean)
        nothing = AblatedRun(wires, torch.zeros_like(wires.graph.exists), corrupt).run(task.clean)
    torch.testing.assert_close(everything, own)
    torch.testing.assert_close(nothing, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_patching_one_edge_at_a_time_is_the_ablated_run(kind):
    model, task = tiny(kind).double(), batch()
    wires = wiring(model)
    exact = score_edges(wires, [task], method="exact", rows=64).edges
    ablator = Ablator(wires, [task], "resample")
    for name in ("input->a0.h1<q>", "a0.h0->a1.h1<k>", "m0->a2.h0<v>", "m1->m2", "a2.h1->logits"):
        writer, reader = wires.graph.edge(name)
        kept = wires.graph.exists.clone()
        kept[writer, reader] = False
        one = float((ablator.values(kept) - ablator.all).mean())
        assert float(exact[writer, reader]) == pytest.approx(one, abs=1e-10), name


def test_rows_may_have_circuits_of_their_own():
    model, task = tiny().double(), batch()
    wires = wiring(model)
    kept = torch.rand(3, *wires.graph.exists.shape) < 0.5
    with evaluating(model):
        _, _ = writer_outputs(wires, task.clean)
        corrupt, _ = writer_outputs(wires, task.corrupt)
        together = AblatedRun(wires, kept, corrupt).run(task.clean)
        for row in range(3):
            alone = AblatedRun(wires, kept[row], corrupt[:, row : row + 1]).run(task.clean[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone)


def with_heads_of_their_own(model):
    """The same function with every query head's key and value weights written out: no groups left."""
    kind, heads = model.config.model_type, model.config.num_attention_heads
    group = heads // model.config.num_key_value_heads
    twin = tiny(f"{kind}-gqa", num_key_value_heads=heads).to(model.dtype)
    state = model.state_dict()
    for name in state:
        if ".k_proj." in name or ".v_proj." in name:
            state[name] = (
                state[name].unflatten(0, (heads // group, -1)).repeat_interleave(group, 0).flatten(0, 1)
            )
    twin.load_state_dict(state)
    return twin


@pytest.mark.parametrize("kind", GROUPED)
@pytest.mark.parametrize("method", ["exact", "eap", "eap-ig"])
def test_shared_keys_and_values_are_scored_as_if_each_head_had_its_own(kind, method):
    model, task = tiny(kind).double(), batch()
    twin = with_heads_of_their_own(model)
    wires = wiring(model)
    before = model(task.clean).logits
    torch.testing.assert_close(before, twin(task.clean).logits)
    scores = score_edges(wires, [task], method=method).edges
    torch.testing.assert_close(scores, score_edges(wiring(twin), [task], method=method).edges)
    heads = [wires.graph.edge(f"input->a1.h{head}<k>") for head in (0, 1)]
    assert scores[heads[0]] != scores[heads[1]], "two heads of one group were patched as one"
    torch.testing.assert_close(model(task.clean).logits, before, atol=0, rtol=0)
    kept = torch.rand(wires.graph.exists.shape) < 0.5
    kept &= wires.graph.exists
    values = (Ablator(wiring(one), [task], "resample").values(kept) for one in (model, twin))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("linear", ["gpt2", "llama"])
@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_on_a_linear_model_attribution_is_exact_patching(ablation, linear):
    wires, task = wiring(linear_model() if linear == "gpt2" else linear_with_groups()), batch()
    exact = score_edges(wires, [task], method="exact", ablation=ablation)
    for method in ("eap", "eap-ig"):
        found = score_edges(wires, [task], method=method, ablation=ablation, steps=3)
        torch.testing.assert_close(found.edges, exact.edges)
    assert (exact.edges != 0).float().mean() > 0.2, "an empty test"


@pytest.mark.parametrize("make", [linear_model, linear_with_groups])
def test_on_a_linear_model_edges_into_the_logits_sum_to_the_whole_effect(make):
    wires, task = wiring(make()), batch()
    scores = score_edges(wires, [task], method="eap")
    assert float(scores.edges[:, -1].sum()) == pytest.approx(-Ablator(wires, [task], "resample").effect)


@pytest.mark.parametrize("kind", KINDS)
def test_integrated_gradients_of_the_input_are_complete(kind):
    wires, task = wiring(tiny(kind, scale=2.0).double()), batch()
    with evaluating(wires.model):
        (clean, own), (corrupt, _) = (writer_outputs(wires, ids) for ids in (task.clean, task.corrupt))
        kept = wires.graph.exists.clone()
        kept[0] = False
        ablated = AblatedRun(wires, kept, corrupt).run(task.clean)
        del clean
    change = float((task.measure(ablated) - task.measure(own)).mean())
    scores = score_edges(wires, [task], method="eap-ig", steps=100)
    assert float(scores.edges[0].sum()) == pytest.approx(change, abs=2e-3 * max(1, abs(change)))
    rough = score_edges(wires, [task], method="eap-ig", steps=1)
    assert abs(float(rough.edges[0].sum()) - change) > 1e-4, "an empty test"


def test_gated_models_are_patched_like_any_other():
    model, task = tiny_gated(), batch()
    wires = wiring(model)
    ablator = Ablator(wires, [task], "resample")
    with evaluating(model):
        own = task.measure(first_output(model, {"input_ids": task.clean}))
        theirs = task.measure(first_output(model, {"input_ids": task.corrupt}))
    torch.testing.assert_close(ablator.all, own.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(ablator.none, theirs.double(), atol=1e-3, rtol=0)
    assert torch.isfinite(score_edges(wires, [task]).edges).all()


def favourable() -> tuple:
    """A batch whose right answers are what the model says on the clean prompts: there is an effect."""
    model = tiny(scale=8.0)
    wires, task = wiring(model), batch(n=8)
    with evaluating(model):
        logits = first_output(model, {"input_ids": task.clean})[:, -1]
        other = first_output(model, {"input_ids": task.corrupt})[:, -1]
    right = nn.functional.one_hot((logits - other).argmax(-1), 13).bool()
    wrong = nn.functional.one_hot((other - logits).argmax(-1), 13).bool()
    return wires, Batch(task.clean, task.corrupt, right, wrong, task.metric, "made up", task.template)


def test_curves_reach_the_whole_effect_and_say_their_settings():
    wires, task = favourable()
    scores = score_edges(wires, [task])
    ablator = Ablator(wires, [task], "resample")
    curve = edge_curve(ablator, scores, sizes=[1, 10, wires.graph.n_edges])
    assert curve.points[-1].faithfulness == pytest.approx(1.0, abs=1e-5)
    record = curve.as_record()
    assert record["ablation"] == "resample"
    assert record["ranking"] == "eap-ig, absolute"
    assert record["n"] == 8
    low, high = ablator.interval(wires.graph.exists)
    assert low == pytest.approx(1.0, abs=1e-5)
    assert high == pytest.approx(1.0, abs=1e-5)
    assert ablator.interval(torch.zeros_like(wires.graph.exists)) == (0.0, 0.0)
    heads = head_curve(ablator)
    assert heads.points[-1].kept == 6
    assert heads.points[-1].faithfulness == pytest.approx(1.0, abs=1e-5)
    found = needed_edges(ablator, scores).needed()
    assert found is not None
    assert found.faithfulness >= 0.9
    assert found.kept <= wires.graph.n_edges


def test_areas_are_those_of_mib():
    from gossamer.components.curve import SHARES, Curve, Point

    points = tuple(Point(round(share * 1000), 0, 1.0) for share in SHARES)
    cpr, cmd = Curve("edges", 1000, "resample", "x", "y", 1, points).areas()
    assert cpr == pytest.approx(0.999)  # FIELD 5: F = 1 everywhere
    assert cmd == 0.0


def test_signed_ranking_prefers_what_helps():
    wires, task = favourable()
    scores = score_edges(wires, [task], method="exact")
    best = best_edges(wires, scores, 20, signed=True)
    assert (scores.edges[best] <= 1e-6).all()


def test_bad_input_is_one_clear_line():
    wires, task = wiring(tiny()), batch(n=8)
    same = Batch(task.clean, task.clean, task.right, task.wrong, task.metric, "nothing", task.template)
    with pytest.raises(GossamerError, match="the model does not know this task"):
        head_curve(Ablator(wires, [same], "resample"))
    with pytest.raises(GossamerError, match="ablation='half' is not known; possible: resample, mean, zero"):
        Ablator(wires, [task], "half")
    with pytest.raises(GossamerError, match="method='guess' is not known; possible: eap, eap-ig, exact"):
        score_edges(wires, [task], method="guess")
    with pytest.raises(GossamerError, match="no prompts"):
        Ablator(wires, [], "zero")
    with pytest.raises(UnsupportedModel, match=r"BertForMaskedLM \(bert\); possible: gpt2, gpt_neox, llama"):
        wiring(tiny("bert"))


def test_attribution_and_exact_patching_rank_alike():
    wires, task = favourable()
    exact, quick = (score_edges(wires, [task], method=method).edges for method in ("exact", "eap-ig"))
    there = wires.graph.exists
    ranks = [np.argsort(np.argsort(scores[there].abs().numpy())) for scores in (exact, quick)]
    assert np.corrcoef(*ranks)[0, 1] > 0.3
