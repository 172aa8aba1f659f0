"""Kernels of contractions on this CPU, to the bit: tiles, panels, chains, epilogues, edges.

Each is compared with an emulation of the canonical order of ir/ops.py, for every width of vector
that this CPU can run, in hostile surroundings and random pieces (tests/template_harness.py).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from dot_oracle import canonical, packed, plain, small, steps
from template_harness import (
    NUMERIC,
    Array,
    apply,
    assert_same_bits,
    elementwise,
    garbage,
    same_on_all,
    sample,
)

from einkorn.codegen.llvm.mathlib import MATH
from einkorn.codegen.llvm.vectors import accumulator
from einkorn.ir import dtypes as dt
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import Access, Epilogue, Expr, Pack, SkinnyDot, TiledDot
from einkorn.ir.ops import Op

EVERYWHERE = (1 << 63) - 1


LAYOUTS = {"k adjacent": (0, 1, 2), "rows adjacent": (0, 2, 1), "neither": (2, 1, 0)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", NUMERIC, ids=repr)
def test_pack(dtype: DType, layout: str) -> None:
    order = LAYOUTS[layout]
    for width in (6, 14, 32):
        cases = [(1, 1, 1), (2, width, 16), (2, width + 3, 21), (1, 3 * width - 1, 37)]
        for batch, rows, k in cases:
            shape = [(batch, rows, k)[axis] for axis in order]
            held = sample(dtype, tuple(shape))
            x = held.transpose(np.argsort(order))
            strides = [s // held.itemsize for s in x.strides]
            wide = accumulator(dtype)
            expected = packed(x, width, wide)
            out, _ = same_on_all(
                Pack(dtype, width), [held], garbage(wide, expected.shape),
                [1, batch, rows, 1, k, 0, *strides[:2], 0, strides[2]],
                expected.shape[0] * expected.shape[1],
            )  # fmt: skip
            assert_same_bits(out, expected)


def test_pack_across_blocks_and_broadcast() -> None:
    x = sample(dt.float32, (1, 30, 1030))
    expected = packed(x, 14, dt.float32)
    out, _ = same_on_all(
        Pack(dt.float32, 14),
        [x],
        garbage(dt.float32, expected.shape),
        [1, 1, 30, 1, 1030, 0, 0, 1030, 0, 1],
        3,
    )
    assert_same_bits(out, expected)
    one = sample(dt.float32, (1,))
    out, _ = same_on_all(
        Pack(dt.float32, 14),
        [one],
        garbage(dt.float32, (2, 1, 5, 14)),
        [1, 2, 3, 1, 5, 0, 0, 0, 0, 0],
        2,
    )
    assert_same_bits(out, packed(np.broadcast_to(one, (2, 3, 5)), 14, dt.float32))


def test_pack_of_two_batch_axes() -> None:
    held = sample(dt.float32, (3, 20, 2, 18))
    x = held.transpose(0, 2, 1, 3)
    out, _ = same_on_all(
        Pack(dt.float32, 16), [held], garbage(dt.float32, (6, 2, 18, 16)),
        [3, 2, 20, 1, 18, *steps(x)[:3], 0, 1], 12,
    )  # fmt: skip
    assert_same_bits(out, packed(x.reshape(6, 20, 18), 16, dt.float32))


def in_place(x: Array, width: int) -> list[int]:
    """Tile, row and k strides of an operand in place, and its last first row."""
    row, k = steps(x)[2:]
    return [row, row, k, max(x.shape[2] - width, 0)]


def laid_out(x: Array, order: tuple[int, ...], pad: int) -> Array:
    """The same numbers, stored with the axes in another order and a gap behind each line."""
    moved = x.transpose(order)
    held = np.zeros((*moved.shape[:-1], moved.shape[-1] + pad), x.dtype)
    held[..., : moved.shape[-1]] = moved
    return held[..., : moved.shape[-1]].transpose(np.argsort(order))


def base_of(x: Array) -> Array:
    """The whole array that `x` is a view of."""
    return x if x.base is None else base_of(x.base)


LEFT = {"k adjacent": (0, 1, 2, 3), "rows adjacent": (0, 1, 3, 2), "neither": (2, 3, 0, 1)}
TILES = [(4, 16), (8, 32), (14, 16), (6, 64)]


@pytest.mark.parametrize("layout", LEFT)
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_tiled_dot_in_place(tile: tuple[int, int], layout: str) -> None:
    dtype = dt.float32
    rows, columns = tile
    for m, n, k in ((rows, columns, 4), (rows + 3, columns + 5, 7), (2 * rows, 2 * columns - 1, 1)):
        a = laid_out(small(dtype, (2, 3, m, k), 1), LEFT[layout], 2)
        b = laid_out(small(dtype, (2, 3, n, k), 2), (0, 1, 3, 2), 3)
        before = garbage(dtype, (2, 3, m, n + 3))
        kernel = TiledDot(
            dtype, dtype, rows, columns, layout == "rows adjacent", False, plain(dtype)
        )
        right = in_place(b, columns)
        params = [2, 3, m, n, k, 2, *steps(a)[:2], *in_place(a, rows), *steps(b)[:2], 1, *right[2:]]
        out, _ = same_on_all(
            kernel, [base_of(a), base_of(b)], before, [*params, *steps(before)],
            6 * -(-m // rows) * -(-n // columns),
        )  # fmt: skip
        expected = before.copy()
        expected[..., :n] = canonical(a, b, dtype)
        assert_same_bits(out, expected)


@pytest.mark.parametrize("dtype", [d for d in NUMERIC if accumulator(d) is d], ids=repr)
def test_tiled_dot_with_masked_columns_and_a_shared_operand(dtype: DType) -> None:
    for columns, n in ((16, 5), (16, 15), (32, 17)):
        m, k = 9, 6
        a, b = small(dtype, (2, 1, m, k), 1), small(dtype, (1, 1, k, n), 2)
        before = garbage(dtype, (2, 1, m, n))
        kernel = TiledDot(dtype, dtype, 4, columns, False, True, plain(dtype))
        params = [1, 2, m, n, k, 1, 0, m * k, *in_place(a, 4), 0, 0, 1, n, 0, 0, *steps(before)[:1]]
        out, _ = same_on_all(kernel, [a, b], before, [*params, *steps(before)[2:]], 2 * 3)
        assert_same_bits(out, canonical(a, b.swapaxes(2, 3), dtype))


@pytest.mark.parametrize("out_type", NUMERIC, ids=repr)
def test_tiled_dot_of_panels(out_type: DType) -> None:
    dtype = accumulator(out_type)
    for rows, columns in ((14, 32), (8, 16)):
        cases = [(1, 5, 5, 1), (2, rows, columns, 7), (2, rows + 3, columns + 5, 4)]
        for batch, m, n, k in cases:
            a, b = small(dtype, (batch, m, k), 1), small(dtype, (batch, n, k), 2)
            panels = [packed(a, rows, dtype), packed(b, columns, dtype)]
            kernel = TiledDot(dtype, out_type, rows, columns, True, False, plain(out_type))
            left, right = (prod(x.shape[1:]) for x in panels)
            params = [1, batch, m, n, k, 2, 0, left, k, 1, rows, EVERYWHERE]
            params += [0, right, k, columns, EVERYWHERE, 0, m * n, n, 1]
            out, _ = same_on_all(
                kernel, panels, garbage(out_type, (batch, m, n)), params,
                batch * -(-m // rows) * -(-n // columns),
            )  # fmt: skip
            assert_same_bits(out, canonical(a, b, out_type))


SKINNY = [(1, 1, 1), (5, 16, 1), (37, 9, 2), (33, 37, 3), (100, 70, 4), (16, 129, 1)]


@pytest.mark.parametrize("adjacent", ["many", "k"])
@pytest.mark.parametrize("dtype", NUMERIC, ids=repr)
def test_skinny_dot(dtype: DType, adjacent: str) -> None:
    for k, many, few in SKINNY:
        for columns in (16, 32) if adjacent == "many" else (16,):
            a, b = small(dtype, (2, 2, few, k), 1), small(dtype, (2, 2, many, k), 2)
            order = (0, 1, 3, 2) if adjacent == "many" else (0, 1, 2, 3)
            a, b = laid_out(a, (0, 1, 2, 3), 1), laid_out(b, order, 2)
            before = garbage(dtype, (2, 2, many, few))
            masked = adjacent == "many" and many < columns
            kernel = SkinnyDot(dtype, dtype, few, columns, adjacent, masked, plain(dtype, "any"))
            params = [2, 2, many, k, *steps(a), *steps(b), *steps(before.swapaxes(2, 3))]
            out, _ = same_on_all(
                kernel, [base_of(a), base_of(b)], before, params, 4 * -(-many // columns)
            )
            want = canonical(a, b, dtype, 16)
            assert_same_bits(out, np.ascontiguousarray(want.swapaxes(2, 3)))


def test_skinny_dot_keeps_the_sign_of_underflow_beside_a_tail() -> None:
    """Chains of -0, by underflow, in all lanes: the tail's empty lanes must not make them +0."""
    tiny = np.float32(2.0**-100)
    a, b = np.full((1, 17), -tiny, np.float32), np.full((1, 17), tiny, np.float32)
    for adjacent in ("k", "many"):
        kernel = SkinnyDot(dt.float32, dt.float32, 1, 16, adjacent, True, plain(dt.float32))
        params = [1, 1, 1, 17, 0, 0, 17, 1, 0, 0, 17, 1, 0, 0, 1, 1]
        out, _ = same_on_all(kernel, [a, b], garbage(dt.float32, (1, 1)), params, 1)
        assert np.signbit(out[0, 0])


