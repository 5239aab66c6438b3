"""The straight way of one plain query, as each token of a generation takes it: the whole way in short, or not taken."""

from __future__ import annotations

import contextlib

import pytest
import torch

from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.gates.edges import EdgeGates
from gossamer.models.attach import attach
from helpers.zoo import TINY_VOCABULARY, tiny


def model_of(kind="gpt2", **extra):
    model = tiny(kind, **extra)
    gates = attach(model, bias=0.3, impl="blockwise")
    return model, gates


def prompts(rows=2, length=7):
    return torch.randint(1, TINY_VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))


def message(model, ids):
    """Logits of six greedy tokens."""
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    return torch.stack(made.logits, 1)


@pytest.fixture
def taken(monkeypatch):
    """How often a call was found plain."""
    counts = {True: 0, False: 0}
    ask = EdgeGates.are_plain

    def watched(self, module, q):
        counts[ask(self, module, q)] += 1
        return ask(self, module, q)

    monkeypatch.setattr(EdgeGates, "are_plain", watched)
    return counts


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama-gqa"])
def test_the_straight_way_is_the_whole_way(kind, taken, monkeypatch):
    model, _ = model_of(kind)
    straight = message(model, prompts())
    assert taken == {True: 3 * 5, False: 0}  # 3 layers, and the first of six tokens comes from the prompt
    monkeypatch.setattr(EdgeGates, "are_plain", lambda *_: False)
    torch.testing.assert_close(straight, message(model, prompts()), rtol=1e-5, atol=1e-5)


def one_token(model):
    return model(input_ids=prompts(1, 1), use_cache=False).logits


@pytest.mark.parametrize(
    "settings",
    [
        {"impl": "eager"},
        {"keep": {0: torch.zeros(1, 1, 1, 1)}},
        {"impl": "eager", "renormalise": True},
    ],
)
def test_what_the_straight_way_cannot_do_goes_the_whole_way(settings, taken):
    model, gates = model_of()
    with torch.no_grad(), gates.using(**settings):
        one_token(model)
    assert taken[True] == 0


@pytest.mark.parametrize("why", ["gradient", "observer", "autocast", "noise", "double"])
def test_gradients_observers_autocast_noise_and_doubles_go_the_whole_way(why, taken):
    model, gates = model_of()
    contexts = {
        "gradient": torch.enable_grad(),
        "observer": gates.observing(lambda call: None),
        "autocast": torch.autocast("cpu", dtype=torch.bfloat16),
    }
    if why == "noise":
        model.train()
    if why == "double":
        model.double()
    with torch.no_grad(), contexts.get(why, contextlib.nullcontext()):
        one_token(model)
    assert taken == {True: 0, False: 3}


def test_what_is_refused_is_refused_for_one_query_too():
    model, gates = model_of()
    with torch.no_grad(), gates.using(bias=float("nan")), pytest.raises(GossamerError, match="bias=nan"):
        one_token(model)
    with torch.no_grad(), gates.using(renormalise=True), pytest.raises(UnsupportedModel, match="eager"):
        one_token(model)


def test_output_attentions_in_the_config_is_refused_when_gates_are_attached():
    model = tiny()
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    with pytest.raises(UnsupportedModel, match="output_attentions=True"):
        attach(model, check=False)
