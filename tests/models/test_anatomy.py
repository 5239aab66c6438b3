"""The map of a model's parts: what it says of each head and neuron is what the model computes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from gossamer.errors import UnsupportedModel
from gossamer.gates.attention_call import AttentionCall
from gossamer.models.anatomy import Anatomy, LayerAnatomy
from gossamer.models.attach import attach
from gossamer.models.forward import evaluating, first_output, probe_inputs
from gossamer.models.interface import attention_modules
from gossamer.models.parts import Mlp
from gossamer.models.projections import Projection, weight_of
from helpers.zoo import ALL, FURTHER, LIKE_LLAMA, MOE, REFUSED, build

FAMILIES = [*ALL, *FURTHER]
WITHOUT_MLP = {"gpt_oss"}
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")


class Seen:
    """One forward pass: each attention call by layer, and what entered and left each module that was asked for."""

    def __init__(self, model: PreTrainedModel, *modules: nn.Module) -> None:
        self.calls: list[AttentionCall] = []
        self.given: dict[nn.Module, Tensor] = {}
        self.made: dict[nn.Module, Tensor] = {}
        gates = attach(model, impl="eager", check=False)
        handles = [module.register_forward_hook(self._note) for module in modules]
        with evaluating(model), gates.observing(self.calls.append):
            self.output = first_output(model, probe_inputs(model))
        for handle in handles:
            handle.remove()

    def _note(self, module: nn.Module, given: tuple, made: Tensor) -> None:
        self.given.setdefault(module, given[0])
        self.made.setdefault(module, made)

    def call(self, layer: int) -> AttentionCall:
        """The first call of a layer: ALBERT's runs twice."""
        return next(call for call in self.calls if call.layer == layer)


def varied(family: str) -> PreTrainedModel:
    """A model whose biases are no zeros, as they are at the start of training."""
    model = build(family).requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.normal_()
    return model


def without_norms_and_rotations(model: PreTrainedModel) -> None:
    """Between the projections of q and k and the attention there is nothing left that changes them."""
    for module in list(model.modules()):
        if "Rotary" in type(module).__name__:
            module.register_forward_hook(lambda m, given, out: (torch.ones_like(out[0]), 0 * out[1]))
    for attention in attention_modules(model):
        for name in ("q_norm", "k_norm", "q_layernorm", "k_layernorm"):
            if hasattr(attention, name):
                setattr(attention, name, nn.Identity())


def rows_of(projection: Projection, unit: int, x: Tensor) -> Tensor:
    """What one unit makes of an input, by its rows of weight and bias."""
    rows, bias = projection.of(unit), projection.module.bias
    made = x @ weight_of(projection.module)[rows].T
    return made if bias is None else made + bias[rows]


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_in_the_order_of_execution_and_numbered_as_gates_number_them(family: str) -> None:
    model = varied(family)
    anatomy, seen = Anatomy.of(model), Seen(model)
    assert list(dict.fromkeys(call.layer for call in seen.calls)) == [layer.number for layer in anatomy]
    assert all(anatomy[call.layer].attention is call.module for call in seen.calls)
    assert all(model.get_submodule(layer.path) is layer.attention for layer in anatomy)
    assert all(layer.attention in layer.block.modules() for layer in anatomy)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_q_k_and_v_make_what_each_head_of_the_attention_receives(family: str) -> None:
    model = varied(family)
    without_norms_and_rotations(model)
    anatomy = Anatomy.of(model)
    seen = Seen(model, *(x.module for layer in anatomy for x in (layer.q, layer.k, layer.v)))
    for layer in anatomy:
        call = seen.call(layer.number)
        # OPT scales its queries before the attention; the others leave that to it.
        scaling = getattr(layer.attention, "scaling", call.scale)
        received = (call.q * call.scale / scaling, call.k, call.v)
        for projection, heads in zip((layer.q, layer.k, layer.v), received, strict=True):
            x, weights, biases = seen.given[projection.module], projection.weights(), projection.biases()
            assert heads.shape[1] == projection.count
            assert model.get_submodule(projection.path) is projection.module
            split = projection.split(seen.made[projection.module])
            for unit in range(projection.count):
                made = rows_of(projection, unit, x)
                close(heads[:, unit], made)
                close(split[..., unit, :], made)
                close(x @ weights[unit].T + (0 if biases is None else biases[unit]), made)
        assert float(call.q.abs().max()) > 0.1, "an empty test"


