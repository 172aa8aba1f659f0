"""Random programs that are all elementwise ops and reductions over a few shapes: fusion's food.

Unlike those of random_graphs.py, most nodes have one large shape, in which rows, columns and all
elements are reduced, broadcast back and reduced again, and sizes lie around what kernels are cut
at: vectors, blocks of rows, bands of columns. `fused_program(rng)` replays from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from random import Random
from typing import Any

import numpy as np

from einkorn.ir.dtypes import DType, bfloat16, bool_, float16, float32, float64, int32
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, constant, make, placeholder
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType

Ints = tuple[int, ...]

SIZES = (1, 2, 3, 7, 15, 16, 17, 31, 64, 100, 255, 256, 257, 300, 513, 1024)
LONG = (4095, 4096, 4097, 8193)
WHOLE = (16, 64, 256, 1024, 4096)  # rows that fill blocks of ROW_BLOCK evenly
MOST = 40_000  # elements, so that op by op is quick
DTYPES = (float32, float32, float32, float64, float16, bfloat16, int32)
UNARY = (Op.NEG, Op.ABS, Op.TANH, Op.SIGMOID, Op.SQRT, Op.EXP, Op.SIGN)
BINARY = (Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MAXIMUM, Op.MINIMUM)
COMPARE = (Op.LT, Op.GE, Op.EQ)
REDUCTIONS = (Op.SUM, Op.SUM, Op.SUM, Op.MAX, Op.MIN, Op.PROD)
BY_ROW = (Op.SOFTMAX, Op.LOG_SOFTMAX)


def _shape(rng: Random) -> Ints:
    """Rows, columns, both long, or three axes."""
    kind = rng.randrange(5)
    if kind == 0:
        n = rng.choice(WHOLE)
        return rng.choice([r for r in (*SIZES, 512, 2048, 2305) if r * n <= 2 * MOST]), n
    if kind == 1:
        n = rng.choice(LONG)
        return rng.choice([(n,), (1, n), (n, 1), (n, 3), (2, n), (9, n)])
    a, b = rng.choice(SIZES), rng.choice(SIZES)
    while a * b > MOST:
        a, b = rng.choice(SIZES), rng.choice(SIZES)
    if kind < 4:
        return a, b
    c = rng.choice((1, 2, 3, 5, 8))
    shape = [a, min(b, 20), c] if prod((a, min(b, 20), c)) <= MOST else [a % 50 + 1, c, 9]
    rng.shuffle(shape)
    return tuple(shape)


class _Program:
    """A pool of values of one shape and dtype, and results of other shapes."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.shape = _shape(rng)
        self.dtype: DType = rng.choice(DTYPES)
        self.params: list[Node] = []
        self.others: list[Node] = []
        self.pool = [self.param(self.shape)]

    def param(self, shape: Ints) -> Node:
        node = placeholder(TensorType(self.dtype, shape))
        self.params.append(node)
        return node

    def any(self) -> Node:
        """A value of the pool, recent ones more often."""
        return self.rng.choice(self.pool[-3:] if self.rng.random() < 0.6 else self.pool)

    def spread(self, x: Node, axes: Ints) -> Node:
        """A value without `axes` broadcast back."""
        kept = tuple(1 if k in axes else n for k, n in enumerate(self.shape))
        return make(Op.BROADCAST, make(Op.RESHAPE, x, shape=kept), shape=self.shape)

    def axes(self) -> Ints:
        rank = len(self.shape)
        last = (rank - 1,)
        every = tuple(range(rank))
        some = tuple(k for k in range(rank) if self.rng.random() < 0.5) or (0,)
        return self.rng.choice((last, last, last, (0,), every[:-1] or (0,), every, some))

    def cast(self, x: Node, dtype: DType) -> Node:
        return x if x.dtype is dtype else make(Op.CAST, x, dtype=dtype)

    # -- steps: each gives a value of the shape --

    def unary(self) -> Node:
        if self.dtype is int32:
            return make(self.rng.choice((Op.NEG, Op.ABS)), self.any())
        return make(self.rng.choice(UNARY), self.any())

    def binary(self) -> Node:
        op = self.rng.choice(BINARY if self.dtype is not int32 else (Op.ADD, Op.SUB, Op.MAXIMUM))
        return make(op, self.any(), self.any())

    def scaled(self) -> Node:
        value = constant(self.dtype, self.rng.choice((2, 3) if self.dtype is int32 else (0.5, 1.5)))
        return make(Op.MUL, self.any(), make(Op.BROADCAST, value, shape=self.shape))

    def select(self) -> Node:
        mask = make(self.rng.choice(COMPARE), self.any(), self.any())
        if self.rng.random() < 0.3:
            self.others.append(mask)
        return make(Op.SELECT, mask, self.any(), self.any())

    def count(self) -> Node:
        """How many comparisons hold, over some axes: bool, then int32."""
        mask = make(Op.LT, self.any(), self.any())
        axes = self.axes()
        total = make(Op.SUM, self.cast(mask, int32), axes=axes)
        return self.spread(self.cast(total, self.dtype), axes)

    def holds(self) -> Node:
        """Whether any or all comparisons hold."""
        axes = self.axes()
        op = self.rng.choice((Op.MAX, Op.MIN))
        found = make(op, make(Op.GE, self.any(), self.any()), axes=axes)
        return self.spread(self.cast(found, self.dtype), axes)

    def reduced(self) -> Node:
        axes = self.axes()
        total = make(self.rng.choice(REDUCTIONS), self.any(), axes=axes)
        if self.rng.random() < 0.4:
            self.others.append(total)
        if self.rng.random() < 0.3 and self.dtype is not int32:
            total = make(Op.TANH, total)
        return self.spread(total, axes)

    def centred(self) -> Node:
        x, axes = self.any(), self.axes()
        n = constant(self.dtype, max(prod(self.shape[k] for k in axes) % 1000, 1))
        total = self.spread(make(Op.SUM, x, axes=axes), axes)
        op = Op.FLOOR_DIV if self.dtype is int32 else Op.DIV
        return make(Op.SUB, x, make(op, total, make(Op.BROADCAST, n, shape=self.shape)))

    def result(self) -> Node:
        """A reduction that nothing else reads."""
        x = self.any()
        self.others.append(make(self.rng.choice(REDUCTIONS), x, axes=self.axes()))
        return x

    def by_row(self) -> Node:
        if self.dtype is int32:
            return self.reduced()
        if self.rng.random() < 0.2:
            last = (len(self.shape) - 1,)
            return self.spread(make(Op.LOGSUMEXP, self.any()), last)
        return make(self.rng.choice(BY_ROW), self.any())

    def operand(self) -> Node:
        """A parameter with one value for each row, column or for all, or turned."""
        shape = tuple(n if self.rng.random() < 0.5 else 1 for n in self.shape)
        kind = self.rng.random()
        if kind < 0.6:
            return make(Op.BROADCAST, self.param(shape), shape=self.shape)
        if kind < 0.8:
            axes = tuple(reversed(range(len(shape))))
            return make(Op.TRANSPOSE, self.param(tuple(reversed(self.shape))), axes=axes)
        return make(Op.BROADCAST, self.param(self.shape[-1:]), shape=self.shape)

    def moved(self) -> Node:
        """A value in another order: flipped, turned there and back, or cut and joined."""
        x, kind = self.any(), self.rng.random()
        axis = self.rng.randrange(len(self.shape))
        if kind < 0.4:
            return make(Op.FLIP, x, axes=(axis,))
        if kind < 0.6:
            turned = make(Op.TRANSPOSE, x, axes=tuple(reversed(range(len(self.shape)))))
            return make(Op.RESHAPE, turned, shape=self.shape)
        if kind < 0.8:
            flat = make(Op.RESHAPE, x, shape=(x.tensor.size,))
            return make(Op.RESHAPE, make(Op.ABS, flat), shape=self.shape)
        starts = [0] * len(self.shape)
        stops = [*self.shape]
        starts[axis] = self.rng.randrange(self.shape[axis])
        stops[axis] = starts[axis] + 1
        cut = make(Op.SLICE, x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * len(starts))
        return make(Op.BROADCAST, cut, shape=self.shape)

    def dotted(self) -> Node:
        """A product with a square parameter, or one for it."""
        x = self.any()
        if len(self.shape) != 2 or prod(self.shape) * self.shape[-1] > 50 * MOST:
            return x
        square = self.param((self.shape[-1],) * 2)
        if self.rng.random() < 0.3:
            grad = make(Op.DOT, x, self.any(), contract=(0, 0))
            self.others.append(make(Op.SUB, square, grad))
        return make(Op.DOT, x, square, contract=(1, self.rng.randrange(2)))

    def through(self) -> Node:
        """There and back through another dtype."""
        dtype = self.rng.choice((float32, float64, float16, bfloat16, int32))
        x = self.cast(self.any(), dtype)
        if self.rng.random() < 0.5:
            axes = self.axes()
            return self.spread(self.cast(make(Op.SUM, x, axes=axes), self.dtype), axes)
        return self.cast(make(Op.ADD, x, x), self.dtype)

    def step(self) -> Node:
        steps: list[Callable[[], Node]] = [
            *[self.unary, self.binary, self.binary, self.scaled, self.select] * 2,
            *[self.reduced, self.centred] * 3,
            self.result, self.result, self.by_row, self.by_row, self.operand, self.operand,
            self.moved, self.through, self.count, self.holds, self.dotted, self.dotted,
        ]  # fmt: skip
        return self.rng.choice(steps)()


