"""Templates of ir/loops.py on this CPU: values, bits, work splits, and memory outside the buffers.

Each is compared with the NumPy reference and with an emulation of its canonical order to the bit,
for every width of vector that this CPU can run (tests/template_harness.py).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from template_harness import (
    INTEGERS,
    NUMERIC,
    VARIANTS,
    Array,
    apply,
    assert_same_bits,
    compiled,
    elementwise,
    garbage,
    joined,
    run,
    same_on_all,
    sample,
)

from einkorn.codegen.llvm import objects
from einkorn.codegen.llvm.mathlib import MATH
from einkorn.codegen.llvm.templates import TEMPLATES
from einkorn.codegen.llvm.vectors import HALVES, accumulator, register, round_to, storage
from einkorn.ir import dtypes as dt
from einkorn.ir import numpy_rules as ref
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import (
    COLUMN_CHUNK,
    RANDOM_CHUNK,
    Access,
    ArgReduce,
    Epilogue,
    Gather,
    Pack,
    RandomBits,
    RowSoftmax,
    Scan,
    Scatter,
    SkinnyDot,
    TiledDot,
)
from einkorn.ir.ops import Op
from einkorn.ir.program import STATUS_INDEX

# -- vectors.py ------------------------------------------------------------------------------------


def nearest_bfloat16(x: Array) -> Array:
    """Doubles in bfloat16's normal range rounded to its 8 bits, nearest even."""
    bits = x.view(np.uint64)
    odd = (bits >> np.uint64(45)) & np.uint64(1)
    bumped = bits + np.uint64((1 << 44) - 1) + odd
    rounded = (bumped >> np.uint64(45) << np.uint64(45)).view(np.float64)
    with np.errstate(over="ignore"):
        return rounded.astype(np.float32).astype(dt.bfloat16.numpy)


@pytest.mark.parametrize("half", HALVES, ids=repr)
@pytest.mark.parametrize("source", [dt.float32, dt.float64], ids=repr)
def test_half_types_are_rounded_once(half: DType, source: DType) -> None:
    rng = np.random.default_rng(1)
    low = np.array([0, 1, -1, 2, 1 << 20, -(1 << 20)]) * 2.0**-52
    grid = (1 + rng.integers(0, 4096, 4000) / 4096)[:, None] * (1 + low)
    x = grid.ravel() * np.exp2(rng.integers(-26, 18, grid.size)) * rng.choice([-1, 1], grid.size)
    edges = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 65519.99, 65520, 3.3961e38, -1e-40])
    x = np.concatenate([x, edges if half is dt.float16 else edges[:5]]).astype(source.numpy)
    call = elementwise(lambda w, value: round_to(w, half, value), source, half)
    with np.errstate(over="ignore"):
        expected = x.astype(half.numpy)
        if half is dt.bfloat16 and source is dt.float64:
            finite = np.isfinite(x) & (x != 0)
            expected[finite] = nearest_bfloat16(x[finite])
    assert_same_bits(apply(call, x, half), expected)


