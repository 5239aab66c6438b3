"""The logit limit against its formula written out, pair by pair."""

from __future__ import annotations

import pytest
import torch

from gossamer.gates import logit_penalty as logits
from gossamer.gates.attention.visibility import Visibility


def written_out(q, k, visible, *, limit, scale, softcap):
    """max(0, |s| - limit)^2 over visible pairs, in float64 with loops."""
    total, pairs = 0.0, 0
    rows, heads, queries, _ = q.shape
    for b in range(rows):
        for h in range(heads):
            for i in range(queries):
                for j in range(k.shape[2]):
                    if not visible(b, i, j):
                        continue
                    s = float(q[b, h, i].double() @ k[b, h // (heads // k.shape[1]), j].double()) * scale
                    s = s if softcap is None else softcap * float(torch.tanh(torch.tensor(s / softcap)))
                    total, pairs = total + max(0.0, abs(s) - limit) ** 2, pairs + 1
    return total, pairs


def case(seed=0, heads=4, groups=2, queries=5, keys=7):
    made = torch.Generator().manual_seed(seed)
    q = 4 * torch.randn(2, heads, queries, 8, generator=made)
    return q.requires_grad_(), 4 * torch.randn(2, groups, keys, 8, generator=made)


def seen(q, k, *, mask=None, causal=False):
    return Visibility.of(q, k, mask=mask, causal=causal, window=None, segments=None)


@pytest.mark.parametrize("softcap", [None, 12.0])
@pytest.mark.parametrize("causal", [False, True])
def test_is_the_formula_over_visible_pairs(causal, softcap):
    q, k = case()
    total, pairs = logits.logit_excess(
        q, k, seen(q, k, causal=causal), limit=3.0, scale=0.4, softcap=softcap, step=0
    )
    expected, count = written_out(
        q.detach(), k, lambda b, i, j: not causal or j <= i + 2, limit=3.0, scale=0.4, softcap=softcap
    )
    assert expected > 0
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert int(pairs) == count


def test_hidden_pairs_neither_count_nor_pull():
    q, k = case()
    mask = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    mask[0, :, :, 4:] = False
    total, pairs = logits.logit_excess(
        q, k, seen(q, k, mask=mask), limit=3.0, scale=0.4, softcap=None, step=0
    )
    expected, count = written_out(
        q.detach(), k, lambda b, i, j: bool(mask[b, 0, i, j]), limit=3.0, scale=0.4, softcap=None
    )
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert int(pairs) == count


def test_windows_of_successive_steps_cover_every_query_once(monkeypatch):
    q, k = case(queries=6)
    whole, pairs = logits.logit_excess(q, k, seen(q, k), limit=3.0, scale=0.4, softcap=None, step=0)
    monkeypatch.setattr(logits, "PAIRS", 2 * 7)
    parts = [
        logits.logit_excess(q, k, seen(q, k), limit=3.0, scale=0.4, softcap=None, step=step)
        for step in range(3)
    ]
    assert sum(total.item() for total, _ in parts) == pytest.approx(whole.item(), rel=1e-5)
    assert sum(int(count) for _, count in parts) == int(pairs)


def test_pulls_large_logits_in_and_leaves_small_ones_alone():
    q, k = case(heads=2)
    total, _ = logits.logit_excess(q, k, seen(q, k), limit=1e3, scale=0.4, softcap=None, step=0)
    assert torch.autograd.grad(total, q)[0].abs().max() == 0
    total, _ = logits.logit_excess(q, k, seen(q, k), limit=3.0, scale=0.4, softcap=None, step=0)
    (gradient,) = torch.autograd.grad(total, q)
    moved, _ = logits.logit_excess(
        q - 1e-3 * gradient, k, seen(q, k), limit=3.0, scale=0.4, softcap=None, step=0
    )
    assert moved < total
