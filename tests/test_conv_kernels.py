"""Tiles of convolutions, to the bit: axes of k, runs of rows, unfinished sums, diagonal operands.

In hostile surroundings, as tests/test_dot_kernels.py: nothing outside of an operand may be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
from conv_cases import attributes, results
from dot_oracle import canonical, packed, plain, small
from guarded_run import guarded_run
from same_bits import build, split_finely
from template_harness import Array, assert_same_bits, garbage, same_on_all

from einkorn.ir import dtypes as dt
from einkorn.ir.dtypes import DType
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Pack, TiledDot
from einkorn.ir.machine import Machine
from einkorn.ir.node import make, placeholder
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType
from einkorn.passes.build import filled
from einkorn.passes.conv_tiles import Shape, choose_tile

Sizes = tuple[int, ...]
Axes = tuple[tuple[int, int], ...]  # extent and stride of each

EVERYWHERE = (1 << 63) - 1


@dataclass(frozen=True)
class Operand:
    """Elements of a flat array, found by the strides of some axes of rows and of k."""

    values: Array
    rows: Axes
    k: Axes

    @property
    def matrix(self) -> Array:
        at = _places(self.rows)[:, None] + _places(self.k)
        return self.values[at]


def _places(axes: Axes) -> Array:
    places = [sum(index) for index in product(*(range(0, n * s or 1, s or 1) for n, s in axes))]
    return np.array(places, np.int64)


def operand(dtype: DType, rows: Axes, k: Axes, seed: int) -> Operand:
    """Exactly as many elements as are reached."""
    size = sum((n - 1) * s for n, s in (*rows, *k)) + 1
    return Operand(small(dtype, (size,), seed), rows, k)


# Rows and k of a window over images: (images, rows, columns), (window..., channels).
WINDOWS: list[tuple[Axes, Axes]] = [
    (((2, 120), (3, 24), (4, 3)), ((2, 24), (6, 1))),
    (((1, 0), (4, 40), (6, 8)), ((3, 40), (2, 4), (3, 1))),
    (((3, 90), (2, 30), (2, 5)), ((2, 60), (2, 30), (2, 5), (5, 1))),
    (((2, 100), (5, 20), (3, 2)), ((7, 2),)),
]


LONG: list[Axes] = [((11, 3),), ((4, 30), (5, 7)), ((2, 40), (3, 9), (2, 4))]


def strides_of(axes: Axes) -> list[int]:
    return [stride for _, stride in axes]


@pytest.mark.parametrize("tile", [(4, 16), (6, 16), (2, 8)], ids=str)
@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: f"{len(case[1])}")
def test_windows_in_place(case: tuple[Axes, ...], tile: tuple[int, int]) -> None:
    rows_of, k_of = case
    rows, columns = tile
    dtype, last = dt.float32, rows_of[-1][0]
    x = operand(dtype, rows_of, k_of, 1)
    m, k = x.matrix.shape
    for n in (3, columns + 5):
        for run in (run for run in (1, 2, 4) if rows % run == 0 and last % run == 0):
            w = small(dtype, (1, n, k), 2)
            panels = packed(w, columns, dtype)
            kernel = TiledDot(
                dtype, dtype, rows, columns, False, n < columns, plain(dtype), len(k_of), run
            )
            dense = [prod(size for size, _ in k_of[axis + 1 :]) for axis in range(len(k_of))]
            params = [1, 1, m, n, *(size for size, _ in k_of), 2, rows_of[1][0], last]
            params += [0, 0, *strides_of(rows_of), *strides_of(k_of), m - rows]
            params += [0, 0, k, *(columns * step for step in dense), EVERYWHERE]
            params += [0, 0, rows_of[1][0] * last * n, last * n, n, 1]
            work = -(-m // rows) * -(-n // columns)
            out, _ = same_on_all(kernel, [x.values, panels], garbage(dtype, (m, n)), params, work)
            assert_same_bits(out, canonical(x.matrix, w[0], dtype))


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.int16], ids=str)
@pytest.mark.parametrize(
    "k_of", [((11, 3),), ((4, 30), (5, 7)), ((2, 40), (3, 9), (2, 4))], ids=str
)
def test_unfinished_sums_continue(k_of: Axes, dtype: DType) -> None:
    rows, columns, m, n = 4, 16, 9, 21
    x = operand(dtype, ((m, 1),), k_of, 1)
    y = operand(dtype, ((n, 1),), tuple((size, step + 20) for size, step in k_of), 2)
    want = canonical(x.matrix, y.matrix, dtype)
    work = -(-m // rows) * -(-n // columns)
    length = max(m * n, work * rows * columns)
    for part in (1, 3, 100):
        kernel = TiledDot(
            dtype, dtype, rows, columns, True, False, plain(dtype), len(k_of), 0, True
        )
        params = [1, 1, m, n, *(size for size, _ in k_of), 3, part]
        params += [0, 0, 1, 1, *strides_of(k_of), m - rows]
        params += [0, 0, 1, *strides_of(y.k), n - columns, 0, 0, n, 1]
        out, _ = same_on_all(
            kernel, [x.values, y.values], garbage(dtype, (2, length)), params, work, 2
        )
        assert_same_bits(out[0, : m * n].reshape(m, n), want)


@pytest.mark.parametrize("channels", [3, 16, 37])
def test_diagonal_operands(channels: int) -> None:
    """A depthwise convolution: each column has elements of its own on both sides."""
    dtype, rows, columns = dt.float32, 2, 16
    images, height, width = 2, 4, 6
    x = small(dtype, (images, height, width, channels), 1)
    w = small(dtype, (3, 2, channels), 2)
    m = images * 2 * 5
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), (1, 2))
    want = np.stack(
        [
            canonical(windows[..., c, :, :].reshape(m, 6), w[..., c].reshape(1, 6), dtype)[:, 0]
            for c in range(channels)
        ],
        -1,
    )
    kernel = TiledDot(
        dtype, dtype, rows, columns, False, channels < columns, plain(dtype), 2, 1, False, True
    )
    line = width * channels
    params = [1, 1, m, channels, 3, 2, 4, 2, 5]
    params += [0, 0, height * line, line, channels, line, channels, m - rows]
    params += [0, 0, 1, 2 * channels, channels, max(channels - columns, 0)]
    params += [0, 0, 10 * channels, 5 * channels, channels, 1]
    work = -(-m // rows) * -(-channels // columns)
    out, _ = same_on_all(kernel, [x, w], garbage(dtype, (m, channels)), params, work)
    assert_same_bits(out, want)


# -- whole programs --------------------------------------------------------------------------------


def random_case(
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and w, and attributes: any of them."""
    spatial = int(rng.integers(1, 4))
    groups = int(rng.choice([1, 1, 2, 3, 20]))
    depthwise = rng.random() < 0.3
    channels = groups * (1 if depthwise else int(rng.integers(1, 9)))
    out = groups * (1 if depthwise else int(rng.integers(1, 12)))
    x = (int(rng.integers(1, 4)), *(int(n) for n in rng.integers(3, 10, spatial)), channels)
    w = (out, *(int(n) for n in rng.integers(1, 4, spatial)), channels // groups)

    def each(choices: list[int]) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.choice(choices, spatial))

    attrs = attributes(
        spatial,
        strides=each([1, 1, 2, 3]),
        low=each([-1, 0, 1, 2]),
        high=each([-2, 0, 1, 2]),
        interior=each([0, 0, 0, 1, 2]),
        dilation=each([1, 1, 2]),
        groups=groups,
    )
    return x, w, attrs


