"""Every supported family, at tiny random size, keeps what gates promise; every other one is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gossamer import attach, gates_of, load, save
from gossamer.errors import UnsupportedModel
from gossamer.models.forward import first_output, probe_inputs
from gossamer.models.parity import eager_reference
from gossamer.training.metrics import Tally, counting
from helpers import zoo

TEXT = {**zoo.DECODERS, **zoo.ENCODERS}
LENGTH = 10
BIAS = 0.1  # leaves some of a random model's gates open and some closed


def ids(rows: int, length: int = LENGTH, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, zoo.VOCABULARY, (rows, length), generator=generator)


def batch_of(first: Tensor, second: Tensor, pad: int, side: str) -> dict[str, Tensor]:
    """Two prompts of different length as one padded batch."""
    short, room = (second, len(first) - len(second))
    fill, hole = torch.full((room,), pad), torch.zeros(room, dtype=torch.long)
    seen = torch.ones_like(short)
    parts = ([fill, short], [hole, seen]) if side == "left" else ([short, fill], [seen, hole])
    tokens, mask = torch.cat(parts[0]), torch.cat(parts[1])
    masks = torch.stack([torch.ones_like(first), mask])
    return {"input_ids": torch.stack([first, tokens]), "attention_mask": masks}


def run(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tally]:
    tally = Tally()
    with torch.no_grad(), counting(gates_of(model), tally):
        return first_output(model, inputs), tally


@pytest.mark.parametrize("family", zoo.ALL)
def test_open_gates_are_the_base_model(family: str) -> None:
    model = zoo.build(family)
    expected = eager_reference(model)
    gates = attach(model, impl="eager")
    with torch.no_grad():
        torch.testing.assert_close(first_output(model, probe_inputs(model)), expected, rtol=0, atol=0)
    called: list[int] = []
    with torch.no_grad(), gates.observing(lambda call: called.append(call.layer)):
        first_output(model, probe_inputs(model))
    assert called == [0, 1]


@pytest.mark.parametrize("family", zoo.ALL)
@pytest.mark.parametrize("impl", ["eager", "blockwise"])
def test_gradients_reach_queries_and_keys(family: str, impl: str) -> None:
    model = zoo.build(family)
    gates = attach(model, bias=BIAS, impl=impl, check=False)
    model.train()
    with gates.recording() as record:
        first_output(model, probe_inputs(model))
    record.density().backward()
    found = {
        name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)
    }
    assert any(_is_query(name) for name in found), found
    assert any(_is_key(name) for name in found), found


def _is_query(name: str) -> bool:
    return any(part in name for part in ("q_proj", "c_attn", "query", "Wqkv", "q_lin"))


def _is_key(name: str) -> bool:
    return any(part in name for part in ("k_proj", "c_attn", "key", "Wqkv", "k_lin"))


# DistilBERT takes no position_ids, so a row padded on the left stands at other positions, gates or not.
@pytest.mark.parametrize(
    ("family", "side"), [(f, s) for f in TEXT for s in ("left", "right") if (f, s) != ("distilbert", "left")]
)
def test_batch_equals_single(family: str, side: str) -> None:
    """Outputs and counts of a padded batch are those of the two prompts alone."""
    model = zoo.build(family)
    attach(model, bias=BIAS)
    first, second = ids(1)[0], ids(1, LENGTH - 3, seed=2)[0]
    inputs = batch_of(first, second, zoo.pad_of(model), side)
    if side == "left":
        # Learned positions count from the first real token, as `generate` does.
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
        if family == "roberta":
            inputs["position_ids"] = inputs["position_ids"] + 2
    together, tally = run(model, inputs)
    expected = Tally()
    for row, tokens in enumerate((first, second)):
        alone, counts = run(
            model, {"input_ids": tokens[None], "attention_mask": torch.ones_like(tokens)[None]}
        )
        seen = inputs["attention_mask"][row].bool()
        torch.testing.assert_close(together[row][seen], alone[0], rtol=1e-4, atol=1e-4)
        expected.merge(counts)
    for part in ("visible", "hard", "queries"):
        assert tally.sums[f"edges/{part}"] == expected.sums[f"edges/{part}"], part
    assert math.isclose(tally.sums["edges/expected"], expected.sums["edges/expected"], rel_tol=1e-4)
    assert 0 < tally.sums["edges/hard"] < tally.sums["edges/visible"]


@pytest.mark.parametrize("family", zoo.DECODERS)
@pytest.mark.parametrize("padded", [False, True])
def test_generation_equals_the_full_forward(family: str, padded: bool) -> None:
    model = zoo.build(family)
    attach(model, bias=BIAS)
    prompt = ids(2)
    mask = torch.ones_like(prompt)
    if padded:
        prompt[1, :3], mask[1, :3] = zoo.pad_of(model), 0
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    cached = model.generate(prompt, attention_mask=mask, use_cache=True, **options)
    assert torch.equal(cached, model.generate(prompt, attention_mask=mask, use_cache=False, **options))
    assert cached.shape == (2, LENGTH + 5)


@pytest.mark.parametrize("family", zoo.ALL)
def test_save_and_reload(family: str, tmp_path: Any) -> None:
    model = zoo.build(family)
    attach(model, bias=BIAS, impl="eager")
    save(model, tmp_path / "sparse")
    again = load(tmp_path / "sparse", impl="eager")
    assert gates_of(again).bias == BIAS
    inputs = probe_inputs(model)
    with torch.no_grad():
        assert torch.equal(first_output(again, inputs), first_output(model, inputs))


@pytest.mark.parametrize("family", zoo.REFUSED)
def test_other_architectures_are_refused(family: str) -> None:
    with pytest.raises(UnsupportedModel, match="attention interface"):
        attach(zoo.REFUSED[family]())
