"""The vector math functions: accuracy, special cases, and bits that no vector width changes."""

from __future__ import annotations

import math
import re

import llvmlite.binding as llvm
import mpmath
import numpy as np
import pytest
from mathlib_errors import (
    AVX2,
    AVX512,
    BINARY,
    ELEMENTS,
    EXACT,
    REFERENCE,
    RUNNABLE,
    compiled,
    error64,
    float32_slices,
    float64_inputs,
    machine,
    polygamma_kernel,
    worst32,
    worst64,
    write_kernel,
)

from einkorn.codegen.llvm.mathlib import MATH
from einkorn.codegen.llvm.text import Value, Writer

INF, NAN = math.inf, math.nan
BOUND = 1.75
"""Ulps; the functions promise 2."""

UNARY: dict[str, list[tuple[float, float]]] = {
    "exp": [(-INF, 0.0), (INF, INF), (0.0, 1.0), (-0.0, 1.0), (-1e4, 0.0), (1e4, INF)],
    "log": [
        (0.0, -INF),
        (-0.0, -INF),
        (1.0, 0.0),
        (-1.0, NAN),
        (-INF, NAN),
        (INF, INF),
        (-1e-40, NAN),
    ],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (-INF, -1.0), (INF, INF), (1e4, INF), (-1e4, -1.0)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (-2.0, NAN), (-INF, NAN), (INF, INF)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)],
    "tan": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e4, 1.0), (-1e4, -1.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e4, 1.0), (-1e4, -1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e4, 1.0), (-1e4, 0.0)],
    "silu": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -0.0), (1e38, 1e38), (-1e38, -0.0)],
    "gelu": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -0.0), (1e38, 1e38), (-1e38, -0.0)],
    "softplus": [(INF, INF), (-INF, 0.0), (1e38, 1e38), (-1e38, 0.0)],
    "rsqrt": [
        (0.0, INF),
        (-0.0, -INF),
        (INF, 0.0),
        (1.0, 1.0),
        (4.0, 0.5),
        (-1.0, NAN),
        (-INF, NAN),
    ],
}
UNARY |= {
    "log2": [*UNARY["log"], (8.0, 3.0), (2.0**-140, -140.0)],
    "log10": [*UNARY["log"], (1e3, 3.0), (1e10, 10.0)],
    "sinh": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (1e4, INF), (-1e4, -INF)],
    "cosh": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF), (1e4, INF), (-1e4, INF)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1.0, math.pi / 2), (-1.0, -math.pi / 2), (1.5, NAN)],
    "acos": [(1.0, 0.0), (-1.0, math.pi), (0.0, math.pi / 2), (1.5, NAN), (-INF, NAN)],
    "asinh": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)],
    "acosh": [(1.0, 0.0), (0.5, NAN), (-2.0, NAN), (-INF, NAN), (INF, INF)],
    "atanh": [(0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (1.5, NAN), (-INF, NAN)],
    "erfc": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0), (1e4, 0.0), (-1e4, 2.0)],
    "erfinv": [(0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (1.5, NAN), (-INF, NAN)],
    "ndtr": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e4, 1.0), (-1e4, 0.0)],
    "lgamma": [
        *((pole, INF) for pole in (0.0, -0.0, -1.0, -2.0, -1e30, INF, -INF)),
        (1.0, 0.0),
        (2.0, 0.0),
    ],
    "digamma": [(0.0, -INF), (-0.0, INF), (-1.0, NAN), (-1e30, NAN), (INF, INF), (-INF, NAN)],
}
SIZES = [0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 1e10, 1e30, INF]
"""Magnitudes whose powers cover the special cases of pow."""