# -- random ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 4, 63, 64, 65, 1000])
def test_random_bits(n: int) -> None:
    key, draw = np.uint64(0x0123456789ABCDEF), np.uint64(0xFEDCBA9876543210)
    out, _ = same_on_all(
        RandomBits(), [np.array([key]), np.array([draw])], garbage(dt.uint32, n), [n],
        -(-n // RANDOM_CHUNK),
    )  # fmt: skip
    assert_same_bits(out, ref.random_bits(key, draw, (n,)))


def test_random_bits_known_answer() -> None:
    zero = np.zeros(1, np.uint64)
    out, _ = run(RandomBits(), VARIANTS[0], [zero, zero], garbage(dt.uint32, 4), [4], 1)
    assert [f"{word:08x}" for word in out] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_random_bits_beyond_32_bit_blocks() -> None:
    key, draw = np.array([7], np.uint64), np.array([9], np.uint64)
    out = garbage(dt.uint32, 64)
    chunk = 2**28 + 5  # 16 blocks each
    base = out.ctypes.data - chunk * 256
    addresses = np.array([key.ctypes.data, draw.ctypes.data, base], np.uint64)
    params = np.array([(chunk + 1) * 64], np.int64)
    call = compiled(RandomBits(), VARIANTS[0])
    call(addresses.ctypes.data, params.ctypes.data, chunk, chunk + 1, 0)
    expected = _philox_block(16 * chunk, 9, 7)
    assert out[:4].tolist() == expected


def _philox_block(block: int, draw: int, key: int) -> list[int]:
    mask = 0xFFFFFFFF
    c = [block & mask, block >> 32, draw & mask, draw >> 32]
    k = [key & mask, key >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & mask, (p >> 32) ^ c[3] ^ k[1], p & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


# -- softmax ---------------------------------------------------------------------------------------

ROWS = [(1, 1, 0), (3, 10, 3), (5, 16, 0), (2, 100, 1), (2, 4096, 0), (2, 9001, 0)]
SOFTMAX = [Op.SOFTMAX, Op.LOG_SOFTMAX, Op.LOGSUMEXP]
REFERENCE = {
    Op.SOFTMAX: ref.softmax,
    Op.LOG_SOFTMAX: ref.log_softmax,
    Op.LOGSUMEXP: ref.logsumexp,
}
TOLERANCE = {dt.float16: 1e-3, dt.bfloat16: 8e-3, dt.float32: 2e-6, dt.float64: 1e-14}


def run_softmax(op: Op, dtype: DType, x: Array, pad: int = 0) -> Array:
    rows, n = x.shape
    width = 1 if op is Op.LOGSUMEXP else n
    held = np.zeros((rows, n + pad), x.dtype)
    held[:, :n] = x
    params = [rows, n, n + pad, width]
    out, _ = same_on_all(RowSoftmax(op, dtype), [held], garbage(dtype, (rows, width)), params, rows)
    return out if op is not Op.LOGSUMEXP else out[:, 0]


@cache
def math_call(name: str, dtype: DType) -> Any:
    return elementwise(lambda w, value: MATH[name](w, value), dtype, dtype)


def softmax_by_the_book(op: Op, dtype: DType, x: Array) -> Array:
    """The canonical order of ir/ops.py for finite rows, with einkorn's own exp and log."""
    wide = accumulator(dtype)
    x = x.astype(wide.numpy)
    top = np.max(x, axis=1, keepdims=True)
    term = apply(math_call("exp", wide), x - top, wide)
    total = np.full(len(x), -0.0, wide.numpy)
    for start in range(0, x.shape[1], 4096):
        partials = np.full((16, len(x)), -0.0, wide.numpy)
        for i, column in enumerate(term[:, start : start + 4096].T):
            partials[i % 16] += column
        total = total + joined(partials)
    if op is Op.SOFTMAX:
        return (term / total[:, None]).astype(dtype.numpy)
    log = apply(math_call("log", wide), total, wide)
    if op is Op.LOGSUMEXP:
        return (log + top[:, 0]).astype(dtype.numpy)
    return ((x - top) - log[:, None]).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", dt.FLOATS, ids=repr)
@pytest.mark.parametrize("op", SOFTMAX, ids=lambda op: op.name)
def test_softmax(op: Op, dtype: DType) -> None:
    for rows, n, pad in ROWS:
        x = (sample(dtype, (rows, n)) * 3 - 20).astype(dtype.numpy)
        out = run_softmax(op, dtype, x, pad)
        assert_same_bits(out, softmax_by_the_book(op, dtype, x))
        tolerance = TOLERANCE[dtype]
        expected = REFERENCE[op](x).astype(np.float64)
        np.testing.assert_allclose(
            out.astype(np.float64), expected, rtol=20 * tolerance, atol=tolerance / n
        )


@pytest.mark.parametrize("dtype", dt.FLOATS, ids=repr)
def test_softmax_of_special_rows(dtype: DType) -> None:
    low, top, nan = -np.inf, np.inf, np.nan
    rows = [[low] * 3, [top, 0, 1], [nan, 0, 1], [low, 0, 0], [top, top, low], [60000, -60000, 0]]
    x = np.array([row * 7 for row in rows], dtype.numpy)
    out = run_softmax(Op.LOGSUMEXP, dtype, x).astype(np.float64)
    assert out[0] == -np.inf
    assert out[1] == out[4] == np.inf
    assert np.isnan(out[2])
    np.testing.assert_allclose(out[3], np.log(14), rtol=1e-2)
    softmax = run_softmax(Op.SOFTMAX, dtype, x).astype(np.float64)
    logs = run_softmax(Op.LOG_SOFTMAX, dtype, x).astype(np.float64)
    assert np.isnan(softmax[[0, 1, 2, 4]]).all()
    assert np.isnan(logs[[0, 1, 2, 4]]).all()
    np.testing.assert_allclose(softmax[3, :3], [0, 1 / 14, 1 / 14], rtol=1e-2)
    np.testing.assert_allclose(softmax[5, :3], [1 / 7, 0, 0], rtol=1e-2)


# -- scan ------------------------------------------------------------------------------------------

LINES = [(1, 1, 1), (2, 7, 1), (3, 5, 3), (2, 9, 16), (2, 6, 37), (1, 300, 2)]


@pytest.mark.parametrize("dtype", NUMERIC, ids=repr)
def test_scan(dtype: DType) -> None:
    for shape in LINES:
        x = sample(dtype, shape)
        if dtype.is_float:
            x[:, :2, 0] = -0.0  # a sum of -0 is -0
        outer, _, inner = shape
        out, _ = same_on_all(Scan(dtype), [x], garbage(dtype, shape), [*shape], outer * inner)
        wide = x.astype(accumulator(dtype).numpy)
        expected = np.empty_like(wide)
        expected[:, 0] = total = wide[:, 0]
        with np.errstate(over="ignore"):
            for i in range(1, shape[1]):
                expected[:, i] = total = total + wide[:, i]
        assert_same_bits(out, expected.astype(dtype.numpy))


@pytest.mark.parametrize("dtype", dt.ALL, ids=repr)
@pytest.mark.parametrize("op", [Op.ARGMAX, Op.ARGMIN], ids=lambda op: op.name)
def test_arg_reduce(op: Op, dtype: DType) -> None:
    function = np.argmax if op is Op.ARGMAX else np.argmin
    for shape in LINES:
        outer, _, inner = shape
        for special in (False, True):
            x = sample(dtype, shape, special=special)
            out, _ = same_on_all(
                ArgReduce(op, dtype), [x], garbage(dt.int64, (outer, inner)), [*shape],
                outer * inner,
            )  # fmt: skip
            # ml_dtypes orders NaN its own way; float32 holds every bfloat16.
            wide = x.astype(np.float32) if dtype in HALVES else x
            assert_same_bits(out, function(wide, 1))


# -- indexing --------------------------------------------------------------------------------------


def sample_indices(dtype: DType, size: int, count: int, outside: bool) -> Array:
    rng = np.random.default_rng([size, count])
    low = -size if dtype.kind == "i" else 0
    indices = rng.integers(low, size, count).astype(dtype.numpy)
    if outside:
        info = np.iinfo(dtype.numpy)
        edges = [info.min, info.max, size, -size - 1 if dtype.kind == "i" else info.max - 1]
        for i, edge in enumerate(edges):
            indices[i % count] = edge
    return indices


GATHERS = [(1, 5, 9, 1), (2, 7, 11, 3), (3, 1, 4, 16), (2, 6, 8, 37)]


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("index", INTEGERS, ids=repr)
@pytest.mark.parametrize("dtype", [dt.bool_, dt.bfloat16, dt.float32, dt.int64], ids=repr)
def test_gather(dtype: DType, index: DType, outside: bool) -> None:
    for outer, size, count, inner in GATHERS:
        x = sample(dtype, (outer, size, inner))
        indices = sample_indices(index, size, count, outside)
        out, status = same_on_all(
            Gather(dtype.itemsize, index), [x, indices], garbage(dtype, (outer, count, inner)),
            [outer, size, count, inner], outer * count,
        )  # fmt: skip
        assert np.array_equal(out, ref.gather(x, indices, 1))
        assert status == (STATUS_INDEX if outside else 0)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("index", [dt.int64, dt.uint64, dt.int8, dt.uint32], ids=repr)
@pytest.mark.parametrize("dtype", dt.ALL, ids=repr)
@pytest.mark.parametrize("op", [Op.SCATTER_SET, Op.SCATTER_ADD], ids=lambda op: op.name)
def test_scatter(op: Op, dtype: DType, index: DType, outside: bool) -> None:
    if op is Op.SCATTER_ADD and (dtype in HALVES or dtype is dt.bool_):
        pytest.skip("not a kernel that passes ask for")
    for outer, size, count, inner in [(1, 3, 9, 1), (2, 4, 30, 70), (1, 2, 6, 131)]:
        x = sample(dtype, (outer, size, inner))
        updates = sample(dtype, (outer, count, inner), seed=1)
        indices = sample_indices(index, size, count, outside)
        out, status = same_on_all(
            Scatter(op, dtype, index), [indices, updates], x, [outer, size, count, inner],
            outer * -(-inner // COLUMN_CHUNK),
        )  # fmt: skip
        expected = x.copy()
        for position, i in enumerate(ref._wrap(indices, size)):  # pyright: ignore[reportPrivateUsage]
            given = updates[:, position]
            expected[:, i] = given if op is Op.SCATTER_SET else expected[:, i] + given
        assert_same_bits(out, expected)
        assert status == (STATUS_INDEX if outside else 0)


# -- objects ---------------------------------------------------------------------------------------


def some_kernels() -> list[Any]:
    every: list[Any] = [RandomBits()]
    for dtype in NUMERIC:
        every += [Scan(dtype), ArgReduce(Op.ARGMAX, dtype), Pack(dtype, 8)]
        epilogue = Epilogue((), (), ((Access(dtype, "unit"), 0),))
        every += [SkinnyDot(dtype, dtype, 2, 8, name, True, epilogue) for name in ("k", "many")]
        every += [TiledDot(accumulator(dtype), dtype, 4, 16, False, True, epilogue)]
        every += [Scatter(Op.SCATTER_SET, dtype, dt.int32)]
    every += [RowSoftmax(op, dtype) for op in SOFTMAX for dtype in dt.FLOATS]
    every += [Gather(size, dt.int64) for size in (1, 2, 4, 8)]
    return every


TRIPLES = {"neon": "aarch64-unknown-linux-gnu"}


@pytest.mark.parametrize("level", objects.LEVELS)
def test_every_level_compiles_without_library_calls(level: str) -> None:
    """`compile_object` refuses undefined symbols, for other CPUs than this one too."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    features = objects.features_of(level, TRIPLES.get(level, "x86_64-unknown-linux-gnu"))
    for kernel in some_kernels():
        objects.compile_object(TEMPLATES[type(kernel)](kernel, features.lanes), features)


def test_registers_of_every_dtype() -> None:
    assert {register(d) for d in HALVES} == {"float"}
    assert register(dt.bool_) == "i1"
    assert storage(dt.bool_) == "i8"
