"""checkpoint keeps less, custom_vjp and custom_jvp follow their rules, all with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits
from transform_checks import ends, normal, same

import einkorn as ek
from einkorn.codegen import reference
from einkorn.ir.dtypes import float64
from einkorn.ir.graph import Graph
from einkorn.ir.node import make, placeholder
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.passes.barrier import after
from einkorn.passes.decompose import decompose
from einkorn.passes.fold import fold
from einkorn.passes.simplify import simplify

# -- checkpoint ------------------------------------------------------------------------------------


def deep(
    wrap: Callable[..., Any], layers: int = 8, width: int = 32
) -> tuple[Callable[..., Any], list[Any]]:
    """A deep MLP with several values per block, and its parameters."""
    rng = np.random.default_rng(1)
    scale = 1 / np.sqrt(width)
    shape = (width, width)
    ws = [
        ek.Parameter((rng.standard_normal(shape) * scale).astype("float32")) for _ in range(layers)
    ]

    def block(w: Any) -> Callable[..., Any]:
        def run(x: Any) -> Any:
            h = ek.tanh(x @ w)
            h = ek.sin(h) * h
            return ek.exp(h @ w.T) * 0.1 + x

        return wrap(run)

    blocks = [block(w) for w in ws]

    def loss(x: Any) -> Any:
        for run in blocks:
            x = run(x)
        return (x * x).mean()

    return loss, ws


def arena(fn: Callable[..., Any], *args: Any) -> int:
    return ek.compile(fn).lower(*args).stages["plan-memory"].arena_bytes


def test_memory_goes_down_and_no_bit_changes() -> None:
    x = ek.asarray(normal(128, 32).astype("float32"))
    plain, plain_ws = deep(lambda fn: fn)
    less, less_ws = deep(ek.checkpoint)
    want = ends(ek.grad(plain, plain_ws)(x))
    for a, b in zip(same(ek.grad(less, less_ws), x), want, strict=True):
        assert_same_bits(a, b)
    with_all, with_less = arena(ek.grad(plain, plain_ws), x), arena(ek.grad(less, less_ws), x)
    assert with_less < 0.4 * with_all
    one = 128 * 32 * 4
    assert with_less < (8 + 12) * one  # what enters each block, and what one block needs


def test_the_forward_pass_is_computed_again() -> None:
    x = ek.asarray(normal(8, 32).astype("float32"))

    def count(wrap: Callable[..., Any]) -> int:
        loss, ws = deep(wrap, layers=4)
        graph = ek.compile(ek.grad(loss, ws)).lower(x).stages["dce"]
        return sum(node.op is Op.TANH for node in graph.nodes)

    assert count(lambda fn: fn) == 4
    # The last block's cotangent is a function of x alone, so all four run again.
    assert count(ek.checkpoint) == 8


def test_eager_recordings_keep_what_enters() -> None:
    loss, ws = deep(ek.checkpoint)
    plain, plain_ws = deep(lambda fn: fn)
    x = ek.asarray(normal(8, 32).astype("float32"))
    loss(x).backward()
    plain(x).backward()
    for a, b in zip(ws, plain_ws):
        assert_same_bits(np.asarray(a.grad), np.asarray(b.grad))


def test_random_numbers_are_drawn_once() -> None:
    w = ek.Parameter(np.ones(64, "float32"))

    def loss(x: Any, wrap: Any) -> Any:
        drop = wrap(lambda x: ek.where(ek.random.bernoulli(0.5, (64,)), x * w, 0.0) * x)
        return drop(x).sum()

    x = normal(64).astype("float32")
    ek.random.seed(1)
    want = np.asarray(ek.grad(lambda x: loss(x, lambda fn: fn), w)(x))
    after_plain = np.asarray(ek.random.normal((2,)))
    for compiled in (False, True):
        ek.random.seed(1)
        run = ek.grad(lambda x: loss(x, ek.checkpoint), w)
        assert_same_bits(np.asarray((ek.compile(run) if compiled else run)(x)), want)
        assert_same_bits(np.asarray(ek.random.normal((2,))), after_plain)


def test_nests_other_transforms_and_modules() -> None:
    model = ek.nn.Linear(3, 3)
    block = ek.checkpoint(lambda p, x, n: {"y": ek.tanh(model(x) * p["s"]) * n, "text": "kept"})
    p, x = {"s": normal(3).astype("float32")}, normal(2, 3).astype("float32")
    assert block(p, x, 2)["text"] == "kept"
    fn = lambda p, x: block(p, x, 2)["y"]  # noqa: E731
    plain = lambda p, x: ek.tanh(model(x) * p["s"]) * 2  # noqa: E731
    for transform in (
        lambda fn: ek.grad(lambda p, x: fn(p, x).sum(), (0, 1, model)),
        lambda fn: ek.jacobian(fn, (0, 1)),
        lambda fn: ek.hessian(lambda p, x: fn(p, x).sum(), 1),
        lambda fn: lambda p, x: ek.jvp(fn, (p, x), (p, x)),
        lambda fn: ek.vmap(fn, in_axes=(None, 0)),
        lambda fn: ek.grad(lambda p, x: ek.vmap(fn, in_axes=(None, 0))(p, x).sum(), (0, 1)),
        lambda fn: ek.grad(lambda p, x: ek.checkpoint(fn)(p, x).sum(), (0, 1)),
    ):
        got, want = same(transform(fn), p, x), ends(transform(plain)(p, x))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_loops_inside_of_a_checkpoint() -> None:
    def fn(x: Any) -> Any:
        steps = ek.scan(lambda c, row: (ek.sin(c) * row, c), x[0], x)
        return (
            ek.sum(ek.cond(ek.sum(x) > 0, lambda y: y * 2, lambda y: y, steps[0])) + steps[1].sum()
        )

    x = normal(3, 2)
    want = same(ek.grad(fn), x)[0]
    np.testing.assert_allclose(same(ek.grad(ek.checkpoint(fn)), x)[0], want, rtol=1e-12)


def test_checkpoint_refuses_to_branch() -> None:
    with pytest.raises(ek.TraceError, match=r"ek\.checkpoint records"):
        ek.checkpoint(lambda x: x if x.sum() > 0 else -x)(ek.asarray(normal(3)))


def test_a_barrier_survives_every_rewrite_and_changes_no_bit() -> None:
    x, t = (placeholder(TensorType(float64, (3,))) for _ in range(2))
    graph = Graph("f", (x, t), (), (make(Op.EXP, after(x, t)), make(Op.EXP, x)))
    ops = [node.op for node in fold(simplify(decompose(graph))).nodes]
    assert ops.count(Op.EXP) == 2
    value = np.array([-0.0, np.nan, np.inf])
    for token in (np.zeros(3), np.full(3, np.nan), np.full(3, -np.inf)):
        held = Graph("f", (x, t), (), (after(x, t),))
        assert_same_bits(reference.run(held, [value, token])[0][0], value)


# -- rules of one's own ----------------------------------------------------------------------------


def scaled() -> Any:
    """sin(x) y with a derivative that shows that it is this rule's: 7 x g by x, none by y."""

    @ek.custom_vjp
    def fn(x: Any, y: Any) -> Any:
        return ek.sin(x) * y

    fn.defvjp(lambda x, y: (fn(x, y), (x, "tag")), lambda res, g: (g * 7 * res[0], None))
    return fn


