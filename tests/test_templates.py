"""Templates of ir/loops.py on this CPU: values, bits, work splits, and memory outside the buffers.

Each is compared with the NumPy reference and with an emulation of its canonical order to the bit,
for every width of vector that this CPU can run (tests/template_harness.py).
"""

from __future__ import annotations

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
    run,
    same_on_all,
    sample,
)

from einkorn.codegen.llvm import objects
from einkorn.codegen.llvm.templates import TEMPLATES
from einkorn.codegen.llvm.vectors import HALVES, accumulator, register, round_to, storage
from einkorn.ir import dtypes as dt
from einkorn.ir import numpy_rules as ref
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import (
    BATCH_CHUNK,
    COLUMN_CHUNK,
    RANDOM_CHUNK,
    Access,
    ArgReduce,
    ArgSort,
    Batched,
    Epilogue,
    Expr,
    Gather,
    LoopKernel,
    Pack,
    RandomBits,
    Scan,
    Scatter,
    Sequence,
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


# -- sequences of partial results ------------------------------------------------------------------

COMBINE = {
    Op.SUM: (np.add, -0.0),
    Op.PROD: (np.multiply, 1),
    Op.MAX: (ref.maximum, -np.inf),
    Op.MIN: (ref.minimum, np.inf),
}


# Passes widen sums and products of half types.
SEQUENCES = [
    (op, dtype)
    for op in COMBINE
    for dtype in (dt.ALL if op in (Op.MAX, Op.MIN) else [d for d in NUMERIC if d not in HALVES])
]


@pytest.mark.parametrize(("op", "dtype"), SEQUENCES, ids=lambda x: getattr(x, "name", repr(x)))
def test_sequence(op: Op, dtype: DType) -> None:
    combine, neutral = COMBINE[op]
    for shape in [(1, 1, 1), (1, 9, 1), (2, 3, 16), (3, 5, 37), (1, 4, 64), (2, 2, 131)]:
        outer, count, inner = shape
        x = sample(dtype, shape, special=True)
        out, _ = same_on_all(
            Sequence(op, dtype), [x], garbage(dtype, (outer, inner)), [*shape],
            outer * -(-inner // COLUMN_CHUNK),
        )  # fmt: skip
        with np.errstate(all="ignore"):
            start = [x[:, 0]] if not dtype.is_float else [np.full_like(x[:, 0], neutral), x[:, 0]]
            expected = start[0] if len(start) == 1 else combine(*start)
            for part in range(1, count):
                expected = combine(expected, x[:, part])
        assert_same_bits(out, expected.astype(dtype.numpy))


# -- one map on many tensors -----------------------------------------------------------------------

_UNIT, _SAME = Access(dt.float32, "unit"), Access(dt.float32, "zero")
MAP = LoopKernel(
    1,
    (_UNIT, _SAME, Access(dt.int32, "any")),
    (
        Expr(Op.MUL, (0, 1), dt.float32),
        Expr(Op.CAST, (2,), dt.float32),
        Expr(Op.SUB, (3, 4), dt.float32),
    ),
    ((_UNIT, 5), (_UNIT, 3)),
)


@pytest.mark.parametrize(
    "sizes",
    [[1], [5, 1, 16], [BATCH_CHUNK, 3, BATCH_CHUNK - 1], [2 * BATCH_CHUNK + 1, 17]],
    ids=str,
)
def test_batched(sizes: list[int]) -> None:
    inputs: list[Array] = []
    chunks = [-(-n // BATCH_CHUNK) for n in sizes]
    params = [len(sizes), *(sum(chunks[:k]) for k in range(len(sizes) + 1))]
    out = garbage(dt.float32, (2 * len(sizes), max(sizes)))
    expected = out.copy()
    for k, n in enumerate(sizes):
        x, scale, y = sample(dt.float32, (n,), k), sample(dt.float32, (1,), k), np.arange(3 * n)
        inputs += [x, scale, (y % 7).astype(np.int32)]
        params += [n, 1, 0, 3, 1, 1]
        expected[2 * k, :n] = x * scale - (y[::3] % 7).astype(np.float32)
        expected[2 * k + 1, :n] = x * scale
    found, _ = same_on_all(Batched(MAP), inputs, out, params, sum(chunks), 2 * len(sizes))
    assert_same_bits(found, expected)


# -- scan ------------------------------------------------------------------------------------------

LINES = [(1, 1, 1), (2, 7, 1), (3, 5, 3), (2, 9, 16), (2, 6, 37), (1, 300, 2)]


@pytest.mark.parametrize("dtype", NUMERIC, ids=repr)
@pytest.mark.parametrize("op", COMBINE, ids=lambda op: op.name)
def test_scan(op: Op, dtype: DType) -> None:
    combine = COMBINE[op][0]
    for shape in LINES:
        x = sample(dtype, shape)
        if dtype.is_float:
            x[:, :2, 0] = -0.0  # a sum of -0 is -0
        outer, _, inner = shape
        out, _ = same_on_all(Scan(op, dtype), [x], garbage(dtype, shape), [*shape], outer * inner)
        in_double = dtype is dt.float32 and op in (Op.SUM, Op.PROD)
        wide = x.astype(np.float64 if in_double else accumulator(dtype).numpy)
        expected = np.empty_like(wide)
        expected[:, 0] = total = wide[:, 0]
        with np.errstate(over="ignore"):
            for i in range(1, shape[1]):
                expected[:, i] = total = combine(total, wide[:, i])
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


@pytest.mark.parametrize("dtype", NUMERIC, ids=repr)
def test_arg_sort(dtype: DType) -> None:
    for shape in [(1, 1), (2, 2), (3, 5), (2, 8), (5, 33), (1, 1000)]:
        rows, n = shape
        for special in (False, True):
            x = sample(dtype, shape, special=special)
            x[:, ::3] = x[:, :1]  # ties
            # The order, and the working space: places and twice keys of 64 bits at most.
            out, _ = same_on_all(
                ArgSort(dtype), [x], garbage(dt.int64, (4, *shape)),
                [*shape, (n - 1).bit_length()], rows, results=4,
            )  # fmt: skip
            assert_same_bits(out[0], ref.argsort(x))


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
    every: list[Any] = [RandomBits(), Batched(MAP)]
    for dtype in NUMERIC:
        every += [Scan(Op.SUM, dtype), ArgReduce(Op.ARGMAX, dtype), Pack(dtype, 8), ArgSort(dtype)]
        epilogue = Epilogue((), (), ((Access(dtype, "unit"), 0),))
        every += [SkinnyDot(dtype, dtype, 2, 8, name, True, epilogue) for name in ("k", "many")]
        every += [TiledDot(accumulator(dtype), dtype, 4, 16, False, True, epilogue)]
        every += [Scatter(Op.SCATTER_SET, dtype, dt.int32)]
    every += [Sequence(op, dtype) for op in COMBINE for dtype in NUMERIC]
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
