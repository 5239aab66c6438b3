"""Visibility and tiles, for any mask, size and size of tile: nothing is met twice, nothing is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gossamer.gates.attention import tiles
from gossamer.gates.attention.settings import Settings
from gossamer.gates.attention.tiles import Call, Inputs, Workspace, compute, spans
from gossamer.gates.attention.visibility import Span, Visibility, length
from gossamer.gates.noise import NoiseKey, layer_uniform

KEY = NoiseKey(seed=7, step=11, layer=2)
# What a call writes down besides whether it is causal. Nothing stands there twice: it goes a way of its own.
WRITTEN = ("", "", "mask", "window", "segments", "mask window", "window segments", "mask window segments")
LONG = 70  # tokens: beyond the 32 queries below which a causal call is not cut to leave out hidden keys


@dataclass(frozen=True)
class Case:
    """The arguments of a call that say what is visible."""

    shape: tuple[int, int, int, int, int]  # B, G, R, T, S
    said: dict[str, Any]  # mask, causal, window, segments

    @property
    def queries_and_keys(self) -> tuple[Tensor, Tensor]:
        """q and k of zeros, so that every visible logit is 0."""
        rows, groups, per_group, queries, keys = self.shape
        return torch.zeros(rows, groups * per_group, queries, 1), torch.zeros(rows, groups, keys, 1)

    @property
    def visibility(self) -> Visibility:
        return Visibility.of(*self.queries_and_keys, **self.said)

    def defined(self) -> Tensor:
        """bool (B, G, R, T, S): the formula at the head of `visibility.py`, on whole matrices."""
        rows, groups, per_group, queries, keys = self.shape
        at, key = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)
        seen = torch.ones(rows, groups * per_group, queries, keys, dtype=torch.bool)
        if self.said["mask"] is not None:
            seen = seen & self.said["mask"]
        if self.said["causal"]:
            seen = seen & (key <= at)
        if self.said["window"] is not None:
            seen = seen & ((at - key).abs() < self.said["window"])
        if self.said["segments"] is not None:
            document = self.said["segments"]
            seen = seen & (document[:, at] == document[:, None, :])[:, None]
        return seen.unflatten(1, (groups, per_group))


def masks(shape: tuple[int, int, int, int], maker: torch.Generator) -> st.SearchStrategy[Tensor]:
    """Random masks, spelled out along some axes of (B, H, T, S) and the same along the others."""

    def random(spelled: list[bool], share: float) -> Tensor:
        axes = [n if here else 1 for n, here in zip(shape, spelled, strict=True)]
        return torch.rand(axes, generator=maker) < share

    axes = st.lists(st.booleans(), min_size=4, max_size=4)
    return st.builds(random, axes, st.sampled_from([0.0, 0.3, 0.8, 1.0]))


def documents(rows: int, keys: int, maker: torch.Generator) -> st.SearchStrategy[Tensor]:
    """Packed sequences one after the other, or the tokens of documents in any order."""

    def numbered(most: int, in_order: bool) -> Tensor:
        found = torch.randint(most, (rows, keys), generator=maker)
        return found.sort(dim=-1).values if in_order else found

    return st.builds(numbered, st.integers(1, 4), st.booleans())


@st.composite
def cases(draw: st.DrawFn, longest: int = 13, written: tuple[str, ...] = WRITTEN) -> Case:
    """Any call: more queries than keys as well, but not with packing, where a query stands among the keys."""
    rows, groups, per_group = (draw(st.integers(1, 3)) for _ in range(3))
    queries, keys = (draw(st.integers(1, longest)) for _ in range(2))
    maker = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    here = draw(st.sampled_from(written))
    said: dict[str, Any] = dict.fromkeys(("mask", "window", "segments"))
    said["causal"] = draw(st.booleans())
    if "mask" in here:
        said["mask"] = draw(masks((rows, groups * per_group, queries, keys), maker))
    if "window" in here:
        said["window"] = draw(st.integers(1, longest))
    if "segments" in here and queries <= keys:
        said["segments"] = draw(documents(rows, keys, maker))
    return Case((rows, groups, per_group, queries, keys), said)


def part_of(draw: st.DrawFn, size: int, step: int = 1) -> slice:
    """A slice that holds something of 0 .. size, from a multiple of `step`."""
    start = draw(st.integers(0, (size - 1) // step)) * step
    return slice(start, draw(st.integers(start + 1, size)))


@st.composite
def parts(draw: st.DrawFn) -> tuple[Case, Span]:
    """A call and any span of it, not only those that `spans` would cut."""
    case = draw(cases())
    rows, groups, _, queries, keys = case.shape
    cuts = [part_of(draw, size) for size in (rows, groups, queries)]
    return case, Span(*cuts, part_of(draw, keys, step=4))


def place(span: Span) -> tuple[slice, ...]:
    """A span as an index of (B, G, R, T, S)."""
    return span.rows, span.groups, slice(None), span.queries, span.keys


def size(span: Span, per_group: int) -> tuple[int, ...]:
    """The shape of a span's pairs, (rows, groups, R, queries, keys)."""
    return length(span.rows), length(span.groups), per_group, length(span.queries), length(span.keys)


