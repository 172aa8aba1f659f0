"""`associative_scan`: all running combinations of an axis, by recursive doubling.

Pairs of neighbours are combined, the same is done with their results, and these are combined with
the elements in between. About 2 n combinations, in 2 log2(n) calls on whole arrays, in one order,
which depends on n alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn.closed import Nest, nest
from einkorn.convert import as_int
from einkorn.functions.manipulation import concat, flip, stack
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.tensor import Tensor


def associative_scan(
    f: Callable[[Any, Any], Any], xs: Any, axis: int = 0, reverse: bool = False
) -> Any:
    """y[0] = x[0], y[i] = f(y[i - 1], x[i]) along an axis, for an associative `f`.

    Args:
        f: combines two nests of slices element by element along the axis; it is called on slices
            of many elements at once.
        xs: a nest of tensors whose sizes along the axis agree.
        axis: the axis to go along.
        reverse: start at the end: y[i] = f(y[i + 1], x[i]).
    """
    what = "associative_scan"
    if not callable(f):
        raise EinkornError(f"{what} takes a function and then the nest, got {type(f).__name__}")
    given = nest(what, xs)
    number = as_int(what, axis, "the axis is an integer")
    axes = [_axis(what, x, number) for x in given.tensors]
    sizes = {x.shape[k] for x, k in zip(given.tensors, axes)}
    if len(sizes) != 1:
        raise ShapeError(f"{what}: the sizes along axis {number} must agree, got {sorted(sizes)}")
    tensors = given.tensors
    if reverse:
        tensors = [flip(x, axis=k) for x, k in zip(tensors, axes)]
    found = _Combined(what, f, given, axes).scan(tensors)
    if reverse:
        found = [flip(x, axis=k) for x, k in zip(found, axes)]
    return given.rebuild(found)


def _axis(what: str, x: Tensor, axis: int) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"{what}: {x._type} has no axis {axis}")
    return axis % x.ndim


class _Combined:
    """The function on lists of tensors, and their slices along the axis."""

    def __init__(
        self, what: str, f: Callable[[Any, Any], Any], given: Nest, axes: list[int]
    ) -> None:
        self._what, self._f, self._given, self._axes = what, f, given, axes

    def scan(self, xs: list[Tensor]) -> list[Tensor]:
        """All running combinations of one list of tensors."""
        n = xs[0].shape[self._axes[0]]
        if n < 2:
            return xs
        pairs = self._combine(self._cut(xs, 0, n - 1, 2), self._cut(xs, 1, n, 2))
        odd = self.scan(pairs)  # the results at 1, 3, 5, ...
        rest = self._cut(xs, 2, n, 2)
        before = odd if n % 2 else self._cut(odd, 0, n // 2 - 1, 1)
        first = self._cut(xs, 0, 1, 1)
        if n == 2:
            even = first
        else:
            even = self._join(first, self._combine(before, rest))
        return self._interleave(even, odd, n)

    def _combine(self, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
        given = self._given
        found = nest(self._what, self._f(given.rebuild(a), given.rebuild(b)), given)
        if [x._type for x in found.tensors] != [x._type for x in a]:
            want, got = (", ".join(str(x._type) for x in part) for part in (a, found.tensors))
            raise ShapeError(
                f"{self._what}: the function must give what it takes, ({want}), got ({got})"
            )
        return found.tensors

    def _cut(self, xs: list[Tensor], start: int, stop: int, step: int) -> list[Tensor]:
        ranges = [(slice(None),) * k + (slice(start, stop, step),) for k in self._axes]
        return [x[cut] for x, cut in zip(xs, ranges)]

    def _join(self, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
        return [concat([x, y], axis=k) for x, y, k in zip(a, b, self._axes)]

    def _interleave(self, even: list[Tensor], odd: list[Tensor], n: int) -> list[Tensor]:
        """Even elements, as many as odd ones or one more, and odd ones in turn."""
        half = n // 2
        joined: list[Tensor] = []
        for x, y, k in zip(self._cut(even, 0, half, 1), odd, self._axes):
            both = stack([x, y], axis=k + 1)
            joined.append(both.reshape((*x.shape[:k], 2 * half, *x.shape[k + 1 :])))
        return self._join(joined, self._cut(even, half, half + 1, 1)) if n % 2 else joined
