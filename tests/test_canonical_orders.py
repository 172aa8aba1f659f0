"""The orders that ir/ops.py states: sums, products and dots against plain NumPy, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits, bits, build, execute, split_finely

from einkorn.codegen.llvm import loops, objects
from einkorn.codegen.llvm.target import LLVM
from einkorn.codegen.llvm.templates import TEMPLATES
from einkorn.ir import dtypes as dt
from einkorn.ir.dtypes import DType, bfloat16, float16, float32, float64, int32
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Kernel, LoopKernel
from einkorn.ir.machine import Machine
from einkorn.ir.node import Node, constant, make, placeholder
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType

Array = np.ndarray[Any, Any]
Combine = Callable[[Array, Array], Array]

COMBINE: dict[Op, Combine] = {Op.SUM: np.add, Op.PROD: np.multiply}
NEUTRAL = {Op.SUM: -0.0, Op.PROD: 1.0, Op.MAX: -np.inf, Op.MIN: np.inf}


class OtherTarget:
    """The llvm target at another feature level, with other lanes or registers."""

    def __init__(self, level: str, lanes: int, registers: int) -> None:
        self._features = objects.features_of(level)
        self.machine = Machine(lanes, registers)

    def text(self, kernel: Kernel) -> str:
        if isinstance(kernel, LoopKernel):
            return loops.generate(kernel)
        return TEMPLATES[type(kernel)](kernel, self.machine.lanes)

    def address(self, kernel: Kernel) -> int:
        text = self.text(kernel)
        data = objects.compile_object(text, self._features)
        return objects.load_object(data, ("kernel",), objects.object_key(text, self._features))[0]


def other_targets() -> dict[str, OtherTarget]:
    """Every level below the host's, every width, and tiles for other numbers of registers."""
    host = objects.host_features()
    found = {f"lanes{lanes}": OtherTarget(host.name, lanes, 32) for lanes in (16, 8, 4)}
    found["registers16"] = OtherTarget(host.name, host.lanes, 16)
    if host.name == "avx512":
        found["avx2"] = OtherTarget("avx2", 8, 16)
    return found


TARGETS = other_targets()


# -- emulations ------------------------------------------------------------------------------------


def wide_of(dtype: DType) -> Any:
    return np.float32 if dtype.is_float and dtype.itemsize == 2 else dtype.numpy


def join(partials: Array, combine: Combine) -> Array:
    """Partial j (along the first axis) gets j + 8, then j + 4, j + 2 and j + 1."""
    for half in (8, 4, 2, 1):
        partials = combine(partials[:half], partials[half : 2 * half])
    return partials[0]


def rows(x: Array, combine: Combine, neutral: float) -> Array:
    """The reduction of the last axis: 16 partials in blocks of 4096, joined by the tree."""
    total = np.full(x.shape[:-1], neutral, x.dtype)
    for start in range(0, x.shape[-1], 4096):
        block = np.moveaxis(x[..., start : start + 4096], -1, 0)
        partials = np.full((16, *x.shape[:-1]), neutral, x.dtype)
        for at in range(0, len(block), 16):
            part = block[at : at + 16]
            partials[: len(part)] = combine(partials[: len(part)], part)
        total = combine(total, join(partials, combine))
    return total


def columns(x: Array, combine: Combine, neutral: float) -> Array:
    """The reduction of the first axis: in sequence, in blocks of 256."""
    total = np.full(x.shape[1:], neutral, x.dtype)
    for start in range(0, len(x), 256):
        part = np.full(x.shape[1:], neutral, x.dtype)
        for row in x[start : start + 256]:
            part = combine(part, row)
        total = combine(total, part)
    return total


