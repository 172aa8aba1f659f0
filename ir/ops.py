"""The ops: what each computes, to the bit, and every target-independent fact about it.

Semantics. "Equal" below means equal to the last bit, all NaNs counting as one value.

Shapes and dtypes
    Operands of an elementwise op agree in shape and dtype; `broadcast` and `cast` are ops of their
    own. Integers wrap around (two's complement). Every op rounds its result to its dtype, fused or
    not: float16 and bfloat16 ops compute in float32 and round once to nearest-even. Accumulation
    inside one `sum`, `dot`, scan or softmax of a half type is in float32.
Floating-point environment
    IEEE 754, round to nearest even, subnormals kept, no exceptions raised. Every native entry sets
    the control register so and restores it, in every thread.
No contraction across ops, no reassociation
    A multiply and an add in the graph are two roundings. `div` and `sqrt` are correctly rounded.
    Fused multiply-add and estimates live only inside primitives whose numerics are our own.
Contraction (`dot`)
    Each output element is one chain of fused multiply-adds over k = 0, 1, ... starting from +0.
    When min(M, N) <= 4 there are 16 interleaved chains instead: product k goes to chain k mod 16,
    every chain starts from +0, and the chains are joined by the tree below. The rule depends on
    (M, N) alone. An empty contraction gives +0.
Convolution (`conv`, `conv_filter`)
    Also contractions, always with one chain for each element, from +0. In `conv` it goes through
    the positions of the window in row-major order, and at each through the channels of the group;
    in `conv_filter`, the derivative by the filter, through the images, and in each through the
    results in row-major order. The input is extended with +0, which takes part in the chain; where
    a position of the window falls between two elements (`interior`), nothing takes part.
Reduction over trailing axes (rows; the reduced axes, flattened, are one row)
    Within a block of 4096 elements, element i is added to partial i mod 16, in index order; each
    partial starts from the neutral element. The partials are joined by the tree: partial j gets
    j + 8 added (j < 8), then j + 4, then j + 2, then j + 1. Block results are combined in sequence,
    starting from the neutral element.
Reduction over other axes (columns; reduced axes flattened in index order are the rows of a column)
    Sequential in blocks of 256 rows, each starting from the neutral element; block results are
    combined in sequence, starting from the neutral element.
Mixed reductions reduce their trailing axes first, then the others. Axes of one element do not
    count as axes.
    The neutral element of a float sum is -0.0, so appending neutral elements changes nothing; a
    sum over nothing is +0. Products start from 1; maximum from -inf, minimum from +inf.
Scans (`cumsum`, `cumprod`, `cummax`, `cummin`)
    In order along the axis: y[0] = x[0], y[i] = y[i-1] op x[i], with the op of the reduction. The
    running sum or product of float32 is kept in float64 and rounded where it is stored.
Sorting (`argsort`, along the last axis)
    Ascending and stable. NaN counts as larger than every number and equal to NaN; -0.0 equals 0.0.
Windows (`window_pick`, `window_place`, `window_sum`; over the spatial axes of [N, s..., C])
    A window picks its first element, in row-major order, whose key is largest; NaN is larger than
    every number and equal to NaN, -0.0 equals 0.0, padding is never picked. `window_place` adds
    the updates of its windows in row-major order of the windows, from +0. `window_sum` adds the
    taps of a window in row-major order, from +0; padding is +0.
Primitives with their own numerics
    exp, log, expm1, log1p, log2, log10, sin, cos, tan, asin, acos, atan2, sinh, cosh, tanh, asinh,
    acosh, atanh, erf, erfc, erfinv, ndtr, lgamma, polygamma, pow, rsqrt, sigmoid, silu, gelu,
    softplus: one implementation, at most 2 ulp, special values as C99. For negative arguments,
    lgamma and digamma (polygamma of order 0) have 2 ulp of the largest of the result, of
    log|gamma(|x|)| or log|x|, and of 1, because they have zeros there; a higher order n has
    4 (n + 1) ulp in float64. softmax, log_softmax and logsumexp:
    subtract the row's maximum, then exp, then the row reduction above.
min, max, integers
    maximum and minimum are IEEE 754-2019: NaN if either is NaN, -0.0 < +0.0. x // 0 and x % 0 are
    0 for integers; the remainder takes the divisor's sign; shifts by the width or more, or by a
    negative count, give 0 (-1 for a signed right shift of a negative number). Float to integer
    saturates, NaN gives 0. Float x // y is floor(x / y) and x % y is x - (x // y) * y with one
    rounding, moved into [0, |y|) with the divisor's sign; exact while |x / y| < 2**23.
    integer_pow multiplies by repeated squaring, most significant bit first; a negative exponent
    gives 1 / x**n.
Indices
    gather and scatter read and write inside the axis only: a negative index counts from the end
    once; anything further out is clamped and reported as a BoundsError before any state changes.
    Repeated scatter indices apply in index order.
Host functions (`host`) and complex numbers
    A host function is NumPy's, on dense operands, in every mode; ir/host lists them. So is every op
    that computes with complex operands or gives a complex result: the reference in the table below.
    Data movement, gather and scatter of complex elements are those of any other element. LAPACK and
    BLAS under NumPy have their own order of operations, which may depend on the machine.
Control flow
    cond, while and scan apply their closed graphs step by step, as if each step were written out;
    a scan in reverse goes through the rows of its operands, and of its results, from the last.
    The gradient of a scan by what its steps share contracts the factors of all steps in one chain
    where a step's contribution is a small product; else contributions add up against the direction
    of the scan (passes/scan_vjp.py). Cotangents of slices that do not overlap are joined.
Conditions
    check gives its operand; when that is not as expected, the step it is in changes no state.
Randomness
    random_bits is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    2011): element i is word i mod 4 of the block with key `key` and counter (i // 4, draw).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from einkorn.ir import callbacks, conv_rules, host, windows
from einkorn.ir import control_rules as control
from einkorn.ir import numpy_rules as ref
from einkorn.ir import shape_rules as shape
from einkorn.ir import special_rules as special


class Op(Enum):
    """The closed set of primitive ops."""

    __hash__ = object.__hash__  # members are unique objects; Enum's own hash runs in Python

    # Sources.
    INPUT = auto()
    CONST = auto()
    IOTA = auto()
    SIZE = auto()
    RANDOM_BITS = auto()
    # Elementwise, one operand.
    NEG = auto()
    ABS = auto()
    SIGN = auto()
    SQRT = auto()
    RSQRT = auto()
    EXP = auto()
    EXPM1 = auto()
    LOG = auto()
    LOG1P = auto()
    LOG2 = auto()
    LOG10 = auto()
    SIN = auto()
    COS = auto()
    TAN = auto()
    ASIN = auto()
    ACOS = auto()
    SINH = auto()
    COSH = auto()
    TANH = auto()
    ASINH = auto()
    ACOSH = auto()
    ATANH = auto()
    ERF = auto()
    ERFC = auto()
    ERFINV = auto()
    NDTR = auto()
    LGAMMA = auto()
    POLYGAMMA = auto()
    SIGMOID = auto()
    SILU = auto()
    GELU = auto()
    SOFTPLUS = auto()
    FLOOR = auto()
    CEIL = auto()
    ROUND = auto()
    TRUNC = auto()
    NOT = auto()
    ISFINITE = auto()
    CAST = auto()
    INTEGER_POW = auto()
    ALIAS = auto()
    STOP_GRADIENT = auto()
    # Elementwise, two operands and more.
    ADD = auto()
    SUB = auto()
    MUL = auto()
    DIV = auto()
    FLOOR_DIV = auto()
    REMAINDER = auto()
    POW = auto()
    ATAN2 = auto()
    NEXTAFTER = auto()
    MAXIMUM = auto()
    MINIMUM = auto()
    AND = auto()
    OR = auto()
    XOR = auto()
    SHIFT_LEFT = auto()
    SHIFT_RIGHT = auto()
    EQ = auto()
    NE = auto()
    LT = auto()
    LE = auto()
    GT = auto()
    GE = auto()
    SELECT = auto()
    # Movement.
    RESHAPE = auto()
    BROADCAST = auto()
    TRANSPOSE = auto()
    SLICE = auto()
    FLIP = auto()
    PAD = auto()
    CONCAT = auto()
    # Reductions and scans.
    SUM = auto()
    PROD = auto()
    MAX = auto()
    MIN = auto()
    ARGMAX = auto()
    ARGMIN = auto()
    ARGSORT = auto()
    CUMSUM = auto()
    CUMPROD = auto()
    CUMMAX = auto()
    CUMMIN = auto()
    SOFTMAX = auto()
    LOG_SOFTMAX = auto()
    LOGSUMEXP = auto()
    # Indexing and contraction.
    GATHER = auto()
    SCATTER_ADD = auto()
    SCATTER_SET = auto()
    DOT = auto()
    CONV = auto()
    CONV_FILTER = auto()
    # Windows.
    WINDOW_PICK = auto()
    WINDOW_PLACE = auto()
    WINDOW_SUM = auto()
    # What a step is for.
    CHECK = auto()
    # Functions on the host.
    HOST = auto()
    CALLBACK = auto()
    # Several results and regions.
    PROJECT = auto()
    GRAD = auto()
    CALL = auto()
    COND = auto()
    WHILE = auto()
    SCAN = auto()


@dataclass(frozen=True, slots=True)
class OpDef:
    """Every target-independent fact about one op. Gradients and kernels live in their own tables.

    Attributes:
        infer: types, attrs -> result type; raises when the op does not accept them.
        numpy: arrays, attrs -> array: the reference. None for sources and regions.
        elementwise: result element i depends on element i of each operand alone.
        view: the result can share its operand's memory, read with other strides.
        exact: NumPy gives the same bits as every target, so eager mode and `fold` may call it.
        commutative: the operands may be exchanged without changing a bit.
        refuses: it can stop a step when it runs (an index out of range).
    """

    infer: Callable[..., Any]
    numpy: Callable[..., Any] | None = None
    elementwise: bool = False
    view: bool = False
    exact: bool = False
    commutative: bool = False
    refuses: bool = False


def _unary(numpy: Callable[..., Any], infer: Callable[..., Any] = shape.floating) -> OpDef:
    return OpDef(infer, numpy, elementwise=True)


def _exact(
    numpy: Callable[..., Any], infer: Callable[..., Any] = shape.numeric, commutative: bool = False
) -> OpDef:
    return OpDef(infer, numpy, elementwise=True, exact=True, commutative=commutative)


def _compare(numpy: Callable[..., Any], commutative: bool = False) -> OpDef:
    return _exact(numpy, shape.comparison, commutative)


def _move(infer: Callable[..., Any], numpy: Callable[..., Any], view: bool = True) -> OpDef:
    return OpDef(infer, numpy, view=view, exact=True)


OPS: dict[Op, OpDef] = {
    Op.INPUT: OpDef(shape.source),
    Op.CONST: OpDef(shape.const, ref.const, exact=True),
    Op.IOTA: OpDef(shape.iota, ref.iota, exact=True),
    Op.SIZE: OpDef(shape.size),
    Op.RANDOM_BITS: OpDef(shape.random_bits, ref.random_bits),
    Op.NEG: _exact(np.negative),
    Op.ABS: _exact(np.abs, shape.magnitude),
    Op.SIGN: _unary(np.sign, shape.numeric),
    Op.SQRT: _exact(np.sqrt, shape.inexact),
    Op.RSQRT: _unary(ref.rsqrt, shape.inexact),
    Op.EXP: _unary(np.exp, shape.inexact),
    Op.EXPM1: _unary(np.expm1, shape.inexact),
    Op.LOG: _unary(np.log, shape.inexact),
    Op.LOG1P: _unary(np.log1p, shape.inexact),
    Op.LOG2: _unary(np.log2, shape.inexact),
    Op.LOG10: _unary(np.log10, shape.inexact),
    Op.SIN: _unary(np.sin, shape.inexact),
    Op.COS: _unary(np.cos, shape.inexact),
    Op.TAN: _unary(np.tan, shape.inexact),
    Op.ASIN: _unary(np.arcsin, shape.inexact),
    Op.ACOS: _unary(np.arccos, shape.inexact),
    Op.SINH: _unary(np.sinh, shape.inexact),
    Op.COSH: _unary(np.cosh, shape.inexact),
    Op.TANH: _unary(np.tanh, shape.inexact),
    Op.ASINH: _unary(np.arcsinh, shape.inexact),
    Op.ACOSH: _unary(np.arccosh, shape.inexact),
    Op.ATANH: _unary(np.arctanh, shape.inexact),
    Op.ERF: _unary(special.erf),
    Op.ERFC: _unary(special.erfc),
    Op.ERFINV: _unary(special.erfinv),
    Op.NDTR: _unary(special.ndtr),
    Op.LGAMMA: _unary(special.lgamma),
    Op.POLYGAMMA: _unary(special.polygamma, shape.polygamma),
    Op.SIGMOID: _unary(ref.sigmoid),
    Op.SILU: _unary(ref.silu),
    Op.GELU: _unary(ref.gelu),
    Op.SOFTPLUS: _unary(ref.softplus),
    Op.FLOOR: _unary(np.floor),
    Op.CEIL: _unary(np.ceil),
    Op.ROUND: _unary(np.rint, shape.inexact),
    Op.TRUNC: _unary(np.trunc),
    Op.NOT: _exact(np.invert, shape.bitwise),
    Op.ISFINITE: _unary(np.isfinite, shape.predicate),
    Op.CAST: OpDef(shape.cast, ref.cast, elementwise=True),
    Op.INTEGER_POW: OpDef(shape.integer_pow, ref.integer_pow, elementwise=True),
    Op.ALIAS: OpDef(shape.alias, ref.alias, elementwise=True, view=True, exact=True),
    Op.STOP_GRADIENT: OpDef(
        shape.elementwise, ref.identity, elementwise=True, view=True, exact=True
    ),
    Op.ADD: _exact(np.add, commutative=True),
    Op.SUB: _exact(np.subtract),
    Op.MUL: _exact(np.multiply, commutative=True),
    Op.DIV: _exact(np.divide, shape.inexact),
    Op.FLOOR_DIV: _unary(ref.floor_div, shape.real_numeric),
    Op.REMAINDER: _unary(ref.remainder, shape.real_numeric),
    Op.POW: _unary(np.power, shape.inexact),
    Op.ATAN2: _unary(np.arctan2),
    Op.NEXTAFTER: _exact(special.nextafter, shape.floating),
    Op.MAXIMUM: OpDef(shape.ordered, ref.maximum, elementwise=True, commutative=True),
    Op.MINIMUM: OpDef(shape.ordered, ref.minimum, elementwise=True, commutative=True),
    Op.AND: _exact(np.bitwise_and, shape.bitwise, commutative=True),
    Op.OR: _exact(np.bitwise_or, shape.bitwise, commutative=True),
    Op.XOR: _exact(np.bitwise_xor, shape.bitwise, commutative=True),
    Op.SHIFT_LEFT: _unary(ref.shift_left, shape.shift),
    Op.SHIFT_RIGHT: _unary(ref.shift_right, shape.shift),
    Op.EQ: _compare(np.equal, commutative=True),
    Op.NE: _compare(np.not_equal, commutative=True),
    Op.LT: _exact(np.less, shape.ordered_comparison),
    Op.LE: _exact(np.less_equal, shape.ordered_comparison),
    Op.GT: _exact(np.greater, shape.ordered_comparison),
    Op.GE: _exact(np.greater_equal, shape.ordered_comparison),
    Op.SELECT: OpDef(shape.select, np.where, elementwise=True, exact=True),
    Op.RESHAPE: _move(shape.reshape, np.reshape),
    Op.BROADCAST: _move(shape.broadcast, np.broadcast_to),
    Op.TRANSPOSE: _move(shape.transpose, np.transpose),
    Op.SLICE: _move(shape.slice_, ref.slice_),
    Op.FLIP: _move(shape.flip, ref.flip),
    Op.PAD: _move(shape.pad, ref.pad, view=False),
    Op.CONCAT: _move(shape.concat, ref.concat, view=False),
    Op.SUM: OpDef(shape.reduction, ref.sum),
    Op.PROD: OpDef(shape.reduction, ref.prod),
    Op.MAX: OpDef(shape.ordered_reduction, ref.max),
    Op.MIN: OpDef(shape.ordered_reduction, ref.min),
    Op.ARGMAX: OpDef(shape.arg_reduction, np.argmax),
    Op.ARGMIN: OpDef(shape.arg_reduction, np.argmin),
    Op.ARGSORT: OpDef(shape.arg_sort, ref.argsort),
    Op.CUMSUM: OpDef(shape.scan, ref.cumsum),
    Op.CUMPROD: OpDef(shape.scan, ref.cumprod),
    Op.CUMMAX: OpDef(shape.ordered_scan, ref.cummax),
    Op.CUMMIN: OpDef(shape.ordered_scan, ref.cummin),
    Op.SOFTMAX: OpDef(shape.last_axis, ref.softmax),
    Op.LOG_SOFTMAX: OpDef(shape.last_axis, ref.log_softmax),
    Op.LOGSUMEXP: OpDef(shape.last_axis_reduction, ref.logsumexp),
    Op.GATHER: OpDef(shape.gather, ref.gather, refuses=True),
    Op.SCATTER_ADD: OpDef(shape.scatter_add, ref.scatter_add, refuses=True),
    Op.SCATTER_SET: OpDef(shape.scatter, ref.scatter_set, refuses=True),
    Op.DOT: OpDef(shape.dot, ref.dot),
    Op.CONV: OpDef(conv_rules.conv, conv_rules.conv_numpy),
    Op.CONV_FILTER: OpDef(conv_rules.conv_filter, conv_rules.conv_filter_numpy),
    Op.WINDOW_PICK: OpDef(windows.window_pick, windows.pick),
    Op.WINDOW_PLACE: OpDef(windows.window_place, windows.place),
    Op.WINDOW_SUM: OpDef(windows.window_sum, windows.total),
    Op.CHECK: OpDef(shape.check, ref.check, refuses=True),
    Op.HOST: OpDef(host.infer, host.run, refuses=True),
    Op.CALLBACK: OpDef(callbacks.infer, callbacks.run, refuses=True),
    Op.PROJECT: OpDef(shape.project),
    Op.GRAD: OpDef(shape.grad),
    Op.CALL: OpDef(shape.call),
    Op.COND: OpDef(control.cond),
    Op.WHILE: OpDef(control.while_loop),
    Op.SCAN: OpDef(control.scan),
}

INDEXING = frozenset({Op.GATHER, Op.SCATTER_ADD, Op.SCATTER_SET})
"""The ops whose second operand holds indices, which are checked."""

ON_HOST = frozenset({Op.HOST, Op.CALLBACK})
"""The ops that are functions on the host, whatever their operands are."""

CONTROL = frozenset({Op.COND, Op.WHILE, Op.SCAN})
"""The ops that apply closed graphs, which stay graphs of their own down to the program."""
