"""Padding of sources and data movement: every true element keeps its place in front.

Where the unpadded result has elements of one axis behind those of another (a reshape that joins a
padded axis to one before it, a concatenation, a flip), they are gathered from where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from einkorn.ir.dtypes import int64
from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Size
from einkorn.passes.build import add, broadcast, filled, mul, plus, reshape, select, sub
from einkorn.passes.padding.context import Ints, Padding, Rule, padded, same

# -- sources ---------------------------------------------------------------------------------------


def size(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """The number that a size is in this call."""
    return pad.number(node.attr("size"), node.dtype)


def random_bits(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """Element i of a draw depends on i alone, its row-major index: the draw is made flat."""
    shape = node.shape
    if is_in_front(shape):
        return same(pad, node, operands)
    flat = make(Op.RANDOM_BITS, *node.inputs, shape=(prod(shape),))
    return pad(reshape(flat, shape))


# -- reshape ---------------------------------------------------------------------------------------


def is_in_front(shape: Ints) -> bool:
    """Whether only the first axis is padded, axes of one element aside.

    Then the true elements come first in row-major order, in their order without padding.
    """
    large = [n for n in shape if isinstance(n, Size) or n != 1]
    return not any(isinstance(n, Size) for n in large[1:])


def reshaped(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A reshape; elements are gathered where padding lies between them, or has to."""
    (x,) = operands
    old, new = _large(node.inputs[0].shape), _large(node.shape)
    ahead = 0
    while ahead < min(len(old), len(new)) and _is_same(old[ahead], new[ahead]):
        ahead += 1
    old, new = old[ahead:], new[ahead:]
    behind = 0
    while behind < min(len(old), len(new)) and _is_same(old[-1 - behind], new[-1 - behind]):
        behind += 1
    outer, rest = _large(node.shape)[:ahead], old[len(old) - behind :]
    old, new = old[: len(old) - behind], new[: len(new) - behind]
    if not (is_in_front(old) and is_in_front(new)):
        table = reshape(x, padded((*outer, prod(padded(old)), *rest)))
        x = make(Op.GATHER, table, _places(pad, old, new), axis=len(outer))
    return reshape(x, padded(node.shape))


def _large(shape: Ints) -> Ints:
    return tuple(n for n in shape if isinstance(n, Size) or n != 1)


def _is_same(a: int, b: int) -> bool:
    """Whether two sizes are the same expression."""
    if isinstance(a, Size) and isinstance(b, Size):
        return a.terms == b.terms
    return not isinstance(a, Size) and not isinstance(b, Size) and a == b


def _places(pad: Padding, old: Ints, new: Ints) -> Node:
    """For each element of a padded `new`, flattened, its place in a padded `old`, flattened."""
    count = prod(padded(new))
    linear = _joined(_split(pad, make(Op.IOTA, size=count, dtype=int64), padded(new)), pad, new)
    return _joined(_split(pad, linear, old, padded(old)), pad, padded(old))


def _split(pad: Padding, index: Node, shape: Ints, limits: Ints | None = None) -> list[Node]:
    """The index along each axis of a row-major one; the first is kept in `limits`."""
    parts: list[Node] = []
    for n in reversed(shape[1:]):
        size = broadcast(pad.number(n), index.shape)
        parts.append(make(Op.REMAINDER, index, size))
        index = make(Op.FLOOR_DIV, index, size)
    if limits is not None and limits:
        index = make(Op.MINIMUM, index, filled(index.tensor, limits[0] - 1))
    return [index, *reversed(parts)]


def _joined(parts: Sequence[Node], pad: Padding, shape: Ints) -> Node:
    """The row-major index of one along each axis."""
    linear = parts[0]
    for part, n in zip(parts[1:], shape[1:]):
        linear = add(mul(linear, broadcast(pad.number(n), linear.shape)), part)
    return linear


# -- along one axis --------------------------------------------------------------------------------


def taken(x: Node, axis: int, places: Node) -> Node:
    """x at places [count] of an axis; what is outside is taken from the end that is nearer."""
    last = filled(places.tensor, x.shape[axis] - 1)
    inside = make(Op.MAXIMUM, make(Op.MINIMUM, places, last), filled(places.tensor, 0))
    return make(Op.GATHER, x, inside, axis=axis)


