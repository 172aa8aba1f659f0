"""Sorting, searching, distinct values, scans and differences against NumPy, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from function_checks import DTYPES, REAL, SHAPES, both, close, same, values

import einkorn as ek

Array = np.ndarray[Any, Any]

SORTED_SHAPES = [shape for shape in SHAPES if shape]
SPECIAL = np.array([[1, np.nan, -0.0, np.inf], [0.0, -np.inf, np.nan, -0.0]], np.float32)


# -- sort, argsort, topk ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SORTED_SHAPES, ids=str)
def test_sort_and_argsort(shape: tuple[int, ...], dtype: str) -> None:
    x = values(shape, dtype)
    for axis in range(-1, len(shape)):
        same(both(lambda t, k=axis: ek.argsort(t, axis=k), x), np.argsort(x, axis, kind="stable"))
        same(both(lambda t, k=axis: ek.sort(t, axis=k), x), np.sort(x, axis))


def _descending(x: Array, axis: int) -> Array:
    """A stable descending order: positions break ties, so the reversed row is sorted twice over."""
    flipped = np.argsort(np.flip(x, axis), axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - flipped, axis)


@pytest.mark.parametrize("x", [values((3, 5, 4), "int8"), SPECIAL, values((2, 9), "bool")])
def test_descending_order_is_stable(x: Array) -> None:
    for axis in range(x.ndim):
        want = _descending(x, axis)
        same(both(lambda t, k=axis: ek.argsort(t, axis=k, descending=True), x), want)
        got = both(lambda t, k=axis: ek.sort(t, axis=k, descending=True), x)
        same(got, np.take_along_axis(x, want, axis))


def test_nan_is_the_largest_and_zeros_are_equal() -> None:
    assert ek.argsort(SPECIAL).tolist() == [[2, 0, 3, 1], [1, 0, 3, 2]]
    assert ek.argsort(SPECIAL, descending=True).tolist() == [[1, 3, 0, 2], [2, 0, 3, 1]]


@pytest.mark.parametrize("dtype", REAL)
def test_topk(dtype: str) -> None:
    x = values((4, 9), dtype)
    for k in (0, 1, 3, 9):
        for axis in (0, 1):
            if k <= x.shape[axis]:
                found = both(lambda t, k=k, a=axis: ek.topk(t, k, axis=a), x)
                order = np.take(_descending(x, axis), range(k), axis)
                same(found[1], order)
                same(found[0], np.take_along_axis(x, order, axis))
    least = ek.topk(x, 2, largest=False)
    same(least.values, np.sort(x, -1)[:, :2])
    same(least.indices, np.argsort(x, -1, kind="stable")[:, :2])


def test_gradients_of_sorting_go_back_to_where_values_were() -> None:
    x = ek.tensor(np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]))
    weights = np.array([1.0, 10.0, 100.0])
    grad = both(lambda t: ek.grad(lambda v: (ek.sort(v) * weights).sum())(t), x)
    same(grad, np.array([[100.0, 1, 10], [1, 100, 10]]))
    grad = both(lambda t: ek.grad(lambda v: (ek.topk(v, 2)[0] * [1.0, 10.0]).sum())(t), x)
    same(grad, np.array([[1.0, 0, 10], [0, 1, 10]]), "float64")


# -- searching -------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_searchsorted(dtype: str, side: str) -> None:
    for n in (0, 1, 2, 7, 8, 33):
        x = np.sort(values((n,), dtype, seed=n))
        for wanted in (values((5, 4), dtype), values((), dtype), values((0,), dtype)):
            got = both(lambda a, b: ek.searchsorted(a, b, side=side), x, wanted)
            same(got, np.asarray(np.searchsorted(x, wanted, side)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_knows_nan_and_takes_a_sorter(side: str) -> None:
    x = np.array([-np.inf, -0.0, 0.0, 2.0, np.nan, np.nan], np.float32)
    wanted = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0, 1.0], np.float32)
    want = np.searchsorted(x, wanted, side)
    same(both(lambda a, b: ek.searchsorted(a, b, side=side), x, wanted), want)
    order = np.array([3, 0, 5, 1, 2, 4])
    back = np.argsort(x[order], kind="stable")
    got = both(lambda a, b, s: ek.searchsorted(a, b, side=side, sorter=s), x[order], wanted, back)
    same(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_count_nonzero(dtype: str) -> None:
    x = values((2, 3, 4), dtype)
    for axis in (None, 0, (0, 2), ()):
        for keepdims in (False, True):
            got = both(lambda t, a=axis, k=keepdims: ek.count_nonzero(t, axis=a, keepdims=k), x)
            same(got, np.count_nonzero(x, axis=axis, keepdims=keepdims), "int64")


# -- distinct values -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_unique(shape: tuple[int, ...], dtype: str) -> None:
    x = np.asarray(ek.asarray(values(shape, "int8") % 3).astype(dtype))
    found = ek.unique_all(x)
    flat = x.reshape(-1)
    same(found.values, np.unique(flat.astype("float64")).astype(x.dtype))
    assert found.inverse_indices.shape == shape
    same(ek.take(found.values, found.inverse_indices), x)
    same(ek.take(ek.flatten(x), found.indices), found.values)
    assert int(ek.sum(found.counts)) == x.size
    for part, parts in (
        (ek.unique_values(x), found.values),
        (ek.unique_counts(x).counts, found.counts),
        (ek.unique_inverse(x).inverse_indices, found.inverse_indices),
    ):
        same(part, parts)
    firsts = [int(np.flatnonzero(flat == value)[0]) for value in np.asarray(found.values)]
    assert found.indices.tolist() == firsts


def test_every_nan_is_a_value_and_zeros_are_one() -> None:
    found = ek.unique_all(SPECIAL)
    same(found.values, np.array([-np.inf, -0.0, 1, np.inf, np.nan, np.nan], np.float32))
    assert found.counts.tolist() == [1, 3, 1, 1, 1, 1]


def test_distinct_values_have_a_gradient() -> None:
    x = ek.tensor([2.0, 1.0, 2.0])
    ek.sum(ek.unique_values(x) * ek.asarray([1.0, 10.0])).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [10.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "use", [ek.unique_all, ek.unique_counts, ek.unique_inverse, ek.unique_values, ek.nonzero]
)
def test_sizes_that_depend_on_values_are_refused_in_a_trace(use: Callable[[Any], Any]) -> None:
    with pytest.raises(ek.TraceError, match=f"{use.__name__}: the size .* when .* runs"):
        ek.compile(lambda t: use(t))(SPECIAL)
    with ek.eager():
        ek.compile(lambda t: use(t))(SPECIAL)


# -- scans and differences -------------------------------------------------------------------------

RUNNING = [
    (ek.cumulative_prod, np.multiply),
    (ek.cumulative_max, np.maximum),
    (ek.cumulative_min, np.minimum),
]


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(("function", "ufunc"), RUNNING)
def test_scans(function: Callable[..., Any], ufunc: np.ufunc, dtype: str) -> None:
    for shape in ((7,), (0,), (2, 3, 4), (4, 0, 2), (3, 19)):
        x = values(shape, dtype)
        for axis in range(len(shape)):
            wide = x
            if function is ek.cumulative_prod and x.dtype.kind in "iu":
                wide = x.astype("uint64" if x.dtype.kind == "u" else "int64")
            got = both(lambda t, k=axis: function(t, axis=k), x)
            close(got, ufunc.accumulate(wide, axis), wide.dtype)


def test_cumulative_prod_with_the_product_of_nothing() -> None:
    x = values((2, 3), "int32")
    got = both(lambda t: ek.cumulative_prod(t, axis=1, include_initial=True, dtype="int64"), x)
    same(got, np.cumprod(np.concatenate([np.ones((2, 1), int), x], 1), 1))
    with pytest.raises(ek.ShapeError, match=r"cumulative_prod: .* give axis="):
        ek.cumulative_prod(x)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_diff(n: int) -> None:
    x = values((3, 4), "float64")
    for axis in (0, -1):
        got = both(lambda t, k=axis: ek.diff(t, n=n, axis=k), x)
        same(got, np.diff(x, n, axis))
    want = np.diff(x, 1, 1, x[:, :1], x[:, :2])
    same(both(lambda t: ek.diff(t, prepend=t[:, :1], append=t[:, :2]), x), want)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ek.sort(1.0), ek.ShapeError, "sort: axis -1 .* rank 0"),
    (lambda: ek.sort([1.0], axis=1), ek.ShapeError, "axis 1 is out of range"),
    (lambda: ek.argsort([1.0], descending="yes"), ek.DTypeError, "descending is True or False"),
    (lambda: ek.topk([1.0, 2.0], 3), ek.ShapeError, "k=3 must be between 0 and the 2"),
    (lambda: ek.topk([1.0, 2.0], 1.5), ek.DTypeError, "k is an integer"),  # pyright: ignore[reportArgumentType]
    (lambda: ek.searchsorted([[1.0]], 1.0), ek.ShapeError, "one sorted vector"),
    (lambda: ek.searchsorted([1.0], 1.0, side="in"), ek.ShapeError, "side must be"),
    (lambda: ek.searchsorted([1.0], 1.0, sorter=[0, 1]), ek.ShapeError, "sorter"),
    (lambda: ek.diff([1.0], n=-1), ek.ShapeError, "n must not be negative"),
    (lambda: ek.diff([True, False]), ek.DTypeError, "bool has no arithmetic"),
]


@pytest.mark.parametrize(("use", "error", "message"), BAD)
def test_errors(use: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use()