@pytest.mark.parametrize("family", FAMILIES)
def test_o_reads_the_heads_and_writes_the_sum_over_their_slices(family: str) -> None:
    model = varied(family)
    anatomy = Anatomy.of(model)
    seen = Seen(model, *(layer.o.module for layer in anatomy))
    for layer in anatomy:
        o, mixed = layer.o, seen.call(layer.number).out
        assert o.count == mixed.shape[1]
        total = torch.zeros_like(seen.made[o.module])
        for head in range(o.count):
            columns, weight = o.of(head), weight_of(o.module)
            close(seen.given[o.module][..., columns], mixed[:, head])
            close(mixed[:, head] @ o.weights()[head], mixed[:, head] @ weight[:, columns].T)
            total += mixed[:, head] @ weight[:, columns].T
        close(total + (0 if o.module.bias is None else o.module.bias), seen.made[o.module])
        assert o.biases() is None
        assert float(total.abs().max()) > 0.1, "an empty test"


@pytest.mark.parametrize("family", FAMILIES)
def test_key_value_heads_are_shared_as_the_config_says(family: str) -> None:
    model = varied(family)
    anatomy = Anatomy.of(model)
    grouped = hasattr(anatomy[0].attention, "num_key_value_groups")
    for layer in anatomy:
        assert layer.n_heads == 4
        assert layer.head_dim == 8
        assert layer.n_kv_heads == (model.config.num_key_value_heads if grouped else 4)
    layer = anatomy[0]
    weight_of(layer.v.module)[layer.v.of(0)] = 0  # the heads that read the first key-value head write nothing
    if layer.v.module.bias is not None:
        layer.v.module.bias[layer.v.of(0)] = 0
    silent = (Seen(model).call(0).out == 0).all(-1).all(-1).all(0)
    assert silent.tolist() == [layer.kv_head(head) == 0 for head in range(4)]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in WITHOUT_MLP])
def test_a_neuron_is_a_row_of_in_and_gate_and_a_column_of_out(family: str) -> None:
    model = varied(family)
    config, anatomy = model.config, Anatomy.of(model)
    act = ACT2FN[next((getattr(config, name) for name in ACTIVATIONS if hasattr(config, name)), "silu")]
    seen = Seen(model, *(x.module for layer in anatomy for x in layer.mlp if x is not None))
    for layer in anatomy:
        into, gate, out = layer.mlp
        assert layer.mlp.width == weight_of(out.module).shape[1] == into.count
        assert layer.mlp.gated == (gate is not None)
        x = seen.given[into.module]
        for neuron in (0, 1, layer.mlp.width - 1):
            value = rows_of(into, neuron, x)
            value = act(value) if gate is None else act(rows_of(gate, neuron, x)) * value
            close(seen.given[out.module][..., out.of(neuron)], value)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in WITHOUT_MLP])
