"""Gradients of Fourier transforms: each is linear, and its adjoint is a transform again.

The adjoint of an unscaled transform is the unscaled one in the other direction, so "backward" and
"forward" change places: the scale stays with the transform that had it.
"""

from __future__ import annotations

from einkorn.ir.dtypes import int64
from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.passes.build import add, broadcast, filled, reshape, select
from einkorn.passes.gradients.matrices import host, real
from einkorn.passes.gradients.rule import Contributions, HostRule, Results

_BACKWARD, _ORTHO, _FORWARD = range(3)
_ADJOINT = {_BACKWARD: _FORWARD, _ORTHO: _ORTHO, _FORWARD: _BACKWARD}


def _fft(node: Node, g: Results) -> Contributions:
    """The transform in the other direction."""
    params: tuple[int, int, int] = node.attr("params")
    axis, inverse, norm = params
    return (host("fft", g[0], params=(axis, 1 - inverse, _ADJOINT[norm])),)


def _rfft(node: Node, g: Results) -> Contributions:
    """The real part of the inverse transform of g, with zeros for the half that is not there."""
    (x,) = node.inputs
    params: tuple[int, int] = node.attr("params")
    axis, norm = params
    missing = x.shape[-axis] - node.shape[-axis]
    rank = len(x.shape)
    none = (0,) * rank
    high = tuple(missing if k == rank - axis else 0 for k in range(rank))
    zero = constant(node.dtype, 0)
    whole = make(Op.PAD, g[0], zero, low=none, high=high, interior=none)
    return (real(host("fft", whole, params=(axis, 1, _ADJOINT[norm]))),)


def _irfft(node: Node, g: Results) -> Contributions:
    """The transform of g, doubled where an element stands for two of the whole spectrum."""
    (x,) = node.inputs
    params: tuple[int, int, int] = node.attr("params")
    axis, n, norm = params
    half = host("rfft", g[0], params=(axis, _ADJOINT[norm]))
    index = make(Op.IOTA, size=x.shape[-axis], dtype=int64)
    once = make(Op.EQ, index, filled(index.tensor, 0))
    if n % 2 == 0:
        once = make(Op.OR, once, make(Op.EQ, index, filled(index.tensor, n // 2)))
    once = reshape(once, (x.shape[-axis], *(1,) * (axis - 1)))
    return (select(broadcast(once, x.shape), half, add(half, half)),)


RULES: dict[str, HostRule] = {"fft": _fft, "irfft": _irfft, "rfft": _rfft}
