"""argsort of rows: integers with the order of the elements, then merges from one array to another.

A merge takes one element at each step of a counted loop and has no branches: which run gives the
next element is only a selection.
"""

from __future__ import annotations

from dataclasses import dataclass

from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import (
    element,
    load,
    param,
    pointer,
    register,
    signature,
    smaller,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import ArgSort, sort_key_bits


@dataclass(frozen=True, slots=True)
class _Row:
    """Keys and places of one row, on one side of a pass."""

    keys: Value
    places: Value


def arg_sort(kernel: ArgSort, lanes: int) -> str:
    """LLVM text of ArgSort.

    for row in range(begin, end):
        keys, places = key(x[row, :]), range(n)     # so that the last pass ends in `out`
        for each pass, width = 1, 2, 4, ...:
            merge neighbouring runs of `width` elements into the other keys and places
    """
    w = Writer()
    dtype = kernel.dtype
    key = f"i{sort_key_bits(dtype)}"
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        x, out, others, keys, other_keys = (pointer(w, pointers, k) for k in range(5))
        n, passes = param(w, params, 1), param(w, params, 2)
        odd = w.icmp("ne", w.and_(passes, w.i64(1)), w.i64(0))
        with w.loop(begin, end) as loop:
            first = w.mul(loop.index, n)
            last = _Row(w.gep(key, keys, first), w.gep("i64", out, first))
            other = _Row(w.gep(key, other_keys, first), w.gep("i64", others, first))
            source = _Row(
                w.select(odd, other.keys, last.keys), w.select(odd, other.places, last.places)
            )
            target = _Row(
                w.select(odd, last.keys, other.keys), w.select(odd, last.places, other.places)
            )
            _fill(w, dtype, key, element(w, dtype, x, first), source, n)
            state = [source.keys, source.places, target.keys, target.places, w.i64(1)]
            with w.loop(w.i64(0), passes, 1, state) as each:
                *sides, width = each.carried
                _pass(w, key, _Row(*sides[:2]), _Row(*sides[2:]), width, n)
                each.next = [*sides[2:], *sides[:2], w.add(width, width)]
    return w.module()


def _fill(w: Writer, dtype: DType, key: str, x: Value, row: _Row, n: Value) -> None:
    """keys[i], places[i] = key(x[i]), i"""
    with w.loop(w.i64(0), n) as loop:
        value = load(w, dtype, element(w, dtype, x, loop.index))
        w.store(_key(w, dtype, key, value), w.gep(key, row.keys, loop.index))
        w.store(loop.index, w.gep("i64", row.places, loop.index))


def _key(w: Writer, dtype: DType, key: str, value: Value) -> Value:
    """An unsigned integer with the order of the element: NaN is the largest, -0.0 equals 0.0."""
    bits = sort_key_bits(dtype)
    top = w.const(key, -(1 << (bits - 1)))
    if not dtype.is_float:
        signed = dtype.kind == "i"
        wide = value if value.type == key else w.cast("sext" if signed else "zext", value, key)
        return w.xor(wide, top) if signed else wide
    positive_zero = w.add(value, w.const(register(dtype), 0.0))
    raw = w.bitcast(positive_zero, key)
    # Of a negative number all bits turn round, of another one the sign.
    ordered = w.xor(raw, w.or_(w.ashr(raw, w.const(key, bits - 1)), top))
    return w.select(w.fcmp("uno", value, value), w.const(key, -1), ordered)


def _pass(w: Writer, key: str, source: _Row, target: _Row, width: Value, n: Value) -> None:
    """Merge each pair of sorted runs of `width` elements; the last ones may be shorter.

    for pair in range(ceil(n / (2 * width))):
        start = 2 * pair * width;  middle, end = min(start + width, n), min(start + 2 * width, n)
        left, right = start, middle
        for k in range(start, end):
            choose right if left == middle or (right < end and keys[right] < keys[left])
            target[k] = the chosen one, which moves on
    """
    double = w.add(width, width)
    pairs = w.binary("udiv", w.add(n, w.sub(double, w.i64(1))), double)
    with w.loop(w.i64(0), pairs) as pair:
        start = w.mul(pair.index, double)
        middle, end = smaller(w, w.add(start, width), n), smaller(w, w.add(start, double), n)
        last_left, last_right = w.sub(middle, w.i64(1)), w.sub(end, w.i64(1))
        with w.loop(start, end, 1, [start, middle]) as loop:
            left, right = loop.carried
            at_left, at_right = smaller(w, left, last_left), smaller(w, right, last_right)
            key_left, key_right = (
                w.load(key, w.gep(key, source.keys, at)) for at in (at_left, at_right)
            )
            less = w.and_(w.icmp("slt", right, end), w.icmp("ult", key_right, key_left))
            takes_right = w.or_(less, w.icmp("eq", left, middle))
            chosen = w.select(takes_right, at_right, at_left)
            place = w.load("i64", w.gep("i64", source.places, chosen))
            w.store(w.select(takes_right, key_right, key_left), w.gep(key, target.keys, loop.index))
            w.store(place, w.gep("i64", target.places, loop.index))
            step = w.cast("zext", takes_right, "i64")
            loop.next = [w.add(left, w.sub(w.i64(1), step)), w.add(right, step)]
