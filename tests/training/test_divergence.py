"""Divergences against their definitions, and which predictions count."""

from __future__ import annotations

import math

import pytest
import torch

from gossamer.errors import GossamerError
from gossamer.models.attach import gates_of
from gossamer.models.head import Head
from gossamer.training.divergence import Measure, agreement, counted, per_item
from gossamer.training.metrics import Tally, counting
from helpers.zoo import prompts, tiny_gated

PLAIN, CAUSAL = Measure(Head()), Measure(Head(causal=True))
SENTENCE = Measure(Head(per="embedding", reads="vectors"))


def tokens(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch that has these logits."""
    return {"input_ids": torch.zeros(logits.shape[:2], dtype=torch.long)}


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_is_the_definition_and_zero_on_itself() -> None:
    base, sparse = logits(2, 3, 5), logits(2, 3, 5, seed=1)
    p, q = base.softmax(-1).double(), sparse.softmax(-1).double()
    expected = (p * (p / q).log()).sum(-1).flatten()
    found = per_item("kl", sparse, base, tokens(base), PLAIN)
    assert torch.allclose(found.values.double(), expected, atol=1e-6)
    assert found.rows.tolist() == [0, 0, 0, 1, 1, 1]
    assert per_item("kl", base, base, tokens(base), PLAIN).values.abs().max() < 1e-6


def test_gap_is_the_difference_of_losses() -> None:
    base, sparse = logits(2, 4, 5), logits(2, 4, 5, seed=1)
    labels = torch.tensor([[1, 2, -100, 3], [-100, 0, 4, -100]])
    batch = {"labels": labels}
    delta_ce = per_item("delta_ce", sparse, base, batch, CAUSAL).values
    ours = per_item("loss", sparse, None, batch, CAUSAL).values
    theirs = per_item("loss", base, None, batch, CAUSAL).values
    assert torch.equal(delta_ce, ours - theirs)
    mean = torch.nn.functional.cross_entropy(
        sparse[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    assert torch.allclose(ours.mean(), mean)
    assert len(ours) == 4


def test_padding_does_not_count() -> None:
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    kept = counted(logits(2, 3, 5), {"input_ids": mask, "attention_mask": mask}, head=Head())
    assert len(kept.logits) == 4
    assert kept.rows.tolist() == [0, 0, 1, 1]


def test_cosine_is_of_the_pooled_sentence() -> None:
    base = logits(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    changed = base.clone()
    changed[0, 2] = 100.0  # padding
    assert per_item("cosine", changed, base, {"attention_mask": mask}, SENTENCE).values.abs().max() < 1e-6
    assert per_item("cosine", -base, base, {"attention_mask": mask}, SENTENCE).values.allclose(
        torch.tensor(2.0)
    )


def test_what_is_missing_is_one_clear_line() -> None:
    with pytest.raises(GossamerError, match="ceiling kl without a base model"):
        per_item("kl", logits(1, 2, 3), None, {"input_ids": torch.zeros(1, 2)}, PLAIN)
    with pytest.raises(GossamerError, match="a batch without labels"):
        per_item("loss", logits(1, 2, 3), None, {"input_ids": torch.zeros(1, 2)}, PLAIN)


def test_agreement_counts_equal_answers() -> None:
    base = torch.eye(3)[None]
    assert agreement(base.roll(1, -1), base, tokens(base), head=Head()).values.tolist() == [0, 0, 0]
    assert agreement(base * 2, base, tokens(base), head=Head()).values.tolist() == [1, 1, 1]


def test_tallies_merge_and_take_rows_as_independent() -> None:
    sparse, base = logits(6, 3, 5), logits(6, 3, 5, seed=1)
    whole, parts = Tally(), [Tally(), Tally()]
    whole.add_items("kl", per_item("kl", sparse, base, tokens(base), PLAIN), 6)
    for tally, cut in zip(parts, (slice(0, 2), slice(2, 6)), strict=True):
        tally.add_items(
            "kl", per_item("kl", sparse[cut], base[cut], tokens(base[cut]), PLAIN), cut.stop - cut.start
        )
    parts[0].merge(parts[1])
    assert parts[0].mean("kl") == pytest.approx(whole.mean("kl"))
    per_row = per_item("kl", sparse, base, tokens(base), PLAIN).values.view(6, 3).mean(1).double()
    mean, error = whole.mean("kl")
    assert mean == pytest.approx(float(per_row.mean()))
    assert error == pytest.approx(float(per_row.std()) / math.sqrt(6))


def test_density_and_keys_have_the_standard_error_of_their_rows() -> None:
    model, ids = tiny_gated(), prompts(6)
    whole, each = Tally(), []
    with torch.no_grad():
        with counting(gates_of(model), whole):
            model(input_ids=ids)
        for row in ids.split(1):
            tally = Tally()
            with counting(gates_of(model), tally):
                model(input_ids=row)
            tally.sums["rows"] += 1
            each.append(tally.summary() | {"keys": tally.keys_per_query("edges")})
    whole.sums["rows"] += 6
    found = whole.summary()
    for name in ("density", "keys_per_query"):
        values = torch.tensor([one[name] for one in each], dtype=torch.float64)
        assert found[name] == pytest.approx(float(values.mean()))
        assert found[f"{name}_se"] == pytest.approx(float(values.std()) / math.sqrt(6))
    heads = torch.tensor([one["keys"] for one in each]).mean(0)
    torch.testing.assert_close(torch.tensor(whole.keys_per_query("edges")), heads)
