"""Gradients of elementwise ops. In the formulas g is the cotangent, x an operand, y the result."""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np

from einkorn.ir.dtypes import bfloat16
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.build import (
    add,
    div,
    filled,
    keep_where,
    mul,
    neg,
    one_minus,
    plus,
    select,
    times,
    zero_where,
    zeros,
)
from einkorn.passes.gradients.rule import Contributions, Rule, no_gradient


def _neg(node: Node, g: Node) -> Contributions:
    return (neg(g),)


def _abs(node: Node, g: Node) -> Contributions:
    """g * sign(x); 0 at 0."""
    return (mul(g, make(Op.SIGN, node.inputs[0])),)


def _sqrt(node: Node, g: Node) -> Contributions:
    """g / (2 y)"""
    return (div(g, times(node, 2)),)


def _rsqrt(node: Node, g: Node) -> Contributions:
    """-g / 2 * y**3"""
    return (mul(times(g, -0.5), make(Op.INTEGER_POW, node, exponent=3)),)


def _exp(node: Node, g: Node) -> Contributions:
    return (mul(g, node),)


def _expm1(node: Node, g: Node) -> Contributions:
    """g * (y + 1)"""
    return (mul(g, plus(node, 1)),)


def _log(node: Node, g: Node) -> Contributions:
    return (div(g, node.inputs[0]),)


def _log1p(node: Node, g: Node) -> Contributions:
    """g / (x + 1)"""
    return (div(g, plus(node.inputs[0], 1)),)


def _log2(node: Node, g: Node) -> Contributions:
    """g / (x log(2))"""
    return (div(g, times(node.inputs[0], log(2))),)


def _log10(node: Node, g: Node) -> Contributions:
    """g / (x log(10))"""
    return (div(g, times(node.inputs[0], log(10))),)


def _sin(node: Node, g: Node) -> Contributions:
    return (mul(g, make(Op.COS, node.inputs[0])),)


def _cos(node: Node, g: Node) -> Contributions:
    return (neg(mul(g, make(Op.SIN, node.inputs[0]))),)


def _tan(node: Node, g: Node) -> Contributions:
    """g * (1 + y y)"""
    return (mul(g, plus(mul(node, node), 1)),)


def _asin(node: Node, g: Node) -> Contributions:
    """g / sqrt((1 - x) (1 + x))"""
    return (mul(g, _inverse_cosine(node.inputs[0])),)


def _inverse_cosine(x: Node) -> Node:
    """1 / sqrt(1 - x x), exact factors near 1 and -1"""
    return make(Op.RSQRT, mul(one_minus(x), plus(x, 1)))


def _acos(node: Node, g: Node) -> Contributions:
    """-g / sqrt((1 - x) (1 + x))"""
    return (neg(mul(g, _inverse_cosine(node.inputs[0]))),)


def _atan2(node: Node, g: Node) -> Contributions:
    """g x / (x x + y y) and -g y / (x x + y y); 0 at (0, 0)."""
    y, x = node.inputs
    none = zeros(x.tensor)
    origin = make(Op.AND, make(Op.EQ, x, none), make(Op.EQ, y, none))
    square = select(origin, filled(x.tensor, 1), add(mul(x, x), mul(y, y)))
    share = zero_where(origin, div(g, square))
    return mul(share, x), neg(mul(share, y))


def _sinh(node: Node, g: Node) -> Contributions:
    return (mul(g, make(Op.COSH, node.inputs[0])),)


def _cosh(node: Node, g: Node) -> Contributions:
    return (mul(g, make(Op.SINH, node.inputs[0])),)


def _asinh(node: Node, g: Node) -> Contributions:
    """g / sqrt(x x + 1)"""
    x = node.inputs[0]
    return (mul(g, make(Op.RSQRT, plus(mul(x, x), 1))),)


def _acosh(node: Node, g: Node) -> Contributions:
    """g / sqrt((x - 1) (x + 1))"""
    x = node.inputs[0]
    return (mul(g, make(Op.RSQRT, mul(plus(x, -1), plus(x, 1)))),)


def _atanh(node: Node, g: Node) -> Contributions:
    """g / ((1 - x) (1 + x))"""
    x = node.inputs[0]
    return (div(g, mul(one_minus(x), plus(x, 1))),)


