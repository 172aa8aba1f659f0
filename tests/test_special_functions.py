"""Functions made of several ops, and the rules that special functions follow at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
from function_checks import both, close
from mathlib_errors import error64, errors32

import einkorn as ek

INF, NAN = math.inf, math.nan
HALVES = ("float16", ml_dtypes.bfloat16)


def _logit(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.log(x / (1 - x))


def _logaddexp(x: mpmath.mpf, y: mpmath.mpf) -> mpmath.mpf:
    return mpmath.log(mpmath.exp(x) + mpmath.exp(y))


COMPOSED: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[float, float]]] = {
    "atan": (ek.atan, mpmath.atan, (-5, 5)),
    "hypot": (ek.hypot, mpmath.hypot, (-5, 5)),
    "logaddexp": (ek.logaddexp, _logaddexp, (0.1, 30)),
    "logit": (ek.special.logit, _logit, (0, 1)),
    "expit": (ek.special.expit, lambda x: 1 / (1 + mpmath.exp(-x)), (-30, 30)),
    "xlogy": (ek.special.xlogy, lambda x, y: x * mpmath.log(y), (0, 5)),
    "xlog1py": (ek.special.xlog1py, lambda x, y: x * mpmath.log1p(y), (-0.99, 3)),
}
UNARY = ("atan", "logit", "expit")


def operands(name: str, dtype: Any, count: int = 700) -> list[np.ndarray[Any, Any]]:
    """Numbers in the range of the function, and for some also of every size."""
    rng = np.random.default_rng(7)
    low, high = COMPOSED[name][2]
    arrays: list[np.ndarray[Any, Any]] = []
    for _ in range(1 if name in UNARY else 2):
        x = rng.uniform(low, high, count)
        if name in ("atan", "hypot"):
            x = np.concatenate([x, np.exp(rng.uniform(-85, 85, count))])
        if name == "logit":
            x = np.concatenate([x, np.exp(rng.uniform(-80, -1, count))])
        arrays.append(x.astype(dtype))
    return arrays


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_functions_have_two_ulp(name: str) -> None:
    function, exact, _ = COMPOSED[name]
    with mpmath.workprec(200):
        for dtype in ("float32", "float64"):
            arrays = operands(name, dtype)
            got = np.asarray(both(function, *arrays))
            want = [exact(*map(mpmath.mpf, map(float, at))) for at in zip(*arrays)]
            if dtype == "float32":
                assert errors32(got, np.array(want, np.float64)).max() <= 2
            else:
                assert max(error64(float(a), b) for a, b in zip(got, want)) <= 2


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", COMPOSED)
def test_half_types_are_rounded_once(name: str, dtype: Any) -> None:
    function = COMPOSED[name][0]
    with np.errstate(over="ignore"):
        arrays = operands(name, dtype)
    got = np.asarray(both(function, *arrays))
    wide = np.asarray(function(*(ek.asarray(a.astype("float32")) for a in arrays)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, wide.astype(dtype))


def test_hypot_neither_overflows_nor_loses_subnormals() -> None:
    for dtype in ("float32", "float64"):
        info = np.finfo(dtype)
        x = np.array([info.max / 2, info.max, info.smallest_subnormal * 3, info.tiny, INF, NAN, 0])
        y = np.array([info.max / 2, 1, info.smallest_subnormal * 4, info.tiny, NAN, 1, -0.0])
        x, y = x.astype(dtype), y.astype(dtype)
        want = [math.hypot(a, b) for a, b in zip(x.astype(float), y.astype(float))]
        got = np.asarray(both(ek.hypot, x, y))
        np.testing.assert_allclose(got, want, rtol=2 * info.eps)
        assert got[2] == info.smallest_subnormal * 5


def test_logaddexp_at_infinities_and_ties() -> None:
    x = np.array([INF, INF, -INF, -INF, 3, NAN, 1e30, -1])
    y = np.array([INF, -INF, -INF, 2, -INF, 1, -1e30, -1])
    want = np.array([INF, INF, -INF, 2, 3, NAN, 1e30, math.log(2) - 1])
    close(both(ek.logaddexp, x, y), want)
    a, b = (ek.Parameter(np.array([0.5, 2.0])) for _ in range(2))
    first = ek.grad(lambda: ek.sum(ek.logaddexp(a, b)), a)()
    np.testing.assert_allclose(first.numpy(), 0.5)
    second = ek.grad(lambda: ek.sum(ek.grad(lambda: ek.sum(ek.logaddexp(a, b)), a)()), a)()
    np.testing.assert_allclose(second.numpy(), 0.25)


@pytest.mark.parametrize("dtype", ["float32", "float64", *HALVES])
def test_signs_and_neighbours(dtype: Any) -> None:
    numbers = [0.0, -0.0, 1.0, -1.0, INF, -INF, 1e-40, -1e-40, NAN, 0.1, 60000.0]
    with np.errstate(over="ignore"):
        x, y = (grid.ravel() for grid in np.meshgrid(np.array(numbers, dtype), numbers))
    y = y.astype(dtype)
    positive = np.where(np.isnan(y), y.dtype.type(1), y)
    _same_signs(both(ek.copysign, x, y), np.copysign(x, positive))
    np.testing.assert_array_equal(np.asarray(both(ek.signbit, positive)), np.signbit(positive))
    _same_signs(both(ek.nextafter, x, y), np.where(x == y, y, np.nextafter(x, y)))


def _same_signs(result: Any, expected: np.ndarray[Any, Any]) -> None:
    got, want = np.asarray(result).astype("float64"), expected.astype("float64")
    np.testing.assert_array_equal(got, want)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(want)[number])


def test_signbit_of_integers() -> None:
    assert ek.signbit(np.array([-1, 0, 2])).numpy().tolist() == [True, False, False]
    assert not ek.signbit(np.array([0, 200], "uint8")).numpy().any()
    with pytest.raises(ek.DTypeError, match="bool has no sign"):
        ek.signbit(np.array([True]))


def test_xlogy_at_zero() -> None:
    x, y = np.array([0.0, 0, 0, 0, -0.0, 2]), np.array([0.0, -1, INF, NAN, 3, 0])
    assert both(ek.special.xlogy, x, y).numpy()[:3].tolist() == [0, 0, 0]
    assert np.isnan(ek.special.xlogy(x, y).numpy()[3])
    assert ek.special.xlogy(x, y).numpy()[4:].tolist() == [0, -INF]
    a = ek.Parameter(np.array([0.0, 0.0, 3.0]))
    b = ek.asarray(np.array([0.0, 2.0, 2.0]))
    slope = ek.grad(lambda: ek.sum(ek.special.xlogy(a, b)), a)().numpy()
    np.testing.assert_allclose(slope, [0, math.log(2), math.log(2)])


def test_logit_has_finite_slopes_in_both_branches() -> None:
    x = ek.Parameter(np.array([1e-30, 0.1, 0.25, 0.5, 0.9]))
    slope = ek.grad(lambda: ek.sum(ek.special.logit(x)), x)().numpy()
    np.testing.assert_allclose(slope, 1 / (x.numpy() * (1 - x.numpy())))
    assert ek.special.logit([0.0, 1.0]).numpy().tolist() == [-INF, INF]
    assert np.isnan(ek.special.logit([-0.5, 1.5, NAN]).numpy()).all()


def test_gradients_where_pytorch_has_them_infinite_or_nan() -> None:
    x = ek.Parameter(np.zeros(1))
    y = ek.Parameter(np.zeros(1))
    assert np.isnan(ek.grad(lambda: ek.sum(ek.hypot(x, y)), x)().numpy()).all()
    assert ek.grad(lambda: ek.sum(ek.atan2(x, y)), x)().numpy().tolist() == [0]
    one = ek.Parameter(np.ones(1))
    assert ek.grad(lambda: ek.sum(ek.asin(one)), one)().numpy().tolist() == [INF]
    zero = ek.grad(lambda: ek.sum(ek.copysign(x, -1.0)), x)().numpy()
    assert zero.tolist() == [0]


def test_derivatives_of_any_order() -> None:
    """gammaln, five times: polygamma of order 4."""
    x = ek.Parameter(np.array([0.7, 3.2]))

    def derivative(order: int) -> Any:
        if order == 0:
            return ek.special.gammaln(x)
        return ek.grad(lambda: ek.sum(derivative(order - 1)), x)()

    want = [float(mpmath.polygamma(4, v)) for v in x.numpy()]
    np.testing.assert_allclose(derivative(5).numpy(), want, rtol=1e-13)


def test_polygamma_refuses_orders() -> None:
    with pytest.raises(ek.IRError, match="from 0 to 30, got 31"):
        ek.special.polygamma(31, 1.0)
    with pytest.raises(ek.DTypeError, match="integer"):
        ek.special.polygamma(1.5, 1.0)  # type: ignore[arg-type]


def test_dtypes() -> None:
    names = ["acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh", "log2", "log10"]
    functions: list[Callable[..., Any]] = [getattr(ek, name) for name in names]
    functions += [ek.special.erfc, ek.special.gammaln, ek.special.logit, ek.special.digamma]
    for function in functions:
        assert function(np.array([1, 2])).dtype is ek.float32
        assert function(np.array([1, 2], "float16")).dtype is ek.float16
        assert function(1.0).dtype is ek.float32
    for function in (ek.atan2, ek.hypot, ek.logaddexp, ek.copysign, ek.nextafter):
        assert function(np.float64(1), np.ones((3, 1), "float32")).dtype is ek.float64
        assert function(np.ones((3, 1), "float16"), 2).shape == (3, 1)
        assert function(np.ones((3, 1)), np.ones(4)).shape == (3, 4)
        with pytest.raises(ek.ShapeError):
            function(np.ones(3), np.ones(4))


def test_complex_parts_of_real_numbers() -> None:
    x = np.array([1.5, -2, NAN], "float16")
    for function in (ek.real, ek.conj):
        np.testing.assert_array_equal(both(function, x).numpy(), x)
    np.testing.assert_array_equal(both(ek.imag, x).numpy(), np.zeros(3, "float16"))
    assert ek.real(np.array([1, 2])).dtype is ek.int64