def test_without_their_columns_of_out_neurons_are_gone(family: str) -> None:
    neurons = [0, 7, 46]

    def output(change: Callable[[Mlp], Any]) -> Tensor:
        model = varied(family)
        handle = change(Anatomy.of(model)[0].mlp)
        found = Seen(model).output
        if handle is not None:
            handle.remove()
        return found

    def close_columns(mlp: Mlp) -> None:
        for neuron in neurons:
            weight_of(mlp.out.module)[:, mlp.out.of(neuron)] = 0

    def close_rows(mlp: Mlp) -> None:
        for neuron in neurons:
            weight_of(mlp.into.module)[mlp.into.of(neuron)] = 0
            if mlp.into.module.bias is not None:
                mlp.into.module.bias[mlp.into.of(neuron)] = 0

    def silence(mlp: Mlp) -> Any:
        keep = torch.ones(mlp.width).index_fill(0, torch.tensor(neurons), 0)
        return mlp.out.module.register_forward_pre_hook(lambda module, given: (given[0] * keep,))

    removed = output(silence)
    close(output(close_columns), removed)
    close(output(close_rows), removed)  # of every activation of the families, act(0) = 0
    assert float((output(lambda mlp: None) - removed).abs().max()) > 1e-4, "an empty test"


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"])
def test_a_pre_norm_block_reads_the_stream_through_its_norms(family: str) -> None:
    model = varied(family)
    anatomy = Anatomy.of(model)
    modules = [x for layer in anatomy for x in (*layer.stream, layer.q.module, layer.o.module, layer.block)]
    seen = Seen(model, *modules, anatomy.final_norm)
    stream = seen.given[anatomy[0].stream.norm]
    for layer in anatomy:
        norm, mlp_norm, mlp = layer.stream
        attended = stream + seen.made[layer.o.module]
        close(seen.given[norm], stream)
        close(seen.given[layer.q.module], seen.made[norm])
        close(seen.given[mlp_norm], stream if anatomy.parallel else attended)
        close(seen.given[mlp], seen.made[mlp_norm])
        stream = attended + seen.made[mlp]
    close(seen.given[anatomy.final_norm], stream)
    assert anatomy.parallel == (family == "gpt_neox")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_map_needs_no_numbers(family: str) -> None:
    real = varied(family)
    with torch.device("meta"):
        model = type(real)(real.config)
    for layer, twin in zip(Anatomy.of(model), Anatomy.of(real), strict=True):
        assert [layer.q, layer.k, layer.v, layer.o] == [
            Projection(x.path, model.get_submodule(x.path), *list(vars(x).values())[2:])
            for x in (twin.q, twin.k, twin.v, twin.o)
        ]


@given(
    st.sampled_from([nn.Linear, Conv1D]), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.data()
)
def test_units_are_views_of_the_features_that_they_own(
    kind: Any, count: int, width: int, start: int, data: Any
) -> None:
    step = data.draw(st.integers(width, width + 2))
    features = start + count * step + data.draw(st.integers(0, 2))
    module = kind(3, features) if kind is nn.Linear else kind(features, 3)
    x = torch.randn(2, 3)
    close(x @ weight_of(module).T + module.bias, module(x))
    made = Projection("made", module, "out", count, width, start, step)
    read = Projection("read", nn.Linear(features, 3), "in", count, width, start, step)
    output = module(x).detach()
    for unit in range(count):
        assert torch.equal(made.split(output)[..., unit, :], output[..., made.of(unit)])
        assert torch.equal(made.weights()[unit], weight_of(module)[made.of(unit)])
        assert torch.equal(read.weights()[unit], weight_of(read.module)[:, read.of(unit)].T)
    made.split(output).zero_()
    assert int((output == 0).sum()) == 2 * count * width
    with pytest.raises(IndexError):
        made.of(count)


def unknown(model: PreTrainedModel, part: Callable[[LayerAnatomy], Any], match: str) -> Anatomy:
    anatomy = Anatomy.of(model)
    with pytest.raises(UnsupportedModel, match=match):
        part(anatomy[1])
    return anatomy


@pytest.mark.parametrize("family", REFUSED)
def test_attention_outside_the_interface_is_refused_by_name(family: str) -> None:
    with pytest.raises(
        UnsupportedModel, match=rf"\({family}\) calls the attention interface.*expected .*bert"
    ):
        Anatomy.of(REFUSED[family]())


def test_a_decoder_that_reads_an_encoder_is_refused_by_name() -> None:
    sizes = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    with pytest.raises(UnsupportedModel, match=r"T5ForConditionalGeneration \(t5\) reads an encoder"):
        Anatomy.of(hf.T5ForConditionalGeneration(hf.T5Config(**sizes)))
    crossed = hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=96, add_cross_attention=True)
    crossed.bos_token_id = crossed.eos_token_id = 1
    with pytest.raises(UnsupportedModel, match=r"GPT2LMHeadModel \(gpt2\) reads an encoder"):
        Anatomy.of(hf.GPT2LMHeadModel(crossed))


