"""Pass: evaluate with NumPy what depends on constants alone, where NumPy gives every target's bits.

Elementwise ops and exact casts of constants, also of constants broadcast to a shape: one element is
computed and broadcast again, so folding never stores an array. A NaN result has the default bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, constant, constant_value
from einkorn.ir.ops import OPS, Op
from einkorn.ir.rewrite import Allow, Rule, always, rewrite
from einkorn.passes.simplify import fill_of, filled, widens


def fold(graph: Graph, *, allow: Allow = always) -> Graph:
    """Replace every node whose operands are constants and whose op NumPy may execute."""
    return rewrite(graph, FOLDING, allow=allow)


def fold_constant(node: Node) -> Node | None:
    """f(constants) -> constant; f(broadcast(constants)) -> broadcast(constant)"""
    values: list[Any] = []
    for operand in node.inputs:
        scalar = fill_of(operand)
        if scalar is None or scalar.op is not Op.CONST:
            return None
        values.append(np.asarray(constant_value(scalar)))
    rule = OPS[node.op].numpy
    assert rule is not None, f"{node.op.name.lower()} has no reference"
    with np.errstate(all="ignore"):
        result = np.asarray(rule(*values, **dict(node.attrs)))
        if node.dtype.is_float and np.isnan(result):
            result = np.asarray(np.nan)
        return filled(constant(node.dtype, result), node.shape)


def fold_cast(node: Node) -> Node | None:
    """cast(constant, wider) -> constant"""
    return fold_constant(node) if widens(node.inputs[0].dtype, node.dtype) else None


FOLDING: Mapping[Op, Sequence[Rule]] = {
    **{op: (fold_constant,) for op, row in OPS.items() if row.exact and row.elementwise},
    Op.CAST: (fold_cast,),
    Op.ALIAS: (),
    Op.STOP_GRADIENT: (),
}
"""The rules of `fold`: exact elementwise ops and casts, but not the boundaries of autodiff."""
