"""Convolution: its geometry, the shape rules of its two ops, and their NumPy reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.shape_rules import sized
from einkorn.ir.types import TensorType

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]

MAX_SPATIAL = 3


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a convolution.

    Result o and position k of the window meet the input at (o * stride + k * dilation - low) /
    spacing; where that is no whole number they do not meet, where it is outside of [0, size) the
    input counts as +0.

    Attributes:
        size: elements of the input.
        window: positions of the window.
        stride: from a result to the next one.
        low, high: how far the input is extended with zeros; negative: cut off.
        interior: positions between neighbours of the input.
        dilation: from a position of the window to the next one.
    """

    size: int
    window: int
    stride: int
    low: int
    high: int
    interior: int
    dilation: int

    @property
    def spacing(self) -> int:
        return self.interior + 1

    @property
    def span(self) -> int:
        """Positions that the window covers."""
        return (self.window - 1) * self.dilation + 1

    @property
    def extended(self) -> int:
        """Positions of the input with everything around and in between."""
        return (self.size - 1) * self.spacing + 1 + self.low + self.high if self.size else 0

    @property
    def results(self) -> int:
        if not self.size:
            return 0
        return max(0, (self.extended - self.span) // self.stride + 1)

    def meets(self, k: int) -> tuple[Array, Array]:
        """The results that meet the input at window position k, and where; `size` for outside."""
        results = np.arange(self.results)
        at = results * self.stride + k * self.dilation - self.low
        whole = at % self.spacing == 0
        at = at[whole] // self.spacing
        return results[whole], np.where((at >= 0) & (at < self.size), at, self.size)


def axes_of(
    sizes: Ints,
    window: Ints,
    strides: Ints,
    low: Ints,
    high: Ints,
    interior: Ints,
    dilation: Ints,
) -> tuple[Axis, ...]:
    """The spatial axes of a convolution with these attributes."""
    return tuple(Axis(*row) for row in zip(sizes, window, strides, low, high, interior, dilation))


# -- shape rules -----------------------------------------------------------------------------------


def _check(x: TensorType, other: TensorType, window: Ints, groups: int, **around: Ints) -> None:
    """Raise when two operands and the attributes do not belong together."""
    spatial = x.rank - 2
    if not 1 <= spatial <= MAX_SPATIAL or other.rank != x.rank:
        raise ShapeError(
            f"needs two operands of equal rank with 1 to {MAX_SPATIAL} spatial axes between the "
            f"first and the last, got {x} and {other}"
        )
    if x.dtype is not other.dtype:
        raise DTypeError(f"operands must agree in dtype, got {x} and {other}; cast one")
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"needs numbers, got {x}; cast bool first")
    for name, values in (("window", window), *around.items()):
        if len(values) != spatial:
            raise ShapeError(f"{name} {values} needs one entry for each spatial axis of {x}")
    if min(*window, *around["strides"], *around["dilation"], 1) < 1 or min(around["interior"]) < 0:
        raise ShapeError(
            "window, strides and dilation must be at least 1 and interior at least 0, got "
            f"{window}, {around['strides']}, {around['dilation']} and {around['interior']}"
        )
    if groups < 1 or x.shape[-1] % groups:
        raise ShapeError(f"groups={groups} must divide the {x.shape[-1]} channels of {x}")


def conv(
    x: TensorType,
    w: TensorType,
    strides: Ints,
    low: Ints,
    high: Ints,
    interior: Ints,
    dilation: Ints,
    groups: int,
) -> TensorType:
    """[N, s..., C] and [O, k..., C / groups] -> [N, so..., O]."""
    window = w.shape[1:-1]
    around = {"low": low, "high": high, "interior": interior}
    _check(x, w, window, groups, strides=strides, dilation=dilation, **around)
    if w.shape[-1] * groups != x.shape[-1] or w.shape[0] % groups:
        raise ShapeError(
            f"{w} must be (out, window..., in / groups) with {x.shape[-1] // groups} channels last "
            f"and out a multiple of groups={groups}, for {x}"
        )
    axes = axes_of(x.shape[1:-1], window, strides, low, high, interior, dilation)
    return sized(x.with_shape((x.shape[0], *(axis.results for axis in axes), w.shape[0])))


