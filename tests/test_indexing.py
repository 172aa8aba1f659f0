"""x[index], x.at[index] and take against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from function_checks import both, close, same, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from einkorn.compile import Compiled
from einkorn.functions import creation as cr
from einkorn.functions import indexing as ix
from einkorn.ir.errors import BoundsError, DTypeError, EinkornError, ShapeError, TraceError

SHAPES = [(5,), (3, 4), (2, 3, 4), (4, 1, 3, 2), (0, 3), (2, 0, 2), ()]
T34 = cr.asarray(values((3, 4)))


@st.composite
def cases(draw: st.DrawFn, masks: bool = True) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """A shape and an index for it, valid or out of range by a little."""
    shape = draw(st.sampled_from(SHAPES))
    common = draw(st.sampled_from([(), (1,), (3,), (2, 1), (2, 3), (0,)]))
    entries: list[Any] = []
    axis = 0
    gap = draw(st.integers(0, len(shape) + 2))
    while axis < len(shape) and draw(st.integers(0, 9)):
        kinds = ["slice", "slice", "int", "array", "new"] + ["mask"] * masks
        kind = draw(st.sampled_from(kinds))
        if len(entries) == gap:
            entries.append(Ellipsis)
        size = shape[axis]
        if kind == "new":
            entries.append(None)
            continue
        entries.append(_entry(draw, kind, size, common))
        axis += 1
    if draw(st.booleans()):
        entries.append(None)
    return shape, tuple(entries)


def _entry(draw: st.DrawFn, kind: str, size: int, common: tuple[int, ...]) -> Any:
    bound = st.one_of(st.none(), st.integers(-size - 2, size + 2))
    if kind == "slice":
        step = draw(st.sampled_from([None, 1, 2, 3, -1, -2]))
        return slice(draw(bound), draw(bound), step)
    if kind == "mask" and size:  # NumPy takes an empty mask for an axis of any size
        return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    near = st.integers(-size, size - 1) if size else st.just(0)
    place = st.one_of(*[near] * 20, st.just(size))
    if kind == "int":
        return draw(place)
    count = int(np.prod(common))
    dtype = draw(st.sampled_from(["int64", "int32", "int8"]))
    listed = draw(st.lists(place, min_size=count, max_size=count))
    return np.array(listed, dtype).reshape(common)


def _expected(x: Any, index: Any) -> Any:
    """What NumPy gives; IndexError where it refuses and something would be read."""
    try:
        return x[index]
    except (IndexError, ValueError):
        assume(_reads(x, index))
        return IndexError


def _reads(x: Any, index: tuple[Any, ...]) -> bool:
    """Whether an index that NumPy refuses names any element."""
    arrays = (
        np.zeros_like(e) if isinstance(e, np.ndarray) and e.dtype != bool else e for e in index
    )
    try:
        return x[tuple(arrays)].size > 0
    except (IndexError, ValueError):
        return x.size > 0


@settings(max_examples=600, deadline=None)
@given(cases())
def test_getitem(case: tuple[tuple[int, ...], tuple[Any, ...]]) -> None:
    shape, index = case
    x = np.arange(np.prod(shape, dtype=int), dtype="float32").reshape(shape)
    want = _expected(x, index)
    if want is IndexError:
        with pytest.raises(EinkornError):
            cr.asarray(x)[index]
    elif want.size:  # of an empty result NumPy does not check all indices
        same(cr.asarray(x)[index], want)


@settings(max_examples=60, deadline=None)
@given(cases(masks=False))
def test_getitem_compiled(case: tuple[tuple[int, ...], tuple[Any, ...]]) -> None:
    """Index arrays as arguments of a compiled function: their values are not known."""
    shape, index = case
    x = np.arange(np.prod(shape, dtype=int), dtype="float32").reshape(shape)
    want = _expected(x, index)
    arrays = [entry for entry in index if isinstance(entry, np.ndarray)]

    def read(t: Any, *given: Any) -> Any:
        rest = iter(given)
        return t[tuple(next(rest) if isinstance(e, np.ndarray) else e for e in index)]

    operands = [cr.asarray(a) for a in (x, *arrays)]
    if want is IndexError:
        with pytest.raises(EinkornError):
            Compiled(read)(*operands)
    elif want.size:
        same(Compiled(read)(*operands), want)


@settings(max_examples=300, deadline=None)
@given(cases(), st.booleans(), st.data())
def test_at(case: tuple[tuple[int, ...], tuple[Any, ...]], adds: bool, data: st.DataObject) -> None:
    shape, index = case
    x = values(shape, "int64", seed=3)
    chosen = _expected(x, index)
    assume(chosen is not IndexError and chosen.size)
    tails = [chosen.shape[k:] for k in range(chosen.ndim + 1)]
    y = values(data.draw(st.sampled_from(tails)), "int64", seed=4)
    want = x.copy()
    if adds:
        np.add.at(want, index, y)
        same(cr.asarray(x).at[index].add(y), want)
    else:
        want[index] = y
        same(cr.asarray(x).at[index].set(y), want)


def test_at_compiled() -> None:
    x, y, where = values((3, 4)), values((4,), seed=1), np.array([2, 0, 2])

    def changed(t: Any, u: Any, i: Any) -> list[Any]:
        return [
            t.at[i].add(u),
            t.at[i].set(u),
            t.at[:, i].add(1.0),
            t.at[i, 1:3].add(u[:2]),
            t.at[i, i].set(2.0),
            t.at[::-2, 1:].set(u[1:]),
            t.at[1, -1].add(3),
            t.at[t > 0].set(0.5),
            t.at[t[:, 0] > 0].add(u),
            t.at[:, 0].set(0),
        ]

    wants = [x.copy() for _ in range(10)]
    np.add.at(wants[0], where, y)
    wants[1][where] = y
    np.add.at(wants[2], (slice(None), where), np.float32(1))
    np.add.at(wants[3], (where, slice(1, 3)), y[:2])
    wants[4][where, where] = 2
    wants[5][::-2, 1:] = y[1:]
    wants[6][1, -1] += 3
    wants[7][x > 0] = 0.5
    wants[8][x[:, 0] > 0] += y
    wants[9][:, 0] = 0
    for a, b in zip(both(changed, x, y, where), wants, strict=True):
        close(a, b)


def test_adding_to_a_slice_keeps_every_bit_of_the_rest() -> None:
    x = cr.asarray([-0.0, -0.0, np.nan])
    got = np.asarray(x.at[0].add(1.0))
    assert np.signbit(got[1])
    assert np.isnan(got[2])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_take(dtype: str) -> None:
    x, where = values((3, 4)), np.array([[2, 0], [1, 1]], dtype)
    same(both(lambda t, i: ix.take(t, i, axis=0), x, where), np.take(x, where, 0))
    same(both(lambda t, i: ix.take(t, i, axis=-1), x, where), np.take(x, where, -1))
    same(both(lambda t, i: t[i, i], x, where), x[where, where])
    same(ix.take(x[0], []), x[0][:0])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take_along_axis(axis: int) -> None:
    x = values((3, 4, 5))
    places = np.argsort(x, axis)
    got = both(lambda t, i: ix.take_along_axis(t, i, axis=axis), x, places)
    same(got, np.take_along_axis(x, places, axis))
    narrow = places[tuple(slice(None) if k == axis % 3 else slice(1) for k in range(3))]
    got = both(lambda t, i: ix.take_along_axis(t, i, axis=axis), x, narrow - x.shape[axis])
    same(got, np.take_along_axis(x, narrow, axis))


@pytest.mark.parametrize("bad", [[0, 3], [-4, 0], [2**40, 0]])
def test_one_index_out_of_range_among_several(bad: list[int]) -> None:
    """(0, 4) of (3, 4) would be position 4, which exists."""
    x, i, j = cr.zeros((3, 3)), cr.asarray(bad), cr.asarray([0, 0])
    for read in (lambda x, i, j: x[i, j], lambda x, i, j: x[j, i], lambda x, i, j: x[i]):
        with pytest.raises(BoundsError, match="out of range"):
            read(x, i, j)
        with pytest.raises(BoundsError, match="out of range"):
            Compiled(read)(x, i, j)
    for write in (lambda x, i, j: x.at[j, i].set(1), lambda x, i, j: x.at[i].add(1)):
        with pytest.raises(BoundsError, match="out of range"):
            write(x, i, j)
        with pytest.raises(BoundsError, match="out of range"):
            Compiled(write)(x, i, j)


def test_an_unsigned_index_does_not_wrap() -> None:
    x, huge = cr.zeros((3, 3)), cr.asarray(np.array([2**64 - 1], "uint64"))
    for read in (lambda x, i: x[i], lambda x, i: x[i, i]):
        with pytest.raises(BoundsError, match="out of range"):
            read(x, huge)
        with pytest.raises(BoundsError, match="out of range"):
            Compiled(read)(x, huge)


def test_masks() -> None:
    x = values((3, 4))
    t = cr.asarray(x)
    same(t[t > 0], x[x > 0])
    same(t[[True, False, True]], x[[True, False, True]])
    same(t[[True, False, True], [0, 1]], x[[True, False, True], [0, 1]])
    with pytest.raises(TraceError, match=r"ek\.where\(mask"):
        Compiled(lambda t: t[t > 0])(t)
    same(Compiled(lambda t: t[np.array([True, False, True])])(t), x[[0, 2]])


@pytest.mark.parametrize(
    ("index", "error", "match"),
    [
        (3, BoundsError, r"index: 3 is out of range for axis 0 of f32\[3,4\]"),
        ((0, -5), BoundsError, "-5 is out of range for axis 1"),
        ([0, 3], BoundsError, "3 is out of range for axis 0"),
        ((0, 0, 0), BoundsError, "3 indices for"),
        ((..., 0, ...), BoundsError, "one ellipsis"),
        ("a", DTypeError, "'a' is not an index"),
        (1.0, DTypeError, "1.0 is not an index"),
        ([0.5], DTypeError, "holds integers"),
        (cr.asarray([0.5]), DTypeError, "holds integers"),
        (True, DTypeError, "True is not an index"),
        (slice(0, 2, 0), ShapeError, "must not be 0"),
        (slice("a"), DTypeError, "integers or None"),
        (np.array([True, False]), BoundsError, "mask"),
        (([0, 1], [0, 1, 2]), ShapeError, "do not broadcast"),
    ],
)
def test_bad_indices(index: Any, error: type[Exception], match: str) -> None:
    for use in (lambda: T34[index], lambda: T34.at[index].set(0), lambda: T34.at[index].add(0)):
        with pytest.raises(error, match=match):
            use()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: T34.at[0].set(cr.zeros(3)), ShapeError, r"f32\[3\] .* shape \(4,\)"),
        (lambda: T34.at[[0]].add(cr.zeros((2, 4))), ShapeError, "does not broadcast"),
        (lambda: T34.at[T34 > 0].set(cr.zeros((2, 4))), EinkornError, "broadcast"),
        (lambda: T34.at[(T34 > 0).T].set(0.0), BoundsError, "mask"),
        (lambda: cr.asarray([1]).at[0].set(0.5), DTypeError, "float32 does not fit into i64"),
        (lambda: cr.asarray([True]).at[0].add(True), DTypeError, "bool has no arithmetic"),
        (lambda: ix.take(T34, [0]), ShapeError, "give axis="),
        (lambda: ix.take(T34, [0.5], axis=0), DTypeError, "must be integers"),
        (lambda: ix.take(T34, [3], axis=0), BoundsError, "take: index 3"),
        (lambda: ix.take(cr.zeros((0, 2)), [0], axis=0), BoundsError, "empty axis"),
        (lambda: ix.take_along_axis(T34, [0]), ShapeError, "as many axes"),
        (lambda: ix.take_along_axis(T34, [[0], [0]], axis=1), ShapeError, "agree with"),
        (lambda: ix.take_along_axis(T34, [[4], [0], [0]], axis=1), BoundsError, "index 4"),
    ],
)
def test_functions_refuse(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
