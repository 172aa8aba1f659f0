"""One row per op and situation: what each op is tested with, on every target and for gradients.

A `Sample` says how to make operands for a dtype, which dtypes it is for, how far two
implementations may differ, and to which order finite differences can check its gradient. Ops that
are regions (input, project, grad, call) have no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from conv_cases import convolutions
from op_makers import (
    Maker,
    Shape,
    apart,
    booleans,
    edges,
    fixed,
    indices,
    near_identity,
    nonzero,
    uniform,
)
from op_sample import Sample
from op_window_samples import windows

from einkorn.ir.dtypes import (
    ALL,
    FLOATS,
    SIGNED,
    UNSIGNED,
    DType,
    bool_,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType

INTEGERS = (*SIGNED, *UNSIGNED)
NUMBERS = (*INTEGERS, *FLOATS)
TRANSCENDENTAL = 6.0  # ulps: 2 of ours and up to 4 of NumPy's vector functions

# -- elementwise -----------------------------------------------------------------------------------

SHAPES: tuple[Shape, ...] = ((), (37,), (3, 5), (2, 0, 3))

_ROUNDING = (Op.SIGN, Op.FLOOR, Op.CEIL, Op.ROUND, Op.TRUNC)

UNARY: dict[Op, tuple[Callable[[Shape], Maker], tuple[DType, ...]]] = {
    Op.NEG: (uniform, NUMBERS),
    Op.ABS: (nonzero, NUMBERS),
    Op.SIGN: (nonzero, NUMBERS),
    Op.SQRT: (lambda shape: uniform(shape, 0.3, 4), FLOATS),
    Op.RSQRT: (lambda shape: uniform(shape, 0.3, 4), FLOATS),
    Op.EXP: (uniform, FLOATS),
    Op.EXPM1: (uniform, FLOATS),
    Op.LOG: (lambda shape: uniform(shape, 0.3, 4), FLOATS),
    Op.LOG1P: (lambda shape: uniform(shape, -0.6, 3), FLOATS),
    Op.SIN: (uniform, FLOATS),
    Op.COS: (uniform, FLOATS),
    Op.TAN: (lambda shape: uniform(shape, -1.2, 1.2), FLOATS),
    Op.LOG2: (lambda shape: uniform(shape, 0.3, 4), FLOATS),
    Op.LOG10: (lambda shape: uniform(shape, 0.3, 4), FLOATS),
    Op.ASIN: (lambda shape: uniform(shape, -0.9, 0.9), FLOATS),
    Op.ACOS: (lambda shape: uniform(shape, -0.9, 0.9), FLOATS),
    Op.SINH: (uniform, FLOATS),
    Op.COSH: (uniform, FLOATS),
    Op.TANH: (uniform, FLOATS),
    Op.ASINH: (uniform, FLOATS),
    Op.ACOSH: (lambda shape: uniform(shape, 1.2, 4), FLOATS),
    Op.ATANH: (lambda shape: uniform(shape, -0.9, 0.9), FLOATS),
    Op.ERF: (uniform, FLOATS),
    Op.ERFC: (uniform, FLOATS),
    Op.ERFINV: (lambda shape: uniform(shape, -0.9, 0.9), FLOATS),
    Op.NDTR: (uniform, FLOATS),
    Op.LGAMMA: (lambda shape: uniform(shape, 2.5, 9), FLOATS),
    Op.SIGMOID: (uniform, FLOATS),
    Op.SILU: (uniform, FLOATS),
    Op.GELU: (uniform, FLOATS),
    Op.SOFTPLUS: (uniform, FLOATS),
    Op.FLOOR: (apart, FLOATS),
    Op.CEIL: (apart, FLOATS),
    Op.ROUND: (apart, FLOATS),
    Op.TRUNC: (apart, FLOATS),
    Op.NOT: (uniform, (*INTEGERS, bool_)),
    Op.ISFINITE: (uniform, FLOATS),
    Op.CAST: (uniform, FLOATS),
    Op.ALIAS: (uniform, ALL),
    Op.STOP_GRADIENT: (uniform, ALL),
}

_POSITIVE_BASE: tuple[Callable[[Shape], Maker], ...] = (
    lambda shape: uniform(shape, 0.3, 2),
    lambda shape: uniform(shape, -2, 3),
)

BINARY: dict[Op, tuple[tuple[Callable[[Shape], Maker], ...], tuple[DType, ...]]] = {
    Op.ADD: ((uniform, uniform), NUMBERS),
    Op.SUB: ((uniform, uniform), NUMBERS),
    Op.MUL: ((uniform, uniform), NUMBERS),
    Op.DIV: ((uniform, nonzero), FLOATS),
    Op.FLOOR_DIV: ((lambda s: apart(s, 1.0), lambda s: uniform(s, 7.0, 7.05)), NUMBERS),
    Op.REMAINDER: ((lambda s: apart(s, 1.0), lambda s: uniform(s, 7.0, 7.05)), NUMBERS),
    Op.POW: (_POSITIVE_BASE, FLOATS),
    Op.ATAN2: ((uniform, nonzero), FLOATS),
    Op.NEXTAFTER: ((uniform, uniform), FLOATS),
    Op.MAXIMUM: ((uniform, uniform), ALL),
    Op.MINIMUM: ((uniform, uniform), ALL),
    Op.AND: ((uniform, uniform), (*INTEGERS, bool_)),
    Op.OR: ((uniform, uniform), (*INTEGERS, bool_)),
    Op.XOR: ((uniform, uniform), (*INTEGERS, bool_)),
    Op.SHIFT_LEFT: ((uniform, lambda s: uniform(s, -9, 70)), INTEGERS),
    Op.SHIFT_RIGHT: ((uniform, lambda s: uniform(s, -9, 70)), INTEGERS),
    **{op: ((uniform, uniform), ALL) for op in (Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE)},
}

_NO_DERIVATIVE = (Op.NOT, Op.ISFINITE, Op.STOP_GRADIENT)

# Bits are fixed by the semantics although NumPy may not be called for them in eager mode.
_SAME_BITS = {*_ROUNDING, Op.ISFINITE, Op.MAXIMUM, Op.MINIMUM, Op.FLOOR_DIV, Op.CAST}
_SAME_BITS |= {Op.SHIFT_LEFT, Op.SHIFT_RIGHT}


def _ulps(op: Op) -> float:
    return 0.0 if OPS[op].exact or op in _SAME_BITS else TRANSCENDENTAL


def _unary() -> Iterator[Sample]:
    for op, (operand, dtypes) in UNARY.items():
        floor = 4.0 if op is Op.LGAMMA else 0.0  # Python's own is less exact near its zeros
        for attrs in {Op.CAST: [{"dtype": d} for d in ALL], Op.ALIAS: [{"id": 1}]}.get(op, [{}]):
            to_float64 = attrs.get("dtype", float64) is float64
            order = 2 if to_float64 and op not in _NO_DERIVATIVE else 0
            for shape in SHAPES:
                row = (op, (operand(shape),), attrs, dtypes, order)
                yield Sample(*row, ulps=_ulps(op), floor=floor, note=str(shape))
            sources = ALL if op is Op.CAST else dtypes
            row = (op, (edges(),), attrs, sources, 0)
            yield Sample(*row, ulps=_ulps(op), floor=floor, note="edges")
        if _ulps(op):
            wide = (uniform((501,), -100, 100),)
            yield Sample(op, wide, {}, dtypes, 0, ulps=_ulps(op), floor=floor, note="wide")


def _binary() -> Iterator[Sample]:
    for op, (operands, dtypes) in BINARY.items():
        order = 0 if OPS[op].infer(*[TensorType(dtypes[-1], ())] * 2).dtype is bool_ else 2
        for shape in SHAPES:
            args = tuple(operand(shape) for operand in operands)
            order = order if float64 in dtypes else 0
            # x - (x // y) y is as good as x, not as the remainder
            floor = 20.0 if op is Op.REMAINDER else 0.0
            yield Sample(op, args, {}, dtypes, order, 1e-6, _ulps(op), floor, str(shape))
        # Float division with a remainder promises nothing beyond |x / y| < 2**23.
        pairs = (edges(0, 2), edges(1, 2))
        exact = INTEGERS if op in (Op.FLOOR_DIV, Op.REMAINDER) else dtypes
        yield Sample(op, pairs, {}, exact, 0, ulps=_ulps(op), note="edges")


def _other_elementwise() -> Iterator[Sample]:
    for shape in SHAPES:
        args = (booleans(shape), uniform(shape), uniform(shape))
        yield Sample(Op.SELECT, args, {}, ALL, note=str(shape))
    for exponent in (0, 1, 2, 3, 7, -1, -2):
        attrs = {"exponent": exponent}
        dtypes = NUMBERS if exponent >= 0 else FLOATS
        ulps = 2.0 * abs(exponent)
        for shape in SHAPES:
            yield Sample(
                Op.INTEGER_POW, (nonzero(shape),), attrs, dtypes, ulps=ulps, note=str(shape)
            )
        integers = INTEGERS if exponent >= 0 else FLOATS
        yield Sample(Op.INTEGER_POW, (edges(),), attrs, integers, 0, ulps=ulps, note="edges")
    for order in (0, 1, 2, 5):
        attrs, ulps = {"order": order}, 4.0 * (order + 1)
        for shape in SHAPES:
            args = (uniform(shape, 0.7, 4),)
            yield Sample(Op.POLYGAMMA, args, attrs, FLOATS, ulps=ulps, floor=1.0, note=str(shape))
        yield Sample(Op.POLYGAMMA, (edges(),), attrs, FLOATS, 0, ulps=2 * ulps, note="edges")


def _sources() -> Iterator[Sample]:
    pattern = 0x3F
    for dtype in ALL:
        attrs = {"dtype": dtype, "bits": 1 if dtype is bool_ else pattern << (dtype.bits - 8)}
        yield Sample(Op.CONST, (), attrs, (dtype,), 0)
    for dtype, size in product(NUMBERS, (0, 1, 37)):
        yield Sample(Op.IOTA, (), {"size": size, "dtype": dtype}, (dtype,), 0)
    for shape in SHAPES:
        for key, draw in ((0, 0), (2**64 - 1, 2**63 + 5)):
            args = (fixed(np.uint64(key), uint64), fixed(np.uint64(draw), uint64))
            attrs = {"shape": shape}
            yield Sample(Op.RANDOM_BITS, args, attrs, (uint32,), 0, note=f"key={key}")


# -- movement --------------------------------------------------------------------------------------


def _movement() -> Iterator[Sample]:
    reshapes = [((2, 6), (3, 4)), ((), (1, 1)), ((0, 3), (3, 0, 2)), ((5,), (5,)), ((1, 1), ())]
    for shape, new in reshapes:
        yield Sample(Op.RESHAPE, (uniform(shape),), {"shape": new}, ALL, note=str(shape))
    broadcasts = [((), (2, 3)), ((3, 1), (2, 3, 4)), ((1,), (0,)), ((1,), (1,)), ((3,), (2, 3))]
    for shape, new in (*broadcasts, ((1, 5, 1), (3, 5, 1)), ((2, 0), (3, 2, 0))):
        yield Sample(Op.BROADCAST, (uniform(shape),), {"shape": new}, ALL, note=str(shape))
    for shape, axes in [((2, 3, 5), (2, 0, 1)), ((), ()), ((4, 3), (1, 0)), ((0, 2, 1), (1, 2, 0))]:
        yield Sample(Op.TRANSPOSE, (uniform(shape),), {"axes": axes}, ALL, note=str(shape))
    slices = [
        ((7, 5), (1, 0), (6, 5), (2, 3)),
        ((7,), (0,), (7,), (1,)),
        ((8,), (1,), (8,), (3,)),
        ((4, 3), (2, 0), (2, 3), (1, 1)),
        ((), (), (), ()),
        ((0, 3), (0, 1), (0, 2), (1, 1)),
    ]
    for shape, starts, stops, steps in slices:
        attrs = {"starts": starts, "stops": stops, "steps": steps}
        yield Sample(Op.SLICE, (uniform(shape),), attrs, ALL, note=str(shape))
    for shape, axes in [
        ((5,), (0,)),
        ((3, 4), (1,)),
        ((2, 3, 2), (0, 2)),
        ((3, 4), ()),
        ((0,), (0,)),
    ]:
        yield Sample(Op.FLIP, (uniform(shape),), {"axes": axes}, ALL, note=str(shape))
    yield from _joins()


def _joins() -> Iterator[Sample]:
    pads = [
        ((3, 4), (1, 0), (2, 1), (0, 2)),
        ((5,), (0,), (0,), (0,)),
        ((1,), (2,), (1,), (3,)),
        ((0, 2), (1, 0), (1, 1), (2, 0)),
        ((), (), (), ()),
    ]
    for shape, low, high, interior in pads:
        attrs = {"low": low, "high": high, "interior": interior}
        yield Sample(Op.PAD, (uniform(shape), uniform(())), attrs, ALL, note=str(shape))
    concats: list[tuple[int, tuple[Shape, ...]]] = [
        (0, ((3,), (2,), (5,))),
        (1, ((2, 3), (2, 0), (2, 1))),
        (0, ((2, 3),)),
        (2, ((0, 1, 2), (0, 1, 3))),
    ]
    for axis, shapes in concats:
        parts = tuple(uniform(shape) for shape in shapes)
        yield Sample(Op.CONCAT, parts, {"axis": axis}, ALL, note=str(shapes))


# -- reductions ------------------------------------------------------------------------------------

REDUCTIONS: tuple[tuple[Shape, tuple[int, ...]], ...] = (
    ((37,), (0,)),
    ((3, 4, 5), (0,)),
    ((3, 4, 5), (1,)),
    ((3, 4, 5), (2,)),
    ((3, 4, 5), (0, 2)),
    ((3, 4, 5), (1, 2)),
    ((3, 4, 5), (0, 1, 2)),
    ((3, 2), ()),
    ((), ()),
    ((2, 1), (1,)),
    ((0, 3), (1,)),
)


def _reductions() -> Iterator[Sample]:
    for shape, axes in (*REDUCTIONS, ((0, 3), (0,)), ((0, 3), (0, 1))):
        args, attrs, note = (uniform(shape),), {"axes": axes}, str(shape)
        floor = 3.0 * np.prod([shape[k] for k in axes])
        yield Sample(Op.SUM, args, attrs, NUMBERS, ulps=2, floor=floor, note=note)
        near_one = (nonzero(shape, 0.8, 1.25),)
        yield Sample(Op.PROD, near_one, attrs, NUMBERS, ulps=60, note=note)
    for shape, axes in (((2, 9001), (1,)), ((700, 3), (0,)), ((17, 5, 33), (0, 2))):
        args, attrs, note = (uniform(shape, -1, 1),), {"axes": axes}, str(shape)
        yield Sample(Op.SUM, args, attrs, FLOATS, 1, ulps=4, floor=200, note=note)
    for zeros in range(4):
        row = fixed([*[0.0] * zeros, 1.5, -0.5, 2.0, 3.0, -1.25])
        yield Sample(Op.PROD, (row,), {"axes": (0,)}, ulps=8, note=f"{zeros} zeros")
    for op in (Op.MAX, Op.MIN):
        for shape, axes in REDUCTIONS:
            yield Sample(op, (apart(shape),), {"axes": axes}, NUMBERS, note=str(shape))
        yield Sample(op, (edges(0, 2),), {"axes": (0,)}, NUMBERS, 0, note="edges")
        signed_zeros = fixed(
            [[0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0], [np.nan, 1.0], [-np.inf, 1.0]]
        )
        yield Sample(op, (signed_zeros,), {"axes": (1,)}, FLOATS, 0, note="signed zeros")


def _scans() -> Iterator[Sample]:
    for op in (Op.ARGMAX, Op.ARGMIN):
        for shape, axis in (
            ((37,), 0),
            ((3, 4, 5), 0),
            ((3, 4, 5), 1),
            ((3, 4, 5), 2),
            ((0, 3), 1),
        ):
            yield Sample(op, (apart(shape),), {"axis": axis}, NUMBERS, 0, note=str(shape))
        ties = fixed([[1.0, 3.0, 3.0, 1.0], [0.0, -0.0, 0.0, -0.0]])
        yield Sample(op, (ties,), {"axis": 1}, FLOATS, 0, note="ties")
        yield Sample(op, (edges(0, 2),), {"axis": 0}, NUMBERS, 0, note="edges")
    for shape, axis in (((37,), 0), ((3, 4, 5), 0), ((3, 4, 5), 1), ((3, 4, 5), 2), ((2, 0), 1)):
        attrs, floor = {"axis": axis}, 3.0 * shape[axis]
        yield Sample(
            Op.CUMSUM, (uniform(shape),), attrs, NUMBERS, ulps=2, floor=floor, note=str(shape)
        )
        near_one = (nonzero(shape, 0.8, 1.25),)
        yield Sample(Op.CUMPROD, near_one, attrs, NUMBERS, ulps=60, note=str(shape))
        for op in (Op.CUMMAX, Op.CUMMIN):
            yield Sample(op, (apart(shape),), attrs, NUMBERS, note=str(shape))
    for zeros in range(4):
        row = fixed([1.5, *[0.0] * zeros, -0.5, 2.0, 3.0, -1.25])
        yield Sample(Op.CUMPROD, (row,), {"axis": 0}, ulps=8, note=f"{zeros} zeros")
    mixed = fixed([0.0, -0.0, 0.0, -1.0, np.inf, np.nan, -np.inf, 1.0])
    for op in (Op.CUMMAX, Op.CUMMIN):
        yield Sample(op, (mixed,), {"axis": 0}, FLOATS, 0, note="mixed")
    yield from _sorting()
    for op in (Op.SOFTMAX, Op.LOG_SOFTMAX, Op.LOGSUMEXP):
        floor = 0.0 if op is Op.SOFTMAX else 8.0
        for shape in ((37,), (3, 5), (2, 3, 1), (0, 4), (3, 0)):
            order = 2 if shape[-1] else 0  # the logsumexp of nothing is -inf
            row = (op, (uniform(shape),), {}, FLOATS, order)
            yield Sample(*row, ulps=16, floor=floor, note=str(shape))
        masked = fixed([[-np.inf, 0, 1], [60.0, -60.0, 59.0], [np.nan, 0, 1], [-np.inf] * 3])
        yield Sample(op, (masked,), {}, FLOATS, 0, ulps=64, floor=floor, note="masked")


def _sorting() -> Iterator[Sample]:
    for shape in ((37,), (3, 4, 5), (1,), (2, 0), (0, 3), (2, 1), (700,)):
        yield Sample(Op.ARGSORT, (uniform(shape),), {}, NUMBERS, 0, note=str(shape))
    ties = fixed([[1.0, 3.0, 3.0, 1.0], [0.0, -0.0, 0.0, -0.0], [np.nan, 1.0, -np.inf, np.nan]])
    for outcome in (True, False):
        given = lambda rng, dtype, outcome=outcome: np.array(outcome)  # noqa: E731
        yield Sample(Op.CHECK, (given,), {"expected": outcome}, (bool_,), 0)
    yield Sample(Op.ARGSORT, (ties,), {}, FLOATS, 0, note="ties")
    yield Sample(Op.ARGSORT, (edges(0, 2),), {}, NUMBERS, 0, note="edges")


# -- indexing and contraction ----------------------------------------------------------------------

# x shape, axis, indices: repeated, negative and 2-D ones, none, and one scalar.
INDEXED: tuple[tuple[Shape, int, Maker], ...] = (
    ((5, 3), 0, fixed([4, 0, 0, -1, 2], int64)),
    ((3, 5), 1, fixed([[1, -5, 2], [4, 3, -1]], int32)),
    ((2, 3, 2), 1, fixed([2, 1], uint8)),
    ((4,), 0, indices((9,), -4, 4, int8)),
    ((4, 2), 0, fixed(3, int64)),
    ((4, 2), 1, indices((0,), 0, 1)),
    ((0, 2), 0, indices((0,), 0, 1)),
    ((3, 0), 0, fixed([0, 2, 2], uint64)),
)


def _indexing() -> Iterator[Sample]:
    for shape, axis, at in INDEXED:
        attrs, note = {"axis": axis}, f"{shape}"
        yield Sample(Op.GATHER, (uniform(shape), at), attrs, ALL, note=note)
        where = at(np.random.default_rng(0), int64).shape
        updates = uniform((*shape[:axis], *where, *shape[axis + 1 :]))
        args = (uniform(shape), at, updates)
        yield Sample(Op.SCATTER_ADD, args, attrs, NUMBERS, ulps=2, floor=20, note=note)
        yield Sample(Op.SCATTER_SET, args, attrs, ALL, note=note)


# batch, M, N, K: square-free, skinny, single, empty, and past one block of K.
DOTS: tuple[tuple[Shape, int, int, int], ...] = (
    ((), 3, 5, 4),
    ((), 17, 33, 37),
    ((), 1, 1, 1),
    ((), 1, 7, 40),
    ((), 9, 2, 33),
    ((2,), 3, 2, 5),
    ((2, 3), 5, 6, 3),
    ((), 3, 2, 0),
    ((0,), 2, 3, 4),
    ((), 0, 3, 2),
)


def _dots() -> Iterator[Sample]:
    for (batch, m, n, k), (ca, cb) in product(DOTS, product((1, 0), (0, 1))):
        rank = len(batch)
        a = (*batch, m, k) if ca else (*batch, k, m)
        b = (*batch, n, k) if cb else (*batch, k, n)
        attrs = {"contract": (rank + ca, rank + cb)}
        note = f"{batch}{m}x{n}x{k}"
        args = (uniform(a, -1, 1), uniform(b, -1, 1))
        dtypes = NUMBERS if m * n < 100 else FLOATS
        yield Sample(Op.DOT, args, attrs, dtypes, ulps=2, floor=max(k, 1), note=note)


def _convolutions() -> Iterator[Sample]:
    for op, shapes, attrs, terms in convolutions():
        args = tuple(uniform(shape, -1, 1) for shape in shapes)
        yield Sample(op, args, attrs, NUMBERS, ulps=2, floor=2.0 * terms + 1, note=str(shapes))


def _host() -> Iterator[Sample]:
    """Functions of one result; tests/test_linalg.py and tests/test_fft.py have all others."""
    for shape in ((3, 3), (2, 4, 4), (0, 0), (0, 2, 2)):
        near = near_identity(shape)
        for name in ("inv", "det", "expm"):
            attrs = {"function": name, "params": ()}
            yield Sample(Op.HOST, (near,), attrs, (float32, float64), note=str(shape))
        attrs = {"function": "solve", "params": ()}
        right = uniform((*shape[:-1], 2))
        yield Sample(Op.HOST, (near, right), attrs, (float32, float64), note=str(shape))


SAMPLES: list[Sample] = [
    *_sources(),
    *_unary(),
    *_binary(),
    *_other_elementwise(),
    *_movement(),
    *_reductions(),
    *_scans(),
    *_indexing(),
    *_dots(),
    *_convolutions(),
    *windows(),
    *_host(),
]
