"""Philox4x32-10, sixteen blocks at a time."""

from __future__ import annotations

from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import larger, param, pointer, signature
from einkorn.ir.loops import RANDOM_CHUNK, RandomBits

_BLOCKS = RANDOM_CHUNK // 4
_WORDS = f"<{_BLOCKS} x i32>"
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def random_bits(kernel: RandomBits, lanes: int) -> str:
    """LLVM text of RandomBits.

    for chunk in range(begin, end):
        words = philox(blocks 16 * chunk + 0..15)        # four vectors of 16 words
        out[64 * chunk : min(64 * chunk + 64, n)] = words interleaved
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        key = w.load("i64", pointer(w, pointers, 0))
        draw = w.load("i64", pointer(w, pointers, 1))
        out, n = pointer(w, pointers, 2), param(w, params, 0)
        keys = [_schedule(w, half, step) for half, step in zip(_halves(w, key), _WEYL)]
        counters = [w.splat(half, _BLOCKS) for half in _halves(w, draw)]
        with w.loop(begin, end) as chunk:
            first = w.mul(chunk.index, w.i64(RANDOM_CHUNK))
            block = _block_numbers(w, chunk.index)
            words = _philox(w, [*_halves(w, block), *counters], keys)
            _store_words(w, words, w.gep("i32", out, first), w.sub(n, first))
    return w.module()


def _halves(w: Writer, value: Value) -> list[Value]:
    """The lower and upper 32 bits of i64 lanes."""
    upper = w.lshr(value, w.const(value.type, 32))
    return [w.cast("trunc", value, "i32"), w.cast("trunc", upper, "i32")]


def _schedule(w: Writer, key: Value, step: int) -> list[Value]:
    """The round keys of one half: key, key + step, key + 2 * step, ..."""
    bumps = [w.add(key, w.const("i32", i * step)) for i in range(_ROUNDS)]
    return [w.splat(bump, _BLOCKS) for bump in bumps]


def _block_numbers(w: Writer, chunk: Value) -> Value:
    first = w.splat(w.mul(chunk, w.i64(_BLOCKS)), _BLOCKS)
    return w.add(first, w.lanes(first.type, range(_BLOCKS)))


def _philox(w: Writer, c: list[Value], keys: list[list[Value]]) -> list[Value]:
    """c0, c1, c2, c3 = high(p1) ^ c1 ^ k0, low(p1), high(p0) ^ c3 ^ k1, low(p0), ten times."""
    for k0, k1 in zip(*keys):
        low0, high0 = _wide_product(w, c[0], _MULTIPLIERS[0])
        low1, high1 = _wide_product(w, c[2], _MULTIPLIERS[1])
        c = [w.xor(w.xor(high1, c[1]), k0), low1, w.xor(w.xor(high0, c[3]), k1), low0]
    return c


def _wide_product(w: Writer, a: Value, multiplier: int) -> list[Value]:
    wide = w.cast("zext", a, "i64")
    return _halves(w, w.mul(wide, w.const(wide.type, multiplier)))


def _store_words(w: Writer, c: list[Value], out: Value, left: Value) -> None:
    """Store word j of block i at out[4 * i + j], as far as `left` elements."""
    lower = w.shuffle(c[0], c[1], range(2 * _BLOCKS))
    upper = w.shuffle(c[2], c[3], range(2 * _BLOCKS))
    parts = [
        w.shuffle(lower, upper, [_BLOCKS * (e % 4) + e // 4 + 4 * part for e in range(_BLOCKS)])
        for part in range(4)
    ]
    places = [w.gep("i32", out, w.i64(_BLOCKS * part)) for part in range(4)]
    with w.if_else(w.icmp("sge", left, w.i64(RANDOM_CHUNK))) as branches:
        for value, place in zip(parts, places):
            w.store(value, place)
        branches.otherwise()
        for part, (value, place) in enumerate(zip(parts, places)):
            rest = larger(w, w.sub(left, w.i64(_BLOCKS * part)), w.i64(0))
            w.masked_store(value, place, w.tail_mask(rest, _BLOCKS))
