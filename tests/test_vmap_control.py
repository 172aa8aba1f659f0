"""vmap of loops and branches: against one example at a time, with derivatives, draws and state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits
from test_vmap import check, loop
from transform_checks import ends, normal, same

import einkorn as ek

W = ek.Parameter(np.random.default_rng(1).normal(size=(3, 3)) * 0.5, name="w")
MINUS = ek.asarray(np.float64(-1))


def rnn(x: Any) -> Any:
    return ek.scan(lambda h, x: (ek.tanh(h @ W + x), h * x), x[0], x)


def chosen(x: Any) -> Any:
    return ek.cond(x.sum() > 0, lambda x: x * x, lambda x: ek.sin(x) @ W, x)


def grown(x: Any) -> Any:
    return ek.while_loop(lambda v: (v * v).sum() < 40, lambda v: v * 1.7, x)


def counted(x: Any) -> Any:
    """Carries of every kind: shared, of each example from the second step on, not changed."""

    def step(c: Any, x: Any) -> Any:
        return (c[0] + 1, c[2] * x, c[2], c[3]), (c[0], c[1] + x)

    first = (0, ek.ones(3, dtype="float64"), 0.5 * ek.ones(3, dtype="float64"), x[0, 0])
    return ek.scan(step, first, x, reverse=True)


def two_ends(x: Any) -> Any:
    """A shared bound beside values of each example, in a loop that all leave together."""
    return ek.while_loop(lambda v: v[0] < 4, lambda v: (v[0] + 1, ek.sin(v[1])), (0, x))


FUNCTIONS: list[Callable[[Any], Any]] = [
    rnn, chosen, grown, counted, two_ends,
    lambda x: ek.cond(W.sum() > 9, lambda x: x, lambda x: 2 * ek.ones_like(x), x),
    lambda x: ek.switch((x[0, 0] * 3).astype("int64"), [lambda: x, lambda: x @ W, lambda: -x]),
    lambda x: ek.map(lambda row: ek.cond(row[0] > 0, lambda: row.sum(), lambda: x[0, 1]), x),
    lambda x: ek.scan(lambda c, row: (grown(row + c), c), x[1], x),
    lambda x: ek.associative_scan(lambda a, b: a @ b, ek.stack([x.T @ x, W, W])),
    lambda x: ek.fori_loop((x[0, 0] > 0).astype("int64"), ek.argmax(x[:, 0], axis=0) * 2,
                           lambda i, v: v * x[i % 4] + i.astype("float64"), x[1]),
    lambda x: ek.while_loop(lambda v: v[0] < v[1], lambda v: (v[0] + 1, v[1]), (0.0, x.sum())),
]  # fmt: skip


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_loops_and_branches_as_one_example_at_a_time(fn: Callable[[Any], Any]) -> None:
    x = normal(5, 4, 3)
    check(fn, x)
    check(ek.vmap(fn), np.stack([x, x[::-1] * 0.3]))


@pytest.mark.parametrize("fn", [rnn, chosen, counted], ids=lambda fn: fn.__name__)
def test_derivatives_inside_and_outside(fn: Callable[[Any], Any]) -> None:
    x, t = normal(2, 4, 3), normal(2, 4, 3)

    def loss(x: Any) -> Any:
        return ek.stack([(y * y).sum() for y in ek.tree_leaves(fn(x)) if y.dtype.is_float]).sum()

    def each(x: Any, t: Any) -> Any:
        by_w = ek.grad(loss, W)(x) if fn is not counted else x
        return ek.grad(loss)(x), by_w, ek.jvp(loss, (x,), (t,)), ek.hvp(loss, (x,), (t,))

    check(each, x, t)
    want = loop(ek.grad(loss), x)[0]
    (got,) = same(ek.grad(lambda x: ek.vmap(loss)(x).sum()), x)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_per_example_gradients_of_a_recurrent_model() -> None:
    cell = ek.nn.Linear(5, 3)
    x = normal(6, 7, 2).astype("float32")

    def loss(x: Any) -> Any:
        step = lambda h, x: (ek.tanh(cell(ek.concat([x, h]))), None)  # noqa: E731
        return (ek.scan(step, ek.zeros(3), x)[0] ** 2).sum()

    each = ek.vmap(ek.grad(loss, cell))
    same(lambda x: each(x), x)
    want = [ek.grad(loss, cell)(row) for row in x]
    np.testing.assert_allclose(
        np.asarray(each(x).w), [np.asarray(row.w) for row in want], rtol=1e-4, atol=1e-6
    )


def test_examples_that_have_ended_keep_their_values() -> None:
    """To the bit, also where further steps would give NaN or refuse."""
    table = ek.asarray(np.arange(4.0))

    def run(n: Any) -> Any:
        body = lambda v: (v[0] + 1, v[1] + table[v[0]], ek.log(n - v[0].astype("float64")))  # noqa: E731
        first = (0, ek.asarray(np.float64(0)), ek.asarray(np.float64(0)))
        return ek.while_loop(lambda v: v[0].astype("float64") < n, body, first)

    n = np.array([4.0, 0.0, 2.0, -0.0, 1.0])
    for got, want in zip(same(ek.vmap(run), n), loop(run, n)):
        assert_same_bits(got, want)
    with pytest.raises(ek.BoundsError):
        ek.vmap(run)(np.array([1.0, 5.0]))


def test_what_an_example_does_not_take_neither_refuses_nor_runs_on() -> None:
    x, at = normal(5, 3), np.array([0, 1, 2, 3, 7])

    def deep(x: Any, i: Any) -> Any:
        loop = lambda: ek.scan(lambda c, _: (c + x[i], c), 0.0, length=3)[0]  # noqa: E731
        return ek.cond(i < 3, loop, lambda: MINUS)

    check(lambda x, i: ek.cond(i < 3, lambda: x[i], lambda: MINUS), x, at)
    check(deep, x, at)
    check(lambda x, i: ek.cond(i < 3, ek.checkpoint(lambda x: x[i]), lambda x: MINUS, x), x, at)
    check(lambda x: ek.cond(x > 0, lambda: ek.while_loop(lambda v: v < 9, lambda v: v + x, x),
                            lambda: x), normal(8))  # fmt: skip
    shared = lambda x: ek.cond(x > 0, lambda: ek.asarray(np.ones(3))[ek.asarray(7)], lambda: x)  # noqa: E731
    same(ek.vmap(shared), -np.ones(3))
    for run in (ek.vmap(shared), ek.compile(ek.vmap(shared))):
        with pytest.raises(ek.BoundsError):
            run(np.array([-1.0, 1.0]))


def test_draws_are_those_of_each_example() -> None:
    """The stream goes on behind the most draws that an example made."""

    def run(x: Any) -> Any:
        draw = lambda: ek.random.normal((2,))  # noqa: E731
        twice = lambda: draw() + draw()  # noqa: E731
        looped = lambda v: (v[0] + 1, v[1] + draw())  # noqa: E731
        y = ek.cond(x > 0, twice, lambda: ek.zeros(2))
        return y, ek.while_loop(lambda v: v[0] < x, looped, (0, ek.zeros(2)))[1]

    def one(x: Any) -> Any:
        ek.random.seed(3)
        return run(x), ek.random.default_generator().draw.numpy().copy()

    def all_of(x: Any) -> Any:
        ek.random.seed(3)
        return ek.vmap(run)(x)

    x = np.array([-1.0, 3.0, 0.0, 1.0], "float32")
    rows = [one(ek.asarray(n)) for n in x]
    got = ends(all_of(x))
    after = int(ek.random.default_generator().draw.numpy())
    for a, b in zip(got, zip(*(ends(found) for found, _ in rows))):
        np.testing.assert_array_equal(a, np.stack(b))
    assert after == max(int(count) for _, count in rows) == 5
    ek.random.seed(3)
    for a, b in zip(ends(ek.compile(ek.vmap(run))(x)), got):
        assert_same_bits(a, b)
    assert int(ek.random.default_generator().draw.numpy()) == 5


def test_a_leaf_that_a_branch_assigns_holds_no_batch() -> None:
    mean = ek.tensor(0.0, name="mean")

    def run(x: Any) -> Any:
        def yes() -> Any:
            mean.value = mean + 1
            return x

        return ek.cond(x > 0, yes, lambda: -x)

    with pytest.raises(ek.EinkornError, match="mean was assigned a value for each example"):
        ek.vmap(run)(np.array([1.0, -1.0]))
    assert mean.item() == 0
    ek.vmap(lambda x: ek.scan(lambda c, _: (c, mean.__setattr__("value", mean + 1)), x, length=3))(
        np.ones(2)
    )
    assert mean.item() == 3


def test_regions_with_rules_of_their_own() -> None:
    clipped = ek.custom_vjp(lambda x: x * 1)
    clipped.defvjp(lambda x: (clipped(x), ()), lambda _, g: (ek.clip(g, -0.1, 0.1),))
    along = ek.custom_jvp(lambda x: ek.sin(x))
    along.defjvp(lambda primals, tangents: (along(*primals), 3 * tangents[0]))
    block = ek.checkpoint(lambda c, x: (ek.tanh(c @ W + x), c))
    step = ek.compile(lambda c, x: (clipped(along(c)) * x, c))
    for body in (step, block):
        fn = ek.grad(lambda x, body=body: ek.scan(body, x[0], x)[0].sum())  # type: ignore[misc]
        check(fn, normal(5, 4, 3))


def test_empty_batches_and_loops_without_steps() -> None:
    (got,) = same(ek.vmap(grown), np.zeros((0, 3)))
    assert got.shape == (0, 3)
    check(
        lambda x: ek.scan(lambda c, x: (c * x, c), x.sum(), ek.zeros((0,), dtype="float64")),
        normal(3, 2),
    )


def test_nested_structures_and_axes() -> None:
    carry = {"h": normal(3, 5), "n": (np.arange(5), normal(5))}
    axes = ({"h": 1, "n": (0, None)}, None)

    def run(c: Any, xs: Any) -> Any:
        step = lambda c, x: ({"h": c["h"] + x, "n": (c["n"][0] + 1, c["n"][1])}, c["h"].sum())  # noqa: E731
        return ek.scan(step, c, xs)

    xs = normal(4, 3)
    got = same(ek.vmap(run, in_axes=axes, out_axes=({"h": 1, "n": (0, None)}, -1)), carry, xs)
    np.testing.assert_allclose(got[0], carry["h"] + xs.sum(0)[:, None], rtol=1e-12)
    assert [x.shape for x in got] == [(3, 5), (5,), (5,), (4, 5)]
    with pytest.raises(ek.EinkornError, match="in_axes"):
        ek.vmap(run, in_axes=({"h": 1}, None))(carry, xs)
    with pytest.raises(ek.ShapeError, match="different sizes"):
        ek.vmap(run, in_axes=({"h": 0, "n": (0, None)}, None))(carry, xs)
