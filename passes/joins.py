"""The sum of the contributions to one cotangent.

They are added from left to right. Those of neighbouring places in the order that are slices put
back along one axis and do not overlap are joined instead: `split` has a `concat` as its gradient,
not a sum of arrays that are mostly zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from einkorn.ir.node import Node, is_const, make
from einkorn.ir.ops import Op
from einkorn.passes.build import add, zeros

_Slice = tuple[int, int, Node]  # where it starts and ends, and what is there


def total(parts: Sequence[Node]) -> Node:
    """The sum of contributions, one or more."""
    found: list[Node] = []
    axis, run = -1, list[_Slice]()
    like = parts[0]
    for part in parts:
        place = _place(part)
        joins = place is not None and place[0] == axis and _is_free(run, place[1])
        if run and not joins:
            found.append(_joined(like, axis, run))
            run = []
        if place is None:
            found.append(part)
        else:
            axis = place[0]
            run.append(place[1])
            like = part
    if run:
        found.append(_joined(like, axis, run))
    return reduce(add, found)


def _place(node: Node) -> tuple[int, _Slice] | None:
    """The one axis along which a node is something between zeros, and where it is."""
    if node.op is not Op.PAD or not is_const(node.inputs[1], 0) or any(node.attr("interior")):
        return None
    low, high, inner = node.attr("low"), node.attr("high"), node.inputs[0]
    axes = [k for k, widths in enumerate(zip(low, high)) if any(widths)]
    if len(axes) != 1:
        return None
    (axis,) = axes
    return axis, (low[axis], low[axis] + inner.shape[axis], inner)


def _is_free(run: Sequence[_Slice], new: _Slice) -> bool:
    return all(new[1] <= start or stop <= new[0] for start, stop, _ in run)


def _joined(like: Node, axis: int, run: Sequence[_Slice]) -> Node:
    """Slices put back side by side, zeros in between; `like` has the type of the result."""
    if len(run) == 1:
        return like
    parts: list[Node] = []
    at = 0

    def fill(stop: int) -> None:
        if at < stop:
            shape = (*like.shape[:axis], stop - at, *like.shape[axis + 1 :])
            parts.append(zeros(like.tensor.with_shape(shape)))

    for start, stop, inner in sorted(run, key=lambda row: row[:2]):
        fill(start)
        parts.append(inner)
        at = stop
    fill(like.shape[axis])
    return make(Op.CONCAT, *parts, axis=axis)