def same(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Equal bits lane by lane, all NaNs alike."""
    equal = (got == expected) & (np.signbit(got) == np.signbit(expected))
    return equal | (np.isnan(got) & np.isnan(expected))


def samples(name: str, element: str) -> list[np.ndarray]:
    """Inputs of every kind: both signs, every exponent, special values, outside the domain too."""
    special = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 0.5, 1e-40, -1e-40, 3e38, -3e38]
    if element == "float":
        ordinary = next(iter(float32_slices(1_048_573, name)))
    else:
        ordinary = float64_inputs(name, 3000, seed=5)
    arrays = [np.concatenate([a, np.array(special, a.dtype)]) for a in ordinary]
    return [arrays[0], *(np.roll(a, 1) for a in arrays[1:])]


@pytest.mark.parametrize("name", MATH)
def test_float32_error(name: str) -> None:
    error, at = worst32(name, 4231)
    assert error <= BOUND, at


@pytest.mark.parametrize("name", MATH)
def test_float64_error(name: str) -> None:
    error, at = worst64(name, 1800, seed=1)
    assert error <= BOUND, at


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, element: str) -> None:
    arguments, results = zip(*UNARY[name], (NAN, NAN), (-NAN, NAN))
    x = np.array(arguments, ELEMENTS[element])
    # A NaN with a payload, which reaches the bits that hold n in exp.
    payload = (x[-1:].view(np.uint32 if element == "float" else np.uint64) + 0x1F5).view(x.dtype)
    got = compiled(name, element)(np.concatenate([x, payload]))
    expected = np.array([*results, NAN], x.dtype)
    assert same(got, expected).all(), list(zip(x, got, expected))


@pytest.mark.parametrize("element", ELEMENTS)
def test_special_powers(element: str) -> None:
    """Signs, zeros and infinities as C's pow has them; np.power is C's pow on float64."""
    dtype = ELEMENTS[element]
    values = np.array([*SIZES, *(-size for size in SIZES), NAN], dtype)
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64)).astype(dtype)
    got = compiled("pow", element)(x, y)
    settled = np.isnan(exact) | np.isinf(exact) | (exact == 0) | (abs(exact) == 1)
    wrong = settled & ~same(got, exact)
    assert not wrong.any(), list(zip(x[wrong], y[wrong], got[wrong], exact[wrong]))
    ordinary = ~settled
    assert np.allclose(got[ordinary], exact[ordinary], rtol=1e-6)
    assert (np.signbit(got) == np.signbit(exact))[ordinary].all()


@pytest.mark.parametrize("element", ELEMENTS)
def test_special_angles(element: str) -> None:
    """Every quadrant and axis, zeros and infinities of both signs, as C's atan2 has them."""
    dtype = ELEMENTS[element]
    values = np.array([*SIZES, *(-size for size in SIZES), NAN], dtype)
    y, x = (grid.ravel() for grid in np.meshgrid(values, values))
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64)).astype(dtype)
    got = compiled("atan2", element)(y, x)
    settled = np.isnan(exact) | (exact == 0) | np.isinf(x) | np.isinf(y) | (x == 0) | (y == 0)
    assert same(got, exact)[settled].all()
    assert np.allclose(got, exact, rtol=1e-6, equal_nan=True)
    assert (np.signbit(got) == np.signbit(exact))[~np.isnan(exact)].all()


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", MATH)
def test_bits_do_not_depend_on_lanes_or_features(name: str, element: str) -> None:
    arrays = samples(name, element)
    expected = compiled(name, element, 16)(*arrays)
    for lanes in (16, 8, 4, 1):
        for features in RUNNABLE:
            got = compiled(name, element, lanes, features)(*arrays)
            assert same(got, expected).all(), (lanes, features)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_lane_does_not_see_its_neighbours(name: str) -> None:
    """A huge angle sends its vector through the slow reduction; the others keep their bits."""
    x = np.random.default_rng(2).uniform(-1e4, 1e4, 1024).astype(np.float32)
    alone = compiled(name, "float")(x)
    mixed = x.copy()
    mixed[::5] = 1e30
    together = compiled(name, "float")(mixed)
    kept = mixed == x
    assert same(together[kept], alone[kept]).all()


def test_huge_angles() -> None:
    """Among them a float64 that comes closest to a multiple of pi/2 (Muller 2016, chapter 11)."""
    x = np.array([6381956970095103.0 * 2.0**797, 1e22, float(np.finfo(np.float64).max)])
    for name in ("sin", "cos", "tan"):
        for argument, got in zip(x, compiled(name, "double")(x)):
            assert error64(float(got), EXACT[name](mpmath.mpf(float(argument)))) <= BOUND


def test_reference_covers_every_function() -> None:
    assert set(REFERENCE) == set(MATH) == {*UNARY, *BINARY}


def test_half_types_are_refused() -> None:
    with pytest.raises(TypeError, match="convert to float or double"):
        MATH["exp"](Writer(), Value("%x", "<8 x half>"))


@pytest.mark.parametrize("features", [AVX2, AVX512])
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", MATH)
def test_no_symbol_is_called(name: str, element: str, features: str) -> None:
    for lanes in (16, 1):
        assert not calls(write_kernel(name, element, lanes), features)


def test_library_calls_are_noticed() -> None:
    w = Writer()
    with w.function("f", [("ptr", "x")]) as (x,):
        w.store(w.intrinsic("llvm.sin", "float", w.load("float", x)), x)
    assert calls(w.module(), AVX512)


def calls(text: str, features: str) -> list[str]:
    """The call instructions of the compiled module."""
    assembly = machine(features).emit_assembly(llvm.parse_assembly(text))
    return re.findall(r"^\s+call.*", assembly, re.MULTILINE)


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_reflected_gamma_functions(name: str) -> None:
    """For negative arguments the error is relative to the terms that cancel at the zeros."""
    rng = np.random.default_rng(3)
    x = -np.concatenate([rng.uniform(0, 20, 400), np.exp(rng.uniform(-40, 20, 400))])
    with mpmath.workprec(140):
        for argument, got in zip(x, compiled(name, "double", 8)(x)):
            exact = EXACT[name](mpmath.mpf(float(argument)))
            size = EXACT[name if name == "lgamma" else "log"](mpmath.mpf(float(-argument)))
            unit = mpmath.mpf(2) ** -52 * max(abs(exact), abs(size), 1)
            assert abs(mpmath.mpf(float(got)) - exact) <= 2 * unit, argument


@pytest.mark.parametrize("order", [1, 2, 3, 10])
def test_polygamma(order: int) -> None:
    """float64 to 4 (order + 1) ulp on both sides of zero, float32 nearly correctly rounded."""
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.uniform(0, 30, 80), np.exp(rng.uniform(-9, 9, 80))])
    x = np.concatenate([x, -rng.uniform(0.01, 9, 40)])
    kernels = {name: polygamma_kernel(order, name, 8) for name in ELEMENTS}
    with mpmath.workprec(140):
        for name, bound in (("double", 4.0 * (order + 1)), ("float", 0.51 * 2.0**29)):
            arguments = x.astype(ELEMENTS[name])
            for argument, got in zip(arguments, kernels[name](arguments)):
                exact = mpmath.polygamma(order, mpmath.mpf(float(argument)))
                if abs(exact) > float(np.finfo(arguments.dtype).max):
                    continue
                size = exact if argument > 0 else max(abs(exact), 10.0**order)
                unit = mpmath.mpf(2) ** (int(mpmath.floor(mpmath.log(abs(size), 2))) - 52)
                assert abs(mpmath.mpf(float(got)) - exact) <= bound * unit, (name, argument)
