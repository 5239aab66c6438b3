"""Gates that read the attention weight, on whole models: the theorems of gates that read the logit hold for them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from gossamer.circuits.trace import trace
from gossamer.errors import CheckpointError, GossamerError
from gossamer.gates.attention_call import AttentionCall
from gossamer.models.attach import attach, gates_of
from gossamer.models.checkpoint import load, save
from gossamer.models.forward import first_output
from gossamer.training.metrics import Tally, counting
from helpers import zoo
from helpers.zoo import TINY_VOCABULARY, tiny

BIAS = 2.0  # nats: edges of a weight above 0.135 are open


def prompts(rows: int = 3, length: int = 7) -> torch.Tensor:
    return torch.randint(1, TINY_VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))


def gated(kind: str = "gpt2", impl: str = "eager"):
    model = tiny(kind)
    attach(model, bias=BIAS, reads="weight", impl=impl)
    return model.eval()


@pytest.mark.parametrize("family", zoo.ALL)
def test_open_gates_are_the_base_model(family: str) -> None:
    attach(zoo.build(family), reads="weight")  # which compares open gates with the model's own attention


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama-gqa"])
def test_implementations_and_generation_agree(kind: str) -> None:
    ids = prompts()
    eager, blockwise = (gated(kind, impl) for impl in ("eager", "blockwise"))
    whole = eager(ids).logits
    torch.testing.assert_close(blockwise(ids).logits, whole, rtol=1e-5, atol=1e-5)
    cached = blockwise(ids[:, :-1], use_cache=True)
    step = blockwise(ids[:, -1:], past_key_values=cached.past_key_values)  # one query: the straight way
    torch.testing.assert_close(step.logits[:, 0], whole[:, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert"])
def test_what_is_traced_is_what_is_open_and_counted(kind: str) -> None:
    model, seen, tally = gated(kind), [], Tally()

    def note(call: AttentionCall) -> None:
        opened = call.open_gates(call.logits(), BIAS)
        weights = torch.softmax(call.logits().masked_fill(~visible(call), -torch.inf), -1)
        assert torch.equal(opened, (weights > math.exp(-BIAS)) & visible(call))
        seen.append(int(opened.sum()))

    with counting(gates_of(model), tally), gates_of(model).observing(note):
        model(prompts())
    circuit = trace(model, prompts())
    assert len(circuit) == sum(seen) == tally.sums["edges/hard"]
    assert circuit.meta["gate_reads"] == "weight"
    assert float(circuit.weight.min()) > math.exp(-BIAS)


def visible(call: AttentionCall) -> torch.Tensor:
    found = call.visibility.all_pairs()
    return (
        torch.ones_like(call.logits(), dtype=torch.bool) if found is None else found.expand_as(call.logits())
    )


@torch.no_grad()
def test_a_row_has_at_most_as_many_open_keys_as_weights_of_that_size_fit() -> None:
    model, most = gated(), []
    with gates_of(model).observing(lambda c: most.append(int(c.open_gates(c.logits(), BIAS).sum(-1).max()))):
        model(prompts(length=20))
    assert max(most) <= math.exp(BIAS)


@torch.no_grad()
def test_a_saved_model_reads_what_it_read(tmp_path: Path) -> None:
    model = gated()
    save(model, tmp_path / "model")
    again = load(tmp_path / "model", impl="eager")
    assert gates_of(again).reads == "weight"
    assert torch.equal(
        first_output(again, {"input_ids": prompts()}), first_output(model, {"input_ids": prompts()})
    )


@torch.no_grad()
def test_gates_far_below_zero_are_closed_and_no_error() -> None:
    model = gated("llama", "blockwise")
    gates_of(model).bias = -1000.0
    cached = model(prompts()[:, :-1], use_cache=True)
    model(prompts()[:, -1:], past_key_values=cached.past_key_values)
    assert len(trace(model, prompts())) == 0


def test_a_folder_of_the_first_version_reads_the_logit(tmp_path: Path) -> None:
    model = tiny()
    attach(model, bias=BIAS)
    save(model, tmp_path / "model")
    block = json.loads((tmp_path / "model" / "config.json").read_text())["edge_gates"]
    assert block == {"version": 1, "bias": BIAS}
    assert gates_of(load(tmp_path / "model")).reads == "logit"


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GossamerError, match="reads='value' is not known: expected one of logit, weight"):
        attach(tiny(), reads="value")
    save(gated(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"weight"', '"value"'))
    with pytest.raises(CheckpointError, match="gates that read 'value'"):
        load(tmp_path / "model")
