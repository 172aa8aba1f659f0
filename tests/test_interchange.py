"""Other libraries' ways to a Tensor: DLPack, and the functions of NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from function_checks import both, close, same, values

import einkorn as ek

X = values((3, 4), "float32")


class Exporter:
    """An object that is known by its `__dlpack__` alone, of the old kind or the new."""

    def __init__(self, x: Any, old: bool) -> None:
        self.x, self.old = x, old
        self.asked: dict[str, Any] = {}

    def __dlpack__(self, **options: Any) -> Any:
        if self.old and options.keys() - {"stream"}:
            raise TypeError("old")
        self.asked = options
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.x.__dlpack_device__()


# -- DLPack ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", "bool"])
def test_memory_goes_both_ways_without_a_copy(dtype: str) -> None:
    x = values((3, 4), dtype)
    tensor = ek.from_dlpack(x)
    same(tensor, x)
    assert np.shares_memory(tensor.numpy(), x)
    back = np.from_dlpack(tensor)
    same(ek.asarray(back), x)
    assert np.shares_memory(back, x)
    assert not back.flags.writeable


def test_old_importers_and_exporters() -> None:
    tensor = ek.asarray(X)
    got = np.from_dlpack(Exporter(tensor, old=True))
    assert not np.shares_memory(got, tensor.numpy())
    same(tensor, X)
    same(ek.from_dlpack(Exporter(X, old=True)), X)
    same(ek.asarray(Exporter(X, old=True)), X)
    with pytest.raises(BufferError, match="no read-only memory"):
        tensor.__dlpack__(copy=False)


def test_copies_on_demand() -> None:
    tensor = ek.from_dlpack(X, copy=True)
    assert not np.shares_memory(tensor.numpy(), X)
    assert not np.shares_memory(np.from_dlpack(tensor, copy=True), tensor.numpy())
    assert np.shares_memory(np.from_dlpack(tensor, copy=False), tensor.numpy())
    same(ek.from_dlpack(X.T), X.T)
    with pytest.raises(ek.ShapeError, match="copy=False"):
        ek.from_dlpack(X.T, copy=False)
    assert ek.from_dlpack(tensor) is tensor


def test_a_leaf_lends_its_memory() -> None:
    w = ek.tensor(X)
    view = np.from_dlpack(w)
    w.value = X + 1
    same(ek.asarray(view), X)


def test_from_dlpack_of_what_is_none() -> None:
    with pytest.raises(ek.DTypeError, match="needs an object that has __dlpack__, got list"):
        ek.from_dlpack([1.0])
    with pytest.raises(ek.DTypeError, match="device 'cuda' is not available"):
        ek.from_dlpack(X, device="cuda")


@pytest.mark.parametrize("options", [{"stream": 1}, {"dl_device": (2, 0)}])
def test_exports_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(BufferError, match="__dlpack__"):
        ek.asarray(X).__dlpack__(**options)
    with pytest.raises(ek.ExchangeError, match="no bfloat16"):
        np.from_dlpack(ek.asarray(X).astype("bfloat16"))
    with pytest.raises(ek.TraceError):
        ek.compile(lambda t: np.from_dlpack(t))(X)


# -- NumPy's functions -----------------------------------------------------------------------------

UFUNCS: list[Callable[[Any], Any]] = [
    lambda t: np.add(t, 1),
    lambda t: np.add(X, t),
    lambda t: np.float32(2) * t,
    lambda t: X @ t.T,
    lambda t: np.matmul(t, X.T),
    np.exp,
    np.square,
    lambda t: np.maximum(t, 0.0),
    lambda t: np.power(t, 2),
    lambda t: X > t,
    np.isfinite,
]

FUNCTIONS: list[Callable[[Any], Any]] = [
    lambda t: np.concatenate([t, X], 1),
    lambda t: np.stack([X, t], axis=1),
    lambda t: np.sum(t, 0, keepdims=True),
    lambda t: np.mean(t, axis=1),
    np.std,
    np.max,
    lambda t: np.argmax(t, 1),
    lambda t: np.cumsum(t, 1),
    lambda t: np.sort(t, axis=0),
    lambda t: np.where(t > 0, t, X),
    lambda t: np.clip(t, -0.5, 0.5),
    lambda t: np.reshape(t, (4, 3)),
    np.transpose,
    lambda t: np.transpose(t, (1, 0)),
    lambda t: np.moveaxis(t, 0, 1),
    lambda t: np.expand_dims(t, 0),
    lambda t: np.squeeze(np.expand_dims(t, 0)),
    lambda t: np.flip(t, 1),
    lambda t: np.roll(t, 1, 0),
    lambda t: np.take(t, [0, 2], 1),
    lambda t: np.einsum("ij,kj->ik", t, X),
    lambda t: np.tensordot(t, X, ([0], [0])),
    lambda t: np.diff(t, 1, 0),
    lambda t: np.repeat(t, 2, 0),
    np.zeros_like,
    np.tril,
]


@pytest.mark.parametrize("use", [*UFUNCS, *FUNCTIONS])
def test_functions_that_compute_with_einkorn(use: Callable[[Any], Any]) -> None:
    got = both(use, X)
    assert isinstance(got, ek.Tensor)
    close(got, use(X))


def test_shapes_are_known_in_a_trace() -> None:
    step = ek.compile(lambda t: t * np.size(t) + np.ndim(t) + np.shape(t)[0])
    close(step(X), X * 12 + 2 + 3)


def test_gradients_follow() -> None:
    x = ek.tensor(X)
    np.sum(np.square(x) * X).backward()
    assert x.grad is not None
    close(x.grad, 2 * X * X)


def test_other_functions_get_arrays() -> None:
    tensor = ek.asarray(X)
    for use in (np.median, np.cbrt, np.add.reduce, lambda t: np.histogram(t, 3)[0]):
        got = use(tensor)
        assert not isinstance(got, ek.Tensor)
        np.testing.assert_array_equal(got, use(X))
    assert np.array_equal(tensor, X)
    array = X.copy()
    array += tensor
    np.testing.assert_array_equal(array, X + X)
    np.add(tensor, 1, out=array)
    np.testing.assert_array_equal(array, X + 1)
    for use in (np.median, np.cbrt):
        with pytest.raises(ek.TraceError, match=r"np\.asarray"):
            ek.compile(use)(X)


def test_what_numpy_may_not_do() -> None:
    tensor = ek.asarray(X)
    with pytest.raises(ek.StateError, match=r"np.add cannot write into a Tensor \(out=\)"):
        np.add(X, 1, out=tensor)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(ek.DTypeError, match=r"np.sum of a Tensor .* does not take .*where"):
        np.sum(tensor, where=X > 0)
    with pytest.raises(ek.DTypeError, match=r"np\.mean of a Tensor"):
        np.mean(tensor, 0, None)


def test_numpys_linear_algebra_and_transforms_compute_with_einkorn() -> None:
    x = ek.tensor(np.array([[2.0, 1.0], [0.5, 3.0]]))

    def fn(x: Any) -> Any:
        u, s, _ = np.linalg.svd(np.linalg.inv(x), False)
        return np.sum(np.abs(np.fft.rfft(u * s, 3, -2)) + np.real(np.conj(np.fft.fft(s))[0]))

    want = float(fn(np.asarray(x)))
    assert isinstance(np.linalg.qr(x).Q, ek.Tensor)
    assert isinstance(np.fft.fftshift(x), ek.Tensor)
    for run in (fn, ek.compile(fn)):
        np.testing.assert_allclose(float(run(x)), want, rtol=1e-12)
    assert np.isfinite(np.asarray(ek.grad(fn)(x))).all()
