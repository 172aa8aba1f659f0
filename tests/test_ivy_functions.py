"""Functions of the dialect `ivy`: gradients and control flow, eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compile_checks import both
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.dialects import ivy
from einkorn.ir.errors import EinkornError, TraceError

V = {"a": {"w": ek.asarray([1.0, 2.0]), "k": ek.asarray([1, 2])}, "b": ek.asarray([3.0])}


def product(v: Any) -> Any:
    return (v["a"]["w"] * v["b"] * v["a"]["k"]).sum()


# -- gradients -------------------------------------------------------------------------------------


def test_what_the_function_returns_comes_with_the_gradients() -> None:
    xs = ivy.Container(w=ivy.array([2.0, 3.0]))
    ret, grads = ivy.execute_with_gradients(lambda v: (v.w**2).sum(), xs)
    assert ret.item() == 13.0
    assert isinstance(grads, ivy.Container)
    assert grads.w.tolist() == [4.0, 6.0]
    ret, grads = ivy.execute_with_gradients(lambda v: ((v.w**2).sum(), {"w": v.w}), xs)
    assert ret[1]["w"].tolist() == [2.0, 3.0]
    assert grads.w.tolist() == [4.0, 6.0]
    ret, grad = ivy.execute_with_gradients(lambda x: x**3, ivy.array(2.0), retain_grads=True)
    assert (ret.item(), grad.item()) == (8.0, 12.0)


def test_gradients_by_chosen_arrays() -> None:
    ret, grads = ivy.execute_with_gradients(product, V, xs_grad_idxs=[["a", "w"], ["b"]])
    assert ret.item() == 15.0
    assert {key: x.tolist() for key, x in grads.flat_items()} == {"a/w": [3.0, 6.0], "b": [5.0]}
    rows = [V["a"]["w"], [V["b"], 2]]
    _, found = ivy.execute_with_gradients(
        lambda x: (x[0] * x[1][0]).sum() * x[1][1], rows, xs_grad_idxs=[[1, 0]]
    )
    assert found[0].tolist() == [6.0]
    with pytest.raises(EinkornError, match=r"xs_grad_idxs=\['a', 'q'\]: a dict has no 'q'"):
        ivy.execute_with_gradients(product, V, xs_grad_idxs=[["a", "q"]])


def test_gradients_of_chosen_results() -> None:
    def parts(v: Any) -> Any:
        return {"sum": v.w.sum(), "more": [ek.zeros(2), (v.w**2).sum()]}

    xs = ivy.Container(w=ivy.array([2.0, 3.0]))
    ret, grads = ivy.execute_with_gradients(parts, xs, ret_grad_idxs=[["more", 1]])
    assert grads.w.tolist() == [4.0, 6.0]
    both_ret, all_grads = ivy.execute_with_gradients(
        parts, xs, ret_grad_idxs=[["sum"], ["more", 1]], xs_grad_idxs=[["w"]]
    )
    assert_same_bits(both_ret["more"][1], ret["more"][1])
    assert all_grads["sum/w"].tolist() == [1.0, 1.0]
    assert all_grads["more/1/w"].tolist() == [4.0, 6.0]
    with pytest.raises(EinkornError, match=r"func returned a dict; say with ret_grad_idxs=\[\[key"):
        ivy.execute_with_gradients(parts, xs)
    with pytest.raises(EinkornError, match=r"ret_grad_idxs=\['more', 2\]: a list has no 2"):
        ivy.execute_with_gradients(parts, xs, ret_grad_idxs=[["more", 2]])


@pytest.mark.parametrize("rets", [[[0]], [[0], [1]]])
def test_compiled_gradients_have_the_bits_of_eager_ones(rets: Any) -> None:
    def step(w: Any, b: Any) -> Any:
        return ivy.execute_with_gradients(
            lambda v: ((ek.tanh(v["w"]) * v["b"]).sum(), (v["w"] * v["w"]).sum()),
            {"w": w, "b": b},
            xs_grad_idxs=[["w"]],
            ret_grad_idxs=rets,
        )

    both(step, np.linspace(-1, 1, 7, dtype="float32"), np.linspace(1, 2, 7, dtype="float32"))


def test_gradients_of_functions() -> None:
    x, y = ivy.array([1.0, 2.0]), ivy.array([3.0, 4.0])
    value, grad = ivy.value_and_grad(lambda x: (x**2).sum())(x)
    assert (value.item(), grad.tolist()) == (5.0, [2.0, 4.0])
    assert ivy.grad(lambda x, y: (x * y).sum())(x, y).tolist() == [3.0, 4.0]
    assert ivy.grad(lambda x, y: (x * y).sum(), 1)(x, y).tolist() == [1.0, 2.0]
    pair = ivy.grad(lambda x, y: (x * y).sum(), (0, 1))(x, y)
    assert [g.tolist() for g in pair] == [[3.0, 4.0], [1.0, 2.0]]
    assert ivy.grad(ivy.grad(lambda x: x**3))(ivy.array(2.0)).item() == 12.0
    assert ivy.jac(lambda x: x**2)(x).tolist() == [[2.0, 0.0], [0.0, 4.0]]


def test_what_gradients_flow_through() -> None:
    w = ivy.variable([1.0, 2.0])
    assert ivy.is_variable(w)
    assert not ivy.is_variable(w * 2)
    assert [ivy.requires_gradient(x) for x in (w, w * 2, ek.ones(2), 3.0)] == [
        True,
        True,
        False,
        False,
    ]
    stopped = ivy.stop_gradient(ivy.Container(a=w * 2, b=3))
    assert not ivy.requires_gradient(stopped.a)
    assert stopped.b == 3
    seen: list[bool] = []

    @ek.compile
    def step(x: Any) -> Any:
        seen.extend(map(ivy.requires_gradient, (w, w * x, x, ivy.stop_gradient(w * x))))
        return x

    step(np.ones(2, "float32"))
    assert seen == [True, True, False, False]


# -- functions whose arguments are others ----------------------------------------------------------


def test_parts_are_given_by_their_number_or_sizes() -> None:
    x = ek.arange(6)
    for given, want in (
        ((), [[0], [1], [2], [3], [4], [5]]),
        ((2,), [[0, 1, 2], [3, 4, 5]]),
        (([1, 3, 2],), [[0], [1, 2, 3], [4, 5]]),
        ((4, 0, True), [[0, 1], [2, 3], [4, 5]]),
    ):
        assert [part.tolist() for part in ivy.split(x, *given)] == want
    assert [p.shape for p in ivy.split(ek.ones((2, 5)), [4, 1], axis=-1)] == [(2, 4), (2, 1)]
    with pytest.raises(EinkornError, match=r"axis 0 of i64\[6\] has no parts of \[1, 2\]"):
        ivy.split(x, [1, 2])
    with pytest.raises(EinkornError, match="no 4 equal parts"):
        ivy.split(x, 4)


def test_norms_tables_and_products() -> None:
    x = ek.asarray(np.linspace(-1, 2, 12, dtype="float32").reshape(3, 4))
    w, b = ek.asarray([1.0, 2.0, 3.0, 4.0]), ek.asarray([1.0, 0.0, 0.0, 0.0])
    plain = ek.nn.layer_norm(x)
    assert_same_bits(ivy.layer_norm(x, [-1]), plain)
    assert_same_bits(ivy.layer_norm(x, [1], scale=w, offset=b), ek.nn.layer_norm(x, w, b))
    assert_same_bits(ivy.layer_norm(x, [-1], offset=b, new_std=2.0), plain * 2.0 + b)
    assert_same_bits(
        ivy.layer_norm(x, [-1], scale=w, offset=b, new_std=2.0), ek.nn.layer_norm(x, w * 2.0, b)
    )
    table = ek.asarray([[3.0, 4.0], [0.3, 0.4]])
    assert ivy.embedding(table, [1, 0]).tolist() == table.numpy()[::-1].tolist()
    short = ivy.embedding(table, [0, 1], max_norm=1.0)
    np.testing.assert_allclose(short.numpy(), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
    layer = ek.nn.Linear(4, 1)
    layer.v = {"w": w[None], "b": b[:1]}
    assert_same_bits(ivy.linear(x, w[None], bias=b[:1]), layer(x))


# -- control flow ----------------------------------------------------------------------------------


def test_choosing_by_a_condition() -> None:
    bodies = (lambda x: x + 1, lambda x: x - 1)
    assert ivy.if_else(lambda x: x > 0, *bodies, (1,)) == 2
    assert ivy.if_else(lambda x: x > 0, *bodies, {"x": -1}) == -2
    assert ivy.if_else(False, *bodies, (1,)) == 0

    def pick(x: Any) -> Any:
        return ivy.if_else(lambda x: x.sum() > 0, *bodies, (x,))

    for sign in (1, -1):
        both(pick, np.float32([1, 2]) * sign)
    grad = ek.grad(lambda x: ivy.if_else(lambda x: x > 0, lambda x: x * x, lambda x: -x, (x,)))
    assert [grad(ek.asarray(x)).item() for x in (3.0, -3.0)] == [6.0, -1.0]


def test_loops_while_a_condition_holds() -> None:
    assert ivy.while_loop(lambda i: i < 3, lambda i: i + 1, (0,)) == (3,)
    named = ivy.while_loop(
        lambda i, x: i < 3, lambda i, x: {"i": i + 1, "x": x * 2}, {"i": 0, "x": 1}
    )
    assert named == {"i": 3, "x": 8}
    assert ivy.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, x), {"i": 0, "x": 5}) == {
        "i": 2,
        "x": 5,
    }

    def doubled(x: Any, most: Any) -> Any:
        return ivy.while_loop(lambda x, n: x.sum() < most, lambda x, n: (x * 2, n + 1), (x, 0))

    for most in (10.0, 100.0):
        x, n = both(doubled, np.float32([1, 2]), most)
        assert x.numpy().sum() >= most
        assert int(n) == {10.0: 2, 100.0: 6}[most]


def test_loops_over_items_and_errors() -> None:
    assert ivy.for_loop([1, 2, 3], lambda k, now: (now[0] + k,), (10,)) == (16,)
    seen: list[int] = []
    assert ivy.for_loop(range(2), lambda k, now: seen.append(k)) == ()
    assert seen == [0, 1]
    (total,) = both(
        lambda x: ivy.for_loop(x, lambda row, now: now[0] + row, (x[0] * 0,)),
        np.arange(6, dtype="float32").reshape(3, 2),
    )
    assert total.tolist() == [6.0, 9.0]
    assert ivy.try_except(lambda a, b: a / b, lambda a, b, error: str(error), (1, 0)) == (
        "division by zero"
    )
    assert ivy.try_except(lambda a, b: a / b, lambda a, b, error: 0, {"a": 6, "b": 3}) == 2
    with pytest.raises(EinkornError, match="for_loop: the body takes 1 variables and returned 2"):
        ivy.for_loop([1], lambda k, now: (1, 2), (10,))
    with pytest.raises(EinkornError, match="while_loop: vars is a tuple or a dict, got int"):
        ivy.while_loop(lambda i: i < 3, lambda i: i + 1, 0)
    with pytest.raises(TraceError, match="needs the value"):
        ek.compile(lambda x: ivy.try_except(float, lambda x, error: 0.0, (x,)))(np.ones(1))
