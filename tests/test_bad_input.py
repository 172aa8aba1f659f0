"""Bad arguments: an einkorn error that names them, and nothing changed by a refused call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek

X = ek.asarray([1.0, 2.0, 3.0])
BYTES = ek.asarray(np.array([1, 2], np.uint8))
PAIR = np.array([1, 2])
KEY = ek.random.key(1)
HUGE = 10**5000
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
NESTED: list[Any] = [[]]
NESTED[0].append(NESTED)


class Odd:
    """No number, no array."""


def _scores(**options: Any) -> Any:
    return ek.nn.cross_entropy(ek.zeros((2, 3)), np.array([0, 1]), **options)


@pytest.mark.parametrize("spec", [X, Odd(), PAIR, None, "f4,,(", "f4,f4", [1], 3])
def test_what_is_no_dtype(spec: Any) -> None:
    for call in (lambda: X.astype(spec), lambda: ek.asarray(1).astype(spec)):
        with pytest.raises(ek.DTypeError, match="is not a dtype"):
            call()
    if spec is not None:
        with pytest.raises(ek.DTypeError, match="is not a dtype"):
            ek.zeros(2, dtype=spec)
    assert ek.float32 != spec


@pytest.mark.parametrize("bad", [PAIR, Odd(), 0.5, True, "a"])
@pytest.mark.parametrize(
    "call",
    [
        lambda bad: ek.sum(X, axis=bad),
        lambda bad: ek.nn.softmax(X, axis=bad),
        lambda bad: ek.vecdot(X, X, axis=bad),
        lambda bad: ek.expand_dims(X, axis=bad),
        lambda bad: ek.moveaxis(X, bad, 0),
        lambda bad: ek.zeros(bad),
        lambda bad: ek.reshape(X, bad),
        lambda bad: X.transpose(bad),
        lambda bad: ek.broadcast_to(X, bad),
        lambda bad: ek.tile(X, bad),
        lambda bad: ek.roll(X, bad),
        lambda bad: ek.split(X, bad),
        lambda bad: ek.eye(2, k=bad),
        lambda bad: ek.linspace(0, 1, bad),
        lambda bad: ek.one_hot(BYTES, bad),
        lambda bad: ek.random.key(bad),
        lambda bad: ek.random.seed(bad),
        lambda bad: ek.random.split(KEY, bad),
    ],
)
def test_what_is_no_integer(call: Callable[[Any], Any], bad: Any) -> None:
    with pytest.raises(ek.DTypeError):
        call(bad)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: X[Odd()], ek.DTypeError),
        (lambda: X[PAIR:], ek.DTypeError),
        (lambda: X[HUGE], ek.BoundsError),
        (lambda: X[CYCLE], ek.ShapeError),
        (lambda: X.at[Odd()].set(1), ek.DTypeError),
        (lambda: ek.sum(X, axis=HUGE), ek.ShapeError),
        (lambda: ek.zeros(HUGE), ek.ShapeError),
        (lambda: ek.concat(None), ek.DTypeError),
        (lambda: ek.stack(3), ek.DTypeError),
        (lambda: ek.concat([Odd()]), ek.DTypeError),
        (lambda: ek.argmax(X, axis=[]), ek.DTypeError),
        (lambda: ek.argmax(X, axis=(0, 0)), ek.DTypeError),
        (lambda: ek.var(X, correction=PAIR), ek.DTypeError),
        (lambda: ek.std(X, correction=Odd()), ek.DTypeError),
        (lambda: ek.cumulative_sum(X, include_initial=PAIR), ek.DTypeError),
        (lambda: _scores(label_smoothing=None), ek.DTypeError),
        (lambda: _scores(label_smoothing="a"), ek.DTypeError),
        (lambda: _scores(reduction=PAIR), ek.ShapeError),
        (lambda: ek.tensordot(X, X, axes=None), ek.DTypeError),
        (lambda: ek.tensordot(X, X, axes=Odd()), ek.DTypeError),
        (lambda: ek.tensordot(X, X, axes=[]), ek.ShapeError),
        (lambda: ek.zeros(2, device=PAIR), ek.DTypeError),
        (lambda: ek.asarray(X, copy=PAIR), ek.DTypeError),
        (lambda: ek.meshgrid(X, indexing=PAIR), ek.ShapeError),
        (lambda: ek.linspace(0, 1, 3, endpoint=PAIR), ek.DTypeError),
        (lambda: ek.arange(PAIR), ek.DTypeError),
        (lambda: ek.arange("3"), ek.DTypeError),
        (lambda: ek.arange(HUGE), ek.DTypeError),
        (lambda: ek.repeat(X, [[1], [1, 2]]), ek.ShapeError),
        (lambda: ek.pad(X, [[1], [1, 2]]), ek.ShapeError),
        (lambda: ek.asarray(CYCLE), ek.ShapeError),
        (lambda: ek.tensor(NESTED), ek.ShapeError),
        (lambda: X + CYCLE, ek.ShapeError),
        (lambda: ek.parse(None), ek.IRError),
        (lambda: ek.random.uniform((2,), key=3), ek.DTypeError),
        (lambda: ek.random.uniform((2,), key=(1, 2)), ek.DTypeError),
        (lambda: ek.random.split(3), ek.DTypeError),
        (lambda: ek.random.fold_in(KEY, 0.5), ek.DTypeError),
        (lambda: ek.random.fold_in(3, 1), ek.DTypeError),
    ],
)
def test_odd_arguments(call: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


@pytest.mark.parametrize("reduce", [ek.sum, ek.mean, ek.max, ek.argmax, ek.all, ek.logsumexp])
@pytest.mark.parametrize("flag", [PAIR, "yes", None])
def test_keepdims_is_a_bool(reduce: Callable[..., Any], flag: Any) -> None:
    with pytest.raises(ek.DTypeError, match="keepdims is True or False"):
        reduce(X, keepdims=flag)


@pytest.mark.parametrize("number", [10**400, HUGE, -HUGE], ids=["400", "5000", "negative"])
def test_integers_beyond_every_float(number: int) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: X + number,
        lambda: number < X,
        lambda: X**number,
        lambda: ek.exp(number),
        lambda: ek.full(2, number),
        lambda: ek.clip(X, number),
        lambda: X.at[0].set(number),
        lambda: ek.asarray([number, 1.0]),
    ]
    for call in calls:
        with pytest.raises(ek.DTypeError):
            call()


def test_integers_beyond_64_bits() -> None:
    with pytest.raises(ek.DTypeError, match="does not fit int64"):
        ek.exp(2**70)
    np.testing.assert_array_equal(np.asarray(X * 2**70), np.asarray(X) * np.float32(2**70))


def test_shapes_too_large_for_any_machine() -> None:
    one, tall = ek.zeros((1,)), 2**32
    column, row = ek.broadcast_to(one, (tall, 1)), ek.broadcast_to(one, (1, tall))
    assert ek.broadcast_to(one, (2**60,)).size == 2**60
    calls: list[Callable[[], Any]] = [
        lambda: column @ row,
        lambda: column + row,
        lambda: ek.where(column > 0, row, 1),
        lambda: ek.outer(column[:, 0], row[0]),
        lambda: ek.broadcast_arrays(column, row),
        lambda: ek.concat([ek.broadcast_to(one, (2**60,))] * 2),
        lambda: ek.take(ek.broadcast_to(one, (1, 2**40)), np.zeros(2**21, np.int64), axis=0),
        lambda: ek.random.uniform((2**40, 2**40)),
        lambda: ek.compile(lambda x: ek.broadcast_to(x, (tall, tall, tall)))(one),
    ]
    for call in calls:
        with pytest.raises(ek.ShapeError, match="too large"):
            call()


def test_ranks_that_numpy_does_not_broadcast() -> None:
    most = ek.zeros((1,) * 32)
    assert (most + 1.0).ndim == 32
    with pytest.raises(ek.ShapeError, match="at most 32 axes"):
        ek.expand_dims(most)
    with pytest.raises(ek.ShapeError, match="at most 32 axes"):
        ek.zeros((1,) * 33)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ek.random.uniform((2,), low="a"),
        lambda: ek.random.uniform((2,), low=[1.0, 2.0, 3.0]),
        lambda: ek.random.uniform((2,), low=2.0, high=1.0),
        lambda: ek.random.uniform((2,), high=float("inf")),
        lambda: ek.random.uniform((2,), dtype="int32"),
        lambda: ek.random.normal((2,), mean=Odd()),
        lambda: ek.random.bernoulli(0.5, (-1,)),
        lambda: ek.random.bernoulli(1.5, (2,)),
        lambda: ek.random.bernoulli([0.5, 0.5, 0.5], (2,)),
        lambda: ek.random.bernoulli([0.5, float("nan")]),
        lambda: ek.random.bernoulli(np.array([-0.5, 0.5])),
        lambda: ek.random.randint(0, 5, (2,), dtype="float32"),
        lambda: ek.random.randint(0, 300, (2,), dtype="uint8"),
        lambda: ek.random.randint(-1, 5, (2,), dtype="uint64"),
        lambda: ek.random.randint(0, 5, (-2,)),
        lambda: ek.random.randint(5, 5, (2,)),
        lambda: ek.random.bits((2**62,)),
        lambda: ek.random.uniform((2**56,)),
    ],
)
def test_a_refused_draw_does_not_move_the_generator(call: Callable[[], Any]) -> None:
    before = int(ek.random.default_generator().draw)
    with pytest.raises((ek.EinkornError, MemoryError)):
        call()
    assert int(ek.random.default_generator().draw) == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 2.0), (-3.0, 5.0), (2.0, 2.0)])
def test_uniform_stays_below_high(dtype: str, low: float, high: float) -> None:
    drawn = np.asarray(ek.random.uniform((1 << 17,), low, high, dtype=dtype, key=KEY))
    drawn = drawn.astype(np.float64)
    assert drawn.min() >= low
    assert drawn.max() < high or low == high


def test_randint_reaches_the_ends_of_its_dtype() -> None:
    drawn = np.asarray(ek.random.randint(-128, 128, (1 << 14,), dtype="int8", key=KEY))
    assert (drawn.min(), drawn.max()) == (-128, 127)
    drawn = np.asarray(ek.random.randint(2**64 - 2, 2**64, (64,), dtype="uint64", key=KEY))
    assert set(drawn.tolist()) == {2**64 - 2, 2**64 - 1}


# -- attributes ------------------------------------------------------------------------------------


def test_attributes_that_some_tensors_lack() -> None:
    assert not hasattr(X, "mT")
    assert not hasattr(X + 1.0, "grad")
    assert ek.tensor(1.0).grad is None
    np.testing.assert_array_equal(np.asarray(X.T), np.asarray(X))
    inspect.getmembers(X + 1.0)
    with pytest.raises(ek.ShapeError, match="2 axes"):
        _ = X.mT
    with pytest.raises(ek.StateError, match="only leaves have"):
        _ = (X + 1.0).grad


@pytest.mark.parametrize("op", ["//", "%", "<<", ">>", "&", "|", "^", "+", "-", "*", "/", "**"])
def test_leaves_refuse_operators_in_place(op: str) -> None:
    leaf = ek.tensor([1, 2], dtype="int32")
    scope = {"leaf": leaf}
    with pytest.raises(ek.StateError, match="is not changed by an operator"):
        exec(f"leaf {op}= 2", scope)
    assert scope["leaf"] is leaf


@pytest.mark.parametrize(
    "identity",
    [
        ek.asarray,
        ek.positive,
        ek.clip,
        ek.stop_gradient,
        lambda p: +p,
        lambda p: p.astype("float32"),
        lambda p: p.astype("int32") if p.dtype == ek.int32 else p.to("cpu"),
        lambda p: ek.astype(p, p.dtype),
        lambda p: ek.floor(p),
        lambda p: ek.asarray(p, dtype=p.dtype, copy=False),
        lambda p: p.T,
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_results_do_not_change_with_a_leaf(identity: Callable[[Any], Any], dtype: str) -> None:
    leaf = ek.tensor([1, 2], dtype=dtype)
    result = identity(leaf)
    assert not isinstance(result, ek.Leaf)
    leaf.value = np.array([7, 8], dtype)
    np.testing.assert_array_equal(np.asarray(result), [1, 2])


# -- dtypes ----------------------------------------------------------------------------------------


def test_dtypes_are_known_to_numpy() -> None:
    for name in ("float32", "bfloat16", "uint8", "bool"):
        dtype = ek.asarray(1).astype(name).dtype
        assert np.zeros(2, dtype=dtype).dtype.name == name
        assert np.asarray(X, dtype=dtype).dtype.name == name
    assert ek.astype(X, "float64").dtype is ek.float64
    assert ek.astype(X, float).dtype is ek.float32


def test_dtype_functions() -> None:
    assert ek.finfo(ek.float32).eps == float(np.finfo(np.float32).eps)
    assert ek.finfo(ek.bfloat16).eps == 2.0**-7
    assert ek.finfo(X).dtype is ek.float32
    assert ek.iinfo("int8").min == -128
    assert ek.isdtype(ek.int8, ("bool", "integral"))
    assert not ek.isdtype(ek.float32, "signed integer")
    assert ek.isdtype("float32", ek.float32)
    assert ek.result_type(ek.int8, BYTES) is ek.int16
    assert ek.result_type(BYTES, 1.5) is ek.float32
    assert ek.can_cast(ek.int8, ek.int16)
    assert not ek.can_cast(X, ek.int8)
    assert not ek.can_cast(ek.uint64, ek.int64)
    calls: list[Callable[[], Any]] = [
        lambda: ek.finfo(ek.int8),
        lambda: ek.iinfo(X),
        lambda: ek.isdtype(ek.int8, "whole"),
        lambda: ek.isdtype(Odd(), "bool"),
        lambda: ek.result_type(1, 2.0),
        lambda: ek.can_cast(Odd(), ek.int8),
    ]
    for call in calls:
        with pytest.raises(ek.DTypeError):
            call()


def test_constants_and_stop_gradient() -> None:
    assert (ek.pi, ek.e, ek.inf) == (np.pi, np.e, np.inf)
    assert np.isnan(ek.nan)
    assert X[ek.newaxis].shape == (1, 3)
    gradient = ek.grad(lambda x: (x * ek.stop_gradient(x)).sum())(X)
    np.testing.assert_array_equal(np.asarray(gradient), np.asarray(X))
