"""Gradients of control flow: against finite differences, in training, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from compile_checks import both, state

import einkorn as ek


def floats(*shape: int, dtype: str = "float64", seed: int = 0) -> Any:
    return (np.random.default_rng(seed).normal(size=shape) * 0.5).astype(dtype)


def differences(fn: Callable[[Any], Any], x: Any, step: float = 1e-5) -> Any:
    """Central differences of a scalar function."""
    found = np.zeros_like(x)
    for k in np.ndindex(x.shape):
        sides = []
        for sign in (1, -1):
            moved = x.copy()
            moved[k] += sign * step
            sides.append(float(fn(moved)))
        found[k] = (sides[0] - sides[1]) / (2 * step)
    return found


W = ek.Parameter(floats(3, 3, seed=7), name="w")


def _rnn(x: Any) -> Any:
    h, ys = ek.scan(lambda h, x: (ek.tanh(h @ W + x), h * x), x[0], x)
    return (h * h).sum() + ek.sin(ys).sum()


def _last_only(x: Any) -> Any:
    return (ek.scan(lambda c, x: (c * x[0] + x[1], None), 1.0, x)[0] ** 2).sum()


def _columns_only(x: Any) -> Any:
    return ek.map(lambda row: (ek.exp(row) * row).sum(), x).sum()


def _reverse(x: Any) -> Any:
    return ek.scan(lambda c, x: (ek.sin(c) + x, c * c), x[1], x, reverse=True)[1].sum()


def _int_carry(x: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        return (c[0] + 1, c[1] * x + c[0].astype("float64")), None

    return ek.scan(step, (0, ek.asarray(np.ones(3))), x)[0][1].sum()


def _passes_through(x: Any) -> Any:
    """A carry that is not changed, one that is dropped, one that moves to another place."""

    def step(c: Any, x: Any) -> Any:
        a, b, d = c
        return (a, d, ek.sin(x) + b), a * x

    carry, ys = ek.scan(step, (x[0], x[1], ek.asarray(np.zeros(3))), x)
    return (carry[1] * carry[2]).sum() + ys.sum()


def _branches(x: Any) -> Any:
    def other(x: Any) -> Any:
        return x.mean() * x[0, 0]

    pick = [lambda x: (x @ W).sum(), other, lambda x: ek.sin(x[0]).sum() * x[1, 1]]
    found = [ek.switch(k, pick, x) for k in range(3)]
    return found[0] * found[1] + found[2]


def _cond_in_scan(x: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        c = ek.cond(x.sum() > 0, lambda: c * x, lambda: ek.sin(c) - x @ W)
        return c, c.sum()

    return ek.scan(step, x[0], x)[1].sum()


def _scan_in_scan(x: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        inner = ek.scan(lambda d, y: (d * y + c[0], d), 0.5, row)
        return ek.tanh(c + inner[0]), inner[1]

    last, ys = ek.scan(step, x[0], x)
    return last.sum() + (ys * ys).sum()


def _fori(x: Any) -> Any:
    return ek.fori_loop(0, 4, lambda i, v: ek.sin(v @ W) * (i.astype("float64") + 0.5), x).sum()


def _associative(x: Any) -> Any:
    combine = lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1])  # noqa: E731
    return (ek.associative_scan(combine, (x, x * x))[1] ** 2).sum()


def _while_beside(x: Any) -> Any:
    """A while loop through which no gradient flows."""
    n = ek.while_loop(lambda n: n < ek.stop_gradient(x).sum() + 4, lambda n: n + 1, 0.0)
    return (x * n).sum() + (x**2).sum()


LOSSES = [
    _rnn, _last_only, _columns_only, _reverse, _int_carry, _passes_through, _branches,
    _cond_in_scan, _scan_in_scan, _fori, _associative, _while_beside,
]  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES, ids=lambda fn: fn.__name__.strip("_"))
def test_gradients_are_those_of_finite_differences(loss: Callable[[Any], Any]) -> None:
    x = floats(4, 3, seed=3)
    value, grad = both(ek.value_and_grad(loss), x)
    assert float(value) == pytest.approx(float(loss(ek.asarray(x))))
    compiled = ek.compile(loss)
    np.testing.assert_allclose(np.asarray(grad), differences(compiled, x), rtol=1e-5, atol=1e-7)

    def slope(x: Any) -> Any:
        return (ek.grad(loss)(x) ** 2).sum()

    second = both(ek.grad(slope), x)
    np.testing.assert_allclose(
        np.asarray(second), differences(ek.compile(slope), x), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("loss", [_rnn, _branches, _cond_in_scan, _fori])
def test_gradients_of_captured_leaves(loss: Callable[[Any], Any]) -> None:
    x = floats(4, 3, seed=3)
    grad = both(ek.grad(loss, W), x)
    before = W.numpy().copy()
    compiled = ek.compile(loss)

    def at(w: Any) -> Any:
        W.value = w
        return compiled(x)

    want = differences(at, before)
    W.value = before
    np.testing.assert_allclose(np.asarray(grad), want, rtol=1e-5, atol=1e-7)
    both(ek.grad(lambda x: (ek.grad(loss, W)(x) ** 2).sum(), (W, 0)), x)


def test_third_order() -> None:
    def loss(x: Any) -> Any:
        return ek.scan(lambda c, x: (ek.sin(c * x), None), 0.7, x)[0]

    def order(n: int) -> Callable[[Any], Any]:
        return (lambda x: ek.grad(order(n - 1))(x).sum()) if n else loss

    x = floats(3)
    third = both(ek.grad(order(2)), x)
    np.testing.assert_allclose(
        np.asarray(third), differences(ek.compile(order(2)), x), rtol=1e-5, atol=1e-8
    )


class Cell(ek.nn.Module):
    """A recurrent network over the first axis."""

    def __init__(self) -> None:
        self.cell = ek.nn.Linear(6, 4)
        self.out = ek.nn.Linear(4, 2)
        self.drop = ek.nn.Dropout(0.25)

    def forward(self, x: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = ek.tanh(self.cell(ek.concat([x, self.drop(h)], axis=1)))
            return h, self.out(h)

        return ek.scan(step, ek.zeros((x.shape[1], 4)), x)[1]


def _trained(compiled: bool, backward: bool) -> list[Any]:
    ek.random.seed(1)
    model = Cell()
    opt = ek.optim.Adam(model, lr=1e-2)
    x, y = floats(5, 3, 2, dtype="float32"), floats(5, 3, 2, dtype="float32", seed=1)

    def loss(x: Any, y: Any) -> Any:
        return ek.nn.mse_loss(model(x), y)

    @ek.compile
    def step(x: Any, y: Any) -> Any:
        if backward:
            value = loss(x, y)
            opt.zero_grad()
            value.backward()
            opt.step()
            return value
        value, grads = ek.value_and_grad(loss, model)(x, y)
        opt.step(grads)
        return value

    losses: list[float] = []
    for _ in range(6):
        if compiled:
            losses.append(float(step(x, y)))
        else:
            with ek.eager():
                losses.append(float(step(x, y)))
    assert losses[-1] < losses[0]
    return [losses, *state(*model.parameters())]


@pytest.mark.parametrize("backward", [False, True], ids=["value_and_grad", "backward"])
def test_a_recurrent_model_trains_with_the_same_bits(backward: bool) -> None:
    assert _trained(True, backward) == _trained(False, backward)


def test_backward_through_a_compiled_scan() -> None:
    """A compiled function that is differentiated from outside keeps what its backward reads."""
    w = ek.Parameter(floats(3, 3, dtype="float32"), name="w")
    fn = ek.compile(lambda x: ek.scan(lambda c, x: (ek.tanh(c @ w + x), c), x[0], x)[1].sum())
    x = floats(5, 3, dtype="float32", seed=1)
    found: list[Any] = []
    for eager in (False, True):
        w.zero_grad()
        if eager:
            with ek.eager():
                fn(x).backward()
        else:
            fn(x).backward()
        found.append(state(w.grad))
    assert found[0] == found[1]


def test_a_thousand_steps_of_a_recurrent_cell_compile_like_one() -> None:
    size = 32
    w = ek.Parameter(floats(2 * size, 4 * size, dtype="float32") * 0.2, name="w")

    def step(carry: Any, x: Any) -> Any:
        h, c = carry
        i, f, g, o = ek.split(ek.concat([x, h], axis=1) @ w, 4, axis=1)
        c = ek.nn.sigmoid(f) * c + ek.nn.sigmoid(i) * ek.tanh(g)
        h = ek.nn.sigmoid(o) * ek.tanh(c)
        return (h, c), h.mean()

    def loss(x: Any) -> Any:
        zero = ek.zeros(x.shape[1:])
        return ek.scan(step, (zero, zero), x)[1].sum()

    train = ek.compile(ek.value_and_grad(loss, w))
    x = floats(1000, 8, size, dtype="float32")
    start = perf_counter()
    value, grad = train(x)
    first = perf_counter() - start
    start = perf_counter()
    train(x)
    print(f"1000 steps: first call {first:.2f} s, then {perf_counter() - start:.3f} s")  # noqa: T201
    assert np.isfinite(float(value))
    assert np.isfinite(np.asarray(grad)).all()


# -- refusals --------------------------------------------------------------------------------------


def _modes(fn: Callable[[Any], Any], x: Any) -> list[Callable[[], Any]]:
    return [lambda: fn(ek.asarray(x)), lambda: ek.compile(fn)(x)]


REFUSED = [
    (lambda x: ek.scan(lambda c, x: ({"h": c["h"].astype("float16")}, None), {"h": x}, x),
     r"scan: carry\['h'\] enters as f64\[3\] and leaves as f16\[3\].*control_gradients.py:\d+"),
    (lambda x: ek.scan(lambda c, x: ((c, c), None), x, x), r"structure of the carry.*\(\*"),
    (lambda x: ek.scan(lambda c, x: c, x, x), r"must return a pair \(carry, y\)"),
    (lambda x: ek.scan(lambda c, x: (c, x), 0.0), "number of steps is needed"),
    (lambda x: ek.scan(lambda c, x: (c, x), 0.0, x[0]), "no first axis"),
    (lambda x: ek.scan(lambda c, x: (c, x), 0.0, (x, x[:2])), "xs.1. has 2 steps"),
    (lambda x: ek.scan(lambda c, x: (c, x), 0.0, x, length=2), "and length has 2"),
    (lambda x: ek.cond(x, lambda: 1, lambda: 2), "chooses by a scalar.*ek.where"),
    (lambda x: ek.cond(x.sum() > 0, lambda: x, lambda: x[0]),
     r"is f64\[\] in false_fn and f64\[3\] in true_fn"),
    (lambda x: ek.switch(0.5, [lambda: x]), "index is an integer"),
    (lambda x: ek.switch(0, []), "at least one function"),
    (lambda x: ek.while_loop(lambda v: v, lambda v: v, x.sum()), "condition gives a bool"),
    (lambda x: ek.while_loop(lambda v: ek.random.uniform() < 0.5, lambda v: v, x), "only the body"),
    (lambda x: ek.while_loop(lambda v: v.sum() < 0, lambda v: v.sum(), x), r"leaves as f64\[\]"),
    (lambda x: ek.fori_loop(0.5, 2, lambda i, v: v, x), "a bound is an integer"),
    (lambda x: ek.scan(None, x, x), "scan takes functions, got NoneType"),
    (lambda x: ek.associative_scan(lambda a, b: a[0], x), "must give what it takes"),
    (lambda x: ek.grad(lambda x: ek.while_loop(lambda v: v < 9, lambda v: v * 2, x.sum()))(x),
     "no gradient backwards.*ek.fori_loop"),
    (lambda x: ek.scan(lambda c, x: (c, (W.sum() * c).backward()), 0.0, x), r"calls backward\(\)"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "message"), REFUSED)
def test_what_is_refused_says_why(fn: Callable[[Any], Any], message: str) -> None:
    for run in _modes(fn, floats(3)):
        with pytest.raises(ek.EinkornError, match=message):
            run()


def test_tensors_do_not_leave_a_body() -> None:
    kept: list[Any] = []
    ek.scan(lambda c, x: (c, kept.append(c)), 0.0, length=2)
    with pytest.raises(ek.EinkornError, match="was being traced"):
        kept[0] + 1


def test_two_gradients_of_one_scan_stay_apart() -> None:
    """Their reverse scans differ in nothing but the body."""
    a, b = (ek.Parameter(floats(3, 3, seed=k), name=name) for k, name in enumerate("ab"))

    def run(x: Any) -> Any:
        loss = ek.scan(lambda c, x: (ek.tanh(c @ a + x @ b), None), x[0], x)[0].sum()
        return ek.grad(lambda: loss, a)(), ek.grad(lambda: loss, b)()

    x = floats(4, 3, seed=5)
    for found, leaf in zip(both(run, x), (a, b)):
        want = ek.grad(
            lambda x: ek.scan(lambda c, x: (ek.tanh(c @ a + x @ b), None), x[0], x)[0].sum(), leaf
        )(ek.asarray(x))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(want))