def reduced(x: Array, axes: Sequence[int], op: Op, dtype: DType) -> Array:
    """The canonical reduction: axes at the end as one row, then the others as rows of a column."""
    combine, neutral = COMBINE[op], NEUTRAL[op]
    shape_left = [n for k, n in enumerate(x.shape) if k not in axes]
    with np.errstate(all="ignore"):
        wide = x.astype(wide_of(dtype))
        axes = [a for a in axes if x.shape[a] != 1]
        ones = [a for a in range(x.ndim) if x.shape[a] == 1]
        renumbered = [a - sum(one < a for one in ones) for a in axes]
        kept_shape = tuple(n for n in x.shape if n != 1)
        wide = wide.reshape(kept_shape)
        tail = wide.ndim
        while tail - 1 in renumbered:
            tail -= 1
        if tail < wide.ndim:
            wide = rows(wide.reshape(*kept_shape[:tail], -1), combine, neutral)
        rest = [a for a in renumbered if a < tail]
        if rest:
            others = [a for a in range(tail) if a not in rest]
            shape = [wide.shape[a] for a in others]
            moved = wide.transpose(*rest, *others).reshape(-1, *shape)
            wide = columns(moved, combine, neutral)
        return np.asarray(wide).astype(dtype.numpy).reshape(shape_left)


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c in float32 with one rounding: the float64 sum, rounded to odd first."""
    product = a.astype(np.float64) * b.astype(np.float64)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    even = (total.view(np.int64) & 1) == 0
    toward = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & even, toward, total).astype(np.float32)


def dot(a: Array, b: Array) -> Array:
    """[m, k] x [n, k]: one chain of fused multiply-adds, or 16 when m or n is at most 4."""
    m, n = len(a), len(b)
    chains = 16 if min(m, n) <= 4 else 1
    acc = np.zeros((chains, m, n), np.float32)
    for k in range(a.shape[1]):
        left, right = np.broadcast_arrays(a[:, k, None], b[None, :, k])
        acc[k % chains] = fma(left, right, acc[k % chains])
    return join(acc, np.add) if chains == 16 else acc[0]


# -- running ---------------------------------------------------------------------------------------


def numbers(shape: tuple[int, ...], dtype: DType, seed: int = 0) -> Array:
    """Numbers of very different sizes and both signs, so that every order gives other bits."""
    random = np.random.default_rng([seed, *shape])
    values = random.normal(size=shape) * 2.0 ** random.integers(-6, 7, shape)
    return values.astype(dtype.numpy)


def factors(shape: tuple[int, ...], dtype: DType) -> Array:
    """Numbers near 1, whose product stays finite."""
    return (1 + np.random.default_rng(1).uniform(-0.02, 0.02, shape)).astype(dtype.numpy)


def compute(
    make_node: Callable[..., Node], *arrays: Array, target: Any = LLVM, threads: int = 1
) -> Array:
    """The value of a node built on placeholders for the arrays."""
    inputs = [placeholder(TensorType(dt.as_dtype(x.dtype), x.shape)) for x in arrays]
    graph = Graph("f", tuple(inputs), (), (make_node(*inputs),))
    return execute(build(graph, target=target), graph, arrays, threads)[0]


def dot_node(ca: int, cb: int) -> Callable[[Node, Node], Node]:
    return lambda a, b: make(Op.DOT, a, b, contract=(ca, cb))


def reduce_node(op: Op, axes: tuple[int, ...]) -> Callable[[Node], Node]:
    return lambda x: make(op, x, axes=axes)


SIZES = (1, 2, 15, 16, 17, 33, 255, 256, 257, 511, 4095, 4096, 4097, 4112, 8191, 8193, 12300)
FLOATS = (float32, float64, float16, bfloat16)


# -- reductions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", [Op.SUM, Op.PROD], ids=lambda op: op.name)
def test_rows_have_the_canonical_order(op: Op, dtype: DType) -> None:
    for n in SIZES:
        x = numbers((3, n), dtype) if op is Op.SUM else factors((3, n), dtype)
        for axes, array in (((1,), x), ((0,), x[0])):
            got = compute(reduce_node(op, axes), array)
            assert_same_bits(got, reduced(array, axes, op, dtype), f"{n} elements, axes {axes}")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", [Op.SUM, Op.PROD], ids=lambda op: op.name)
def test_columns_have_the_canonical_order(op: Op, dtype: DType) -> None:
    for n in (1, 2, 16, 255, 256, 257, 511, 512, 513, 1030):
        for width in (1, 3, 64, 65):
            x = numbers((n, width), dtype) if op is Op.SUM else factors((n, width), dtype)
            got = compute(reduce_node(op, (0,)), x)
            assert_same_bits(got, reduced(x, (0,), op, dtype), f"{n} rows of {width}")


MIXED = [
    ((5, 6, 7), (0, 2)), ((300, 4, 20), (0, 2)), ((3, 300, 5), (1,)), ((4, 1, 300, 1), (0, 2)),
    ((2, 3, 4, 5), (1, 2, 3)), ((2, 300, 4, 2), (0, 1)), ((20, 2, 20, 3), (0, 2)),
    ((1, 5000), (0, 1)), ((5000, 1), (0, 1)), ((2, 3, 2, 3, 2), (0, 2, 4)), ((70, 70), (0, 1)),
    ((6, 5, 4), (1, 2)), ((6, 5, 4), ()),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "axes"), MIXED, ids=str)
def test_mixed_reductions_take_trailing_axes_first(
    shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    for dtype in (float32, float16):
        x = numbers(shape, dtype)
        want = reduced(x, axes, Op.SUM, dtype)
        assert_same_bits(compute(reduce_node(Op.SUM, axes), x), want)
        order = tuple(np.random.default_rng(0).permutation(len(shape)))
        stored = np.ascontiguousarray(x.transpose(order))
        back = tuple(int(k) for k in np.argsort(order))

        def through_views(y: Node, back: tuple[int, ...] = back) -> Node:
            flipped = make(Op.FLIP, make(Op.TRANSPOSE, y, axes=back), axes=(0,))
            return make(Op.SUM, make(Op.FLIP, flipped, axes=(0,)), axes=axes)

        assert_same_bits(compute(through_views, stored), want, f"stored in order {order}")


@pytest.mark.parametrize("op", [Op.SUM, Op.PROD, Op.MAX, Op.MIN], ids=lambda op: op.name)
def test_appending_neutral_elements_changes_no_bit(op: Op) -> None:
    for n in (1, 15, 16, 100, 255, 256, 257, 4090, 4096):
        for more in (1, 7, 16, 300, 5000):
            x = numbers((2, n), float32) if op is not Op.PROD else factors((2, n), float32)
            padded = np.pad(x, ((0, 0), (0, more)), constant_values=NEUTRAL[op])
            for axis, a, b in ((1, x, padded), (0, x.T.copy(), padded.T.copy())):
                node = reduce_node(op, (axis,))
                assert_same_bits(compute(node, b), compute(node, a), f"{n} + {more}, axis {axis}")


def test_signs_of_zero_and_sums_of_nothing() -> None:
    for axis in (0, 1):
        shape = (300, 3) if axis == 0 else (3, 300)
        negative = compute(reduce_node(Op.SUM, (axis,)), np.full(shape, -0.0, np.float32))
        assert bits(negative) == bits(np.full(3, -0.0, np.float32))
        empty = np.zeros((0, 3) if axis == 0 else (3, 0), np.float32)
        assert bits(compute(reduce_node(Op.SUM, (axis,)), empty)) == bits(np.zeros(3, np.float32))
        assert bits(compute(reduce_node(Op.PROD, (axis,)), empty)) == bits(np.ones(3, np.float32))
    extremes = np.array([[0.0, -0.0], [-0.0, 0.0], [np.nan, 1], [1, np.nan]], np.float32)
    for op, zero in ((Op.MAX, 0.0), (Op.MIN, -0.0)):
        want = np.float32([zero, zero, np.nan, np.nan])
        assert_same_bits(compute(reduce_node(op, (1,)), extremes), want)


# -- contraction -----------------------------------------------------------------------------------

DOTS = [
    (1, 1, 1), (1, 5, 100), (4, 4, 33), (4, 200, 257), (200, 3, 64), (5, 5, 1), (5, 5, 17),
    (7, 33, 300), (14, 32, 40), (15, 33, 41), (64, 70, 513), (33, 17, 1030), (2, 2, 15),
]  # fmt: skip


@pytest.mark.parametrize(("m", "n", "k"), DOTS, ids=str)
def test_dots_are_chains_of_fused_multiply_adds(m: int, n: int, k: int) -> None:
    a, b = numbers((m, k), float32), numbers((n, k), float32, 1)
    want = dot(a, b)
    for ca in (1, 0):
        for cb in (1, 0):
            left, right = (x if c else x.T.copy() for x, c in ((a, ca), (b, cb)))
            got = compute(dot_node(ca, cb), left, right)
            assert_same_bits(got, want, f"contract {ca}, {cb}")
    batch = compute(dot_node(2, 2), np.stack([a, a]), np.stack([b, -b]))
    assert_same_bits(batch, np.stack([want, dot(a, -b)]))


@pytest.mark.parametrize("name", TARGETS)
def test_tiles_lanes_and_feature_levels_change_no_bit(name: str) -> None:
    target = TARGETS[name]
    for dtype in (float32, float64, float16, bfloat16, int32):
        for m, n, k in ((5, 5, 3), (13, 35, 40), (30, 66, 130), (3, 40, 70), (60, 3, 21)):
            a, b = numbers((m, k), dtype), numbers((k, n), dtype, 1)
            got = compute(dot_node(1, 0), a, b, target=target)
            assert_same_bits(got, compute(dot_node(1, 0), a, b), f"{m},{n},{k}")


@pytest.mark.parametrize("name", TARGETS)
def test_other_kernels_on_other_targets(name: str) -> None:
    x = numbers((37, 300), float32)

    def node(x: Node) -> Node:
        y = make(Op.TANH, make(Op.MUL, x, make(Op.EXP, make(Op.NEG, make(Op.ABS, x)))))
        y = make(Op.ADD, y, make(Op.CUMSUM, make(Op.SOFTMAX, y), axis=1))
        y = make(Op.DIV, make(Op.GELU, y), make(Op.SQRT, make(Op.ABS, x)))
        return make(Op.SUM, y, axes=(0,))

    assert_same_bits(compute(node, x, target=TARGETS[name]), compute(node, x))


# -- fusion, layout, threads -----------------------------------------------------------------------

CHAIN = (Op.SIN, Op.NEG, Op.EXP, Op.RSQRT, Op.SIGMOID, Op.LOG1P, Op.ABS, Op.GELU, Op.SQRT)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fusion_changes_no_bit(dtype: DType) -> None:
    x = numbers((5, 333), dtype)

    def together(x: Node) -> Node:
        node = x
        for op in CHAIN:
            node = make(op, node)
            node = make(Op.ADD, make(Op.MUL, node, x), node)
        return node

    step = x
    for op in CHAIN:
        step = compute(lambda x, op=op: make(op, x), step)
        product = compute(lambda x, y: make(Op.MUL, x, y), step, x)
        step = compute(lambda x, y: make(Op.ADD, x, y), product, step)
    assert_same_bits(compute(together, x), step)


def test_no_fused_multiply_add_across_ops() -> None:
    a = np.float32([1 + 2.0**-12])
    want = np.float32([np.float32(a[0] * a[0]) - np.float32(1 + 2.0**-11)])
    less = make(Op.BROADCAST, constant(float32, 1 + 2.0**-11), shape=(1,))
    assert_same_bits(compute(lambda x: make(Op.SUB, make(Op.MUL, x, x), less), a), want)
    assert want[0] == 0


def test_layout_changes_no_bit() -> None:
    x = numbers((24, 36), float32)

    def node(x: Node, axes: tuple[int, ...]) -> Node:
        y = make(Op.TANH, make(Op.TRANSPOSE, x, axes=axes))
        z = make(Op.SOFTMAX, make(Op.ADD, y, make(Op.EXP, y)))
        return make(Op.ADD, z, make(Op.CUMSUM, y, axis=0))

    want = compute(lambda x: node(x, (0, 1)), x)
    assert_same_bits(compute(lambda x: node(x, (1, 0)), x.T.copy()), want)
    assert_same_bits(compute(lambda x: node(x, (0, 1)), np.asfortranarray(x)), want)


STEPS: dict[str, Callable[[Node], Node]] = {
    "elementwise": lambda x: make(Op.TANH, make(Op.MUL, x, x)),
    "row": lambda x: make(Op.SUM, x, axes=(1,)),
    "columns": lambda x: make(Op.SUM, x, axes=(0,)),
    "all": lambda x: make(Op.SUM, x, axes=(0, 1)),
    "mixed": lambda x: make(Op.SUM, make(Op.RESHAPE, x, shape=(2, 35, 3, 100)), axes=(0, 3)),
    "dot": lambda x: make(Op.DOT, x, x, contract=(1, 1)),
    "skinny": lambda x: make(
        Op.DOT, x, make(Op.SLICE, x, starts=(0, 0), stops=(3, 300), steps=(1, 1)), contract=(1, 1)
    ),
    "softmax": lambda x: make(Op.SOFTMAX, x),
    "scan": lambda x: make(Op.CUMSUM, x, axis=0),
    "random": lambda x: make(
        Op.RANDOM_BITS, constant(dt.uint64, 5), constant(dt.uint64, 9), shape=(70, 301)
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_threads_and_split_points_change_no_bit(name: str) -> None:
    x = numbers((70, 300), float32)
    want = compute(STEPS[name], x)
    for split_ns in (1e-3, 300.0, 3000.0):
        with split_finely(split_ns):
            for threads in (1, 2, 3):
                got = compute(STEPS[name], x, threads=threads)
                assert_same_bits(got, want, f"{threads} threads, pieces of {split_ns} ns")


def test_the_sizes_of_random_draws_do_not_change_their_elements() -> None:
    def node(size: int) -> Callable[[], Node]:
        key, counter = constant(dt.uint64, 1 << 40), constant(dt.uint64, (1 << 33) + 5)
        return lambda: make(Op.RANDOM_BITS, key, counter, shape=(size,))

    long = compute(node(1000))
    for size in (1, 3, 4, 63, 64, 65, 130, 999):
        assert_same_bits(compute(node(size)), long[:size])
    assert prod(long.shape) == len(set(long.tolist()))
