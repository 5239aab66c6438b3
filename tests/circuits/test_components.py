"""Component circuits: counts as the field has them, ablated runs, curves and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from gossamer.circuits.components.component_model import components_of
from gossamer.circuits.components.curve import (
    Ablator,
    edge_curve,
    head_attributions,
    head_curve,
    head_scores,
    needed_edges,
    needed_heads,
)
from gossamer.circuits.components.graph import ComponentGraph
from gossamer.circuits.components.run import AblatedRun, writer_outputs
from gossamer.circuits.components.scores import score_edges
from gossamer.data.pairs import Batch
from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.models import architectures
from gossamer.models.forward import evaluating, first_output
from helpers.component_cases import KINDS, batch, favourable
from helpers.zoo import build, prompts, tiny, tiny_gated


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
    with pytest.raises(GossamerError, match="Check its order"):
        graph.edge("m1->a0.h0<q>")
    with pytest.raises(GossamerError, match="expected names such as"):
        graph.edge("a9.h9->logits")
    with pytest.raises(GossamerError, match="which this model does not have"):
        graph.require_mask(torch.ones_like(graph.exists))


def test_dead_ends_are_pruned():
    graph = ComponentGraph(2, 2)
    edge_mask = torch.zeros_like(graph.exists)
    for name in ("input->a0.h0<v>", "a0.h0->logits", "input->m1", "a0.h1->logits"):
        edge_mask[graph.edge(name)] = True
    assert graph.edge_names(graph.prune(edge_mask)) == ["input->a0.h0<v>", "a0.h0->logits"]


@pytest.mark.parametrize("kind", KINDS)
def test_writers_add_up_to_the_residual_stream(kind):
    model = tiny(kind).double()
    components, ids = components_of(model), prompts()
    seen = {}
    handle = components.anatomy.final_norm.register_forward_pre_hook(lambda m, given: seen.update(x=given[0]))
    with evaluating(model):
        written, logits = writer_outputs(components, ids)
        outs = [layer.o.module for layer in components.anatomy]
        biases = sum(out.bias for out in outs if out.bias is not None)
    handle.remove()
    torch.testing.assert_close(written.sum(0) + biases, seen["x"])
    assert logits.shape == (6, 13)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ablated_run_keeps_or_exchanges_everything(kind):
    model, task = tiny(kind).double(), batch()
    components = components_of(model)
    with evaluating(model):
        (clean, own), (corrupt, theirs) = (
            writer_outputs(components, ids) for ids in (task.clean, task.corrupt)
        )
        del clean
        everything = AblatedRun(components, components.graph.exists, corrupt).run(task.clean)
        nothing = AblatedRun(components, torch.zeros_like(components.graph.exists), corrupt).run(task.clean)
    torch.testing.assert_close(everything, own)
    torch.testing.assert_close(nothing, theirs)


def test_rows_may_have_circuits_of_their_own():
    model, task = tiny().double(), batch()
    components = components_of(model)
    edge_mask = torch.rand(3, *components.graph.exists.shape) < 0.5
    with evaluating(model):
        _, _ = writer_outputs(components, task.clean)
        corrupt, _ = writer_outputs(components, task.corrupt)
        together = AblatedRun(components, edge_mask, corrupt).run(task.clean)
        for row in range(3):
            alone = AblatedRun(components, edge_mask[row], corrupt[:, row : row + 1]).run(
                task.clean[row : row + 1]
            )
            torch.testing.assert_close(together[row : row + 1], alone)


def test_gated_models_are_patched_like_any_other():
    model, task = tiny_gated(), batch()
    components = components_of(model)
    ablator = Ablator(components, [task], "resample")
    with evaluating(model):
        own = task.measure(first_output(model, {"input_ids": task.clean}))
        theirs = task.measure(first_output(model, {"input_ids": task.corrupt}))
    torch.testing.assert_close(ablator.all, own.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(ablator.none, theirs.double(), atol=1e-3, rtol=0)
    assert torch.isfinite(score_edges(components, [task]).edges).all()


def test_curves_reach_the_whole_effect_and_say_their_settings():
    components, task = favourable()
    scores = score_edges(components, [task])
    ablator = Ablator(components, [task], "resample")
    curve = edge_curve(ablator, scores, sizes=[1, 10, components.graph.n_edges])
    assert curve.points[-1].faithfulness == pytest.approx(1.0, abs=1e-5)
    record = curve.as_record()
    assert record["ablation"] == "resample"
    assert record["ranking"] == "eap-ig, absolute"
    assert record["n"] == 8
    low, high = ablator.interval(components.graph.exists)
    assert low == pytest.approx(1.0, abs=1e-5)
    assert high == pytest.approx(1.0, abs=1e-5)
    assert ablator.interval(torch.zeros_like(components.graph.exists)) == (0.0, 0.0)
    heads = head_curve(ablator)
    assert heads.points[-1].retained == 6
    assert heads.points[-1].faithfulness == pytest.approx(1.0, abs=1e-5)
    found = needed_edges(ablator, scores).needed()
    assert found is not None
    assert found.faithfulness >= 0.9
    assert found.retained <= components.graph.n_edges


def test_the_search_for_heads_finds_what_the_whole_curve_finds():
    components, task = favourable()
    ablator = Ablator(components, [task], "resample")
    exact = head_scores(ablator)
    whole, found = head_curve(ablator), needed_heads(ablator, exact)
    assert found.needed() == whole.needed()
    assert whole == replace(head_curve(ablator, exact), ranking=whole.ranking)
    for share in (0.0, 2.0):  # no head is needed; all together are not enough
        assert (needed_heads(ablator, exact, share).needed(share) is None) == (share > 1)


def test_a_head_s_attribution_is_what_zeroing_its_edges_would_cost_to_first_order():
    components, task = favourable()
    scores = score_edges(components, [task], method="eap")
    costs = head_attributions(components.graph, scores)
    assert costs.shape == (components.graph.n_layers, components.graph.n_heads)
    assert float(costs[0, 0]) == pytest.approx(-float(scores.edges[components.graph.head(0, 0)].sum()))
    exact = head_scores(Ablator(components, [task], "resample"))
    assert float(torch.corrcoef(torch.stack([costs.flatten(), exact.flatten()]))[0, 1]) > 0.5


def test_areas_are_those_of_mib():
    from gossamer.circuits.components.curve import SHARES, Curve, Point

    points = tuple(Point(round(share * 1000), 0, 1.0) for share in SHARES)
    cpr, cmd = Curve("edges", 1000, "resample", "x", "y", 1, points).areas()
    assert cpr == pytest.approx(0.999)  # FIELD 5: F = 1 everywhere
    assert cmd == 0.0


def test_bad_input_is_one_clear_line():
    components, task = components_of(tiny()), batch(n=8)
    same = Batch(task.clean, task.clean, task.right, task.wrong, task.metric, "nothing", task.template)
    with pytest.raises(GossamerError, match="the model does not know this task"):
        head_curve(Ablator(components, [same], "resample"))
    with pytest.raises(
        GossamerError, match="ablation='half' is not known: expected one of resample, mean, zero"
    ):
        Ablator(components, [task], "half")
    with pytest.raises(
        GossamerError, match="method='guess' is not known: expected one of eap, eap-ig, exact"
    ):
        score_edges(components, [task], method="guess")
    with pytest.raises(GossamerError, match="no prompts"):
        Ablator(components, [], "zero")
    with pytest.raises(UnsupportedModel, match=r"BertForMaskedLM \(bert\): expected gpt2, gpt_neox, llama"):
        components_of(tiny("bert"))


def test_heads_that_hooks_could_not_tell_apart_are_refused(monkeypatch):
    monkeypatch.setitem(architectures.PRE_NORM, "phi3", architectures.PRE_NORM["llama"])
    with pytest.raises(
        UnsupportedModel, match=r"Phi3ForCausalLM \(phi3\), .*: heads share keys that are made together"
    ):
        components_of(build("phi3"))
    model = tiny("llama")
    attention = model.model.layers[1].self_attn
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, nn.Linear(16, 8, bias=False))
    attention.o_proj = nn.Linear(8, 16, bias=False)
    with pytest.raises(UnsupportedModel, match=r"LlamaForCausalLM \(llama\) with 1, 2 heads"):
        components_of(model)
