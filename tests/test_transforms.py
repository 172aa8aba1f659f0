"""vjp, jvp, hvp, jacobian and hessian: against finite differences, nested, with the same bits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_samples import SAMPLES, Sample
from same_bits import assert_same_bits
from transform_checks import Array, ends, normal, same

import einkorn as ek
from einkorn.ir.dtypes import float64
from einkorn.ir.ops import Op
from einkorn.recording import apply


def nested(x: Any, p: Any) -> Any:
    h = ek.tanh(x @ p["w"] + p["b"][0])
    return {"h": h, "more": (ek.sin(x).sum(), ek.nn.softmax(h) * x.mean())}


def arguments() -> tuple[Any, Any]:
    return normal(3), {"w": normal(3, 4), "b": [normal(4)]}


def directions(nest: Any) -> Any:
    return ek.tree_map(lambda x: normal(*np.shape(x)), nest)


def difference(fn: Callable[..., Any], args: Any, along: Any, h: float = 1e-6) -> list[Array]:
    """The derivative of `fn` along a direction."""

    def moved(sign: float) -> list[Array]:
        return ends(fn(*ek.tree_map(lambda x, t: ek.asarray(x + sign * h * t), args, along)))

    return [(a - b) / (2 * h) for a, b in zip(moved(1), moved(-1))]


# -- products --------------------------------------------------------------------------------------


def test_jvp_agrees_with_finite_differences() -> None:
    args = arguments()
    along = directions(args)
    got = same(lambda args, along: ek.jvp(nested, args, along), args, along)
    want = ends(nested(*ek.tree_map(ek.asarray, args)))
    for a, b in zip(got, [*want, *difference(nested, args, along)], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)


def test_vjp_is_the_transpose_of_jvp() -> None:
    args = arguments()
    along = directions(args)
    out, through = ek.jvp(nested, args, along)
    cotangent = directions(out)

    def back(args: Any, cotangent: Any) -> Any:
        pull = ek.vjp(nested, *args)[1]
        return pull(cotangent), pull(cotangent)

    first, second = back(args, cotangent)
    for a, b in zip(ends(first), ends(second), strict=True):
        assert_same_bits(a, b)
    same(back, args, cotangent)
    left = sum((a * b).sum() for a, b in zip(ends(cotangent), ends(through)))
    right = sum((a * b).sum() for a, b in zip(ends(first), ends(along)))
    np.testing.assert_allclose(left, right, rtol=1e-12)
    assert [x.shape for x in ends(first)] == [x.shape for x in ends(args)]
    assert isinstance(first, tuple)


FORWARD = [s for s in SAMPLES if s.grad_order == 2 and s.op is not Op.CONST]


@pytest.mark.parametrize("sample", FORWARD[::3], ids=str)
def test_forward_mode_of_every_op(sample: Sample) -> None:
    """Along a random direction."""
    arrays = [np.asarray(x) for x in sample.arrays(float64)]
    floats = [k for k, x in enumerate(arrays) if x.dtype == np.float64]

    def fn(*inputs: Any) -> Any:
        full = [ek.asarray(x) for x in arrays]
        for k, x in zip(floats, inputs):
            full[k] = x
        return apply(sample.op, *full, **sample.attrs)

    if not floats:
        return
    args = tuple(arrays[k] for k in floats)
    along = tuple(normal(*x.shape) for x in args)
    got = np.asarray(ek.jvp(fn, args, along)[1])
    (want,) = difference(fn, args, along, 1e-5)
    size = np.abs(want).sum() + np.abs(got).sum()
    assert np.abs(got - want).max(initial=0) <= 10 * sample.tol * (1 + size)


def test_forward_mode_leaves_nothing_of_reverse_mode_behind() -> None:
    """x -> tanh(w x): a product, its tangent's product, and what joins them."""
    w = ek.asarray(normal(4, 4))
    low = ek.compile(lambda x, t: ek.jvp(lambda x: ek.tanh(x @ w), (x,), (t,))).lower(
        normal(3, 4), normal(3, 4)
    )
    ops = [node.op for node in low.stages["dce"].nodes]
    assert ops.count(Op.DOT) == 2
    assert ops.count(Op.TANH) == 1
    assert Op.SUM not in ops


def test_any_order() -> None:
    x = ek.asarray(0.3, dtype="float64")

    def up(fn: Callable[..., Any], way: str) -> Callable[..., Any]:
        if way == "grad":
            return ek.grad(fn)
        if way == "jvp":
            return lambda x: ek.jvp(fn, (x,), (ek.ones_like(x),))[1]
        if way == "vjp":
            return lambda x: ek.vjp(fn, x)[1](ek.ones_like(x))[0]
        return ek.jacobian(fn, mode=way)

    ways = ("grad", "jvp", "vjp", "reverse", "forward")
    for a in ways:
        for b in ways:
            third = up(up(up(lambda x: ek.sin(x) * ek.exp(2 * x), a), b), "jvp")
            v = 0.3  # the third derivative of sin(x) exp(2 x)
            want = np.exp(2 * v) * (2 * np.sin(v) + 11 * np.cos(v))
            np.testing.assert_allclose(same(third, x)[0], want, rtol=1e-12)


