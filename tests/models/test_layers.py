"""Layers are numbered as the model numbers them, and each is passed once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from gossamer import attach, gates_of, load, save, trace
from gossamer.circuits.circuit import Circuit
from gossamer.circuits.export.record import from_record, to_record
from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.gates.host import Options
from gossamer.models.anatomy import Anatomy
from gossamer.models.attach import attach_missing
from gossamer.models.forward import first_output, probe_inputs
from gossamer.models.layers import layers_of
from gossamer.models.parity import eager_reference
from gossamer.models.shape import shape_of
from gossamer.training.metrics import Tally, counting
from helpers import zoo

ATTENDS, LAYERS = 1, 3


@pytest.mark.parametrize("family", zoo.HYBRID)
def test_the_attention_of_a_hybrid_model_has_its_block_s_number(family: str) -> None:
    model = zoo.build(family)
    expected = eager_reference(model)
    gates = attach(model, impl="eager")
    assert (gates.n_layers, gates.layer_numbers) == (LAYERS, (ATTENDS,))
    with torch.no_grad():
        torch.testing.assert_close(first_output(model, probe_inputs(model)), expected)
    gates.bias = 0.1
    circuit = trace(model, probe_inputs(model)["input_ids"])
    assert circuit.n_layers == LAYERS
    assert set(circuit.layer.tolist()) == {ATTENDS}
    assert circuit.per_head().shape == (LAYERS, 4)
    assert [layer.number for layer in Anatomy.of(model)] == [ATTENDS]
    assert Anatomy.of(model)[ATTENDS].attention is layers_of(model).attention[ATTENDS]
    with pytest.raises(GossamerError, match=f"layer 0 of .*: expected {ATTENDS}"):
        Anatomy.of(model)[0]


@pytest.mark.parametrize("family", zoo.HYBRID)
def test_counts_of_a_hybrid_model_are_by_its_layers(family: str, tmp_path: Path) -> None:
    model, tally = zoo.build(family), Tally()
    gates = attach(model, bias=0.1)
    with torch.no_grad(), counting(gates, tally):
        first_output(model, probe_inputs(model))
    tally.sums["rows"] = 2
    counts = tally.per_group("edges")
    assert counts[0] == [0.0] * 4
    assert sum(counts[ATTENDS]) > 0
    assert len(tally.keys_per_query("edges")) == len(counts) == ATTENDS + 1
    save(model, tmp_path / "sparse")
    assert shape_of(tmp_path / "sparse").layers == LAYERS
    assert gates_of(load(tmp_path / "sparse")).layer_numbers == (ATTENDS,)


@pytest.mark.parametrize("family", [*zoo.ALL])
def test_where_every_block_attends_layers_are_counted_from_0(family: str) -> None:
    found = layers_of(zoo.build(family))
    assert (list(found.attention), found.count) == ([0, 1], 2)


def test_a_layer_that_mixes_without_edges_may_hand_on_any_earlier_position() -> None:
    """Edge 1 -> 0 of layer 0 is live if layer 1 may bring position 1 to the output, and 3 -> 2 is not."""
    circuit = mixed([(0, 1, 0), (0, 3, 2)], outputs=(2,))
    assert circuit.live_mask().tolist() == [True, False]
    assert mixed([(0, 1, 0), (0, 3, 2)], outputs=(2,), meta={}).live_mask().tolist() == [False, False]
    assert from_record(to_record(circuit)).live_mask().tolist() == [True, False]


def mixed(edges: list[tuple[int, int, int]], outputs: tuple[int, ...], meta: Any = None) -> Circuit:
    """A circuit of two layers, the second without attention, and four tokens; edges are (layer, query, key)."""
    layer, query, key = np.array(edges, dtype=np.int32).T
    zeros, ones = np.zeros(len(edges), dtype=np.int32), np.ones(len(edges), dtype=np.float32)
    return Circuit(
        n_layers=2,
        n_heads=1,
        tokens=(tuple("abcd"),),
        answers=(tuple("abcd"),),
        outputs=outputs,
        visible=(10,),
        prompt=zeros,
        layer=layer,
        head=zeros,
        query=query,
        key=key,
        logit=ones,
        weight=ones,
        contribution=ones,
        meta={"mixing_layers": [1]} if meta is None else meta,
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_a_model_that_passes_a_layer_twice_is_refused_by_name(groups: int) -> None:
    """ALBERT: its layers are passes through one group, or several."""
    config = hf.AlbertConfig(
        **{**zoo.FURTHER["albert"][2], "num_hidden_layers": 4, "num_hidden_groups": groups}
    )
    model = hf.AlbertForMaskedLM(config).eval()
    before = model.config._attn_implementation
    message = f"AlbertForMaskedLM runs the attention of layer 0 {4 // groups} times in one forward pass"
    for verb in (attach, lambda x: trace(x, torch.full((1, 5), 7))):
        with pytest.raises(UnsupportedModel, match=message) as error:
            verb(model)
        assert "\n" not in str(error.value)
    assert model.config._attn_implementation == before


def test_groups_that_are_passed_once_are_layers() -> None:
    config = hf.AlbertConfig(**{**zoo.FURTHER["albert"][2], "num_hidden_groups": 2})
    gates = attach(hf.AlbertForMaskedLM(config).eval())
    assert gates.n_layers == 2


@pytest.mark.parametrize("family", [*zoo.ALL, *zoo.FURTHER, *zoo.HYBRID])
def test_only_albert_runs_a_part_more_than_once(family: str) -> None:
    model, calls = zoo.build(family), Counter()
    for path, module in model.named_modules():
        if path and next(module.parameters(), None) is not None:
            module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    with torch.no_grad():
        first_output(model, probe_inputs(model))
    assert calls, "an empty test"
    assert (max(calls.values()) > 1) == (family == "albert"), calls


@pytest.mark.parametrize(
    ("kind", "path"),
    [("neurons", "mlp"), ("weights", "mlp"), ("heads", "self_attn.o_proj"), ("neurons", "mlp.down_proj")],
)
def test_gates_on_what_two_layers_share_are_refused_by_name(kind: str, path: str) -> None:
    """Every part of a layer may be another's too; edges are not in a matrix, so they have gates there."""
    model = zoo.build("llama")
    model.model.layers[1].set_submodule(path, model.model.layers[0].get_submodule(path))
    with pytest.raises(
        UnsupportedModel,
        match=rf"gates on {kind} of model.layers.1.{path}.* a module that layers 0 and 1 share",
    ) as error:
        attach_missing(model, (kind,), Options("eager"))
    assert "\n" not in str(error.value)
    assert attach(model).n_layers == 2
