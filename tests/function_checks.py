"""Shared by the tests of functions: values of many kinds, and eager against compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from einkorn.compile import Compiled
from einkorn.functions.creation import asarray
from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]

REAL = ("float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint64")
DTYPES = (*REAL, "bool")
SHAPES = ((), (1,), (7,), (0,), (3, 5), (4, 0, 2), (2, 3, 4), (1, 17, 1), (2, 1, 3, 2))


def values(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Array:
    """Small numbers of either sign, with repeats; no special values."""
    random = np.random.default_rng([seed, *shape])
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        return random.normal(size=shape).astype(dtype)
    return random.integers(0 if dtype.startswith("u") else -5, 6, shape).astype(dtype)


def same(got: Tensor, want: Any, dtype: Any = None) -> None:
    """Equal to a NumPy array in shape, dtype and every bit."""
    array, expected = np.asarray(got), np.asarray(want)
    assert array.shape == expected.shape
    assert array.dtype == np.dtype(dtype or expected.dtype)
    np.testing.assert_array_equal(array, expected)


def close(got: Tensor, want: Any, dtype: Any = None) -> None:
    """Equal to a NumPy array in shape and dtype, and nearly in value."""
    array, expected = np.asarray(got), np.asarray(want)
    assert array.shape == expected.shape
    assert array.dtype == np.dtype(dtype or expected.dtype)
    limit = {2: 4e-3, 4: 2e-5}.get(array.dtype.itemsize, 1e-12)
    if array.dtype.kind in "iub":
        limit = 0
    np.testing.assert_allclose(array.astype("float64"), expected, rtol=limit, atol=limit)


def both(fn: Callable[..., Any], *arrays: Any) -> Any:
    """fn on tensors of the arrays; checks first that compiled code gives the same bits."""
    tensors = [asarray(x) for x in arrays]
    eager = fn(*tensors)
    compiled = Compiled(fn)(*tensors)
    parts = zip(_listed(eager), _listed(compiled), strict=True)
    for a, b in ((np.asarray(x), np.asarray(y)) for x, y in parts):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        nans = np.isnan(a) & np.isnan(b) if a.dtype.kind == "f" else np.zeros(a.shape, bool)
        raw = f"u{a.dtype.itemsize}"
        assert (
            nans | (np.ascontiguousarray(a).view(raw) == np.ascontiguousarray(b).view(raw))
        ).all()
    return eager


def _listed(results: Any) -> list[Tensor]:
    return list(results) if isinstance(results, (list, tuple)) else [results]