@pytest.mark.parametrize("seed", range(30))
def test_any_convolution_stays_inside_and_has_one_result(seed: int) -> None:
    """Against the reference, in hostile surroundings, alone and in pieces, with an epilogue."""
    rng = np.random.default_rng(seed)
    x_shape, w_shape, attrs = random_case(rng)
    dtype = [dt.float32, dt.float32, dt.float64, dt.float16, dt.bfloat16, dt.int8][seed % 6]
    g_shape = (x_shape[0], *results(x_shape, w_shape[1:-1], attrs), w_shape[0])
    if 0 in g_shape:
        return
    values = [
        rng.integers(-3, 4, shape).astype(dtype.numpy)
        for shape in (x_shape, w_shape, g_shape, w_shape[:1], w_shape)
    ]
    inputs = [placeholder(TensorType(dtype, value.shape)) for value in values]
    x, w, g, bias, old = inputs
    forward = make(Op.CONV, x, w, **attrs)
    around = {**attrs, "window": w_shape[1:-1]}
    added = make(Op.ADD, forward, make(Op.BROADCAST, bias, shape=g_shape))
    step = make(Op.ADD, old, make(Op.CONV_FILTER, x, g, **around))
    graph = Graph("f", tuple(inputs), (), (make(Op.MUL, added, g), step))
    program = build(graph)
    whole = guarded_run(program, graph, values, 1, True)
    with split_finely():
        pieces = guarded_run(program, graph, values, 3, False)
    by_numpy = [OPS[Op.CONV].numpy(*values[:2], **attrs)]  # type: ignore[misc]
    by_numpy.append(OPS[Op.CONV_FILTER].numpy(values[0], values[2], **around))  # type: ignore[misc]
    want = [(by_numpy[0] + values[3]) * values[2], values[4] + by_numpy[1]]
    for got, again, expected in zip(whole, pieces, want):
        assert_same_bits(got, again)
        np.testing.assert_array_equal(got, expected.astype(dtype.numpy))  # integers: no rounding


