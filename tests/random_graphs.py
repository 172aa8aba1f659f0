"""Random typed graphs over most ops, and arrays for them: what fuzz tests run on.

`random_graph(rng, steps)` needs nothing but a `random.Random`, so a failing seed replays anywhere;
`graphs()` is the hypothesis strategy, which shrinks. Shapes are small and include scalars and axes
of no element; constants include both zeros, infinities and NaN. Indices are always inside.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from einkorn.ir.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint64,
)
from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph, Origin
from einkorn.ir.node import Node, alias, constant, make, placeholder, project
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType

DTYPES = (float32, float64, float16, bfloat16, int32, int64, uint8, bool_)
SHAPES = ((), (1,), (3,), (2, 3), (3, 2), (1, 3), (0,), (2, 0), (2, 1, 3), (4, 4))
CONSTANTS = (0, 1, 2, 3, -1, -0.0, 0.5, np.inf, -np.inf, np.nan)

BINARY = (
    Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.FLOOR_DIV, Op.REMAINDER, Op.POW, Op.MAXIMUM, Op.MINIMUM,
    Op.ATAN2, Op.NEXTAFTER, Op.AND, Op.OR, Op.XOR, Op.SHIFT_LEFT, Op.SHIFT_RIGHT,
    Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE,
)  # fmt: skip
_OWN = (Op.SELECT, Op.CAST, Op.INTEGER_POW, Op.ALIAS)
UNARY = tuple(op for op in Op if OPS[op].elementwise and op not in (*BINARY, *_OWN))
REDUCTIONS = (Op.SUM, Op.PROD, Op.MAX, Op.MIN)
BY_AXIS = (Op.ARGMAX, Op.ARGMIN, Op.CUMSUM, Op.CUMPROD, Op.CUMMAX, Op.CUMMIN)
LAST_AXIS = (Op.SOFTMAX, Op.LOG_SOFTMAX, Op.LOGSUMEXP, Op.ARGSORT)


class _Builder:
    """A pool of nodes that grows by one op at a time."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.pool: list[Node] = []

    # -- operands --

    def any(self) -> Node:
        """A node of the pool, recent ones more often."""
        recent = self.pool[-6:] if self.rng.random() < 0.5 else self.pool
        return self.rng.choice(recent)

    def constant(self, dtype: DType, shape: tuple[int, ...]) -> Node:
        with np.errstate(all="ignore"):
            value = self.rng.choice(CONSTANTS)
            finite = dtype.is_float or (np.isfinite(value) and value != 0.5)
            node = constant(dtype, value if finite else 1)
        return make(Op.BROADCAST, node, shape=shape) if shape else node

    def like(self, type: TensorType) -> Node:
        """A node of that type: one of the pool if there is one, else one made to fit."""
        same = [node for node in self.pool if node.type == type]
        if self.rng.random() < 0.3:
            return self.constant(type.dtype, type.shape)
        if same and self.rng.random() < 0.8:
            return self.rng.choice(same)
        x = self.any()
        if x.dtype is not type.dtype:
            x = make(Op.CAST, x, dtype=type.dtype)
        if x.shape == type.shape:
            return x
        if x.tensor.size == type.size:
            return make(Op.RESHAPE, x, shape=type.shape)
        try:
            return make(Op.BROADCAST, x, shape=type.shape)
        except EinkornError:
            return self.constant(type.dtype, type.shape)

    def axes(self, rank: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(rank) if self.rng.random() < 0.5)

    # -- one op each --

    def unary(self) -> Node:
        op = self.rng.choice(UNARY)
        return make(op, self.any(), **({"order": 0} if op is Op.POLYGAMMA else {}))

    def binary(self) -> Node:
        x = self.any()
        y = x if self.rng.random() < 0.15 else self.like(x.tensor)
        operands = (x, y) if self.rng.random() < 0.5 else (y, x)
        return make(self.rng.choice(BINARY), *operands)

    def select(self) -> Node:
        x = self.any()
        condition = self.like(x.tensor.with_dtype(bool_))
        return make(Op.SELECT, condition, x, self.like(x.tensor))

    def cast(self) -> Node:
        return make(Op.CAST, self.any(), dtype=self.rng.choice(DTYPES))

    def integer_pow(self) -> Node:
        return make(Op.INTEGER_POW, self.any(), exponent=self.rng.randint(-2, 4))

    def reshape(self) -> Node:
        x = self.any()
        fitting = [shape for shape in SHAPES if np.prod(shape, dtype=int) == x.tensor.size]
        return make(Op.RESHAPE, x, shape=self.rng.choice([*fitting, x.shape, (x.tensor.size,)]))

    def broadcast(self) -> Node:
        return make(Op.BROADCAST, self.any(), shape=self.rng.choice(SHAPES))

    def transpose(self) -> Node:
        x = self.any()
        axes = list(range(x.tensor.rank))
        self.rng.shuffle(axes)
        return make(Op.TRANSPOSE, x, axes=tuple(axes))

    def slice(self) -> Node:
        x = self.any()
        pairs = [sorted((self.rng.randint(0, n), self.rng.randint(0, n))) for n in x.shape]
        if self.rng.random() < 0.3:
            pairs = [[0, n] for n in x.shape]
        starts, stops = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
        steps = tuple(self.rng.randint(1, 3) for _ in pairs)
        return make(Op.SLICE, x, starts=starts, stops=stops, steps=steps)

    def flip(self) -> Node:
        x = self.any()
        return make(Op.FLIP, x, axes=self.axes(x.tensor.rank))

    def pad(self) -> Node:
        x = self.any()
        low, high, interior = (
            tuple(self.rng.choice((0, 0, 1, 2)) for _ in x.shape) for _ in range(3)
        )
        value = self.constant(x.dtype, ())
        return make(Op.PAD, x, value, low=low, high=high, interior=interior)

    def concat(self) -> Node:
        x = self.any()
        axis = self.rng.randint(0, max(x.tensor.rank - 1, 0))
        parts = [x, self.like(x.tensor)][: self.rng.randint(1, 2)]
        empty = tuple(0 if k == axis else n for k, n in enumerate(x.shape))
        if self.rng.random() < 0.3:
            parts.append(self.constant(x.dtype, empty))
        return make(Op.CONCAT, *parts, axis=axis)

    def reduce(self) -> Node:
        x = self.any()
        return make(self.rng.choice(REDUCTIONS), x, axes=self.axes(x.tensor.rank))

    def by_axis(self) -> Node:
        x = self.any()
        axis = self.rng.randint(0, max(x.tensor.rank - 1, 0))
        return make(self.rng.choice(BY_AXIS), x, axis=axis)

    def last_axis(self) -> Node:
        return make(self.rng.choice(LAST_AXIS), self.any())

    def indices(self, size: int) -> Node:
        """Integers in [0, size), of any shape."""
        dtype = self.rng.choice((int32, int64, uint8))
        x = self.like(TensorType(dtype, self.rng.choice(SHAPES)))
        return make(Op.REMAINDER, x, self.filled(dtype, size, x.shape))

    def filled(self, dtype: DType, value: int, shape: tuple[int, ...]) -> Node:
        node = constant(dtype, value)
        return make(Op.BROADCAST, node, shape=shape) if shape else node

    def gather(self) -> Node:
        x = self.any()
        axis = self.rng.randint(0, max(x.tensor.rank - 1, 0))
        return make(Op.GATHER, x, self.indices(x.shape[axis] if x.shape else 1), axis=axis)

    def scatter(self) -> Node:
        x = self.any()
        axis = self.rng.randint(0, max(x.tensor.rank - 1, 0))
        indices = self.indices(x.shape[axis] if x.shape else 1)
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        op = self.rng.choice((Op.SCATTER_ADD, Op.SCATTER_SET))
        return make(op, x, indices, self.like(x.tensor.with_shape(shape)), axis=axis)

    def dot(self) -> Node:
        a = self.any()
        rank = a.tensor.rank
        ca, cb = (rank - self.rng.randint(1, 2) for _ in range(2))
        if rank < 2:
            raise EinkornError("a dot needs matrices")
        n, k = self.rng.randint(0, 3), a.shape[ca]
        shape = (*a.shape[:-2], n, k) if cb == rank - 1 else (*a.shape[:-2], k, n)
        return make(Op.DOT, a, self.like(a.tensor.with_shape(shape)), contract=(ca, cb))

    def sources(self) -> Node:
        if self.rng.random() < 0.5:
            return self.constant(self.rng.choice(DTYPES), self.rng.choice(SHAPES))
        if self.rng.random() < 0.5:
            key, counter = (constant(uint64, self.rng.randint(0, 2**40)) for _ in range(2))
            return make(Op.RANDOM_BITS, key, counter, shape=self.rng.choice(SHAPES))
        return make(Op.IOTA, size=self.rng.randint(0, 4), dtype=self.rng.choice(DTYPES))

    def alias(self) -> Node:
        return alias(self.any())

    def call(self) -> Node:
        x = self.any()
        a, b = placeholder(x.tensor), placeholder(x.tensor)
        inner = _Builder(self.rng)
        inner.pool = [a, b]
        result = inner.step()
        graph = Graph("inner", (a,), (b,), (result,), names={a: "a", b: "model.b"})
        return project(make(Op.CALL, x, self.like(x.tensor), graph=graph), 0)

    def step(self) -> Node:
        """A node of some op; a node of the pool when the draw does not fit."""
        common = [self.unary, self.binary, self.binary, self.binary, self.select, self.cast]
        moves = [self.reshape, self.broadcast, self.transpose, self.slice, self.flip, self.pad]
        others = [self.concat, self.reduce, self.by_axis, self.last_axis, self.gather, self.scatter]
        rest = [self.dot, self.integer_pow, self.sources, self.alias, self.call]
        kinds: list[Callable[[], Node]] = [*common, *common, *moves, *moves, *others, *rest]
        try:
            node = self.rng.choice(kinds)()
        except EinkornError:
            return self.any()
        return node if node.tensor.size <= 512 else self.any()