def test_perturbations_of_two_levels_are_not_confused() -> None:
    def outer(x: Any) -> Any:
        return x * ek.jvp(lambda y: x * y, (ek.ones_like(x),), (ek.ones_like(x),))[1]

    x = ek.asarray(2.0)
    assert float(ek.jvp(outer, (x,), (ek.ones_like(x),))[1]) == 4
    assert float(ek.grad(outer)(x)) == 4


def test_products_of_hessians() -> None:
    x, p = arguments()
    along = directions((x, p))

    def loss(x: Any, p: Any) -> Any:
        out = nested(x, p)
        return (out["h"] ** 2).sum() + (out["more"][1] * out["more"][0]).sum()

    got = same(lambda args, along: ek.hvp(loss, args, along), (x, p), along)
    want = difference(ek.grad(loss, (0, 1)), (x, p), along)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    with pytest.raises(ek.EinkornError, match="hvp: primals is a tuple or list"):
        ek.hvp(loss, x, x)


def test_modules_and_containers_are_primals() -> None:
    model, x = ek.nn.Linear(4, 3), ek.asarray(normal(2, 4).astype("float32"))
    fn = lambda model, x: ek.tanh(model(x))  # noqa: E731
    out, pull = ek.vjp(fn, model, x)
    by_model, by_x = pull(ek.ones_like(out))
    want = ek.grad(lambda x: ek.tanh(model(x)).sum(), (model, 0))(x)
    assert_same_bits(np.asarray(by_model.w), np.asarray(want[0].w))
    assert_same_bits(np.asarray(by_x), np.asarray(want[1]))
    through = ek.jvp(fn, (model, x), (by_model, by_x))[1]
    assert through.shape == out.shape
    assert not out.requires_grad


def test_aux_and_history() -> None:
    x = ek.asarray(normal(3))
    fn = lambda x: (ek.sin(x), {"n": x.sum(), "s": "text"})  # noqa: E731
    out, _, aux = ek.vjp(fn, x, has_aux=True)
    assert aux["s"] == "text"
    assert not out.requires_grad
    assert len(ek.jvp(fn, (x,), (x,), has_aux=True)) == 3
    jac, aux = ek.jacobian(fn, has_aux=True)(x)
    np.testing.assert_allclose(np.asarray(jac), np.diag(np.cos(np.asarray(x))))
    assert aux["s"] == "text"
    np.testing.assert_allclose(float(aux["n"]), np.asarray(x).sum())
    with pytest.raises(ek.EinkornError, match="must return a pair"):
        ek.vjp(ek.sin, x, has_aux=True)


def test_a_pullback_is_used_elsewhere() -> None:
    """vmap(vjp_fn) and compile(vjp_fn), also through a compiled function."""
    w, x = ek.Parameter(normal(3, 4)), ek.asarray(normal(4))
    fn = lambda x: ek.tanh(w @ x)  # noqa: E731
    basis = ek.eye(3, dtype="float64")
    want = np.asarray(ek.jacobian(fn)(x))

    def rows(fn: Callable[..., Any], x: Any) -> Any:
        return ek.vmap(ek.vjp(fn, x)[1])(basis)[0]

    for each in (fn, ek.compile(fn)):
        np.testing.assert_allclose(same(lambda x, each=each: rows(each, x), x)[0], want)
    pull = ek.vjp(fn, x)[1]
    assert_same_bits(np.asarray(ek.compile(pull)(basis[0])[0]), np.asarray(pull(basis[0])[0]))
    penalty = lambda x: (rows(fn, x) ** 2).sum()  # noqa: E731
    (got,) = same(ek.grad(penalty), x)
    direction = normal(4)
    (slope,) = difference(penalty, (np.asarray(x),), (direction,))
    np.testing.assert_allclose((got * direction).sum(), slope, rtol=1e-6)


# -- all derivatives at once -----------------------------------------------------------------------


def test_jacobians_of_nests() -> None:
    args = arguments()
    for mode in ("reverse", "forward"):
        jac = ek.jacobian(nested, (0, 1), mode=mode)(*args)
        assert jac["h"][1]["w"].shape == (4, 3, 4)
        assert jac["more"][0][0].shape == (3,)
        along = directions(args)
        want = difference(nested, args, along)
        rows = (jac["h"], jac["more"][0], jac["more"][1])
        for row, derivative in zip(rows, want, strict=True):
            total = sum(
                np.tensordot(a, t, axes=t.ndim) for a, t in zip(ends(row), ends(along), strict=True)
            )
            np.testing.assert_allclose(total, derivative, rtol=1e-6, atol=1e-8)
        same(ek.jacobian(nested, (0, 1), mode=mode), *args)