def conv_filter(
    x: TensorType,
    g: TensorType,
    window: Ints,
    strides: Ints,
    low: Ints,
    high: Ints,
    interior: Ints,
    dilation: Ints,
    groups: int,
) -> TensorType:
    """[N, s..., C] and [N, so..., O] -> [O, k..., C / groups]."""
    around = {"low": low, "high": high, "interior": interior}
    _check(x, g, window, groups, strides=strides, dilation=dilation, **around)
    axes = axes_of(x.shape[1:-1], window, strides, low, high, interior, dilation)
    wanted = (x.shape[0], *(axis.results for axis in axes))
    if g.shape[:-1] != wanted or g.shape[-1] % groups:
        raise ShapeError(
            f"{g} must have the shape {wanted} and then a multiple of groups={groups} channels: "
            f"that of a convolution of {x} with a window {window}"
        )
    return sized(x.with_shape((g.shape[-1], *window, x.shape[-1] // groups)))


# -- the NumPy reference ---------------------------------------------------------------------------


def _meetings(x: Array, axes: tuple[Axis, ...]) -> Iterator[tuple[Ints, tuple[Array, ...], Array]]:
    """For each position of the window: which results it is for, and what of x they meet there."""
    padded = np.pad(x, [(0, 0), *[(0, 1)] * len(axes), (0, 0)])  # the last element is the outside
    for position in product(*(range(axis.window) for axis in axes)):
        pairs = [axis.meets(k) for axis, k in zip(axes, position)]
        images, channels = _everything(x.shape[0]), _everything(x.shape[-1])
        place = np.ix_(images, *(results for results, _ in pairs))
        yield position, place, padded[np.ix_(images, *(at for _, at in pairs), channels)]


def _everything(count: int) -> Array:
    return np.arange(count)


def _wide(x: Array) -> Array:
    half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
    return x.astype(np.float32) if half else x


def _grouped(x: Array, groups: int) -> Array:
    """[..., channels] -> [..., groups, channels of each]"""
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def conv_numpy(x: Array, w: Array, groups: int, **around: Ints) -> Array:
    """A product with one matrix for each position of the window."""
    axes = axes_of(x.shape[1:-1], w.shape[1:-1], **around)
    shape = (x.shape[0], *(axis.results for axis in axes), w.shape[0])
    out = np.zeros(shape, _wide(x).dtype)
    wide, weights = _wide(x), _wide(w)
    split = groups, w.shape[0] // groups, w.shape[-1]
    for position, place, rows in _meetings(wide, axes):
        matrix = weights[(slice(None), *position)].reshape(split)
        found = np.einsum("...gc,goc->...go", _grouped(rows, groups), matrix)
        out[place] += found.reshape(*found.shape[:-2], w.shape[0])
    return out.astype(x.dtype)


def conv_filter_numpy(x: Array, g: Array, window: Ints, groups: int, **around: Ints) -> Array:
    """A product of rows with rows for each position of the window."""
    axes = axes_of(x.shape[1:-1], window, **around)
    channels = x.shape[-1] // groups
    out = np.zeros((g.shape[-1], *window, channels), _wide(x).dtype)
    wide, cotangents = _wide(x), _wide(g)
    for position, place, rows in _meetings(wide, axes):
        parts = _grouped(cotangents[place], groups)
        size = prod(parts.shape[:-2])
        left = parts.reshape(size, *parts.shape[-2:])
        right = _grouped(rows, groups).reshape(size, groups, channels)
        found = np.einsum("kgo,kgc->goc", left, right)
        out[(slice(None), *position)] = found.reshape(g.shape[-1], channels)
    return out.astype(x.dtype)
