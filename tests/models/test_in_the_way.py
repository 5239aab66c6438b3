"""Models as people have them: quantised, bidirectional, on the disk, subclassed, with code of their own."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import pytest
import torch

from gossamer import attach, load, save, trace
from gossamer.circuits.verify import prove
from gossamer.errors import CheckpointError, GossamerWarning, UnsupportedModel
from gossamer.gates.edges import EdgeGates
from gossamer.gates.host import Options
from gossamer.models.anatomy import Anatomy
from gossamer.models.attach import attach_missing
from gossamer.models.checkpoint import load_for_training, save_folder
from gossamer.models.forward import first_output, probe_inputs
from gossamer.models.interface import attention_modules
from gossamer.models.parity import eager_reference
from gossamer.models.summary import describe_model
from gossamer.training.adapters import add_adapters
from helpers import zoo

pytestmark = pytest.mark.integration  # whole runs

TEXT = {**zoo.DECODERS, **zoo.ENCODERS}


def _agree(model, expected) -> None:
    with torch.no_grad():
        torch.testing.assert_close(first_output(model, probe_inputs(model)), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("family", TEXT)
def test_dynamic_int8_is_gated(family: str) -> None:
    """One scale for all tokens lets the last token move earlier outputs, gates or not."""
    model = torch.ao.quantization.quantize_dynamic(zoo.build(family), {torch.nn.Linear}, dtype=torch.qint8)
    expected = eager_reference(model)
    attach(model, impl="eager")
    _agree(model, expected)


class Packed(torch.nn.Linear):
    """A linear layer as bitsandbytes has it: integers in a shape of their own, which say nothing without a scale."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        self.scale = plain.weight.detach().abs().max() / 127
        packed = (plain.weight.detach() / self.scale).round().to(torch.int8).reshape(-1, 1)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)

    def forward(self, x):
        whole = self.weight.reshape(self.out_features, self.in_features).to(x.dtype) * self.scale
        return torch.nn.functional.linear(x, whole)


def test_weights_in_integers_are_gated_and_adapted_and_their_numbers_are_not_read() -> None:
    model = zoo.build("llama")
    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, child in list(parent.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(parent, name, Packed(child))
    attach(model, impl="eager")
    with pytest.warns(
        GossamerWarning, match="lengths inside the heads: the weights of Packed layers are quantised"
    ):
        found = trace(model, torch.arange(4, 12)[None], threshold=0.1)
    assert found.meta["contribution"] == "head"
    assert len(found)
    anatomy = Anatomy.of(model)
    assert (anatomy[0].q.count, anatomy[0].k.count, anatomy[0].mlp.out.count) == (4, 2, 48)
    with pytest.raises(UnsupportedModel, match="whose weight is quantised"):
        attach_missing(model, ("heads",), Options())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = add_adapters(model, rank=2)
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 2 * 4


class Leaking(EdgeGates):
    """Gates through which every token learns that the last one is another than in the first forward pass."""

    def attend(self, module, q, k, v, **given):
        out, last = super().attend(module, q, k, v, **given), v[..., -1, :].sum((1, 2))
        first = self.__dict__.setdefault("_first", {}).setdefault(id(module), last)
        return out + 0.01 * (last - first)[:, None, None, None]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("family", zoo.DECODERS)
def test_gates_that_leak_more_than_the_model_itself_are_refused(family: str, int8: bool) -> None:
    """A model whose own attention lets the last token move earlier outputs, as int8 and experts do, is no excuse."""
    model = zoo.build(family)
    if int8:
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UnsupportedModel, match="editing the last token changed earlier outputs"):
        attach(model, impl="eager", gates=Leaking())
    assert not hasattr(attention_modules(model)[0], EdgeGates.block)


