"""x.at[index] with every kind of index: multiply, min, max and get against NumPy's ufunc.at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from function_checks import both, close, same, values

import einkorn as ek

Array = np.ndarray[Any, Any]

X = values((5, 4), "float64")
REPEATED = np.array([1, -1, 1, 4, 0, -5])
INDICES: dict[str, Any] = {
    "an integer": 2,
    "a slice": slice(1, None, 2),
    "backwards": (slice(None, None, -2), slice(1, 3)),
    "everything": Ellipsis,
    "a new axis": (None, 1),
    "nothing": slice(2, 2),
    "repeated": REPEATED,
    "repeated in columns": (slice(None), np.array([0, 3, 0])),
    "two arrays": (np.array([0, 1, 0]), np.array([1, 2, 1])),
    "an array and a slice": (np.array([[0, 2], [0, 0]]), slice(1, 3)),
    "an array and an integer": (np.array([3, 3]), 1),
    "no indices": np.array([], np.int64),
    "a mask": X > 0,
    "a mask of rows": X[:, 0] > 0,
    "a mask and a slice": (X[:, 0] > 0, slice(1, 2)),
    "a list": [0, 0, 2],
}
WAYS = {"multiply": np.multiply, "min": np.minimum, "max": np.maximum, "add": np.add}


def _changed(ufunc: np.ufunc, x: Array, index: Any, value: Any) -> Array:
    want = x.copy()
    ufunc.at(want, index, value)
    return want


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", INDICES)
def test_changes(name: str, way: str) -> None:
    index = INDICES[name]
    for value in (values(X[index].shape, "float64", 3), np.float64(0.5), X[index][:1]):
        got = both(lambda t, v: getattr(t.at[index], way)(v), X, value)
        close(got, _changed(WAYS[way], X, index, value))


@pytest.mark.parametrize("name", INDICES)
def test_get_is_the_part(name: str) -> None:
    same(both(lambda t: t.at[INDICES[name]].get(), X), X[INDICES[name]])


@pytest.mark.parametrize("way", ["multiply", "min", "max"])
@pytest.mark.parametrize("dtype", ["int8", "uint64", "float16", "bool"])
def test_dtypes_and_indices_that_the_step_brings(dtype: str, way: str) -> None:
    x, value = values((6, 3), dtype), values((40, 3), dtype, 1)
    if way == "multiply" and dtype == "bool":
        with pytest.raises(ek.DTypeError, match=r"at\[...\].multiply: bool has no arithmetic"):
            ek.asarray(x).at[0].multiply(True)
        return
    for kind in ("int64", "uint8", "uint64"):
        index = values((40,), "int64", 2).astype(kind) if kind == "int64" else None
        index = np.abs(values((40,), "int64", 2)).astype(kind) if index is None else index
        got = both(lambda t, i, v: getattr(t.at[i], way)(v), x, index, value)
        close(got, _changed(WAYS[way], x, index.astype("int64"), value), dtype)


def test_gradients_of_repeated_products() -> None:
    x, value = X[:, 0], values((6,), "float64", 4)
    value[2] = 0.0

    def loss(t: Any, v: Any) -> Any:
        return (t.at[REPEATED].multiply(v) * ek.asarray([1.0, 2, 3, 4, 5])).sum()

    grads = both(ek.grad(loss, wrt=(0, 1)), x, value)
    for which, array in enumerate((x, value)):
        for k in range(array.size):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [x.copy(), value.copy()]
                moved[which][k] += step
                ends.append(float(loss(*map(ek.asarray, moved))))
            assert abs(float(grads[which][k]) - (ends[0] - ends[1]) / 2e-6) < 1e-6


def test_gradients_of_extremes_leave_the_rest_alone() -> None:
    x = np.array([-np.inf, 1.0, 2.0])
    grads = both(ek.grad(lambda t, v: t.at[1:].max(v).sum(), wrt=(0, 1)), x, np.array([3.0, 0.0]))
    assert [grad.tolist() for grad in grads] == [[1, 0, 1], [1, 0]]


def test_an_index_out_of_range_changes_nothing() -> None:
    for way in ("multiply", "min", "max"):
        with pytest.raises(ek.BoundsError, match=rf"at\[...\].{way}: index 5 is out of range"):
            getattr(ek.asarray(X).at[[0, 5]], way)(1.0)
        with pytest.raises(ek.BoundsError):
            ek.compile(lambda t, i, way=way: getattr(t.at[i], way)(1.0))(X, np.array([0, -6]))