def test_bias_residual_and_relu_are_computed_in_the_tiles() -> None:
    x, w, b = (TensorType(dt.float32, shape) for shape in ((4, 8, 8, 16), (32, 3, 3, 16), (32,)))
    inputs = [placeholder(type) for type in (x, w, b, x.with_shape((4, 6, 6, 32)))]
    conv = make(Op.CONV, inputs[0], inputs[1], **attributes(2))
    total = make(Op.ADD, conv, make(Op.BROADCAST, inputs[2], shape=conv.shape))
    total = make(Op.ADD, total, inputs[3])
    zero = filled(total.tensor, 0)
    graph = Graph("f", tuple(inputs), (), (make(Op.MAXIMUM, total, zero),))
    kernels = [row.kernel for row in build(graph).program.instructions]
    assert [type(kernel) for kernel in kernels] == [Pack, TiledDot]
    assert [step.op for step in kernels[1].epilogue.body if step.op is not Op.CONST] == [
        Op.ADD,
        Op.ADD,
        Op.MAXIMUM,
    ]


def test_a_long_filter_gradient_puts_its_sums_down() -> None:
    x, g = (TensorType(dt.float32, shape) for shape in ((32, 34, 34, 32), (32, 32, 32, 32)))
    inputs = placeholder(x), placeholder(g)
    node = make(Op.CONV_FILTER, *inputs, **attributes(2, window=(3, 3)))
    program = build(Graph("f", inputs, (), (node,))).program
    (row,) = [row for row in program.instructions if isinstance(row.kernel, TiledDot)]
    assert row.kernel.unfinished
    assert row.work / row.chunk >= 2  # enough for two threads


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_every_choice_fits_the_shape(lanes: int) -> None:
    machine = Machine(lanes, 16 if lanes == 8 else 32)
    for dtype in (dt.float32, dt.float64, dt.int8):
        for rows, columns, last in product((1, 3, 28, 1024), (1, 6, 33, 128), (0, 7, 8, 28)):
            if last and rows % last:
                continue
            for in_place, diagonal in ((False, False), (True, False), (True, True)):
                shape = Shape(rows, columns, last, 9, 32, False, in_place, diagonal)
                choice = choose_tile(machine, dtype, shape)
                assert choice.rows <= rows
                assert choice.masked or choice.columns <= columns or not in_place
                assert not last or (choice.rows % choice.run == 0 == last % choice.run)