def _tanh(node: Node, g: Node) -> Contributions:
    """g * (1 - y y)"""
    return (mul(g, one_minus(mul(node, node))),)


def _gaussian(x: Node, sharpness: float, height: float) -> Node:
    """height * exp(-sharpness * x x)"""
    return times(make(Op.EXP, times(mul(x, x), -sharpness)), height)


def _erf(node: Node, g: Node) -> Contributions:
    """g * 2 / sqrt(pi) * exp(-x x)"""
    return (mul(g, _gaussian(node.inputs[0], 1.0, 2 / sqrt(pi))),)


def _erfc(node: Node, g: Node) -> Contributions:
    """-g * 2 / sqrt(pi) * exp(-x x)"""
    return (mul(g, _gaussian(node.inputs[0], 1.0, -2 / sqrt(pi))),)


def _erfinv(node: Node, g: Node) -> Contributions:
    """g * sqrt(pi) / 2 * exp(y y)"""
    return (mul(g, _gaussian(node, -1.0, sqrt(pi) / 2)),)


def _ndtr(node: Node, g: Node) -> Contributions:
    """g * exp(-x x / 2) / sqrt(2 pi)"""
    return (mul(g, _gaussian(node.inputs[0], 0.5, 1 / sqrt(2 * pi))),)


def _lgamma(node: Node, g: Node) -> Contributions:
    """g * digamma(x)"""
    return (mul(g, make(Op.POLYGAMMA, node.inputs[0], order=0)),)


def _polygamma(node: Node, g: Node) -> Contributions:
    """g times the derivative of the next order"""
    return (mul(g, make(Op.POLYGAMMA, node.inputs[0], order=node.attr("order") + 1)),)


def _sigmoid(node: Node, g: Node) -> Contributions:
    """g * y * (1 - y)"""
    return (mul(g, mul(node, one_minus(node))),)


def _silu(node: Node, g: Node) -> Contributions:
    """g * (s + y (1 - s)) with s = sigmoid(x); through y, so that it is 0 at -inf."""
    s = make(Op.SIGMOID, node.inputs[0])
    return (mul(g, add(s, mul(node, one_minus(s)))),)


def _gelu(node: Node, g: Node) -> Contributions:
    """g * (cdf(x) + x pdf(x)) of the standard normal distribution"""
    x = node.inputs[0]
    cdf = times(plus(make(Op.ERF, times(x, sqrt(0.5))), 1), 0.5)
    pdf = _gaussian(x, 0.5, 1 / sqrt(2 * pi))
    return (mul(g, add(cdf, mul(x, pdf))),)


def _softplus(node: Node, g: Node) -> Contributions:
    return (mul(g, make(Op.SIGMOID, node.inputs[0])),)


def _cast(node: Node, g: Node) -> Contributions:
    """The cotangent in the operand's dtype; integers and bool carry none."""
    dtype = node.inputs[0].dtype
    return (make(Op.CAST, g, dtype=dtype) if dtype.is_float and node.dtype.is_float else None,)


def _integer_pow(node: Node, g: Node) -> Contributions:
    """g * n * x**(n - 1)"""
    x, n = node.inputs[0], node.attr("exponent")
    if n == 0:
        return (None,)
    if n == 1:
        return (g,)
    lower = x if n == 2 else make(Op.INTEGER_POW, x, exponent=n - 1)
    return (mul(g, times(lower, n)),)


def _alias(node: Node, g: Node) -> Contributions:
    return (g,)


def _add(node: Node, g: Node) -> Contributions:
    return g, g


def _sub(node: Node, g: Node) -> Contributions:
    return g, neg(g)


def _mul(node: Node, g: Node) -> Contributions:
    a, b = node.inputs
    return mul(g, b), mul(g, a)


def _div(node: Node, g: Node) -> Contributions:
    """g / b and -(g / b) * y"""
    share = div(g, node.inputs[1])
    return share, neg(mul(share, node))


def _remainder(node: Node, g: Node) -> Contributions:
    """g and -g * (a // b)"""
    return g, neg(mul(g, make(Op.FLOOR_DIV, *node.inputs)))