def test_custom_vjp_under_every_transform() -> None:
    fn, x, y = scaled(), normal(3), normal(3)
    assert_same_bits(np.asarray(fn(ek.asarray(x), ek.asarray(y))), ends(ek.sin(x) * y)[0])
    total = lambda x, y: fn(x, y).sum()  # noqa: E731
    cases: list[tuple[Callable[..., Any], Any]] = [
        (ek.grad(total, (0, 1)), (7 * x, np.zeros(3))),
        (ek.grad(lambda x, y: ek.grad(total)(x, y).sum()), np.full(3, 7.0)),
        (lambda x, y: ek.jvp(fn, (x, y), (y, y)), (np.sin(x) * y, 7 * x * y)),
        (ek.jacobian(fn), np.diag(7 * x)),
        (ek.vmap(ek.grad(fn)), 7 * x),
        (ek.grad(lambda x, y: ek.vmap(fn)(x, y).sum()), 7 * x),
        (ek.grad(lambda x, y: ek.vmap(lambda x: fn(x, y))(ek.stack([x, x])).sum()), 14 * x),
        (ek.grad(lambda x, y: ek.compile(fn)(x, y).sum()), 7 * x),
        (ek.grad(lambda x, y: ek.checkpoint(fn)(x, y).sum()), 7 * x),
    ]
    for run, want in cases:
        for a, b in zip(same(run, x, y), ends(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_vmap_adds_up_what_examples_share() -> None:
    fn, x, y = scaled(), normal(3), normal(4, 3)
    run = ek.grad(lambda x, y: ek.vmap(fn, in_axes=(None, 0))(x, y).sum(), (0, 1))
    got = same(run, x, y)
    np.testing.assert_allclose(got[0], 4 * 7 * x)
    assert not got[1].any()


def test_backward_through_parameters_and_nests() -> None:
    @ek.custom_vjp
    def norm(p: Any, n: Any) -> Any:
        return {"a": (p["w"] ** 2).sum() * n, "b": p["w"][0]}

    def bwd(res: Any, g: Any) -> Any:
        return {"w": res * g["a"] + g["b"]}, None

    norm.defvjp(lambda p, n: (norm(p, n), p["w"]), bwd)
    w = ek.Parameter(np.array([1.0, 2.0]))
    out = norm({"w": w}, 3)
    (out["a"] + 2 * out["b"]).backward()
    np.testing.assert_array_equal(np.asarray(w.grad), [3.0, 4.0])


def test_nondiff_argnums_and_random_numbers() -> None:
    def power(n: int, x: Any) -> Any:
        return x**n + ek.random.normal((2,), dtype="float64")

    fn = ek.custom_vjp(power, nondiff_argnums=(0,))
    fn.defvjp(lambda n, x: (power(n, x), x), lambda n, res, g: (g * n * 100,))
    x = normal(2)
    (got,) = ends(ek.grad(lambda x: fn(3, x).sum())(x))
    np.testing.assert_array_equal(got, [300.0, 300.0])
    ek.random.seed(1)
    want = ends(ek.value_and_grad(lambda x: fn(3, x).sum())(x))
    ek.random.seed(1)
    for a, b in zip(ends(ek.compile(ek.value_and_grad(lambda x: fn(3, x).sum()))(x)), want):
        assert_same_bits(a, b)


def test_custom_jvp() -> None:
    @ek.custom_jvp
    def softplus(x: Any) -> Any:
        return ek.log(1 + ek.exp(x))

    @softplus.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x,), (t,) = primals, tangents
        return softplus(x), t * x.sigmoid() * 3

    x = normal(3)
    s = 3 / (1 + np.exp(-x))
    cases: list[tuple[Callable[..., Any], Any]] = [
        (ek.grad(lambda x: softplus(x).sum()), s),
        (lambda x: ek.jvp(softplus, (x,), (np.ones(3),))[1], s),
        (ek.vmap(ek.grad(softplus)), s),
        (ek.grad(lambda x: ek.vmap(softplus)(x).sum()), s),
        (ek.hessian(lambda x: softplus(x).sum()), np.diag(s * (1 - s / 3))),
    ]
    for run, want in cases:
        np.testing.assert_allclose(same(run, x)[0], want, rtol=1e-12, atol=1e-12)


def test_errors_of_rules() -> None:
    x = ek.asarray(normal(3))
    w = ek.Parameter(np.ones(3), name="w")

    def with_rule(fwd: Any, bwd: Any) -> Any:
        fn = ek.custom_vjp(lambda x: x * 2)
        fn.defvjp(fwd, bwd)
        return ek.grad(lambda x: fn(x).sum())

    with pytest.raises(ek.EinkornError, match=r"has no rule yet.*defvjp"):
        ek.custom_vjp(lambda x: x)(x)
    with pytest.raises(ek.EinkornError, match=r"fwd must return a pair \(result, residuals\)"):
        with_rule(lambda x: x, lambda res, g: (g,))(x)
    with pytest.raises(ek.EinkornError, match=r"one entry for each of the 1 arguments.*got 2"):
        with_rule(lambda x: (x, x), lambda res, g: (g, g))(x)
    with pytest.raises(ek.ShapeError, match=r"cotangent of argument 0 must be f64\[3\].*f64\[\]"):
        with_rule(lambda x: (x, x), lambda res, g: (g.sum(),))(x)
    with pytest.raises(ek.EinkornError, match=r"uses w, for which gradients are tracked"):
        with_rule(lambda x: (x * w, x), lambda res, g: (g,))(x)
    with pytest.raises(ek.EinkornError, match=r"positional arguments"):
        scaled()(x, y=x)
    with pytest.raises(ek.TraceError, match=r"ek\.custom_vjp records"):
        with_rule(lambda x: (x, x), lambda res, g: (g if g.sum() > 0 else -g,))(x)