def random_graph(rng: Random, steps: int = 12) -> Graph:
    """A graph of about `steps` ops with up to four parameters, two outputs and an update."""
    builder = _Builder(rng)
    params = [
        placeholder(TensorType(rng.choice(DTYPES), rng.choice(SHAPES)))
        for _ in range(rng.randint(1, 4))
    ]
    builder.pool.extend(params)
    origins: dict[Node, Origin] = {}
    for line in range(steps):
        node = builder.step()
        builder.pool.append(node)
        if rng.random() < 0.5:
            origins.setdefault(node, Origin("/home/user/train.py", line + 1, "model"))
    split = rng.randint(0, len(params))
    outputs = (builder.pool[-1], builder.any())
    leaf = rng.choice(params)
    updates = ((leaf, builder.like(leaf.tensor)),) if rng.random() < 0.6 else ()
    names = {node: rng.choice(("x", "model.hidden.w", "layers.0", "")) for node in params}
    return Graph(
        "fuzz", tuple(params[:split]), tuple(params[split:]), outputs, updates, names, origins
    )


def random_arrays(rng: Random, graph: Graph) -> list[Any]:
    """An array for each parameter: small numbers, some of them zeros, infinities and NaN."""
    return [_array(rng, node.tensor) for node in graph.params]


def _array(rng: Random, type: TensorType) -> Any:
    if type.dtype.is_float:
        special = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"))
        values = [
            rng.choice(special) if rng.random() < 0.15 else rng.randint(-64, 64) / 16
            for _ in range(type.size)
        ]
    else:
        low = -5 if type.dtype.kind == "i" else 0
        values = [rng.randint(low, 1 if type.dtype is bool_ else 9) for _ in range(type.size)]
    return np.array(values, np.float64).astype(type.dtype.numpy).reshape(type.shape)


@st.composite
def graphs(draw: st.DrawFn, max_steps: int = 12) -> Graph:
    """Random graphs that shrink."""
    rng = draw(st.randoms(use_true_random=False))
    return random_graph(rng, draw(st.integers(1, max_steps)))
