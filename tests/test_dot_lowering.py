"""Dots of graphs: every layout, batch and shape, alone and with what is computed in the epilogue.

Kernels have their own tests (tests/test_dot_kernels.py); here a result must not depend on how the
operands lie in memory, on what is fused, or on the choice of tiles (passes/tiles.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits, build, execute, split_finely

from einkorn.codegen.llvm.target import LLVM
from einkorn.ir import dtypes as dt
from einkorn.ir.dtypes import DType
from einkorn.ir.graph import Graph
from einkorn.ir.loops import TiledDot
from einkorn.ir.machine import Machine
from einkorn.ir.node import Node, make, placeholder
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.passes.tiles import Matrix, choose, skinny

Array = np.ndarray[Any, Any]

SHAPES = [
    (5, 5, 1), (5, 16, 3), (6, 10, 20), (7, 33, 5), (14, 32, 8), (29, 70, 17), (33, 5, 40),
    (1, 70, 50), (70, 1, 33), (3, 129, 16), (20, 4, 31), (2, 2, 100), (64, 3, 5), (1, 1, 7),
]  # fmt: skip


def numbers(dtype: DType, shape: tuple[int, ...], seed: int) -> Array:
    random = np.random.default_rng([seed, *shape])
    if not dtype.is_float:
        return random.integers(-9, 9, shape).astype(dtype.numpy)
    return (random.normal(size=shape) * 2.0 ** random.integers(-3, 4, shape)).astype(dtype.numpy)


def placeholders(*arrays: Array) -> list[Node]:
    return [placeholder(TensorType(dt.as_dtype(x.dtype), x.shape)) for x in arrays]


def run(inputs: list[Node], arrays: list[Array], *outputs: Node, threads: int = 1) -> list[Array]:
    graph = Graph("f", tuple(inputs), (), outputs)
    return execute(build(graph), graph, arrays, threads)


def stored(x: Array, order: tuple[int, ...], gap: int) -> Array:
    """The array that `shown` undoes: axes in another order, reversed, gaps around lines."""
    moved = np.ascontiguousarray(x.transpose(order))[::-1]
    return np.pad(moved, [(0, 0)] * (x.ndim - 1) + [(gap, gap)])


def shown(node: Node, order: tuple[int, ...], gap: int) -> Node:
    """The view of what `stored` made."""
    starts = (*(0 for _ in node.shape[:-1]), gap)
    stops = (*node.shape[:-1], node.shape[-1] - gap)
    steps = tuple(1 for _ in stops)
    part = make(Op.FLIP, make(Op.SLICE, node, starts=starts, stops=stops, steps=steps), axes=(0,))
    back = tuple(int(axis) for axis in np.argsort(order))
    return make(Op.TRANSPOSE, part, axes=back) if back != tuple(range(len(back))) else part


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.float16, dt.int32], ids=str)
def test_layouts_change_no_bit(dtype: DType) -> None:
    for m, n, k in SHAPES:
        a, b = numbers(dtype, (2, m, k), 1), numbers(dtype, (2, k, n), 2)
        x, y = placeholders(a, b)
        (want,) = run([x, y], [a, b], make(Op.DOT, x, y, contract=(2, 1)))
        for left in ((0, 2, 1), (2, 1, 0), (1, 0, 2)):
            for right in ((0, 2, 1), (1, 2, 0)):
                held = [stored(a, left, 3), stored(b, right, 1)]
                p, q = placeholders(*held)
                dot = make(Op.DOT, shown(p, left, 3), shown(q, right, 1), contract=(2, 1))
                (got,) = run([p, q], held, dot)
                assert_same_bits(got, want, f"{m}, {n}, {k} from {left} and {right}")


def test_batches_of_views_and_shared_operands() -> None:
    """Heads cut out of one array, a batch of three axes, and one matrix for all batches."""
    for m, n, k in ((9, 20, 6), (1, 40, 12), (30, 3, 5)):
        q, v = numbers(dt.float32, (3, m, 2, k), 1), numbers(dt.float32, (3, n, 2, k), 2)
        one = numbers(dt.float32, (n, k), 3)
        x, y, z = placeholders(q, v, one)
        heads = [make(Op.TRANSPOSE, node, axes=(0, 2, 1, 3)) for node in (x, y)]
        shared = make(Op.BROADCAST, z, shape=(3, 2, n, k))
        outputs = [make(Op.DOT, heads[0], right, contract=(3, 3)) for right in (heads[1], shared)]
        got = run([x, y, z], [q, v, one], *outputs)
        for i in range(3):
            for j in range(2):
                for found, right in zip(got, (v[i, :, j], one)):
                    a, b = np.ascontiguousarray(q[i, :, j]), np.ascontiguousarray(right)
                    p, r = placeholders(a, b)
                    (want,) = run([p, r], [a, b], make(Op.DOT, p, r, contract=(1, 1)))
                    assert_same_bits(np.ascontiguousarray(found[i, j]), want)
    a, b = numbers(dt.float32, (2, 3, 4, 6, 5), 1), numbers(dt.float32, (4, 2, 3, 7, 5), 2)
    x, y = placeholders(a, b)
    moved = make(Op.TRANSPOSE, y, axes=(1, 2, 0, 3, 4))
    odd = make(Op.TRANSPOSE, make(Op.TRANSPOSE, x, axes=(2, 1, 0, 3, 4)), axes=(2, 1, 0, 3, 4))
    (got,) = run([x, y], [a, b], make(Op.DOT, odd, moved, contract=(4, 4)))
    b = np.ascontiguousarray(b.transpose(1, 2, 0, 3, 4)).reshape(24, 7, 5)
    x, y = placeholders(a.reshape(24, 6, 5), b)
    (want,) = run([x, y], [a.reshape(24, 6, 5), b], make(Op.DOT, x, y, contract=(2, 2)))
    assert_same_bits(got.reshape(24, 6, 7), want)


def layer(dot: Node, bias: Node, residual: Node) -> list[Node]:
    """dot + bias, tanh of it, and its residual where the pre-activation is positive."""
    rows = make(Op.BROADCAST, bias, shape=dot.shape)
    before = make(Op.ADD, dot, rows)
    after = make(Op.TANH, before)
    added = make(Op.MUL, make(Op.ADD, before, residual), make(Op.MAXIMUM, before, residual))
    return [dot, before, after, added]


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.bfloat16], ids=str)
def test_epilogues_change_no_bit(dtype: DType) -> None:
    for m, n, k in SHAPES:
        for batch in ((), (3,)):
            arrays = [
                numbers(dtype, (*batch, m, k), 1), numbers(dtype, (*batch, k, n), 2),
                numbers(dtype, (n,), 3), numbers(dtype, (*batch, m, n), 4),
            ]  # fmt: skip
            x, y, bias, residual = inputs = placeholders(*arrays)
            axis = len(batch)
            dot = make(Op.DOT, x, y, contract=(axis + 1, axis))
            (alone,) = run(inputs[:2], arrays[:2], dot)
            (given,) = placeholders(alone)
            rest = [given, bias, residual]
            want = run(rest, [alone, *arrays[2:]], *layer(given, bias, residual))
            whole = layer(dot, bias, residual)
            with split_finely():
                for outputs in (whole, whole[2:], whole[3:]):
                    got = run(inputs, arrays, *outputs, threads=2)
                    for found, expected in zip(got, want[-len(outputs) :]):
                        assert_same_bits(found, expected, f"{batch}, {m}, {n}, {k}")


def test_an_update_in_an_epilogue_may_overwrite_the_old_value() -> None:
    for m, n, k in ((20, 40, 9), (6, 10, 9), (3, 50, 9), (60, 2, 9)):
        arrays = [numbers(dt.float32, shape, 1) for shape in ((k, m), (k, n), (m, n))]
        x, y, w = placeholders(*arrays)
        step = make(Op.SUB, w, make(Op.DOT, x, y, contract=(0, 0)))
        graph = Graph("f", (x, y), (w,), (), ((w, step),))
        program = build(graph)
        assert program.program.in_place == {0}
        (fresh,) = execute(program, graph, arrays, 1)
        (over,) = execute(program, graph, arrays, 2, in_place=True)
        assert_same_bits(over, fresh, f"{m}, {n}, {k}")


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("dtype", [d for d in dt.ALL if d is not dt.bool_], ids=str)
def test_every_choice_reads_inside_its_operands(dtype: DType, lanes: int) -> None:
    machine = Machine(lanes, 16 if lanes == 8 else 32)
    for m in (5, 7, 14, 100):
        for n in (5, 17, 64, 1000):
            for k in (1, 30, 5000):
                for row, step in ((1, m), (k, 1), (3, 7)):
                    for across, down in ((1, n), (k, 1)):
                        left, right = Matrix(m, row, step), Matrix(n, across, down)
                        choice = choose(machine, dtype, left, right, k)
                        assert choice.pack_left_ns or choice.rows <= m
                        inside = choice.columns <= n or choice.masked
                        assert choice.pack_right_ns or (inside and across == 1)
                        assert choice.block >= 1
                for few in (1, 4):
                    strip = skinny(machine, dtype, few, Matrix(n, 1, n), k)
                    assert strip.adjacent == "many"
                    assert strip.masked == (n < strip.columns)
                    assert skinny(machine, dtype, few, Matrix(n, k, 1), k).adjacent == "k" or k == 1


def test_weights_of_usual_layers_are_not_copied() -> None:
    """Forward and both gradients of x @ w with w as (in, out): one kernel for each, but dx."""
    for m, k, n in ((32, 64, 64), (1, 784, 512), (128, 256, 10)):
        a, w, g = (TensorType(dt.float32, shape) for shape in ((m, k), (k, n), (m, n)))
        x, y, z = (placeholder(type) for type in (a, w, g))
        for left, right, contract in ((x, y, (1, 0)), (x, z, (0, 0))):
            dot = make(Op.DOT, left, right, contract=contract)
            program = build(Graph("f", (left, right), (), (dot,))).program
            padded = n < 16 and LLVM.machine.registers == 16  # a copy, for a wider tile
            assert len(program.instructions) == 1 + padded, (m, k, n, contract)
    square = placeholder(TensorType(dt.float32, (64, 64)))
    program = build(Graph("f", (square,), (), (make(Op.DOT, square, square, contract=(1, 1)),)))
    assert isinstance(program.program.instructions[-1].kernel, TiledDot)
    assert len(program.program.instructions) == 2
