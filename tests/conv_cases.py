"""Convolutions of all kinds that are small enough for finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from einkorn.ir.conv_rules import axes_of
from einkorn.ir.ops import Op

Shape = tuple[int, ...]

# x and filter shapes, and attributes other than the defaults.
CONVOLUTIONS: tuple[tuple[Shape, Shape, dict[str, Any]], ...] = (
    ((2, 9, 3), (4, 3, 3), {"low": (1,), "high": (1,)}),
    ((2, 6, 7, 3), (5, 2, 3, 3), {"strides": (2, 1), "low": (1, 0), "high": (0, 2)}),
    ((1, 5, 6, 4), (6, 3, 2, 2), {"groups": 2, "dilation": (2, 1), "high": (1, 0)}),
    ((1, 4, 3, 2), (3, 3, 2, 2), {"interior": (1, 2), "low": (2, 1), "high": (2, 0)}),
    ((1, 5, 4, 2), (1, 3, 3, 2), {"interior": (2, 1), "strides": (2, 3), "dilation": (2, 2)}),
    ((2, 7, 3), (3, 3, 1), {"groups": 3, "low": (-1,), "high": (-2,)}),
    ((1, 3, 4, 3, 2), (2, 2, 2, 1, 2), {"low": (1, 0, 0), "strides": (1, 2, 2)}),
    ((0, 5, 2), (3, 2, 2), {}),
    ((2, 5, 0), (3, 2, 0), {}),
    ((2, 5, 2), (0, 2, 2), {}),
)


def attributes(spatial: int, **changed: Any) -> dict[str, Any]:
    """The attributes of a `conv`: the defaults, but for what is given."""
    zero, one = (0,) * spatial, (1,) * spatial
    plain = {"strides": one, "low": zero, "high": zero, "interior": zero, "dilation": one}
    return {**plain, "groups": 1, **changed}


def results(x: Shape, window: Shape, attrs: dict[str, Any]) -> Shape:
    """How many results there are along each spatial axis."""
    around = {key: value for key, value in attrs.items() if key != "groups"}
    return tuple(axis.results for axis in axes_of(x[1:-1], window, **around))


def convolutions() -> Iterator[tuple[Op, tuple[Shape, Shape], dict[str, Any], int]]:
    """Op, operand shapes, attributes, and the number of terms of each element."""
    for x, w, changed in CONVOLUTIONS:
        attrs = attributes(len(x) - 2, **changed)
        yield Op.CONV, (x, w), attrs, prod(w[1:])
        g = (x[0], *results(x, w[1:-1], attrs), w[0])
        yield Op.CONV_FILTER, (x, g), {**attrs, "window": w[1:-1]}, prod(g[:-1])
