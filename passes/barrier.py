"""A value that is computed no earlier than another: what keeps a recomputation apart.

Equal nodes merge, so a forward pass stated again would be the first one, kept in memory. From an
operand behind a barrier it is another computation, and one that waits for the cotangent.
"""

from __future__ import annotations

from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.build import broadcast, reshape, select, zeros


def after(x: Node, token: Node) -> Node:
    """x, to the bit, once the floating-point `token` is known.

    select(t != t and t == t, 0, x) with t an element of the token. The condition is false for every
    t, NaN included, and no rewrite knows that: an exact identity for floats is needed to see it. As
    an elementwise op it joins the kernel that reads x and costs no memory there.
    """
    if token.tensor.size == 0 or x.tensor.size == 0:
        return x
    first, rank = (0,) * len(token.shape), len(token.shape)
    corner = make(Op.SLICE, token, starts=first, stops=(1,) * rank, steps=(1,) * rank)
    t = reshape(corner, ())
    never = make(Op.AND, make(Op.NE, t, t), make(Op.EQ, t, t))
    return select(broadcast(never, x.shape), zeros(x.tensor), x)
