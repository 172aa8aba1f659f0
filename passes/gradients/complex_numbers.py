"""Gradients of ops on complex numbers.

The gradient of a real number L by z is dL/dRe(z) + i dL/dIm(z), the conjugate Wirtinger derivative
times two, as in PyTorch: a step against it descends. So the contribution of a holomorphic f is
g conj(f'(z)), which is the conjugate of what the rule for real numbers makes of conj(g).
"""

from __future__ import annotations

from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.build import div, mul, plus, select, zeros
from einkorn.passes.gradients import elementwise, indexing, movement, reductions
from einkorn.passes.gradients.matrices import conj, host, like, real
from einkorn.passes.gradients.rule import (
    Contributions,
    HostRule,
    Results,
    Rule,
    no_gradient,
)


def holomorphic(rule: Rule) -> Rule:
    """A rule for complex numbers from one for real numbers: conj(rule(conj(g)))."""

    def conjugated(node: Node, g: Node) -> Contributions:
        parts = rule(node, conj(g))
        return tuple(None if part is None else conj(part) for part in parts)

    return conjugated


def _abs(node: Node, g: Node) -> Contributions:
    """g x / |x|, 0 at 0"""
    (x,) = node.inputs
    return (mul(make(Op.CAST, g, dtype=x.dtype), make(Op.SIGN, x)),)


def _sign(node: Node, g: Node) -> Contributions:
    """i y Im(g conj(y)) / |x|, 0 at 0: the phase moves, the length does not"""
    (x,) = node.inputs
    turn = host("imag", mul(g, conj(node)))
    length = make(Op.ABS, x)
    nothing = make(Op.EQ, length, zeros(length.tensor))
    rate = div(turn, select(nothing, plus(zeros(length.tensor), 1), length))
    return (mul(host("complex", zeros(rate.tensor), rate), node),)


def _cast(node: Node, g: Node) -> Contributions:
    """The real part for a real operand."""
    (x,) = node.inputs
    return (like(g, x) if x.dtype.is_inexact and node.dtype.is_inexact else None,)


def _acosh(node: Node, g: Node) -> Contributions:
    """g / (sqrt(x - 1) sqrt(x + 1))"""
    (x,) = node.inputs
    root = mul(make(Op.SQRT, plus(x, -1)), make(Op.SQRT, plus(x, 1)))
    return (div(g, root),)


def _pow(node: Node, g: Node) -> Contributions:
    """g b a**(b - 1) and g a**b log(a), where a is 0 no log"""
    a, b = node.inputs
    nothing = make(Op.EQ, a, zeros(a.tensor))
    log = make(Op.LOG, select(nothing, plus(zeros(a.tensor), 1), a))
    return mul(g, mul(b, make(Op.POW, a, plus(b, -1)))), mul(g, mul(node, log))


_REAL: dict[Op, Rule] = {
    **elementwise.RULES,
    **movement.RULES,
    **reductions.RULES,
    **indexing.RULES,
}

# Those whose coefficients are real: the cotangent moves, or adds up.
_LINEAR = (
    Op.NEG, Op.ALIAS, Op.ADD, Op.SUB, Op.SELECT, Op.RESHAPE, Op.BROADCAST, Op.TRANSPOSE, Op.SLICE,
    Op.FLIP, Op.PAD, Op.CONCAT, Op.SUM, Op.CUMSUM, Op.GATHER, Op.SCATTER_ADD, Op.SCATTER_SET,
)  # fmt: skip
_HOLOMORPHIC = (
    Op.SQRT, Op.RSQRT, Op.EXP, Op.EXPM1, Op.LOG, Op.LOG1P, Op.LOG2, Op.LOG10, Op.SIN, Op.COS,
    Op.TAN, Op.ASIN, Op.ACOS, Op.SINH, Op.COSH, Op.TANH, Op.ASINH, Op.ATANH, Op.INTEGER_POW, Op.MUL,
    Op.DIV, Op.PROD, Op.CUMPROD, Op.DOT,
)  # fmt: skip

COMPLEX_GRADIENTS: dict[Op, Rule] = {
    **{op: _REAL[op] for op in _LINEAR},
    **{op: holomorphic(_REAL[op]) for op in _HOLOMORPHIC},
    Op.ABS: _abs,
    Op.ACOSH: holomorphic(_acosh),
    Op.CAST: _cast,
    Op.POW: holomorphic(_pow),
    Op.ROUND: no_gradient,
    Op.SIGN: _sign,
    Op.STOP_GRADIENT: no_gradient,
}
"""The ops that take or give complex numbers; passes/gradients/host.py has those of the host."""


# -- host functions --------------------------------------------------------------------------------


def _part_real(node: Node, g: Results) -> Contributions:
    return (make(Op.CAST, g[0], dtype=node.inputs[0].dtype),)


def _part_imag(node: Node, g: Results) -> Contributions:
    return (host("complex", zeros(g[0].tensor), g[0]),)


def _conj(node: Node, g: Results) -> Contributions:
    return (conj(g[0]),)


def _join(node: Node, g: Results) -> Contributions:
    return real(g[0]), host("imag", g[0])


def _atan(node: Node, g: Results) -> Contributions:
    """g / conj(1 + x x)"""
    (x,) = node.inputs
    return (div(g[0], conj(plus(mul(x, x), 1))),)


RULES: dict[str, HostRule] = {
    "atan": _atan,
    "complex": _join,
    "conj": _conj,
    "imag": _part_imag,
    "real": _part_real,
}