# -- epilogues -------------------------------------------------------------------------------------


def epilogue_of(dtype: DType, heavy: bool, inner: str) -> Epilogue:
    """s = dot + bias; h = max(s, dot) or tanh(s); results float32(s) and float32(h) * scale."""
    op, args = (Op.TANH, (3,)) if heavy else (Op.MAXIMUM, (3, 0))
    body = (
        Expr(Op.ADD, (0, 1), dtype),
        Expr(op, args, dtype),
        Expr(Op.CAST, (3,), dt.float32),
        Expr(Op.CAST, (4,), dt.float32),
        Expr(Op.MUL, (6, 2), dt.float32),
    )
    stored = Access(dt.float32, inner)
    loads = (Access(dtype, "unit"), Access(dt.float32, "zero"))
    return Epilogue(loads, body, ((stored, 5), (stored, 7)))


def finished(result: Array, bias: Array, scale: Array, heavy: bool, dtype: DType) -> Array:
    """What `epilogue_of` computes, op by op."""
    wide = accumulator(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        total = (result.astype(wide.numpy) + bias.astype(wide.numpy)).astype(dtype.numpy)
    if heavy:
        call = elementwise(lambda w, x: MATH["tanh"](w, x), wide, wide)
        found = apply(call, total.astype(wide.numpy), wide).astype(dtype.numpy)
    else:
        found = np.maximum(total.astype(wide.numpy), result.astype(wide.numpy))
    with np.errstate(over="ignore"):
        first, second = total.astype(np.float32), found.astype(np.float32)
        return np.stack([first, second * scale[..., None]])


KINDS = ["in place", "masked", "panels", "many", "k"]
EPILOGUES = [(d, heavy) for d in dt.FLOATS for heavy in (False, True)]


@pytest.mark.parametrize(("dtype", "heavy"), EPILOGUES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_epilogues(kind: str, dtype: DType, heavy: bool) -> None:
    wide = accumulator(dtype)
    if wide is not dtype and kind in ("in place", "masked"):
        return
    few = kind in ("many", "k")
    rows, columns = (3, 16) if few else (6, 32)
    m, n, k = rows if few else 9, 15 if kind == "masked" else 37, 5
    a, b = sample(dtype, (2, m, k), 1), sample(dtype, (2, n, k), 2)
    bias, scale = sample(dtype, (n,), 3), sample(dt.float32, (2, m), 4)
    inner = "any" if few else "unit"
    epilogue = epilogue_of(dtype, heavy, inner)
    before = garbage(dt.float32, (2, 2, n, m) if few else (2, 2, m, n))
    out = before[0].swapaxes(1, 2) if few else before[0]
    ends = [0, 0, 0, 1, 0, m, 1, 0] + [0, *steps(out)] * 2
    inputs, params = [a, b], [1, 2, m, n, k, 1]
    if few:
        inputs[1] = np.ascontiguousarray(b.swapaxes(1, 2)) if kind == "many" else b
        kernel: Any = SkinnyDot(dtype, dtype, m, columns, kind, False, epilogue)
        params = [1, 2, n, k, 0, m * k, k, 1, 0, n * k, *((1, n) if kind == "many" else (k, 1))]
    elif kind == "panels":
        inputs = [packed(a, rows, wide), packed(b, columns, wide)]
        kernel = TiledDot(wide, dtype, rows, columns, True, False, epilogue)
        left, right = (prod(x.shape[1:]) for x in inputs)
        params += [0, left, k, 1, rows, EVERYWHERE, 0, right, k, columns, EVERYWHERE]
    else:
        inputs[1] = np.ascontiguousarray(b.swapaxes(1, 2))
        kernel = TiledDot(dtype, dtype, rows, columns, False, kind == "masked", epilogue)
        params += [0, m * k, k, k, 1, m - rows, 0, n * k, 1, n, max(n - columns, 0)]
    work = 2 * -(-n // columns) * (1 if few else -(-m // rows))
    got, _ = same_on_all(kernel, [*inputs, bias, scale], before, [*params, *ends], work, 2)
    result = canonical(a, b, dtype, 16 if few else 1)
    want = finished(result, bias, scale, heavy, dtype)
    assert_same_bits(got, np.ascontiguousarray(want.swapaxes(2, 3)) if few else want)