def test_jacobians_by_leaves_and_modules() -> None:
    model, x = ek.nn.Linear(4, 3), ek.asarray(normal(4).astype("float32"))
    fn = lambda x: model(x)  # noqa: E731
    for mode in ("reverse", "forward"):
        by_model, by_bias = ek.jacobian(fn, [model, model.b], mode=mode)(x)
        assert by_model.w.shape == (3, 3, 4)
        np.testing.assert_array_equal(np.asarray(by_bias), np.eye(3))
        same(ek.jacobian(fn, model, mode=mode), x)
        assert not by_bias.requires_grad


def test_hessians() -> None:
    a = normal(3, 3)
    fn = lambda x, y: (x @ ek.asarray(a) @ y) + (ek.sin(x) * y).sum()  # noqa: E731
    x, y = normal(3), normal(3)
    (xx, xy), (yx, yy) = ek.hessian(fn, (0, 1))(x, y)
    np.testing.assert_allclose(np.asarray(xx), np.diag(-np.sin(x) * y), atol=1e-12)
    np.testing.assert_allclose(np.asarray(xy), a + np.diag(np.cos(x)), atol=1e-12)
    np.testing.assert_allclose(np.asarray(yx), np.asarray(xy).T, atol=1e-12)
    assert not np.asarray(yy).any()
    same(ek.hessian(fn, (0, 1)), x, y)
    same(lambda x, y: ek.grad(lambda x: (ek.hessian(fn)(x, y) ** 2).sum())(x), x, y)


def test_what_does_not_depend_has_zero_derivatives() -> None:
    x, y = ek.asarray(normal(3)), ek.asarray(normal(2))
    fn = lambda x, y: (ek.sin(x), ek.ones(2, dtype="float64"))  # noqa: E731
    for mode in ("reverse", "forward"):
        found = ends(ek.jacobian(fn, (0, 1), mode=mode)(x, y))
        assert [x.shape for x in found] == [(3, 3), (3, 2), (2, 3), (2, 2)]
        assert not any(x.any() for x in found[1:])
    assert not np.asarray(ek.jvp(fn, (x, y), (x, y))[1][1]).any()
    assert not ends(ek.vjp(lambda x: ek.ones(2), x)[1](np.ones(2, "float32")))[0].any()


# -- errors ----------------------------------------------------------------------------------------


def test_errors_name_what_is_wrong() -> None:
    x, n = ek.asarray(normal(3)), ek.asarray([1, 2, 3])
    fn = lambda x: {"a": ek.sin(x)}  # noqa: E731
    with pytest.raises(ek.ShapeError, match=r"tangent 0 must be f64\[3\] like primal 0, got f64"):
        ek.jvp(fn, (x,), (np.ones(2),))
    with pytest.raises(ek.DTypeError, match=r"tangent 0 must be f64\[3\] like primal 0, got f32"):
        ek.jvp(fn, (x,), (np.ones(3, "float32"),))
    with pytest.raises(ek.EinkornError, match=r"tangent 0 must have the structure \* of primal 0"):
        ek.jvp(fn, (x,), ([x, x],))
    with pytest.raises(ek.EinkornError, match="1 primals need as many tangents, got 2"):
        ek.jvp(fn, (x,), (x, x))
    with pytest.raises(ek.EinkornError, match="jvp: primals is a tuple or list"):
        ek.jvp(fn, x, x)
    with pytest.raises(ek.EinkornError, match=r"the cotangent must have the structure \{a: \*\}"):
        ek.vjp(fn, x)[1](x)
    with pytest.raises(ek.ShapeError, match=r"the cotangent at a must be f64\[3\]"):
        ek.vjp(fn, x)[1]({"a": np.ones(4)})
    with pytest.raises(ek.DTypeError, match=r"integers and bool have no gradient.*closure"):
        ek.vjp(fn, n)
    with pytest.raises(ek.DTypeError, match=r"returned i64\[\] at 1.*has_aux=True"):
        ek.vjp(lambda x: (x, ek.argmax(x)), x)
    with pytest.raises(ek.EinkornError, match="returned str"):
        ek.jacobian(lambda x: "text")(x)
    with pytest.raises(ek.ShapeError, match="'reverse' or 'forward'"):
        ek.jacobian(fn, mode="sideways")
    with pytest.raises(ek.TraceError, match=r"ek\.jacobian records"):
        ek.jacobian(lambda x: x if x.sum() > 0 else -x)(x)
    with pytest.raises(ek.EinkornError, match="function is needed"):
        ek.vjp(x, x)
    with pytest.raises(ek.ShapeError, match=r"ek\.jacobian or ek\.vjp"):
        ek.grad(ek.sin)(x)


def test_a_pullback_outlives_no_trace() -> None:
    step = ek.compile(lambda x: ek.vjp(ek.sin, x), name="step")
    x = ek.asarray(normal(3))
    _, pull = step(x)
    with pytest.raises(ek.TraceError, match="step, which has returned"):
        pull(x)


def test_the_examples_of_the_page_print_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "transforms.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(found) == text.count("```python")
    names: dict[str, Any] = {}
    for code, output in found:
        exec(code, names)
        assert capsys.readouterr().out == output
