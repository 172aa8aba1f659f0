"""Forward derivatives through loops and branches, against finite differences, in every mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transform_checks import ends, normal, same

import einkorn as ek

W = ek.Parameter(np.random.default_rng(2).normal(size=(3, 3)) * 0.5, name="w")


def rnn(x: Any) -> Any:
    return ek.scan(lambda h, x: (ek.tanh(h @ W + x), h * x), x[0], x)


def grown(x: Any) -> Any:
    return ek.while_loop(lambda v: (v * v).sum() < 60, lambda v: v * 1.7 + ek.sin(v), x)


def nested(x: Any) -> Any:
    step = lambda c, r: (ek.tanh(c + grown(r * c + 1.3) * 0.01), grown(r * 0.3).sum())  # noqa: E731
    return ek.scan(step, x[0], x, reverse=True)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "scan": rnn,
    "while": grown,
    "cond": lambda x: ek.cond(x.sum() > 0, lambda: x * x, lambda: ek.sin(x) * x[0, 0]),
    "one side only": lambda x: ek.cond(W.sum() > 99, lambda: ek.ones_like(x), lambda: x * x[0]),
    "tensor bound": lambda x: ek.fori_loop(
        0, ek.argmax(x[0]) + 2, lambda i, v: ek.sin(v) * x + i.astype("float64"), x
    ),
    "nested": nested,
    "checkpoint": ek.checkpoint(lambda x: grown(x) * x),
    "compiled": ek.compile(lambda x: grown(x) * x),
    "vmap": ek.vmap(grown),
    "beside": lambda x: (grown(ek.stop_gradient(x)) * x, ek.map(lambda r: r[0], x)),
}


def along(fn: Callable[[Any], Any], x: Any, t: Any, step: float = 1e-6) -> list[Any]:
    up, down = (ends(fn(ek.asarray(x + sign * step * t))) for sign in (1, -1))
    return [(a - b) / (2 * step) for a, b in zip(up, down)]


@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
def test_tangents_are_those_of_finite_differences(fn: Callable[[Any], Any]) -> None:
    x, t = normal(4, 3), normal(4, 3)

    def tangent(x: Any, t: Any) -> Any:
        return ek.jvp(fn, (x,), (t,))[1]

    first = same(tangent, x, t)
    held = ek.asarray(np.asarray(x)) if fn is FUNCTIONS["beside"] else None
    kept = (lambda y: (grown(held) * y, ek.map(lambda r: r[0], y))) if held is not None else fn
    for got, want in zip(first, along(kept, x, t), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    second = same(lambda x, t: ek.jvp(lambda x: tangent(x, t), (x,), (t,))[1], x, t)
    if held is None:
        for got, want in zip(second, along(lambda x: tangent(x, ek.asarray(t)), x, t), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_jacobians_and_hessians() -> None:
    x = normal(4, 3)
    forward = same(ek.jacobian(rnn, mode="forward"), x)
    for a, b in zip(forward, ends(ek.jacobian(rnn)(ek.asarray(x)))):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)

    def loss(x: Any) -> Any:
        h, ys = rnn(x)
        return (h * h).sum() + ek.sin(ys).sum()

    (hessian,) = same(ek.hessian(loss), x)
    np.testing.assert_allclose(hessian, hessian.transpose(2, 3, 0, 1), rtol=1e-9, atol=1e-10)
    t = normal(4, 3)
    (want,) = along(ek.grad(loss), x, t)
    np.testing.assert_allclose((hessian * t).sum((2, 3)), want, rtol=1e-5, atol=1e-7)


def test_reverse_over_forward() -> None:
    x, t = normal(4, 3), ek.asarray(normal(4, 3))

    def loss(x: Any) -> Any:
        return (ek.jvp(rnn, (x,), (t,))[1][1] ** 2).sum()

    got, by_w = same(ek.grad(loss, (0, W)), x)
    direction = normal(4, 3)
    (want,) = along(loss, x, direction)
    np.testing.assert_allclose((got * direction).sum(), want, rtol=1e-5)
    assert np.isfinite(by_w).all()
    with pytest.raises(ek.StateError, match="no gradient backwards"):
        ek.grad(lambda x: ek.jvp(grown, (x,), (t,))[1].sum())(ek.asarray(x))


def test_one_loop_for_a_value_and_its_tangents() -> None:
    """Each of the forward loop, its reverse and their tangents runs once."""
    x = normal(4, 3)

    def loops(fn: Any) -> int:
        rows = ek.compile(fn).lower(x).cost.rows
        return [row.kernel for row in rows].count("ScanLoop")

    assert loops(lambda x: ek.jvp(rnn, (x,), (x,))[1]) == 1
    assert loops(ek.hessian(lambda x: rnn(x)[0].sum())) <= 3
