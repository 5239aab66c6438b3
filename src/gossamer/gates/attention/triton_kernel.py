"""Gated attention as Triton kernels: one forward, two backward, nothing of size T x S.

Letters: B batch row, H query head, G key-value head, R = H / G, T query, S key, D and E widths;
BM queries by BN keys are one tile, BD and BE the widths rounded up to a power of two.

What. The function of `eager.py` for float32, bfloat16 and float16, with gradients for both
results.
How. The forward goes through the keys of BM queries once and keeps a running maximum m and sum l:

    lse   = m + log l                 saved, (B, H, T); sinks are inside
    out   = sum_s exp(s - lse) z f v
    count = sum_s sigma(g)            saved per BM queries and added up afterwards: deterministic

Where gates read s - a lse (SHARE = a), lse is needed before the first gate: one more pass over the keys
finds it. The backward then needs one number per query more, a sum_s dg, which delta takes in: the kernel of
the queries goes through its keys once for it, and leaves the new delta to the other kernel.

The backward computes s, z and the noise again, tile by tile, with the formulas of `blockwise.py`:
one kernel holds BM queries and writes dq; one holds BN keys, goes through all R heads that share
them, and writes dk and dv. Nothing is added atomically. Tiles that the causal mask or the window
hides wholly are not visited.
Why not the obvious way. Saving the gates would be T x S bits; a counter-based draw costs 14
multiplications for 4 edges and no memory. One backward kernel would have to add dq atomically, in
an order that changes.
Price. s is computed three times over both passes, and 0 / 1 gates save no time in training; in
inference a tile whose gates are all closed skips its values. Block sizes are assumed, not tuned.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..noise import ROUNDS

_ROUNDS = tl.constexpr(ROUNDS)
# A new step must not compile a new kernel.
_VARIES = ["seed", "step", "word", "drop_seed", "drop_step", "drop_word"]
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _uniform(seed, step, word, head, rows, first, BM: tl.constexpr, BN: tl.constexpr):
    """`noise.edge_uniform` for one tile: (BM, BN) float32; `first` is a multiple of 4."""
    zero = tl.zeros((BM, BN // 4), tl.uint32)
    c0 = zero + (first // 4 + tl.arange(0, BN // 4)).to(tl.uint32)[None, :]
    c1 = zero + rows.to(tl.uint32)[:, None]
    c2 = zero + head.to(tl.uint32)
    c3 = zero + word.to(tl.uint32)
    k0 = zero + seed.to(tl.uint32)
    k1 = zero + step.to(tl.uint32)
    m0 = tl.full((BM, BN // 4), 0xD2511F53, tl.uint32)
    m1 = tl.full((BM, BN // 4), 0xCD9E8D57, tl.uint32)
    w0 = tl.full((BM, BN // 4), 0x9E3779B9, tl.uint32)
    w1 = tl.full((BM, BN // 4), 0xBB67AE85, tl.uint32)
    for _ in tl.static_range(_ROUNDS):  # type: ignore[misc]  # iterable to the compiler
        high0, low0 = tl.umulhi(c0, m0), c0 * m0
        high1, low1 = tl.umulhi(c2, m1), c2 * m1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += w0
        k1 += w1
    # Key 4 i + 2 a + b takes word (1, 0, 3, 2)[2 a + b]: the outer join runs over b.
    words = tl.reshape(tl.join(tl.join(c1, c3), tl.join(c0, c2)), (BM, BN))
    return ((words >> 9).to(tl.int32).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2**-23


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * _LOG2_E))


@triton.jit
def _load(base, rows, stride, count, D: tl.constexpr, BD: tl.constexpr):
    """Rows of a matrix with contiguous columns: (rows, BD), zeros outside (count, D)."""
    columns = tl.arange(0, BD)
    where = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(where, mask=(rows < count)[:, None] & (columns < D)[None, :], other=0.0)


@triton.jit
def _store(base, rows, stride, count, x, D: tl.constexpr, BD: tl.constexpr):
    """Write what `_load` reads."""
    columns = tl.arange(0, BD)
    where = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    inside = (rows < count)[:, None] & (columns < D)[None, :]
    tl.store(where, x.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _logits(
    q, k, rows, first, row, head, T, S, scale, Mask, mb, mh, mt, ms, Segments,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """s of one tile, -inf where a pair is hidden, its derivative by the raw logit, and what is visible and inside."""
    cols = first + tl.arange(0, BN)
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    cap_slope = s
    if CAP > 0:
        squashed = 2.0 * _sigmoid(2.0 * s / CAP) - 1.0
        cap_slope = 1.0 - squashed * squashed
        s = squashed * CAP
    inside = (rows < T)[:, None] & (cols < S)[None, :]
    visible = inside
    behind = (rows + S - T)[:, None] - cols[None, :]
    if CAUSAL:
        visible = visible & (behind >= 0)
    if WINDOW > 0:
        visible = visible & (behind < WINDOW) & (behind > -WINDOW)
    if Segments is not None:
        at = rows + S - T
        mine = tl.load(Segments + row * S + at, mask=(at >= 0) & (at < S), other=-1)
        theirs = tl.load(Segments + row * S + cols, mask=cols < S, other=-2)
        visible = visible & (mine[:, None] == theirs[None, :])
    if Mask is not None:
        seen = Mask + row * mb + head * mh + rows.to(tl.int64)[:, None] * mt + cols[None, :] * ms
        visible = visible & (tl.load(seen, mask=inside, other=0) != 0)
    return tl.where(visible, s, float("-inf")), cap_slope, visible, inside


@triton.jit
def _tile(
    q, k, rows, first, row, head, H, T, S, scale, bias, least, taken, seed, step, word,
    rate, drop_seed, drop_step, drop_word,
    Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr,
    NOISE: tl.constexpr, DROP: tl.constexpr, OPEN: tl.constexpr, STRAIGHT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One tile, (BM, BN) each: s, its derivative by the raw logit, z f, t = (z + h) f, and p; h is 0 unless STRAIGHT.

    q is (BM, BD), k is (BN, BD), `taken` (BM,) is a lse; s is -inf and p is 0 where a pair is hidden.
    """
    s, cap_slope, visible, inside = _logits(
        q, k, rows, first, row, head, T, S, scale, Mask, mb, mh, mt, ms, Segments, CAUSAL, WINDOW, CAP, BM, BN,
    )  # fmt: skip
    cols = first + tl.arange(0, BN)
    long_rows = rows.to(tl.int64)[:, None]
    flat = row * H + head
    if OPEN:
        p = tl.where(visible, 1.0, 0.0)
        z = p
        t = p
    else:
        g = s + bias - taken[:, None]
        p = _sigmoid(g)
        x = g
        soft = p
        if NOISE:
            u = _uniform(seed, step, word, flat, rows, first, BM, BN)
            x = g + tl.log(u / (1.0 - u))
            soft = _sigmoid(x)
        z = tl.where(x > 0, 1.0, 0.0)
        t = z
        if STRAIGHT:
            t = z + tl.maximum(soft * (1.0 - soft), least)
    if Keep is not None:
        left = Keep + row * kb + head * kh + long_rows * kt + cols[None, :] * ks
        keep = tl.load(left, mask=inside, other=0).to(tl.float32)
        z = z * keep
        t = t * keep
    if DROP:
        u = _uniform(drop_seed, drop_step, drop_word, flat, rows, first, BM, BN)
        rest = tl.where(u >= rate, 1.0 / (1.0 - rate), 0.0)
        z = z * rest
        t = t * rest
    return s, cap_slope, z, t, p