def _by_one_rule(program: _Program) -> list[tuple[Node, Node]]:
    """Leaves of different sizes that are all updated in one way."""
    rng, rows = program.rng, []
    rate = program.param(())
    for _ in range(rng.randint(2, 4)):
        shape = (rng.choice((1, 5, 16, 300, 4097)),)
        leaf, slot = program.param(shape), program.param(shape)
        change = make(Op.MUL, slot, make(Op.BROADCAST, rate, shape=shape))
        rows.append((leaf, make(Op.SUB, leaf, change)))
        if rng.random() < 0.5:
            rows.append((slot, make(Op.ADD, slot, change)))
    return rows


def fused_program(rng: Random, steps: int = 10) -> Graph:
    """A graph of about `steps` steps, with results of several shapes and updates of leaves."""
    program = _Program(rng)
    for _ in range(steps):
        program.pool.append(program.step())
    updates = _by_one_rule(program) if rng.random() < 0.3 else []
    assigned = {leaf for leaf, _ in updates}
    free = [x for x in program.params if x not in assigned]
    inputs, captures = free[1::2], [*free[::2], *(leaf for leaf, _ in updates)]
    for leaf in free[::2]:
        fitting = [x for x in (*program.pool[-3:], *program.others) if x.shape == leaf.shape]
        fitting = [x for x in fitting if x.dtype is leaf.dtype and x is not leaf]
        if fitting and rng.random() < 0.7:
            updates.append((leaf, rng.choice(fitting)))
    outputs = (program.pool[-1], *program.others[:4], program.any())
    return Graph("fused", tuple(inputs), tuple(captures), outputs, tuple(updates))


def arrays_for(seed: int, graph: Graph, special: bool = False) -> list[Any]:
    """An array for each parameter; `special` mixes in zeros, infinities and NaN."""
    rng = np.random.default_rng(seed)
    return [_array(rng, node.tensor, special) for node in graph.params]


def _array(rng: np.random.Generator, type: TensorType, special: bool) -> Any:
    if type.dtype is bool_ or not type.dtype.is_float:
        return rng.integers(-9, 10, type.shape).astype(type.dtype.numpy)
    x = rng.standard_normal(type.shape)
    if special:
        values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan])
        x = np.where(rng.random(type.shape) < 0.01, rng.choice(values, type.shape), x)
    return x.astype(type.dtype.numpy)
