"""`ek.fft` against NumPy: values, gradients of both orders, all modes, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from host_checks import (
    check_batched,
    check_forward,
    check_gradients,
    check_same_bits,
    normal,
)
from same_bits import assert_same_bits

import einkorn as ek

Array = np.ndarray[Any, Any]
NORMS = ("backward", "ortho", "forward")
REAL = ("rfft", "ihfft", "rfftn")


def operand(name: str, *shape: int, single: bool = False) -> Array:
    dtype = "float64" if name in REAL else "complex128"
    return normal(*shape, dtype=dtype).astype(
        {"float64": "f4", "complex128": "c8"}[dtype] if single else dtype
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_one_axis(name: str, norm: str) -> None:
    function, reference = getattr(ek.fft, name), getattr(np.fft, name)
    for shape, options in (
        ((8,), {}),
        ((7,), {}),
        ((2, 5), {"n": 3}),
        ((2, 5), {"n": 8}),
        ((4, 3), {"axis": 0}),
        ((2, 6, 3), {"axis": -2, "n": 9}),
        ((0, 4), {}),
    ):
        for single in (False, True):
            x = operand(name, *shape, single=single)
            got = np.asarray(function(x, norm=norm, **options))
            want = reference(x, norm=norm, **options)
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, atol=1e-5 if single else 1e-13)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_several_axes(name: str, norm: str) -> None:
    function, reference = getattr(ek.fft, name), getattr(np.fft, name)
    for shape, options in (
        ((4, 6), {}),
        ((3, 4, 5), {"axes": (0, 2)}),
        ((3, 4, 5), {"axes": (1,), "s": (6,)}),
        ((3, 4, 5), {"axes": (-1, -3), "s": (6, 2)}),
    ):
        x = operand(name, *shape)
        got = np.asarray(function(x, norm=norm, **options))
        np.testing.assert_allclose(got, reference(x, norm=norm, **options), atol=1e-12)
    x = operand(name, 3, 4, 5)
    want = reference(x, s=(6, 2), axes=(1, 2))
    np.testing.assert_allclose(np.asarray(function(x, s=(6, 2))), want, atol=1e-12)


def test_real_numbers_become_complex() -> None:
    x = normal(6)
    np.testing.assert_allclose(np.asarray(ek.fft.fft(x)), np.fft.fft(x), atol=1e-13)
    assert ek.fft.fft(x.astype("float32")).dtype is ek.complex64
    assert ek.fft.rfft(np.arange(4)).dtype is ek.complex64


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_frequencies(n: int) -> None:
    for d in (1.0, 0.1):
        for ours, theirs in ((ek.fft.fftfreq, np.fft.fftfreq), (ek.fft.rfftfreq, np.fft.rfftfreq)):
            got = ours(n, d=d, dtype="float64")
            np.testing.assert_allclose(np.asarray(got), theirs(n, d), rtol=1e-15)
            assert ours(n).dtype is ek.float32
    x = normal(n, 3)
    for axes in (None, 0, (0, 1)):
        for name in ("fftshift", "ifftshift"):
            got, want = getattr(ek.fft, name)(x, axes=axes), getattr(np.fft, name)(x, axes=axes)
            assert_same_bits(np.asarray(got), want)
    assert ek.fft.fftshift(ek.asarray(1.0)).shape == ()


GRADIENTS: dict[str, tuple[Callable[..., Any], Array]] = {
    f"{name}-{norm}-{n}": (
        lambda x, name=name, norm=norm, n=n: getattr(ek.fft, name)(x, norm=norm, n=n),
        operand(name, 5),
    )
    for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
    for norm, n in (("backward", None), ("ortho", 4), ("forward", 7))
} | {
    "fftn": (ek.fft.fftn, operand("fftn", 2, 3)),
    "ifftn": (lambda x: ek.fft.ifftn(x, axes=(0,)), operand("ifftn", 3, 2)),
    "rfftn": (ek.fft.rfftn, operand("rfftn", 2, 4)),
    "irfftn": (ek.fft.irfftn, operand("irfftn", 2, 3)),
    "spectrum": (lambda x: abs(ek.fft.rfft(x)) ** 2, normal(6)),
    "filter": (lambda x: ek.fft.irfft(ek.fft.rfft(x) * ek.fft.rfft(x[::-1])), normal(6)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    function, x = GRADIENTS[name]
    check_gradients(function, x, order=2 if name in ("spectrum", "filter") else 1, tol=1e-7)


@pytest.mark.parametrize("name", ["fft-ortho-4", "rfft-forward-7", "irfft-backward-None", "filter"])
def test_other_modes(name: str) -> None:
    function, x = GRADIENTS[name]
    check_forward(function, x)
    check_same_bits(function, x)
    check_batched(function, np.stack([x, x * 2, x + 1]))
    check_batched(lambda x: function(x), np.stack([x, x * 2]))


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ek.fft.fft(np.zeros(0)), ek.ShapeError, "at least one element"),
    (lambda: ek.fft.fft(np.zeros(3), n=0), ek.ShapeError, "n=0"),
    (lambda: ek.fft.fft(1.0), ek.ShapeError, "one axis"),
    (lambda: ek.fft.fft(np.zeros(3), axis=1), ek.ShapeError, "axis 1"),
    (lambda: ek.fft.fft(np.zeros(3), norm="unit"), ek.ShapeError, "norm"),
    (lambda: ek.fft.fft(np.zeros(3), n=2.5), ek.DTypeError, "integer"),
    (lambda: ek.fft.fft(ek.zeros(3, dtype="float16")), ek.DTypeError, "cast"),
    (lambda: ek.fft.rfft(np.zeros(3, "complex64")), ek.DTypeError, "real"),
    (lambda: ek.fft.irfft(np.zeros(1, "complex64")), ek.ShapeError, "give n"),
    (lambda: ek.fft.fftn(np.zeros((2, 2)), axes=(0, 0)), ek.ShapeError, "twice"),
    (lambda: ek.fft.fftn(np.zeros(2), s=(2, 2)), ek.ShapeError, "axes"),
    (lambda: ek.fft.fftn(np.zeros((2, 2)), s=(2,), axes=(0, 1)), ek.ShapeError, "each axis"),
    (lambda: ek.fft.fftfreq(0), ek.ShapeError, "at least 1"),
    (lambda: ek.fft.rfftfreq(4, dtype="int32"), ek.DTypeError, "floating"),
]


@pytest.mark.parametrize("position", range(len(BAD)))
def test_bad_input(position: int) -> None:
    call, kind, text = BAD[position]
    with pytest.raises(kind, match=text):
        call()
