"""One gradient rule per primitive, written with the ops themselves, so any order works.

`GRADIENTS` and `NOT_DIFFERENTIABLE` together list every op. At points where a function has no
derivative the choice is PyTorch's: abs'(0) = 0, ties of maximum, minimum, max and min share evenly.
"""

from __future__ import annotations

from einkorn.ir.host_calls import is_complex
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.passes.gradients import (
    convolution,
    elementwise,
    host,
    indexing,
    movement,
    reductions,
    windows,
)
from einkorn.passes.gradients.complex_numbers import COMPLEX_GRADIENTS
from einkorn.passes.gradients.rule import Contributions, Rule, no_gradient

GRADIENTS: dict[Op, Rule] = {
    **elementwise.RULES,
    **movement.RULES,
    **reductions.RULES,
    **indexing.RULES,
    **convolution.RULES,
    **windows.RULES,
    Op.HOST: host.host_gradient,
}

_SOURCE = "a source has no operands"
_DISCRETE = "its result is an integer or bool"
_CALLBACK = "nobody knows the derivative of a Python function; ek.custom_vjp can give it one"
_REGION = "passes/autodiff.py differentiates regions and their results"

NOT_DIFFERENTIABLE: dict[Op, str] = {
    Op.INPUT: _SOURCE,
    Op.CONST: _SOURCE,
    Op.IOTA: _SOURCE,
    Op.SIZE: _SOURCE,
    Op.RANDOM_BITS: _DISCRETE,
    Op.NOT: _DISCRETE,
    Op.ISFINITE: _DISCRETE,
    Op.AND: _DISCRETE,
    Op.OR: _DISCRETE,
    Op.XOR: _DISCRETE,
    Op.SHIFT_LEFT: _DISCRETE,
    Op.SHIFT_RIGHT: _DISCRETE,
    Op.EQ: _DISCRETE,
    Op.NE: _DISCRETE,
    Op.LT: _DISCRETE,
    Op.LE: _DISCRETE,
    Op.GT: _DISCRETE,
    Op.GE: _DISCRETE,
    Op.CHECK: _DISCRETE,
    Op.ARGMAX: _DISCRETE,
    Op.ARGMIN: _DISCRETE,
    Op.ARGSORT: _DISCRETE,
    Op.CALLBACK: _CALLBACK,
    Op.PROJECT: _REGION,
    Op.GRAD: _REGION,
    Op.CALL: _REGION,
    Op.COND: _REGION,
    Op.WHILE: _REGION,
    Op.SCAN: _REGION,
}


def gradient_rule(node: Node) -> Rule:
    """The rule of a node; on complex numbers it may be another one."""
    if node.op is not Op.HOST and any(is_complex(x.type) for x in (node, *node.inputs)):
        return COMPLEX_GRADIENTS[node.op]
    return GRADIENTS[node.op]


__all__ = [
    "COMPLEX_GRADIENTS",
    "GRADIENTS",
    "NOT_DIFFERENTIABLE",
    "Contributions",
    "Rule",
    "gradient_rule",
    "no_gradient",
]
