"""Smaller models over the zoo: every architecture shrinks at the strongest level that it allows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.gates.host import Options
from gossamer.gates.learned import OPEN
from gossamer.models.attach import attach_missing, find_gate_sets
from gossamer.models.cut import Kept
from gossamer.models.same_function import require_same
from gossamer.models.shrink import shrunk
from helpers.closed_units import closing
from helpers.zoo import DECODERS, ENCODERS, VISION, build

pytestmark = pytest.mark.integration  # cuts and saves every family

# What keeps heads from a count of their own in the config; the MLPs of all of these can be uniform.
NO_UNIFORM_HEADS = {
    "gpt2": "other shapes|divisible",
    "opt": "other shapes|divisible",
    "gpt_neox": "other shapes|divisible",
    "bert": "other shapes|multiple",
    "roberta": "other shapes|multiple",
    "distilbert": "other shapes|divide",
    "modernbert": "other shapes|divi",
    "olmo2": "reads all of its heads together",
    "olmo3": "reads all of its heads together",
}
NORMED = {"olmo2", "olmo3"}  # by a norm over all heads, so that none can go
EXPERTS = {"gpt_oss"}


def close(model: Any, kind: str, layer: int, units: Any) -> None:
    with torch.no_grad():
        find_gate_sets(model).of_kind(kind).logits[str(layer)][units] = -OPEN  # type: ignore[attr-defined]


def parameters(model: Any) -> int:
    return sum(x.numel() for x in model.parameters())


@pytest.mark.parametrize("family", sorted({*DECODERS, *ENCODERS, *VISION}))
def test_every_architecture_shrinks_at_the_strongest_level_of_its_parts(family: str) -> None:
    kinds = ("heads",) if family in EXPERTS else ("heads", "neurons")
    model = closing(family, *kinds)[0]
    small, plan = shrunk(model)
    require_same(model, small)
    expected = dict.fromkeys(kinds, "uniform")
    if family in NO_UNIFORM_HEADS:
        expected["heads"] = "masked"
    assert plan.level == "uniform"
    assert plan.parts == expected
    assert parameters(small) < parameters(build(family))
    assert not find_gate_sets(small)
    assert small.config.shrink["level"] == "uniform"


@pytest.mark.parametrize("family", sorted({*DECODERS, *ENCODERS, *VISION}))
def test_each_layer_can_have_its_own_count(family: str) -> None:
    kinds = ("heads",) if family in EXPERTS else ("heads", "neurons")
    model = closing(family, *kinds)[0]
    close(model, "heads", 1, slice(1, None))
    if family not in EXPERTS:
        close(model, "neurons", 0, slice(4, None))
    if family in NORMED:
        with pytest.raises(GossamerError, match=r"level per-layer for heads: .*expected level masked"):
            shrunk(model, "per-layer")
        return
    small, plan = shrunk(model, "per-layer")
    require_same(model, small)
    assert set(plan.parts.values()) == {"per-layer"}
    counts = [small.config.shrink["per_layer_config"][str(n)]["num_attention_heads"] for n in (0, 1)]
    assert counts == [2, 1]


@pytest.mark.parametrize("family", sorted(NO_UNIFORM_HEADS))
def test_a_level_that_an_architecture_cannot_express_names_those_that_it_can(family: str) -> None:
    able = "level masked" if family in NORMED else "level per-layer or masked"
    with pytest.raises(
        GossamerError, match=rf"level uniform for heads: .*{NO_UNIFORM_HEADS[family]}.*expected {able}"
    ):
        shrunk(closing(family, "heads", "neurons")[0], "uniform")


@pytest.mark.parametrize(
    ("name", "heads"), [("llama", 4), ("gemma2", 4), ("qwen3", 3), ("olmo", 3), ("mistral", 3)]
)
def test_a_config_that_wants_divisible_heads_gets_them(name: str, heads: int) -> None:
    model = build(name).config
    model.num_key_value_heads = 4
    grown = type(build(name))(model).eval()
    attach_missing(grown, ("heads", "neurons"), Options("eager"))
    find_gate_sets(grown).bias = 0.0
    close(grown, "heads", 0, slice(3, None))
    close(grown, "heads", 1, slice(1, None))
    close(grown, "neurons", 0, slice(9, None))
    close(grown, "neurons", 1, slice(7, None))
    small, plan = shrunk(grown)
    require_same(grown, small)
    assert small.config.num_attention_heads == heads
    assert plan.parts["heads"] == ("uniform" if heads == 3 else "masked")
    assert small.config.intermediate_size == 9


def test_a_key_value_head_goes_only_with_all_that_reads_it() -> None:
    model = closing("qwen3", "heads")[0]
    close(model, "heads", 0, slice(None))
    with torch.no_grad():
        for layer, opened in (("0", (0, 2)), ("1", (0, 2))):
            find_gate_sets(model).of_kind("heads").logits[layer][list(opened)] = OPEN  # type: ignore[attr-defined]
    small, plan = shrunk(model)
    require_same(model, small)
    assert plan.kept[0].counts() == {"num_attention_heads": 2, "num_key_value_heads": 2}
    close(model, "heads", 0, 2)
    with torch.no_grad():
        find_gate_sets(model).of_kind("heads").logits["1"][3] = OPEN  # type: ignore[attr-defined]
    with pytest.raises(GossamerError, match="level uniform for heads: the layer with most open ones has all"):
        shrunk(model, "uniform")
    small, plan = shrunk(model)
    require_same(model, small)
    assert plan.level == "per-layer"


@pytest.mark.parametrize("level", ["uniform", "per-layer", "masked"])
def test_a_layer_with_everything_closed_keeps_one_zero(level: str) -> None:
    model = closing("llama", "heads", "neurons")[0]
    for layer in (0, 1):
        close(model, "heads", layer, slice(None))
        close(model, "neurons", layer, slice(None))
    small, plan = shrunk(model, level)
    require_same(model, small)
    assert plan.level == level
    layer = small.model.layers[0]
    assert not layer.mlp.down_proj.weight.any()
    if level != "masked":
        assert (layer.mlp.down_proj.in_features, layer.self_attn.q_proj.out_features) == (1, 8)


def test_weights_are_zeros_in_any_level() -> None:
    model = closing("llama", "weights")[0]
    small, plan = shrunk(model)
    require_same(model, small)
    assert plan.level == "masked"
    assert 0.3 < float((small.model.layers[0].mlp.up_proj.weight == 0).float().mean()) < 0.37
    with pytest.raises(GossamerError, match=r"level uniform for weights: .*expected level masked"):
        shrunk(model, "uniform")
    both = closing("llama", "weights", "neurons")[0]
    small, plan = shrunk(both)
    require_same(both, small)
    assert plan.parts == {"neurons": "uniform", "weights": "masked"}


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "phi3"])
def test_edges_are_kept_or_refused(family: str) -> None:
    model = closing(family, "edges", "heads", "neurons")[0]
    for level in ("uniform", "masked"):
        with pytest.raises(GossamerError, match=rf"level {level} for a model with gates on edges.*per-layer"):
            shrunk(model, level)
    small, plan = shrunk(model)
    require_same(model, small)
    assert find_gate_sets(small).kinds == ("edges",)
    assert plan.level == "per-layer"
    assert plan.parts["neurons"] == "per-layer"
    assert plan.parts["heads"] == ("masked" if family == "phi3" else "per-layer")


def test_what_has_nothing_closed_is_refused() -> None:
    with pytest.raises(GossamerError, match="no gates: it is a dense model"):
        shrunk(build("llama"))
    edges = build("llama")
    attach_missing(edges, ("edges",), Options("eager"))
    with pytest.raises(GossamerError, match="gates on edges alone"):
        shrunk(edges)
    attach_missing(edges, ("heads",), Options("eager"))
    with pytest.raises(GossamerError, match="every gate of the model is open"):
        shrunk(edges)
    with pytest.raises(GossamerError, match=r"level='tiny' is not known"):
        shrunk(edges, "tiny")


def test_a_gated_weight_that_two_places_read_is_refused() -> None:
    model = closing("llama", "neurons")[0]
    model.model.layers[1].mlp.down_proj.weight = model.model.layers[0].mlp.down_proj.weight
    with pytest.raises(
        UnsupportedModel, match=r"layers.0.mlp.down_proj.weight and .*layers.1.* are one weight"
    ):
        shrunk(model)


def test_layers_of_their_own_sizes_are_not_shrunk_again() -> None:
    small, _ = shrunk(closing("llama", "neurons")[0], "per-layer")
    attach_missing(small, ("neurons",), Options("eager"))
    with pytest.raises(UnsupportedModel, match="has layers of sizes of their own already"):
        shrunk(small)


def test_another_function_is_refused() -> None:
    model = closing("llama", "neurons")[0]
    small, _ = shrunk(model)
    with torch.no_grad():
        small.model.layers[0].mlp.down_proj.weight[:, 0] += 0.1
    with pytest.raises(
        GossamerError, match=r"outputs differ from the gated model's by .*nothing was written"
    ):
        require_same(model, small)


def test_counts_are_in_the_words_of_a_config() -> None:
    kept = Kept(torch.tensor([True, True, False]), torch.tensor([True]), torch.tensor([True, False]))
    assert kept.counts() == {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 1}