def seen_in(visibility: Visibility, span: Span) -> Tensor:
    """What `hidden` says of a span, as bool of its whole size, True where visible."""
    seen = torch.ones(size(span, visibility.shape[2]), dtype=torch.bool)
    found = visibility.hidden(span)
    if found is not None:
        column, hidden = found
        seen[..., column:] &= ~hidden
    return seen


@contextmanager
def tiles_of(tile: int, worth: int) -> Iterator[None]:
    """Tiles of about so many elements, and of which size on they are cut to leave out hidden keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        patch.setattr(tiles, "WORTH", worth)
        yield


@given(cases())
@settings(deadline=None, max_examples=300)
def test_a_whole_call_sees_what_the_definition_says(case: Case) -> None:
    visibility, want = case.visibility, case.defined()
    whole = visibility.all_pairs()
    got = torch.ones(()) if whole is None else whole
    assert torch.equal(got.bool().expand(want.flatten(1, 2).shape), want.flatten(1, 2))
    assert torch.equal(visibility.count_all(), want.sum(dim=(-1, -2)))


@given(parts())
@settings(deadline=None, max_examples=200)
def test_what_is_visible_in_a_part_is_the_part_of_what_is_visible(given_: tuple[Case, Span]) -> None:
    case, span = given_
    want = case.defined()[place(span)]
    assert torch.equal(seen_in(case.visibility, span), want)
    assert torch.equal(case.visibility.count(span), want.sum(dim=(-1, -2)))


@given(cases(longest=LONG), st.integers(1, 3000), st.integers(1, 3000))
@settings(deadline=None)
def test_tiles_meet_every_pair_once(case: Case, tile: int, worth: int) -> None:
    """A visible pair lies in one tile, no pair in two, and each query has a tile even if it sees nothing."""
    _, _, per_group, _, keys = case.shape
    visibility, met = case.visibility, torch.zeros(case.shape, dtype=torch.int64)
    lines, counted = torch.zeros(case.shape[:4], dtype=torch.int64), torch.zeros(case.shape[:3])
    with tiles_of(tile, worth):
        cuts = spans(visibility)
    for span in cuts:
        met[place(span)] += 1
        lines[place(span)[:4]] += 1
        counted[span.rows, span.groups] += visibility.count(span)
        assert 0 <= span.keys.start < span.keys.stop <= keys
        assert span.keys.start % 4 == 0  # as the noise wants it
        assert met[place(span)].numel() <= max(tile, per_group * keys)
    assert met.max() <= 1
    assert (met[case.defined()] == 1).all()
    assert (lines == 1).all()
    assert torch.equal(counted.long(), visibility.count_all())


@given(cases(longest=LONG), st.integers(1, 3000), st.integers(1, 3000))
@settings(deadline=None)
def test_the_heads_of_a_tile_are_those_of_its_rows_and_groups(case: Case, tile: int, worth: int) -> None:
    """Tiles take their heads from (B * G, ...) by one slice, which must hold their own and no others."""
    rows, groups = case.shape[:2]
    number = torch.arange(rows * groups).view(rows, groups)
    with tiles_of(tile, worth):
        cuts = spans(case.visibility)
    for span in cuts:
        heads = span.heads(groups)
        assert number[span.rows, span.groups].flatten().tolist() == list(range(heads.start, heads.stop))


@given(cases(longest=24), st.integers(1, 400))
@settings(deadline=None, max_examples=50)
def test_the_gates_of_a_tile_are_the_part_of_the_gates_of_the_whole(case: Case, tile: int) -> None:
    assert_gates_in_tiles(case, tile)


@given(cases(written=("",)), st.integers(1, 60))
@settings(deadline=None)
def test_tiles_that_share_a_causal_triangle_hide_their_own_keys(case: Case, tile: int) -> None:
    """Where nothing is written down a workspace keeps a tile's triangle for those that hide the same."""
    assert_gates_in_tiles(replace(case, said=case.said | {"causal": True}), tile)


def assert_gates_in_tiles(case: Case, tile: int) -> None:
    """At logits of 0 a gate's softness is its draw, and 0 where hidden; one workspace serves all tiles."""
    want = torch.where(case.defined(), layer_uniform(KEY, noise_shape(case)).view(case.shape), 0.0)
    q, k = case.queries_and_keys
    call = Call(Settings(scale=1.0, noise=KEY), case.visibility, wants_grad=False)
    inputs = Inputs.of(q, k, k, None)
    workspace = Workspace(inputs.q)
    with tiles_of(tile, tile):
        cuts = spans(call.visibility)
    for span in cuts:
        soft = compute(inputs, span, call, workspace).soft
        assert soft is not None
        got = soft.view(size(span, case.shape[2]))
        torch.testing.assert_close(got, want[place(span)], rtol=1e-6, atol=1e-7)


def noise_shape(case: Case) -> tuple[int, int, int, int]:
    """(B, H, T, S), as the noise of a layer is numbered."""
    rows, groups, per_group, queries, keys = case.shape
    return rows, groups * per_group, queries, keys
