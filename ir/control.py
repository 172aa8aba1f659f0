"""What control flow means: closed graphs applied to arrays, step by step.

Whoever evaluates a graph gives the function that evaluates a closed one, so that eager mode and the
reference share what a loop is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.ir.types import TupleType

Array = np.ndarray[Any, Any]
Apply = Callable[[Any, Sequence[Array]], Sequence[Array]]
"""(closed graph, arrays of its inputs) -> arrays of its outputs."""


def run_control(node: Node, arrays: Sequence[Array], apply: Apply) -> list[Array]:
    """The results of a `cond`, `while` or `scan`."""
    if node.op is Op.COND:
        branches = node.attr("branches")
        index = min(max(int(arrays[0]), 0), len(branches) - 1)
        return list(apply(branches[index], arrays[1:]))
    return _while(node, arrays, apply) if node.op is Op.WHILE else _scan(node, arrays, apply)


def _while(node: Node, arrays: Sequence[Array], apply: Apply) -> list[Array]:
    split = node.attr("consts")
    consts, carries = arrays[:split], list(arrays[split:])
    condition, body = node.attr("condition"), node.attr("body")
    while apply(condition, [*consts, *carries])[0]:
        carries = list(apply(body, [*consts, *carries]))
    return carries


def _scan(node: Node, arrays: Sequence[Array], apply: Apply) -> list[Array]:
    first, count, length = node.attr("consts"), node.attr("carries"), node.attr("length")
    consts, columns = arrays[:first], arrays[first + count :]
    carries = list(arrays[first : first + count])
    assert isinstance(node.type, TupleType)
    types = node.type.items[count:]
    stacked = [np.empty(type.shape, type.dtype.numpy) for type in types]
    steps = reversed(range(length)) if node.attr("reverse") else range(length)
    for at in steps:
        found = apply(node.attr("body"), [*consts, *carries, *(x[at, ...] for x in columns)])
        carries = list(found[:count])
        for column, row in zip(stacked, found[count:]):
            column[at] = row
    return [*carries, *stacked]