def test_an_unknown_mlp_does_not_refuse_the_heads() -> None:
    match = r"layer 1 of GptOssForCausalLM \(gpt_oss\), GptOssAttention at .*: no MLP .*mlp.experts \(GptOssExperts\)"
    anatomy = unknown(build("gpt_oss"), lambda layer: layer.mlp, match)
    assert anatomy[1].q.count == anatomy[1].o.count == 4
    mixture = hf.MixtralForCausalLM(hf.MixtralConfig(**LIKE_LLAMA, **MOE))
    anatomy = unknown(
        mixture, lambda layer: layer.mlp, r"\(mixtral\).*mlp.experts .*: expected up_proj \+ down"
    )
    assert anatomy[1].n_kv_heads == 2


def test_unknown_queries_do_not_refuse_the_output() -> None:
    latent = {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 6,
    }
    sizes = {**LIKE_LLAMA, "num_key_value_heads": 4, "first_k_dense_replace": 2}
    model = hf.DeepseekV3ForCausalLM(hf.DeepseekV3Config(**sizes, **latent))
    match = (
        r"\(deepseek_v3\), DeepseekV3Attention at model.layers.1.self_attn: no q among .*q_a_proj, q_b_proj"
    )
    anatomy = unknown(model, lambda layer: layer.q, match)
    assert (anatomy[1].o.count, anatomy[1].o.width) == (4, 6)


def test_what_may_stand_between_the_heads_and_o_is_refused_by_name() -> None:
    model = hf.BitNetForCausalLM(hf.BitNetConfig(**LIKE_LLAMA))
    unknown(model, lambda layer: layer.o, r"\(bitnet\), BitNetAttention .*: its attn_sub_norm may change")
    unknown(model, lambda layer: layer.q, r"architectures.py")
    model = build("llama")
    model.model.layers[1].self_attn.mystery = nn.Linear(32, 32)
    assert (
        unknown(model, lambda layer: layer.o, "its mystery may change what its heads write")[0].o.count == 4
    )


def test_sizes_that_do_not_fit_are_refused_by_name() -> None:
    model = build("llama")
    model.model.layers[1].self_attn.q_proj = nn.Linear(32, 64)  # as with a gate in the same layer
    unknown(model, lambda layer: layer.q, r"\(llama\).*q, k and v have 96 features and o reads 32")
    model.model.layers[1].self_attn.o_proj = nn.Linear(31, 32)
    unknown(model, lambda layer: layer.o, r"o_proj reads 31 features: expected heads of 8")
    model.model.layers[1].mlp.up_proj = nn.Linear(32, 47)
    unknown(model, lambda layer: layer.mlp, r"mlp.down_proj reads 48 features")


def test_a_model_without_a_list_of_layers_has_heads_and_no_block() -> None:
    class Alone(nn.Module):
        def __init__(self, model: PreTrainedModel) -> None:
            super().__init__()
            self.attn, self.config = model.model.layers[0].self_attn, model.config

    anatomy = Anatomy.of(Alone(build("llama")))
    assert anatomy[0].n_heads == 4
    with pytest.raises(UnsupportedModel, match="it is in no list of layers"):
        anatomy[0].mlp  # noqa: B018


def test_the_stream_of_an_architecture_that_is_not_known_is_refused_by_name() -> None:
    match = r"the residual stream of Gemma2ForCausalLM \(gemma2\): expected gpt2, gpt_neox, llama"
    anatomy = unknown(build("gemma2"), lambda layer: layer.stream, match)
    for part in ("final_norm", "parallel"):
        with pytest.raises(UnsupportedModel, match=match):
            getattr(anatomy, part)


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_adapters_are_refused_by_name_until_they_are_merged() -> None:
    from peft import LoraConfig, get_peft_model

    targets = ["o_proj", "up_proj"]
    model = get_peft_model(build("llama"), LoraConfig(r=2, target_modules=targets))
    unknown(
        model,
        lambda layer: layer.o,
        r"layer 1 of .* \(llama\) has an adapter on o_proj: .*Merge the adapter",
    )
    unknown(model, lambda layer: layer.mlp, r"has an adapter on mlp.up_proj")
    anatomy = Anatomy.of(model.merge_and_unload())
    assert anatomy[1].n_heads == 4
    assert anatomy[1].mlp.width == 48
