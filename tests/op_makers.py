"""How test operands are made: functions (rng, dtype) -> array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from einkorn.ir.dtypes import DType, bfloat16, bool_, int64

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Maker = Callable[[np.random.Generator, DType], Array]

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
LEAST = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}


def fixed(values: Any, dtype: DType | None = None) -> Maker:
    """These values, in the row's dtype or always in `dtype`."""
    return lambda _, row: np.asarray(values).astype((dtype or row).numpy)


def uniform(shape: Shape, low: float = -3, high: float = 3) -> Maker:
    """Random numbers in [low, high); integers where the dtype has only those."""

    def make_array(rng: np.random.Generator, dtype: DType) -> Array:
        if dtype.is_float:
            return rng.uniform(low, high, shape).astype(dtype.numpy)
        least = max(low, 0) if dtype.kind in "ub" else low
        most = 2 if dtype.kind == "b" else max(high, least + 1)
        return rng.integers(int(least), int(most), shape).astype(dtype.numpy)

    return make_array


def nonzero(shape: Shape, low: float = 0.3, high: float = 3) -> Maker:
    """Numbers of both signs with magnitudes in [low, high)."""
    magnitude = uniform(shape, max(low, 0), high)

    def make_array(rng: np.random.Generator, dtype: DType) -> Array:
        sign = rng.choice([1, -1] if dtype.kind in "fi" else [1], shape)
        size = magnitude(rng, dtype)
        return ((size if dtype.is_float else np.maximum(size, 1)) * sign).astype(dtype.numpy)

    return make_array


def apart(shape: Shape, step: float = 0.25) -> Maker:
    """Numbers no two of which are closer than `step`, and none near a multiple of it."""

    def make_array(rng: np.random.Generator, dtype: DType) -> Array:
        count = int(np.prod(shape))
        order = rng.permutation(count) - count // 2 * (dtype.kind in "fi")
        values = (order + 0.4) * step if dtype.is_float else order
        return values.reshape(shape).astype(dtype.numpy)

    return make_array


def indices(shape: Shape, low: int, high: int, dtype: DType = int64) -> Maker:
    """Random integers in [low, high) of a fixed dtype."""
    return lambda rng, _: rng.integers(low, high, shape).astype(dtype.numpy)


def near_identity(shape: Shape) -> Maker:
    """Matrices that are far from singular: small numbers, and 2 more on the diagonal."""
    off = uniform(shape, -0.5, 0.5)
    return lambda rng, dtype: off(rng, dtype) + 2 * np.eye(shape[-1], dtype=dtype.numpy)


def booleans(shape: Shape) -> Maker:
    return lambda rng, _: rng.random(shape) < 0.5


def edge_values(dtype: DType) -> Array:
    """The values at which implementations differ."""
    if dtype is bool_:
        return np.array([False, True])
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        values = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, info.max // 2]
        return np.array([*values, *([-1, -2, -3] if dtype.kind == "i" else [])], dtype.numpy)
    least, huge = LEAST[dtype.name], float(_largest(dtype))
    tiny = least / EPS[dtype.name]
    half = [0.0, least, tiny, EPS[dtype.name], 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 1e3, huge, np.inf]
    return np.array([*half, *(-x for x in half), np.nan]).astype(dtype.numpy)


def _largest(dtype: DType) -> float:
    return 2.0**127 * (2 - EPS["bfloat16"]) if dtype is bfloat16 else np.finfo(dtype.numpy).max


def edges(position: int = 0, count: int = 1) -> Maker:
    """Operand `position` of `count`, which together run through all tuples of edge values."""

    def make_array(_: np.random.Generator, dtype: DType) -> Array:
        values = edge_values(dtype)
        return np.meshgrid(*[values] * count, indexing="ij")[position].reshape(-1)

    return make_array