@pytest.mark.parametrize("family", zoo.DECODERS)
def test_a_decoder_made_bidirectional_sees_the_future_with_gates_too(family: str) -> None:
    model = zoo.build(family)
    model.config.is_causal = False
    expected = eager_reference(model)
    attach(model)
    _agree(model, expected)
    edited = probe_inputs(model)
    edited["input_ids"][:, -1] = (edited["input_ids"][:, -1] + 7) % 90 + 3
    with torch.no_grad():
        assert (first_output(model, edited) - expected)[:, 0].abs().max() > 0


@pytest.mark.parametrize("family", zoo.DECODERS)
def test_modules_that_are_bidirectional_against_their_config_are_told_so(family: str) -> None:
    model = zoo.build(family)
    for module in attention_modules(model):
        module.is_causal = False
    if family in (
        "mistral",
        "gemma3",
        "olmo3",
    ):  # a window is a mask, so all layers stay causal, as eager ones do
        expected = eager_reference(model)
        attach(model)
        return _agree(model, expected)
    with pytest.raises(UnsupportedModel, match=r"config\.is_causal = False"):
        attach(model)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_subclass_is_loaded_where_it_is_defined_and_named_where_not(family: str, tmp_path: Path) -> None:
    parent = type(zoo.build(family))
    own = type(f"Own{family}", (parent,), {"__module__": __name__})
    model = own(zoo.build(family).config).eval()
    attach(model)
    save(model, tmp_path / "own")
    assert type(load(tmp_path / "own")) is own
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    (tmp_path / "own" / "config.json").write_text(json.dumps({**config, "architectures": ["Unheard"]}))
    with pytest.raises(CheckpointError, match=r"Unheard.*[Ii]mport the module") as caught:
        load(tmp_path / "own")
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_refused_without_a_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at a prompt"))
    save_folder(zoo.build("gpt2"), tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    own = {"model_type": "own_code", "auto_map": {"AutoConfig": "code.Config"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    (tmp_path / "own" / "code.py").write_text("raise SystemExit('run')\n")
    with pytest.raises(CheckpointError, match="trust_remote_code=True"):
        load(tmp_path / "own")


@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3", "kernels-community/flash-attn"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_an_attention_left_in_a_config_is_replaced_aloud(family: str, name: str, tmp_path: Path) -> None:
    save_folder(zoo.build(family), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attn_implementation": name}))
    with pytest.warns(GossamerWarning, match=name):
        model = load_for_training(tmp_path / "model")
    attach(model)
    with pytest.warns(GossamerWarning, match=name):
        assert describe_model(tmp_path / "model")["gates"] == {}


@pytest.mark.filterwarnings("ignore:contributions are lengths inside the heads")
@pytest.mark.parametrize("family", TEXT)
def test_weights_on_the_disk_are_gated_and_traced(family: str, tmp_path: Path) -> None:
    from accelerate import disk_offload

    model = zoo.build(family)
    expected = trace(model, probe_inputs(model)["input_ids"], threshold=0.1)
    away = copy.deepcopy(model)
    disk_offload(away, tmp_path, execution_device=torch.device("cpu"))
    attach(away)
    found = trace(away, probe_inputs(model)["input_ids"], threshold=0.1)
    assert found.answers == expected.answers
    assert len(found) == len(expected)


@pytest.mark.filterwarnings("ignore:contributions are lengths inside the heads")
def test_a_circuit_of_weights_on_the_disk_is_proved(tmp_path: Path) -> None:
    from accelerate import disk_offload

    model, ids = zoo.build("gpt2"), torch.arange(4, 12)[None]
    away = copy.deepcopy(model)
    disk_offload(away, tmp_path, execution_device=torch.device("cpu"))
    proofs = []
    for one in (model, away):
        attach(one, bias=0.0, impl="eager")
        circuit = trace(one, ids, outputs=[-1])
        proofs.append(prove(one, circuit, ids, smallest=False).as_record())
    assert proofs[0] == proofs[1]


def test_a_vision_model_is_told_why_it_has_no_circuit() -> None:
    model = zoo.build("vit")
    attach(model)
    with pytest.raises(UnsupportedModel, match="pixel_values"):
        trace(model, torch.zeros(1, 5, dtype=torch.long))