@triton.jit
def _key_range(start, T, S, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BM, BN):
    """The keys, from a multiple of BN on, that queries start .. start + BM - 1 can see at most."""
    near = start + S - T
    far = tl.minimum(start + BM, T) - 1 + S - T
    low = 0
    high = S
    if WINDOW > 0:
        low = tl.maximum(0, near - WINDOW + 1) // BN * BN
        high = tl.minimum(S, far + WINDOW)
    if CAUSAL:
        high = tl.minimum(high, far + 1)
    return low, high


@triton.jit
def _query_range(start, T, S, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BM, BN):
    """The queries, from a multiple of BM on, that can see keys start .. start + BN - 1 at all."""
    near = start - (S - T)
    far = tl.minimum(start + BN, S) - 1 - (S - T)
    low = 0
    high = T
    if WINDOW > 0:
        low = tl.maximum(0, near - WINDOW + 1) // BM * BM
        high = tl.minimum(T, far + WINDOW)
    if CAUSAL:
        low = tl.maximum(low, tl.maximum(0, near) // BM * BM)
    return low, high


@triton.jit(do_not_specialize=_VARIES)
def forward(
    Q, K, V, Sinks, Out, Lse, Count, qb, qh, qt, kvb, kvh, kvt, vb, vh, vt, ob, oh, ot,
    H, R, T, S, scale, bias, least, seed, step, word, rate, drop_seed, drop_step, drop_word,
    Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr,
    NOISE: tl.constexpr, DROP: tl.constexpr, OPEN: tl.constexpr, SHARE: tl.constexpr,
    STRAIGHT: tl.constexpr, SKIP: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """BM queries of one head: out, lse and their expected open edges."""
    start = tl.program_id(0) * BM
    flat = tl.program_id(1).to(tl.int64)
    row, head = flat // H, flat % H
    rows = start + tl.arange(0, BM)
    q = _load(Q + row * qb + head * qh, rows, qt, T, D, BD)
    top = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    if Sinks is not None:
        # A sink is a key seen before all others, with a value of zero.
        top = tl.zeros((BM,), tl.float32) + tl.load(Sinks + head).to(tl.float32)
        total += 1.0
    opened = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, BE), tl.float32)
    taken = tl.zeros((BM,), tl.float32)
    low, high = _key_range(start, T, S, CAUSAL, WINDOW, BM, BN)
    if SHARE > 0:
        most, mass = top, total
        for first in range(low, high, BN):
            k = _load(K + row * kvb + head // R * kvh, first + tl.arange(0, BN), kvt, S, D, BD)
            s, _, _, _ = _logits(
                q, k, rows, first, row, head, T, S, scale, Mask, mb, mh, mt, ms, Segments,
                CAUSAL, WINDOW, CAP, BM, BN,
            )  # fmt: skip
            higher = tl.maximum(most, tl.max(s, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)
            mass = mass * tl.exp2((most - base) * _LOG2_E) + tl.sum(tl.exp2((s - base[:, None]) * _LOG2_E), 1)
            most = higher
        taken = tl.where(mass == 0, 0.0, SHARE * (most + tl.log(tl.where(mass == 0, 1.0, mass))))
    for first in range(low, high, BN):
        cols = first + tl.arange(0, BN)
        k = _load(K + row * kvb + head // R * kvh, cols, kvt, S, D, BD)
        s, _, z, _, p = _tile(
            q, k, rows, first, row, head, H, T, S, scale, bias, least, taken, seed, step, word,
            rate, drop_seed, drop_step, drop_word,
            Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
            CAUSAL, WINDOW, CAP, NOISE, DROP, OPEN, STRAIGHT, BM, BN,
        )  # fmt: skip
        opened += tl.sum(p, 1)
        higher = tl.maximum(top, tl.max(s, 1))
        # A row that has seen nothing yet has top = -inf; subtract 0 from it instead.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp2((top - base) * _LOG2_E)
        e = tl.exp2((s - base[:, None]) * _LOG2_E)
        total = total * shrink + tl.sum(e, 1)
        acc = acc * shrink[:, None]
        e = e * z
        top = higher
        closed = False
        if SKIP:
            closed = tl.max(tl.max(e, 1), 0) == 0
        if not closed:
            v = _load(V + row * vb + head // R * vh, cols, vt, S, E, BE)
            acc += tl.dot(e.to(v.dtype), v, input_precision="ieee")
    blind = total == 0
    lse = tl.where(blind, 0.0, top + tl.log(tl.where(blind, 1.0, total)))
    acc = acc / tl.where(blind, 1.0, total)[:, None]
    _store(Out + row * ob + head * oh, rows, ot, T, acc, E, BE)
    tl.store(Lse + flat * T + rows, lse, mask=rows < T)
    tl.store(Count + flat * tl.num_programs(0) + tl.program_id(0), tl.sum(opened, 0))


@triton.jit(do_not_specialize=_VARIES)
def backward_queries(
    Q, K, V, DOut, Lse, Delta, DCount, DQ, qb, qh, qt, kvb, kvh, kvt, vb, vh, vt, ob, oh, ot,
    H, R, T, S, scale, bias, least, seed, step, word, rate, drop_seed, drop_step, drop_word,
    Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr,
    NOISE: tl.constexpr, DROP: tl.constexpr, OPEN: tl.constexpr, SHARE: tl.constexpr, STRAIGHT: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """dq of BM queries of one head; where gates read the log-sum-exp, `Delta` too, for `backward_keys`."""
    start = tl.program_id(0) * BM
    flat = tl.program_id(1).to(tl.int64)
    row, head = flat // H, flat % H
    rows = start + tl.arange(0, BM)
    q = _load(Q + row * qb + head * qh, rows, qt, T, D, BD)
    d_out = _load(DOut + row * ob + head * oh, rows, ot, T, E, BE)
    lse = tl.load(Lse + flat * T + rows, mask=rows < T, other=0.0)
    delta = tl.load(Delta + flat * T + rows, mask=rows < T, other=0.0)
    d_count = tl.load(DCount + flat)
    dq = tl.zeros((BM, BD), tl.float32)
    taken = lse * SHARE
    low, high = _key_range(start, T, S, CAUSAL, WINDOW, BM, BN)
    if SHARE > 0 and not OPEN:
        through = tl.zeros((BM,), tl.float32)
        for first in range(low, high, BN):
            cols = first + tl.arange(0, BN)
            k = _load(K + row * kvb + head // R * kvh, cols, kvt, S, D, BD)
            v = _load(V + row * vb + head // R * vh, cols, vt, S, E, BE)
            s, _, z, t, p = _tile(
                q, k, rows, first, row, head, H, T, S, scale, bias, least, taken, seed, step, word,
                rate, drop_seed, drop_step, drop_word,
                Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
                CAUSAL, WINDOW, CAP, NOISE, DROP, OPEN, STRAIGHT, BM, BN,
            )  # fmt: skip
            w = tl.exp2((s - lse[:, None]) * _LOG2_E)
            d_weight = tl.dot(d_out, tl.trans(v), input_precision="ieee")
            through += tl.sum(w * d_weight * (t - z) + d_count * p * (1.0 - p), 1)
        delta += SHARE * through
        tl.store(Delta + flat * T + rows, delta, mask=rows < T)
    for first in range(low, high, BN):
        cols = first + tl.arange(0, BN)
        k = _load(K + row * kvb + head // R * kvh, cols, kvt, S, D, BD)
        v = _load(V + row * vb + head // R * vh, cols, vt, S, E, BE)
        s, cap_slope, _, t, p = _tile(
            q, k, rows, first, row, head, H, T, S, scale, bias, least, taken, seed, step, word,
            rate, drop_seed, drop_step, drop_word,
            Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
            CAUSAL, WINDOW, CAP, NOISE, DROP, OPEN, STRAIGHT, BM, BN,
        )  # fmt: skip
        w = tl.exp2((s - lse[:, None]) * _LOG2_E)
        d_weight = tl.dot(d_out, tl.trans(v), input_precision="ieee")
        ds = w * (d_weight * t - delta[:, None]) + d_count * p * (1.0 - p)
        if CAP > 0:
            ds = ds * cap_slope
        dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    _store(DQ + flat * T * D, rows, D, T, dq * scale, D, BD)


@triton.jit(do_not_specialize=_VARIES)
def backward_keys(
    Q, K, V, DOut, Lse, Delta, DCount, DK, DV, qb, qh, qt, kvb, kvh, kvt, vb, vh, vt, ob, oh, ot,
    H, R, T, S, scale, bias, least, seed, step, word, rate, drop_seed, drop_step, drop_word,
    Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, CAP: tl.constexpr,
    NOISE: tl.constexpr, DROP: tl.constexpr, OPEN: tl.constexpr, SHARE: tl.constexpr, STRAIGHT: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """dk and dv of BN keys of one key-value head, summed over the R query heads that share it."""
    first = tl.program_id(0) * BN
    shared = tl.program_id(1).to(tl.int64)
    groups = H // R
    row, group = shared // groups, shared % groups
    cols = first + tl.arange(0, BN)
    k = _load(K + row * kvb + group * kvh, cols, kvt, S, D, BD)
    v = _load(V + row * vb + group * vh, cols, vt, S, E, BE)
    dk = tl.zeros((BN, BD), tl.float32)
    dv = tl.zeros((BN, BE), tl.float32)
    low, high = _query_range(first, T, S, CAUSAL, WINDOW, BM, BN)
    for head in range(group * R, group * R + R):
        flat = row * H + head
        d_count = tl.load(DCount + flat)
        for start in range(low, high, BM):
            rows = start + tl.arange(0, BM)
            q = _load(Q + row * qb + head * qh, rows, qt, T, D, BD)
            d_out = _load(DOut + row * ob + head * oh, rows, ot, T, E, BE)
            lse = tl.load(Lse + flat * T + rows, mask=rows < T, other=0.0)
            delta = tl.load(Delta + flat * T + rows, mask=rows < T, other=0.0)
            taken = lse * SHARE
            s, cap_slope, z, t, p = _tile(
                q, k, rows, first, row, head, H, T, S, scale, bias, least, taken, seed, step, word,
                rate, drop_seed, drop_step, drop_word,
                Mask, mb, mh, mt, ms, Keep, kb, kh, kt, ks, Segments,
                CAUSAL, WINDOW, CAP, NOISE, DROP, OPEN, STRAIGHT, BM, BN,
            )  # fmt: skip
            w = tl.exp2((s - lse[:, None]) * _LOG2_E)
            dv += tl.dot(tl.trans((w * z).to(d_out.dtype)), d_out, input_precision="ieee")
            d_weight = tl.dot(d_out, tl.trans(v), input_precision="ieee")
            ds = w * (d_weight * t - delta[:, None]) + d_count * p * (1.0 - p)
            if CAP > 0:
                ds = ds * cap_slope
            dk += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision="ieee")
    _store(DK + shared * S * D, cols, D, S, dk * scale, D, BD)
    _store(DV + shared * S * E, cols, E, S, dv, E, BE)
