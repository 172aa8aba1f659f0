"""Batching of windows: examples are rows of the first axis."""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.batching.rule import Rule, everywhere
from einkorn.passes.build import reshape


def _windows(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """[B, N, s.., C] -> [B N, s.., C] -> [B, N, o.., C]"""
    rows = [
        reshape(x, (size * x.shape[1], *x.shape[2:])) for x in everywhere(operands, batched, size)
    ]
    return reshape(make(node.op, *rows, **dict(node.attrs)), (size, *node.shape))


RULES: dict[Op, Rule] = {
    Op.WINDOW_PICK: _windows,
    Op.WINDOW_PLACE: _windows,
    Op.WINDOW_SUM: _windows,
}
