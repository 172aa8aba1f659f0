"""Functions of the namespace against NumPy: creation, movement and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from function_checks import DTYPES, REAL, SHAPES, both, close, same, values
from hypothesis import given, settings
from hypothesis import strategies as st

from einkorn.functions import creation as cr
from einkorn.functions import manipulation as mv
from einkorn.functions import statistical as sta
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.leaf import Leaf

# -- creation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_filled(dtype: str) -> None:
    same(cr.zeros((2, 3), dtype=dtype), np.zeros((2, 3), dtype))
    same(cr.ones(4, dtype=dtype), np.ones(4, dtype))
    same(cr.full((0, 2), 1, dtype=dtype), np.full((0, 2), 1, dtype))
    x = values((2, 3), dtype)
    same(cr.ones_like(cr.asarray(x)), np.ones_like(x))
    same(both(lambda t: cr.zeros_like(t), x), np.zeros_like(x))
    same(cr.asarray(x), x)


def test_filled_dtypes() -> None:
    same(cr.full((), 2.5), np.float32(2.5))
    same(cr.full(2, 3), np.array([3, 3]))
    same(cr.full(2, True), np.array([True, True]))
    same(cr.full(2, np.float64(0.1)), np.array([0.1, 0.1]))
    same(cr.full(2, cr.asarray([7], dtype="int8")[0]), np.array([7, 7], "int8"))
    same(cr.empty((2,)), np.zeros(2, "float32"))


@pytest.mark.parametrize(
    "args",
    [(5,), (0,), (-3,), (2, 9), (2, 9, 3), (9, 2, -2), (0, 1, 0.1), (1.5,), (5, 0), (0, -1, -0.25)],
)
def test_arange(args: tuple[Any, ...]) -> None:
    want = np.arange(*args)
    dtype = "int64" if want.dtype.kind == "i" else "float32"
    close(both(lambda: cr.arange(*args)), want, dtype)
    same(cr.arange(*args, dtype="float64"), want.astype("float64"))


def test_arange_dtypes() -> None:
    same(cr.arange(5, 0, -1, dtype="uint8"), np.array([5, 4, 3, 2, 1], "uint8"))
    same(cr.arange(3, dtype="float16"), np.arange(3, dtype="float16"))
    same(cr.arange(cr.asarray(3)), np.arange(3))
    with pytest.raises(DTypeError, match="does not fit uint8"):
        cr.arange(300, dtype="uint8")
    with pytest.raises(ShapeError, match="step must not be 0"):
        cr.arange(0, 3, 0)
    with pytest.raises(ShapeError, match="finite"):
        cr.arange(float("inf"))
    with pytest.raises(DTypeError, match="needs numbers"):
        cr.arange("3")


@pytest.mark.parametrize("endpoint", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_linspace(count: int, endpoint: bool) -> None:
    got = both(lambda: cr.linspace(-0.3, 1.7, count, endpoint=endpoint))
    close(got, np.linspace(-0.3, 1.7, count, endpoint=endpoint), "float32")
    if endpoint and count > 1:
        assert cr.linspace(0, 0.1, count, dtype="float64")[-1].item() == 0.1


def test_matrices() -> None:
    for k in (-4, -1, 0, 2):
        same(both(lambda k=k: cr.eye(3, 4, k=k)), np.eye(3, 4, k, "float32"))
        for dtype in DTYPES:
            x = values((2, 3, 4), dtype)
            same(cr.tril(cr.asarray(x), k=k), np.tril(x, k))
            same(cr.triu(cr.asarray(x), k=k), np.triu(x, k))
    with pytest.raises(ShapeError, match=r"tril: needs at least 2 axes, got f32\[3\]"):
        cr.tril(cr.zeros(3))


def test_triangles_keep_nothing_of_what_they_drop() -> None:
    x = np.full((2, 2), np.nan, "float32")
    same(cr.triu(cr.asarray(x)), np.array([[np.nan, np.nan], [0, np.nan]], "float32"))


@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_meshgrid(indexing: Any) -> None:
    arrays = [values((n,), seed=n) for n in (3, 2, 4)]
    for count in range(4):
        got = cr.meshgrid(*map(cr.asarray, arrays[:count]), indexing=indexing)
        for a, b in zip(got, np.meshgrid(*arrays[:count], indexing=indexing), strict=True):
            same(a, b)


def test_asarray_copies() -> None:
    x = np.ones(3, "float32")
    kept, shared = cr.asarray(x), cr.asarray(x, copy=False)
    x[0] = 5
    assert kept.tolist() == [1, 1, 1]
    assert shared.tolist() == [5, 1, 1]
    assert cr.asarray(kept) is kept
    assert cr.asarray([kept, kept]).shape == (2, 3)
    same(cr.asarray([0.1], dtype="float64"), np.array([0.1]))
    same(cr.asarray(x[::-1].astype(">f4")), np.array([1, 1, 5], "float32"))


def test_operands_are_copied() -> None:
    x = np.ones(3, "float32")
    moved = mv.reshape(x, (3, 1))
    x[:] = 7
    assert moved.tolist() == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: cr.asarray([1], copy=False), ValueError, "copy=False"),
        (lambda: cr.asarray(["a"]), DTypeError, "not numbers"),
        (lambda: cr.asarray([[1], [1, 2]]), ShapeError, "rectangular"),
        (lambda: cr.asarray([300], dtype="uint8"), DTypeError, "300 does not fit uint8"),
        (lambda: cr.asarray([np.nan], dtype="int32"), DTypeError, "NaN and infinity"),
        (lambda: cr.full(2, 1.5, dtype="int32"), DTypeError, "1.5 is not a whole number"),
        (lambda: cr.zeros((-1, 2)), ShapeError, "must not be negative"),
        (lambda: cr.zeros(2.0), DTypeError, "made of integers"),
        (lambda: cr.zeros((2**40, 2**40)), ShapeError, "too large"),
        (lambda: cr.zeros(2, device="tpu"), DTypeError, "device 'tpu'"),
        (lambda: cr.zeros(2, dtype="complex256"), DTypeError, "not a dtype"),
        (lambda: cr.meshgrid(cr.zeros((2, 2))), ShapeError, "one-dimensional"),
    ],
)
def test_creation_refuses(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# -- movement --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_movement(shape: tuple[int, ...], dtype: str) -> None:
    x = values(shape, dtype)
    t = cr.asarray(x)
    same(mv.flatten(t), x.reshape(-1))
    same(mv.expand_dims(t, axis=-1), np.expand_dims(x, -1))
    same(mv.expand_dims(t, axis=(0, 2)) if shape else t, np.expand_dims(x, (0, 2)) if shape else x)
    same(mv.flip(t), np.flip(x))
    same(mv.roll(t, 3), np.roll(x, 3))
    same(mv.tile(t, (2, 1, 3)), np.tile(x, (2, 1, 3)))
    same(mv.repeat(t, 3), np.repeat(x, 3))
    same(mv.pad(t, 2, value=1), np.pad(x, 2, constant_values=1))
    same(mv.stack([t, t], axis=-1), np.stack([x, x], axis=-1))
    same(mv.broadcast_to(t, (3, *shape)), np.broadcast_to(x, (3, *shape)))
    ones = tuple(k for k, n in enumerate(shape) if n == 1)
    same(mv.squeeze(t, ones), np.squeeze(x, ones))
    for axis in range(-len(shape), len(shape)):
        same(mv.flip(t, axis=axis), np.flip(x, axis))
        same(mv.roll(t, -2, axis=axis), np.roll(x, -2, axis))
        same(mv.repeat(t, 2, axis=axis), np.repeat(x, 2, axis))
        same(mv.concat([t, t], axis=axis), np.concatenate([x, x], axis))
        same(mv.moveaxis(t, axis, 0), np.moveaxis(x, axis, 0))
        same(mv.swapaxes(t, axis, -1), np.swapaxes(x, axis, -1))
        for a, b in zip(mv.unstack(t, axis=axis), np.moveaxis(x, axis, 0), strict=True):
            same(a, b)


def test_movement_compiled() -> None:
    x, y = values((2, 3, 4)), values((2, 3, 4), "int32")

    def moved(t: Any, u: Any) -> list[Any]:
        return [
            mv.reshape(t, (4, -1)),
            mv.permute_dims(t, (2, 0, -2)),
            mv.matrix_transpose(u),
            mv.roll(t, (1, -1), axis=(0, 2)),
            mv.repeat(u, [0, 2, 1], axis=1),
            mv.tile(t, (2, 1, 1, 2)),
            mv.pad(t, ((0, 1), (2, 0), (0, 0)), value=-1),
            mv.concat([t, u]),
            mv.concat([u, u], axis=None),
            *mv.split(t, [1, 3], axis=2),
            *mv.broadcast_arrays(t[:, :1], u[0]),
        ]

    got = both(moved, x, y)
    want = [
        x.reshape(4, -1),
        x.transpose(2, 0, 1),
        y.swapaxes(1, 2),
        np.roll(x, (1, -1), (0, 2)),
        np.repeat(y, [0, 2, 1], 1),
        np.tile(x, (2, 1, 1, 2)),
        np.pad(x, ((0, 1), (2, 0), (0, 0)), constant_values=-1),
        np.concatenate([x, y]).astype("float32"),
        np.concatenate([y, y], None),
        *np.split(x, [1, 3], 2),
        *np.broadcast_arrays(x[:, :1], y[0]),
    ]
    for a, b in zip(got, want, strict=True):
        same(a, b)


def test_a_moved_leaf_does_not_follow_the_leaf() -> None:
    leaf = Leaf([1.0, 2.0])
    kept = [mv.reshape(leaf, (2,)), mv.flatten(leaf), mv.broadcast_to(leaf, 2), mv.concat([leaf])]
    kept += [leaf[:], leaf[...], sta.sum(leaf, axis=()), mv.roll(leaf, 2), mv.tile(leaf, 1)]
    kept += [leaf.at[0:0].set(3.0)]
    leaf.value = np.array([5.0, 5.0], "float32")
    assert [x.tolist() for x in kept] == [[1.0, 2.0]] * len(kept)


T23 = cr.asarray(values((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: mv.reshape(T23, (4, 2)), ShapeError, r"f32\[2,3\] \(6 elements\) to \(4, 2\)"),
        (lambda: mv.reshape(T23, (-1, -1)), ShapeError, "cannot reshape"),
        (lambda: mv.reshape(T23, (-1, 0)), ShapeError, "cannot reshape"),
        (lambda: mv.reshape(T23, (2.0, 3)), DTypeError, "made of integers"),
        (lambda: mv.permute_dims(T23, (0, 0)), ShapeError, "each of the 2 axes"),
        (lambda: mv.permute_dims(T23, (0,)), ShapeError, "each of the 2 axes"),
        (lambda: mv.permute_dims(T23, (0, 2)), ShapeError, "axis 2 is out of range for rank 2"),
        (lambda: mv.expand_dims(T23, axis=(0, 0)), ShapeError, "twice"),
        (lambda: mv.expand_dims(T23, axis=3), ShapeError, "out of range"),
        (lambda: mv.squeeze(T23, 0), ShapeError, "must all have one element"),
        (lambda: mv.broadcast_to(T23, (3, 2)), ShapeError, r"f32\[2,3\] to \(3, 2\)"),
        (lambda: mv.broadcast_to(T23, (3,)), ShapeError, r"f32\[2,3\] to \(3,\)"),
        (lambda: mv.broadcast_to(T23, (-1, 3)), ShapeError, "must not be negative"),
        (lambda: mv.broadcast_arrays(T23, [1.0, 2.0]), ShapeError, "do not broadcast"),
        (lambda: mv.concat([]), ShapeError, "needs at least one array"),
        (lambda: mv.concat([T23, T23.T]), ShapeError, "every axis but 0"),
        (lambda: mv.concat([1.0, 2.0]), ShapeError, "use stack"),
        (lambda: mv.concat([T23], axis=2), ShapeError, "axis 2 is out of range"),
        (lambda: mv.stack([T23, T23.T]), ShapeError, "one shape"),
        (lambda: mv.flip(T23, axis=(1, -1)), ShapeError, "twice"),
        (lambda: mv.moveaxis(T23, (0, 1), (0, 0)), ShapeError, "different axes"),
        (lambda: mv.roll(T23, (1, 2, 3), axis=(0, 1)), ShapeError, "3 shifts for 2 axes"),
        (lambda: mv.repeat(T23, -1), ShapeError, "at least 0"),
        (lambda: mv.repeat(T23, [1, 2], axis=1), ShapeError, "give one, or 3"),
        (lambda: mv.tile(T23, -1), ShapeError, "negative"),
        (lambda: mv.tile(T23, 2**62), ShapeError, "too large"),
        (lambda: mv.pad(T23, -1), ShapeError, "at least 0"),
        (lambda: mv.pad(T23, ((1, 2, 3),)), ShapeError, "do not fit"),
        (lambda: mv.pad([1, 2], 1, value=0.5), DTypeError, "0.5 is no int64"),
        (lambda: mv.matrix_transpose([1.0]), ShapeError, "x\\[:, None\\]"),
        (lambda: mv.unstack(cr.asarray(1.0)), ShapeError, "out of range for rank 0"),
        (lambda: mv.split(T23, 2, axis=1), ShapeError, "no 2 equal parts"),
        (lambda: mv.split(T23, 1.0), DTypeError, "needs an integer, got 1.0"),
        (lambda: mv.roll(T23, 0.5), DTypeError, "needs an integer, got 0.5"),
        (lambda: mv.permute_dims(T23, 1), ShapeError, "each of the 2 axes"),
        (lambda: mv.reshape(T23, (1,) * 70 + (6,)), ShapeError, "at most 32 axes"),
        (lambda: cr.tril(T23, k=0.5), DTypeError, "needs an integer, got 0.5"),
    ],
)
def test_movement_refuses(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# -- reductions ------------------------------------------------------------------------------------

_AXES = st.sampled_from([None, (), 0, 1, -1, (0, 1), (0, 2), (2, 0), (0, 1, 2)])
_SIZES = st.sampled_from([(3, 4, 5), (2, 17, 1), (1, 1, 1), (300, 2, 3), (2, 3, 40), (2, 0, 3)])


@settings(max_examples=60, deadline=None)
@given(shape=_SIZES, axis=_AXES, dtype=st.sampled_from(DTYPES), keep=st.booleans())
def test_reductions(shape: tuple[int, ...], axis: Any, dtype: str, keep: bool) -> None:
    x = values(shape, dtype)
    t = cr.asarray(x)
    rule: dict[str, Any] = {"axis": axis, "keepdims": keep}
    wide = {"b": "int64", "i": "int64", "u": "uint64"}.get(x.dtype.kind, dtype)
    exact = x.astype("float64") if x.dtype.kind == "f" else x
    with np.errstate(all="ignore"):
        close(sta.sum(t, **rule), np.sum(exact, **rule), wide)
        close(sta.prod(t, **rule), np.prod(exact, **rule), wide)
        same(sta.any(t, **rule), np.any(x, **rule))
        same(sta.all(t, **rule), np.all(x, **rule))
        count = np.sum(np.ones_like(exact), **rule)
        if np.all(count):
            for mine, theirs in ((sta.max, np.max), (sta.min, np.min)):
                same(mine(t, **rule), theirs(x, **rule))
            real = dtype if x.dtype.kind == "f" else "float32"
            close(sta.mean(t, **rule), np.mean(exact, **rule), real)
            close(sta.var(t, **rule), np.var(exact, **rule), real)
            if np.size(count) and np.all(count > 1):
                close(sta.std(t, correction=1, **rule), np.std(exact, ddof=1, **rule), real)


@pytest.mark.parametrize("dtype", DTYPES)
def test_positions_of_extremes(dtype: str) -> None:
    x = values((3, 4, 5), dtype)
    t = cr.asarray(x)
    for axis in (None, 0, 1, -1):
        for keep in (False, True):
            same(sta.argmax(t, axis=axis, keepdims=keep), np.argmax(x, axis=axis, keepdims=keep))
            same(sta.argmin(t, axis=axis, keepdims=keep), np.argmin(x, axis=axis, keepdims=keep))
    same(sta.argmax(cr.asarray(x[0, 0, 0])), np.int64(0))


def test_reductions_of_nothing_and_scalars() -> None:
    nothing, one = cr.zeros((0, 3)), cr.asarray(2.0)
    same(sta.sum(nothing), np.float32(0))
    same(sta.prod(nothing, axis=0), np.ones(3, "float32"))
    assert np.isnan(np.asarray(sta.mean(nothing))).all()
    assert np.isnan(np.asarray(sta.var(one, correction=1)))
    for fn in (sta.sum, sta.max, sta.min, sta.mean, sta.prod):
        same(fn(one), np.float32(2))
        same(fn(one, axis=(), keepdims=True), np.float32(2))
    same(sta.std(one), np.float32(0))
    same(sta.any(nothing, axis=0, keepdims=True), np.zeros((1, 3), bool))
    assert str(sta.sum(cr.asarray(-0.0)).item()) == "-0.0"


def test_means_of_half_types_do_not_overflow() -> None:
    x = np.full(4096, 100.0, "float16")
    same(sta.mean(cr.asarray(x)), np.float16(100))
    same(sta.var(cr.asarray(x)), np.float16(0))


def test_sum_dtypes() -> None:
    x = cr.asarray([200, 100], dtype="uint8")
    same(sta.sum(x), np.uint64(300))
    same(sta.sum(x, dtype="uint8"), np.uint8(44))
    same(sta.sum(x, dtype="float32"), np.float32(300))
    same(sta.sum(cr.asarray([True, True])), np.int64(2))


@pytest.mark.parametrize("dtype", REAL)
def test_cumulative_sum(dtype: str) -> None:
    x = values((3, 4), dtype)
    wide = {"i": "int64", "u": "uint64"}.get(x.dtype.kind, dtype)
    for axis in (0, 1, -2):
        got = sta.cumulative_sum(cr.asarray(x), axis=axis)
        close(got, np.cumsum(x.astype("float64"), axis), wide)
    got = sta.cumulative_sum(cr.asarray(x[0]), include_initial=True)
    close(got, np.cumulative_sum(x[0].astype("float64"), include_initial=True), wide)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_family(axis: int, dtype: str) -> None:
    x = (30 * values((3, 4, 5))).astype(dtype)
    wide = x.astype("float64")
    total = np.log(np.sum(np.exp(wide), axis, keepdims=True))
    got = both(
        lambda t: [
            sta.softmax(t, axis=axis),
            sta.log_softmax(t, axis=axis),
            sta.logsumexp(t, axis=axis, keepdims=True),
            sta.logsumexp(t, axis=(axis, 0) if axis else 0),
            sta.logsumexp(t),
        ],
        x,
    )
    wants = [np.exp(wide - total), wide - total, total]
    wants.append(np.log(np.sum(np.exp(wide), (axis, 0) if axis else 0)))
    wants.append(np.log(np.sum(np.exp(wide))))
    for a, b in zip(got, wants, strict=True):
        np.testing.assert_allclose(
            np.asarray(a, "float64"), b, 2e-2 if dtype == "float16" else 1e-4, 1e-5
        )
        assert a.dtype == dtype


def test_softmax_extremes() -> None:
    x = cr.asarray([1000.0, -1000.0, 1000.0])
    same(sta.softmax(x), np.array([0.5, 0, 0.5], "float32"))
    close(sta.logsumexp(x), np.float32(1000 + np.log(2)))
    same(sta.logsumexp(cr.zeros((2, 0)), axis=1), np.full(2, -np.inf, "float32"))
    same(sta.softmax([0, 0]), np.array([0.5, 0.5], "float32"))


def test_reductions_compiled() -> None:
    x = values((6, 40, 5))

    def reduced(t: Any) -> list[Any]:
        fns = (sta.sum, sta.mean, sta.var, sta.std, sta.max, sta.prod)
        found = [fn(t, axis=axis) for fn in fns for axis in (None, 0, 1, (0, 2))]
        return [
            *found,
            sta.any(t > 2, axis=1),
            sta.argmax(t, axis=1),
            sta.cumulative_sum(t, axis=1),
        ]

    both(reduced, x)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: sta.max(cr.zeros((0, 3))), ShapeError, r"max: f32\[0,3\] has no elements"),
        (lambda: sta.min(cr.zeros((0, 3)), axis=0), ShapeError, "has no elements along axes"),
        (lambda: sta.argmax(cr.zeros((3, 0)), axis=1), ShapeError, "has no elements"),
        (lambda: sta.sum(T23, axis=2), ShapeError, "sum: axis 2 is out of range for rank 2"),
        (lambda: sta.sum(T23, axis=(0, -2)), ShapeError, "name an axis twice"),
        (lambda: sta.mean(T23, axis=1.0), DTypeError, "an axis is an integer"),
        (lambda: sta.sum(T23, dtype="bool"), DTypeError, "use any or all"),
        (lambda: sta.cumulative_sum(T23), ShapeError, "give axis="),
        (lambda: sta.softmax(cr.asarray(1.0)), ShapeError, "out of range for rank 0"),
        (lambda: sta.argmax(T23, axis=-3), ShapeError, "out of range"),
    ],
)
def test_reductions_refuse(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