def _pow(node: Node, g: Node) -> Contributions:
    """g * b * a**(b - 1), 0 where b == 0; and g * y * log(a), 0 where a == 0 and b >= 0.

    The operand is replaced before it meets the singular function, not the result after it: a
    `select` alone would turn the next derivative into 0 * inf. For b == 0 only bases whose inverse
    overflows are replaced, because the derivative of b * a**(b - 1) by b is needed there.
    """
    a, b = node.inputs
    type, no_exponent = a.tensor, make(Op.EQ, b, zeros(b.tensor))
    tame = make(Op.GT, make(Op.ABS, a), filled(type, _smallest_invertible(a)))
    at_pole = make(Op.AND, no_exponent, make(Op.NOT, tame))
    base = select(at_pole, filled(type, 1), a)
    by_base = mul(b, make(Op.POW, base, plus(b, -1)))
    no_log = make(Op.AND, make(Op.EQ, a, zeros(type)), make(Op.GE, b, zeros(type)))
    by_exponent = mul(node, make(Op.LOG, select(no_log, filled(type, 1), a)))
    return mul(g, by_base), mul(g, by_exponent)


def _smallest_invertible(x: Node) -> float:
    """A number near the smallest of the dtype whose inverse does not overflow."""
    like = np.float32 if x.dtype is bfloat16 else x.dtype.numpy  # they share the exponent range
    return 4 * float(np.finfo(like).tiny)


def _nextafter(node: Node, g: Node) -> Contributions:
    """g, as of x itself, from which it differs by a rounding error."""
    return g, None


def _maximum(node: Node, g: Node) -> Contributions:
    return _larger(node.inputs[0], node.inputs[1], g)


def _minimum(node: Node, g: Node) -> Contributions:
    return _larger(node.inputs[0], node.inputs[1], g)[::-1]


def _larger(a: Node, b: Node, g: Node) -> tuple[Node, Node]:
    """g for the larger, then for the smaller if reversed; half at ties; g for both at NaN."""
    shared = select(make(Op.EQ, a, b), times(g, 0.5), g)
    return zero_where(make(Op.LT, a, b), shared), zero_where(make(Op.GT, a, b), shared)


def _select(node: Node, g: Node) -> Contributions:
    condition = node.inputs[0]
    return None, keep_where(condition, g), zero_where(condition, g)


RULES: dict[Op, Rule] = {
    Op.NEG: _neg,
    Op.ABS: _abs,
    Op.SIGN: no_gradient,
    Op.SQRT: _sqrt,
    Op.RSQRT: _rsqrt,
    Op.EXP: _exp,
    Op.EXPM1: _expm1,
    Op.LOG: _log,
    Op.LOG1P: _log1p,
    Op.LOG2: _log2,
    Op.LOG10: _log10,
    Op.SIN: _sin,
    Op.COS: _cos,
    Op.TAN: _tan,
    Op.ASIN: _asin,
    Op.ACOS: _acos,
    Op.SINH: _sinh,
    Op.COSH: _cosh,
    Op.TANH: _tanh,
    Op.ASINH: _asinh,
    Op.ACOSH: _acosh,
    Op.ATANH: _atanh,
    Op.ERF: _erf,
    Op.ERFC: _erfc,
    Op.ERFINV: _erfinv,
    Op.NDTR: _ndtr,
    Op.LGAMMA: _lgamma,
    Op.POLYGAMMA: _polygamma,
    Op.SIGMOID: _sigmoid,
    Op.SILU: _silu,
    Op.GELU: _gelu,
    Op.SOFTPLUS: _softplus,
    Op.FLOOR: no_gradient,
    Op.CEIL: no_gradient,
    Op.ROUND: no_gradient,
    Op.TRUNC: no_gradient,
    Op.CAST: _cast,
    Op.INTEGER_POW: _integer_pow,
    Op.ALIAS: _alias,
    Op.STOP_GRADIENT: no_gradient,
    Op.ADD: _add,
    Op.SUB: _sub,
    Op.MUL: _mul,
    Op.DIV: _div,
    Op.FLOOR_DIV: no_gradient,
    Op.REMAINDER: _remainder,
    Op.POW: _pow,
    Op.ATAN2: _atan2,
    Op.NEXTAFTER: _nextafter,
    Op.MAXIMUM: _maximum,
    Op.MINIMUM: _minimum,
    Op.SELECT: _select,
}
