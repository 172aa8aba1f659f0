"""Elegy's initializers, for weights (..., in, out) as `add_parameter` is given them.

Layers of this dialect have weights (out, ..., in), which they say when they call one.
"""

from __future__ import annotations

from math import prod
from typing import Any

from einkorn import initializers
from einkorn.functions.elementwise import multiply
from einkorn.functions.manipulation import moveaxis, to_shape
from einkorn.initializers import Fans, Initializer, Shape
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import ShapeError
from einkorn.random import orthogonal
from einkorn.tensor import Tensor


class Constant(initializers.Constant):
    """One value everywhere."""

    def __init__(self, constant: Any) -> None:
        super().__init__(constant)


class RandomNormal(initializers.RandomNormal):
    """Normal numbers."""

    def __init__(self, stddev: float = 1.0, mean: float = 0.0) -> None:
        super().__init__(mean, stddev)


class TruncatedNormal(initializers.TruncatedNormal):
    """Normal numbers, those beyond two standard deviations drawn again."""

    def __init__(self, stddev: float = 1.0, mean: float = 0.0) -> None:
        super().__init__(mean, stddev)


class RandomUniform(initializers.RandomUniform):
    """Uniform numbers in [minval, maxval)."""

    def __init__(self, minval: float = 0.0, maxval: float = 1.0) -> None:
        super().__init__(minval, maxval)


class _Scaled(Initializer):
    def __call__(
        self,
        shape: Any,
        dtype: Any = float32,
        *,
        fan_in: int | None = None,
        fan_out: int | None = None,
    ) -> Tensor:
        """First values; the fans are those of weights (..., in, out) unless given."""
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        window = prod(sizes[:-2])
        own_in, own_out = (window * n for n in (sizes[-2:] * 2)[:2]) if sizes else (1, 1)
        fans = {
            "fan_in": own_in if fan_in is None else fan_in,
            "fan_out": own_out if fan_out is None else fan_out,
        }
        return super().__call__(shape, dtype, **fans)


class VarianceScaling(_Scaled, initializers.VarianceScaling):
    """Numbers of variance scale / fan."""


class UniformScaling(_Scaled, initializers.UniformScaling):
    """Uniform numbers within sqrt(3 / fan_in) * scale."""


class Orthogonal(Initializer):
    """`scale` times orthonormal rows or columns, whichever are fewer.

    Args:
        axis: that of the outputs; the others are taken as one.
    """

    def __init__(self, scale: float = 1.0, axis: int = -1) -> None:
        self.scale, self.axis = scale, axis

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        if len(shape) < 2:
            raise ShapeError(f"Orthogonal needs weights of at least two axes, got shape {shape}")
        axis = self.axis % len(shape)
        rest = shape[:axis] + shape[axis + 1 :]
        matrix = orthogonal(shape[axis], (), prod(rest), dtype=dtype)
        moved = moveaxis(to_shape(matrix, (shape[axis], *rest)), 0, axis)
        return multiply(moved, self.scale)


class OfLayer(Initializer):
    """An initializer as a layer with weights (out, ..., in) calls it."""

    def __init__(self, given: Any) -> None:
        made = given() if isinstance(given, type) else given
        self.given = Orthogonal(made.scale, 0) if isinstance(made, Orthogonal) else made

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Any:
        if isinstance(self.given, Initializer):
            return self.given(shape, dtype, fan_in=fans[0], fan_out=fans[1])
        return self.given(shape, dtype)
