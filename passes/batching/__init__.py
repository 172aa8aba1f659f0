"""Batching, graph -> graph: a graph of one example becomes one of many, side by side.

`BATCHING` and `NOT_BATCHED` together list every op. A value that does not depend on what is batched
stays as it is and is computed once.
"""

from __future__ import annotations

from einkorn.ir.ops import Op
from einkorn.passes.batching import convolution, indexing, movement, random_bits, windows
from einkorn.passes.batching.rule import Rule

BATCHING: dict[Op, Rule] = {
    **movement.RULES,
    **indexing.RULES,
    **convolution.RULES,
    **random_bits.RULES,
    **windows.RULES,
}

_SOURCE = "a source has no operands, so it is the same for all examples"
_CONTROL = "passes/batching/control.py batches the steps and branches"
_REGION = "passes/batching/regions.py batches the graphs that are called"

NOT_BATCHED: dict[Op, str] = {
    Op.INPUT: _SOURCE,
    Op.CONST: _SOURCE,
    Op.IOTA: _SOURCE,
    Op.SIZE: _SOURCE,
    Op.CHECK: "it belongs to a whole step, not to an example",
    Op.CALLBACK: "it belongs to a whole step, not to an example",
    Op.GRAD: "expand-autodiff comes before",
    Op.CALL: _REGION,
    Op.PROJECT: _REGION,
    Op.COND: _CONTROL,
    Op.WHILE: _CONTROL,
    Op.SCAN: _CONTROL,
}


__all__ = ["BATCHING", "NOT_BATCHED", "Rule"]
