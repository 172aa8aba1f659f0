"""Shared by the tests of functions on the host: finite differences, and the same bits in all modes.

Complex numbers have gradients dL/dRe + i dL/dIm, so both parts of an argument are moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from same_bits import assert_same_bits

import einkorn as ek

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(7)


def normal(*shape: int, dtype: str = "float64") -> Array:
    """Normal numbers, others at each call; of complex ones both parts."""
    found = np.asarray(RNG.standard_normal(shape))
    if dtype.startswith("complex"):
        found = found + 1j * RNG.standard_normal(shape)
    return found.astype(dtype)


def listed(results: Any) -> list[Any]:
    """The results, one or several."""
    return list(results) if isinstance(results, (tuple, list)) else [results]


def weighted(fn: Callable[..., Any], *args: Array) -> Callable[..., Any]:
    """A real number made of all results of `fn`, each element with a weight of its own."""
    found = [np.asarray(x) for x in listed(fn(*map(ek.asarray, args)))]
    weights = [normal(*x.shape, dtype=x.dtype.name) for x in found if x.dtype.kind in "fc"]

    def loss(*args: Any) -> Any:
        parts = [x for x in listed(fn(*args)) if x.dtype.kind in "fc"]
        total = 0.0
        for x, weight in zip(parts, weights, strict=True):
            total = total + ek.sum(ek.real(x * np.conj(weight)))
        return total

    return loss


def numeric(loss: Callable[..., Any], args: list[Array], k: int, eps: float = 1e-6) -> Array:
    """dL/dRe + i dL/dIm by argument k, by central differences."""
    x = args[k]
    found = np.zeros(x.shape, x.dtype)
    for index in np.ndindex(x.shape):
        for step in (eps, 1j * eps) if x.dtype.kind == "c" else (eps,):
            ends: list[float] = []
            for sign in (1, -1):
                moved = x.copy()
                moved[index] += sign * step
                around = (*args[:k], moved, *args[k + 1 :])
                ends.append(float(loss(*map(ek.asarray, around))))
            found[index] += (ends[0] - ends[1]) / (2 * eps) * (step / eps)
    return found


def check_gradients(
    fn: Callable[..., Any], *args: Array, order: int = 2, tol: float = 2e-6
) -> None:
    """First and second derivatives agree with differences; eager and compiled bits are the same."""
    loss = weighted(fn, *args)
    wrt = tuple(range(len(args)))
    gradient = ek.grad(loss, wrt)
    tensors = [ek.asarray(x) for x in args]
    got = gradient(*tensors)
    for a, b in zip(got, ek.compile(gradient)(*tensors), strict=True):
        assert_same_bits(np.asarray(a), np.asarray(b))
    for k, g in enumerate(got):
        _near(np.asarray(g), numeric(loss, list(args), k), tol)
    if order > 1:
        along = [normal(*x.shape, dtype=x.dtype.name) for x in args]

        def slope(*args: Any) -> Any:
            found = gradient(*args)
            return sum(ek.sum(ek.real(g * np.conj(v))) for g, v in zip(found, along))

        second = ek.grad(slope, wrt)(*tensors)
        for k, g in enumerate(second):
            _near(np.asarray(g), numeric(slope, list(args), k), 10 * tol)


def _near(got: Array, want: Array, tol: float) -> None:
    assert got.dtype == want.dtype
    size = max(1.0, float(np.abs(want).max(initial=0.0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=tol * size)


def check_forward(fn: Callable[..., Any], *args: Array) -> None:
    """`jvp` is the derivative along the tangents."""
    along = [normal(*x.shape, dtype=x.dtype.name) for x in args]
    eps = 1e-6
    _, got = ek.jvp(fn, tuple(map(ek.asarray, args)), tuple(map(ek.asarray, along)))
    ends = [fn(*(ek.asarray(x + s * eps * t) for x, t in zip(args, along))) for s in (1, -1)]
    for g, a, b in zip(listed(got), *map(listed, ends), strict=True):
        _near(np.asarray(g), (np.asarray(a) - np.asarray(b)) / (2 * eps), 5e-6)


def check_same_bits(fn: Callable[..., Any], *args: Array) -> list[Array]:
    """Eager, compiled on one thread and on two, and in the body of a scan: the same bits."""
    tensors = [ek.asarray(x) for x in args]
    want = [np.asarray(x) for x in listed(fn(*tensors))]
    found = [listed(ek.compile(fn)(*tensors))]
    found.append(listed(ek.compile(fn, threads=2)(*tensors)))

    def looped(*args: Any) -> Any:
        return ek.scan(lambda carry, row: (carry, fn(*row)), 0.0, tuple(x[None] for x in args))[1]

    found.append([x[0] for x in listed(ek.compile(looped)(*tensors))])
    found.append([x[0] for x in listed(looped(*tensors))])
    for results in found:
        for got, x in zip(results, want, strict=True):
            assert_same_bits(np.asarray(got), x)
    return want


def check_batched(fn: Callable[..., Any], *args: Array, exact: bool = True) -> None:
    """`vmap` gives the bits of one example at a time."""
    got = listed(ek.vmap(fn)(*map(ek.asarray, args)))
    rows = [listed(fn(*(ek.asarray(x[k]) for x in args))) for k in range(len(args[0]))]
    for k, x in enumerate(got):
        want = np.stack([np.asarray(row[k]) for row in rows])
        if exact:
            assert_same_bits(np.asarray(x), want)
        else:
            np.testing.assert_allclose(np.asarray(x), want, rtol=1e-12, atol=1e-12)
