"""Scores of component edges: theorems on linear models, groups of heads, completeness, ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.circuits.components.component_model import components_of
from gossamer.circuits.components.curve import Ablator, best_edges, edge_curve
from gossamer.circuits.components.run import AblatedRun, writer_outputs
from gossamer.circuits.components.scores import score_edges
from gossamer.errors import GossamerError
from gossamer.models.forward import evaluating, first_output
from helpers.component_cases import KINDS, batch, favourable
from helpers.zoo import GROUPED, tiny, tiny_gated

pytestmark = pytest.mark.integration  # integrates over many passes


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


@pytest.mark.parametrize("kind", KINDS)
def test_exact_patching_one_edge_at_a_time_is_the_ablated_run(kind):
    model, task = tiny(kind).double(), batch()
    components = components_of(model)
    exact = score_edges(components, [task], method="exact", rows=64).edges
    ablator = Ablator(components, [task], "resample")
    for name in ("input->a0.h1<q>", "a0.h0->a1.h1<k>", "m0->a2.h0<v>", "m1->m2", "a2.h1->logits"):
        writer, reader = components.graph.edge(name)
        edge_mask = components.graph.exists.clone()
        edge_mask[writer, reader] = False
        one = float((ablator.values(edge_mask) - ablator.all).mean())
        assert float(exact[writer, reader]) == pytest.approx(one, abs=1e-10), name


@pytest.mark.parametrize("kind", GROUPED)
@pytest.mark.parametrize("method", ["exact", "eap", "eap-ig"])
def test_shared_keys_and_values_are_scored_as_if_each_head_had_its_own(kind, method):
    model, task = tiny(kind).double(), batch()
    twin = with_heads_of_their_own(model)
    components = components_of(model)
    before = model(task.clean).logits
    torch.testing.assert_close(before, twin(task.clean).logits)
    scores = score_edges(components, [task], method=method).edges
    torch.testing.assert_close(scores, score_edges(components_of(twin), [task], method=method).edges)
    heads = [components.graph.edge(f"input->a1.h{head}<k>") for head in (0, 1)]
    assert scores[heads[0]] != scores[heads[1]], "two heads of one group were patched as one"
    torch.testing.assert_close(model(task.clean).logits, before, atol=0, rtol=0)
    edge_mask = torch.rand(components.graph.exists.shape) < 0.5
    edge_mask &= components.graph.exists
    values = (Ablator(components_of(one), [task], "resample").values(edge_mask) for one in (model, twin))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("linear", ["gpt2", "llama"])
@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_on_a_linear_model_attribution_is_exact_patching(ablation, linear):
    components, task = components_of(linear_model() if linear == "gpt2" else linear_with_groups()), batch()
    exact = score_edges(components, [task], method="exact", ablation=ablation)
    for method in ("eap", "eap-ig"):
        found = score_edges(components, [task], method=method, ablation=ablation, steps=3)
        torch.testing.assert_close(found.edges, exact.edges)
    assert (exact.edges != 0).float().mean() > 0.2, "an empty test"


@pytest.mark.parametrize("make", [linear_model, linear_with_groups])
def test_on_a_linear_model_edges_into_the_logits_sum_to_the_whole_effect(make):
    components, task = components_of(make()), batch()
    scores = score_edges(components, [task], method="eap")
    assert float(scores.edges[:, -1].sum()) == pytest.approx(-Ablator(components, [task], "resample").effect)


@pytest.mark.parametrize("kind", KINDS)
def test_integrated_gradients_of_the_input_are_complete(kind):
    components, task = components_of(tiny(kind, scale=2.0).double()), batch()
    with evaluating(components.model):
        (clean, own), (corrupt, _) = (writer_outputs(components, ids) for ids in (task.clean, task.corrupt))
        edge_mask = components.graph.exists.clone()
        edge_mask[0] = False
        ablated = AblatedRun(components, edge_mask, corrupt).run(task.clean)
        del clean
    change = float((task.measure(ablated) - task.measure(own)).mean())
    scores = score_edges(components, [task], method="eap-ig", steps=100)
    assert float(scores.edges[0].sum()) == pytest.approx(change, abs=2e-3 * max(1, abs(change)))
    rough = score_edges(components, [task], method="eap-ig", steps=1)
    assert abs(float(rough.edges[0].sum()) - change) > 1e-4, "an empty test"


def test_signed_ranking_prefers_what_helps():
    components, task = favourable()
    scores = score_edges(components, [task], method="exact")
    best = best_edges(components, scores, 20, signed=True)
    assert (scores.edges[best] <= 1e-6).all()


def test_attribution_and_exact_patching_rank_alike():
    components, task = favourable()
    exact, quick = (score_edges(components, [task], method=method).edges for method in ("exact", "eap-ig"))
    there = components.graph.exists
    ranks = [np.argsort(np.argsort(scores[there].abs().numpy())) for scores in (exact, quick)]
    assert np.corrcoef(*ranks)[0, 1] > 0.3


def test_attribution_says_which_gradient_passed_the_gates():
    components, task = components_of(tiny_gated(seed=3)), batch()
    passed, true, exact = (
        score_edges(components, [task], method=method, gradient=gradient)
        for method, gradient in (("eap", "straight-through"), ("eap", "true"), ("exact", "true"))
    )
    assert (passed.gradient, true.gradient, exact.gradient) == ("straight-through", "true", "none")
    assert score_edges(components, [task]).gradient == "straight-through"
    assert not torch.allclose(passed.edges, true.edges)
    dense, known = favourable()
    for gradient in ("straight-through", "true"):
        scores = score_edges(dense, [known], gradient=gradient)
        curve = edge_curve(Ablator(dense, [known], "resample"), scores, sizes=[5])
        assert curve.as_record()["gradient"] == gradient
    with pytest.raises(
        GossamerError, match="gradient='guess' is not known: expected one of straight-through, true"
    ):
        score_edges(components, [task], gradient="guess")


def test_true_gradients_are_the_effect_of_a_small_step_on_a_gated_model():
    """EAP along an edge out of the input: the metric's derivative on the way to the ablated input."""
    components, task = components_of(tiny_gated(seed=3).double()), batch()
    scores = score_edges(components, [task], method="eap", gradient="true").edges
    embed = components.model.get_input_embeddings()
    with evaluating(components.model):
        change = embed(task.corrupt) - embed(task.clean)
        values = []
        for step in (1e-6, -1e-6):
            handle = embed.register_forward_hook(lambda m, given, out, step=step: out + step * change)
            values.append(task.measure(first_output(components.model, {"input_ids": task.clean})))
            handle.remove()
    derivative = float(((values[0] - values[1]) / 2e-6).mean())
    assert float(scores[0].sum()) == pytest.approx(derivative, rel=1e-6)
    assert derivative != 0, "an empty test"