def counted(start: Node, count: int) -> Node:
    """start, start + 1, ...: `count` places."""
    return add(make(Op.IOTA, size=count, dtype=int64), broadcast(start, (count,)))


def sliced(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A slice; from a start that depends on the length it is a gather."""
    (x,) = operands
    starts, stops, steps = (list(node.attr(name)) for name in ("starts", "stops", "steps"))
    for axis, (start, step) in enumerate(zip(starts, steps)):
        if isinstance(start, Size):
            if step != 1:
                raise pad.refused(node, f"axis {axis} is sliced with step {step} from {start} on")
            count = padded((node.shape[axis],))[0]
            x = taken(x, axis, counted(pad.number(start), count))
            starts[axis], stops[axis] = 0, count
    attrs = {"starts": starts, "stops": stops, "steps": steps}
    return make(Op.SLICE, x, **{name: padded(tuple(row)) for name, row in attrs.items()})


def flipped(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A flip; along a padded axis from the last true element on."""
    (x,) = operands
    axes: Ints = node.attr("axes")
    for axis in axes:
        n = node.shape[axis]
        if isinstance(n, Size):
            last = pad.number(n - 1)
            down = make(
                Op.FLIP, counted(sub(last, constant(int64, n.padded - 1)), n.padded), axes=(0,)
            )
            x = taken(x, axis, down)
        else:
            x = make(Op.FLIP, x, axes=(axis,))
    return x


def surrounded(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A pad: the value goes right behind the last true element, and `low` may depend on it."""
    x, value = operands
    old, shape = node.inputs[0].shape, node.shape
    low, high, interior = (list(node.attr(name)) for name in ("low", "high", "interior"))
    moved: list[int] = []
    for axis, n in enumerate(low):
        if isinstance(n, Size):
            if interior[axis] or isinstance(old[axis], Size):
                raise pad.refused(node, f"axis {axis} moves by {n} places")
            moved.append(axis)
            low[axis], high[axis] = 0, 0
    sides = {"low": padded(tuple(low)), "high": padded(tuple(high)), "interior": tuple(interior)}
    x = make(Op.PAD, x, value, **sides)
    full = broadcast(value, padded(shape))
    for axis in moved:
        index = make(Op.IOTA, size=padded(shape)[axis], dtype=int64)
        start = broadcast(pad.number(node.attr("low")[axis]), index.shape)
        place = sub(index, start)
        stop = filled(place.tensor, old[axis])
        here = make(Op.AND, make(Op.GE, place, filled(place.tensor, 0)), make(Op.LT, place, stop))
        x = taken(x, axis, place)
        wide = tuple(n if k == axis else 1 for k, n in enumerate(x.shape))
        x = select(broadcast(reshape(here, wide), x.shape), x, broadcast(value, x.shape))
    ends = [
        (axis, low[axis] + n + interior[axis] * (n - 1))
        for axis, n in enumerate(old)
        if isinstance(n, Size)
    ]
    mask = pad.before(ends, shape) if ends else None
    return x if mask is None else select(mask, x, full)


def concatenated(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A concatenation; behind a padded part elements are gathered from where they are."""
    axis: int = node.attr("axis")
    parts = [x.shape[axis] for x in node.inputs]
    joined = make(Op.CONCAT, *operands, axis=axis)
    if not any(isinstance(n, Size) for n in parts[:-1]):
        return joined
    index = make(Op.IOTA, size=joined.shape[axis], dtype=int64)
    places, start, shifted = index, 0, 0
    for n in parts[:-1]:
        start, shifted = start + n, shifted + padded((n,))[0]
        edge = broadcast(pad.number(start), index.shape)
        later = plus(sub(index, edge), shifted)
        places = select(make(Op.GE, index, edge), later, places)
    return taken(joined, axis, places)


RULES: dict[Op, Rule] = {
    Op.SIZE: size,
    Op.IOTA: same,
    Op.RANDOM_BITS: random_bits,
    Op.RESHAPE: reshaped,
    Op.BROADCAST: same,
    Op.TRANSPOSE: same,
    Op.SLICE: sliced,
    Op.FLIP: flipped,
    Op.PAD: surrounded,
    Op.CONCAT: concatenated,
}
