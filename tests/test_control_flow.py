"""Control flow: the same bits eager and compiled, nested, with state, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, both, traces
from same_bits import assert_same_bits, split_finely

import einkorn as ek
from einkorn.codegen import reference
from einkorn.ir.graph import Graph
from einkorn.ir.parse import parse
from einkorn.ir.program import Program
from einkorn.passes.autodiff import expand
from einkorn.runtime.settings import override

Body = Callable[[Any, Any], Any]


def floats(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return (np.random.default_rng(seed).normal(size=shape) * 0.5).astype(dtype)


@contextmanager
def generator_state() -> Generator[list[Any]]:
    """The leaves of the global generator, to be compared."""
    ek.random.seed(5)
    g = ek.random.default_generator()
    yield [g.key, g.draw]
    ek.random.seed(0)


# -- random bodies ---------------------------------------------------------------------------------


def random_body(rng: Random, w: Any, depth: int = 2) -> Body:
    """A function of two [3, 4] tensors made of random ops, of captures and of nested control."""
    plan = [(rng.randrange(13), rng.random()) for _ in range(rng.randint(2, 6))]
    inner = [random_body(rng, w, depth - 1) for _ in range(3)] if depth else []

    def body(c: Any, x: Any) -> Any:
        values = [c, x]
        for kind, place in plan:
            a, b = values[int(place * len(values))], values[-1]
            values.append(_step(kind, a, b, w, inner))
        return ek.tanh(values[-1] + values[-2])

    return body


def _step(kind: int, a: Any, b: Any, w: Any, inner: list[Body]) -> Any:
    simple: list[Callable[[], Any]] = [
        lambda: a + b,
        lambda: a * b,
        lambda: ek.sin(a) - b,
        lambda: b @ w,
        lambda: ek.nn.softmax(a) + b.sum(axis=0),
        lambda: ek.where(a > b, a, ek.exp(-b * b)),
        lambda: ek.cumulative_sum(a, axis=1) * 0.25,
        lambda: ek.take(a, ek.asarray([2, 0, 1]), axis=0) + b.mean(),
        lambda: ek.concat([a[:, 2:], b[:, :2]], axis=1),
    ]
    if kind < len(simple) or not inner:
        return simple[kind % len(simple)]()
    f, g, h = inner
    if kind == 9:
        return ek.scan(lambda c, x: (f(c, x), c * 0.5), a, ek.stack([a, b, a]), reverse=True)[0]
    if kind == 10:
        return ek.cond(a.sum() > b.sum(), f, g, a, b)
    if kind == 11:
        return ek.map(lambda x: h(x, b), ek.stack([a, b])).sum(axis=0) * 0.5
    return ek.fori_loop(0, 3, lambda i, v: f(v, b * i.astype("float32")), a)


@pytest.mark.parametrize("seed", range(12))
def test_random_bodies_have_the_same_bits_forward_and_backward(seed: int) -> None:
    rng = Random(seed)
    w = ek.Parameter(floats(4, 4, seed=seed), name="w")
    body = random_body(rng, w)
    length = rng.choice([0, 1, 2, 5])
    init, xs = floats(3, 4, seed=seed + 1), floats(length, 3, 4, seed=seed + 2)

    def run(init: Any, xs: Any) -> Any:
        return ek.scan(lambda c, x: (body(c, x), c + x), init, xs, reverse=seed % 2 == 1)

    def loss(init: Any, xs: Any) -> Any:
        last, ys = run(init, xs)
        return (last * last).sum() + ys.sum()

    both(run, init, xs)
    both(ek.value_and_grad(loss, (0, 1, w)), init, xs)
    both(ek.grad(lambda a, b: (ek.grad(loss)(a, b) ** 2).sum(), (0, w)), init, xs)


@pytest.mark.parametrize("seed", range(3))
def test_threads_change_no_bit(seed: int) -> None:
    w = ek.Parameter(floats(4, 4), name="w")
    body = random_body(Random(seed), w)
    init, xs = floats(3, 4, seed=1), floats(4, 3, 4, seed=2)
    fn = ek.value_and_grad(lambda a, b: ek.scan(lambda c, x: (body(c, x), c), a, b)[1].sum(), w)
    with override(threads=1):
        want = ek.compile(fn)(init, xs)
    with split_finely(), override(threads=2):
        assert_same_nest(both(fn, init, xs), want)


# -- the ops ---------------------------------------------------------------------------------------


def test_scan_is_the_loop_that_it_says() -> None:
    xs = {"a": floats(5, 3), "b": floats(5, seed=1)}

    def f(c: Any, x: Any) -> Any:
        return (c[0] + x["a"], c[1] * x["b"]), [x["a"] * c[1], None, c[0].sum()]

    for reverse in (False, True):
        carry: Any = (ek.zeros(3), ek.ones(()))
        rows: list[Any] = [None] * 5
        for k in reversed(range(5)) if reverse else range(5):
            carry, rows[k] = f(carry, {"a": ek.asarray(xs["a"][k]), "b": ek.asarray(xs["b"][k])})
        got = both(lambda xs, r=reverse: ek.scan(f, (ek.zeros(3), 1.0), xs, reverse=r), xs)
        assert_same_nest(got[0], carry)
        assert got[1][1] is None
        for part in (0, 2):
            want = np.stack([np.asarray(row[part]) for row in rows])
            assert_same_bits(np.asarray(got[1][part]), want)


def test_a_scan_without_steps() -> None:
    def run(x: Any) -> Any:
        return ek.scan(lambda c, x: (c * x, (c, 1)), x.sum(), x[:0])

    carry, (ys, ones) = both(run, floats(4))
    assert (carry.shape, ys.shape, ones.shape) == ((), (0,), (0,))
    assert_same_bits(np.asarray(both(ek.grad(lambda x: run(x)[0]), floats(4))), np.ones(4, "f4"))
    assert both(lambda: ek.scan(lambda c, _: (c + 1, c), 0, length=3))[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("index", [-3, 0, 1, 2, 7])
def test_switch_chooses_and_clamps(index: int) -> None:
    branches = [lambda a: (a, a), lambda a: (-a, a + 1), lambda a: (a * a, a * 2)]
    x = floats(3)
    got = both(lambda i, x: ek.switch(i, branches, x), np.int32(index), x)
    want = branches[min(max(index, 0), 2)](ek.asarray(x))
    assert_same_nest(got, want)


def test_cond_runs_one_branch_only() -> None:
    def run(x: Any, i: Any) -> Any:
        return ek.cond(i.max() < 3, lambda x: ek.take(x, i), lambda x: ek.zeros(2), x)

    x = floats(3)
    assert_same_bits(np.asarray(both(run, x, np.array([0, 2]))), x[[0, 2]])
    assert both(run, x, np.array([0, 9])).tolist() == [0, 0]
    assert both(lambda x: ek.cond(1, ek.sin, ek.cos, x), x).shape == (3,)
    grad = both(ek.grad(lambda x: ek.cond(x[0] > 9, lambda x: (x**2).sum(), ek.sum, x)), x)
    assert grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_while_loop(steps: int) -> None:
    factor = ek.tensor(1.5, trainable=False)

    def run(n: Any, x: Any) -> Any:
        def step(v: Any) -> Any:
            return {"i": v["i"] + 1, "x": v["x"] * factor}

        return ek.while_loop(lambda v: v["i"] < n, step, {"i": 0, "x": x})

    got = both(run, np.int64(steps), floats(3))
    assert int(got["i"]) == steps
    want = floats(3)
    for _ in range(steps):
        want = want * np.float32(1.5)
    assert_same_bits(np.asarray(got["x"]), want)


def test_loops_in_branches_and_branches_in_loops() -> None:
    def newton(x: Any) -> Any:
        def better(v: Any) -> Any:
            return ek.cond(v[1] % 2 == 0, lambda v: (v[0], v[1] + 1), step, v)

        def step(v: Any) -> Any:
            return (v[0] + x / v[0]) / 2, v[1] + 1

        return ek.while_loop(lambda v: ek.abs(v[0] * v[0] - x) > 1e-5, better, (x, 0))

    def run(x: Any) -> Any:
        return ek.cond(x > 1, lambda x: newton(x), lambda x: (x, 0), x)

    got = both(run, np.float32(9.0))
    assert abs(float(got[0]) - 3) < 1e-4
    assert int(got[1]) > 2
    assert both(run, np.float32(0.5))[1].item() == 0


def test_fori_loop_counts_with_ints_and_with_tensors() -> None:
    def run(x: Any, n: Any) -> Any:
        return ek.fori_loop(1, n, lambda i, v: v * 2 + i, x)

    x = floats(3)
    assert_same_nest(both(run, x, 4), both(run, x, np.int32(4)))
    assert_same_bits(np.asarray(both(run, x, -1)), x)
    assert both(ek.grad(lambda x: run(x, 4).sum()), x).tolist() == [8, 8, 8]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16])
def test_associative_scan(n: int) -> None:
    a, b = floats(2, n, dtype="float64"), floats(2, n, dtype="float64", seed=1)

    def combine(p: Any, q: Any) -> Any:
        return p[0] * q[0], q[0] * p[1] + q[1]

    for reverse in (False, True):
        got = both(
            lambda a, b, r=reverse: ek.associative_scan(combine, (a, b), axis=1, reverse=r), a, b
        )
        order = range(n)[::-1] if reverse else range(n)
        state = np.zeros(2)
        for k in order:
            state = a[:, k] * state + b[:, k]
            np.testing.assert_allclose(np.asarray(got[1])[:, k], state, rtol=1e-12)
    both(ek.grad(lambda a: ek.associative_scan(lambda x, y: x * y, a, axis=-1).sum()), a)


# -- state -----------------------------------------------------------------------------------------


def test_dropout_in_a_scan_draws_anew_in_each_step() -> None:
    drop = ek.nn.Dropout(0.5)
    x = np.ones((6, 40), np.float32)

    def run(x: Any) -> Any:
        return ek.scan(lambda c, x: (c, drop(x)), 0.0, x)[1]

    with generator_state() as leaves:
        got = np.asarray(both(run, x, leaves=leaves))
        assert int(leaves[1].numpy()) == 6
        assert len({row.tobytes() for row in got}) == 6
        grads = np.asarray(both(ek.grad(lambda x: (run(x) * x).sum()), x, leaves=leaves))
        assert set(np.unique(grads)) == {0, 4}


def test_buffers_are_updated_inside_loops() -> None:
    mean = ek.tensor(np.zeros(3, np.float32), trainable=False, name="mean")
    count = ek.tensor(0, name="count")

    def step(c: Any, x: Any) -> Any:
        before = mean.value
        mean.value = before * 0.9 + x * 0.1
        ek.cond(x.sum() > 0, lambda: _count(count), lambda: None)
        return c + (mean - before).sum(), mean * 1.0

    xs = floats(5, 3)
    _, ys = both(lambda xs: ek.scan(step, 0.0, xs), xs, leaves=[mean, count])
    assert_same_bits(np.asarray(ys)[-1], mean.numpy())
    assert int(count.numpy()) == (xs.sum(axis=1) > 0).sum()
    both(ek.grad(lambda xs: ek.scan(step, 0.0, xs)[1].sum()), xs, leaves=[mean, count])


def _count(count: Any) -> None:
    count.value = count + 1


def test_a_refused_loop_changes_nothing() -> None:
    total = ek.tensor(0.0, trainable=False, name="total")

    def run(x: Any, i: Any) -> Any:
        def step(c: Any, k: Any) -> Any:
            total.value = total + x[k]
            return c + x[k], None

        return ek.scan(step, 0.0, i)[0]

    x = floats(4)
    both(run, x, np.array([1, -1]), leaves=[total])
    before = total.numpy().copy()
    compiled = ek.compile(run)
    for fn in (run, compiled):
        with pytest.raises(ek.EinkornError, match="out of range") as caught:
            fn(ek.asarray(x), ek.asarray([0, 9, 1]))
        assert isinstance(caught.value, IndexError)
        assert_same_bits(total.numpy(), before)
    with pytest.raises(IndexError, match=r"gather .*test_control_flow.py:\d+"):
        compiled(x, np.array([0, 9, 1]))


def test_numbers_that_a_body_captures_stay_inputs() -> None:
    w = ek.Parameter(floats(3), name="w")
    opt = ek.optim.SGD(w, lr=0.1)
    step = ek.compile(lambda x: ek.fori_loop(0, 3, lambda i, v: v * opt.lr + w, x))
    for lr in (0.1, 0.25):
        opt.lr = lr
        with ek.eager():
            want = step(floats(3))
        assert_same_nest(step(floats(3)), want)
    scaled = ek.compile(lambda x, s: ek.map(lambda row: row * s, x))
    assert scaled(floats(2, 3), 2.0).tolist() == (floats(2, 3) * 2).tolist()
    assert scaled(floats(2, 3), 4.0).tolist() == (floats(2, 3) * 4).tolist()
    assert traces(scaled) == 1


def test_compiled_functions_and_gradients_inside_of_bodies() -> None:
    w = ek.Parameter(floats(3), name="w")
    inner = ek.compile(lambda a, b: ek.sin(a * w) + b)

    def run(x: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            slope = ek.grad(lambda c: (inner(c, x) ** 2).sum())(c)
            return c - 0.1 * slope, inner(c, x)

        return ek.scan(step, ek.ones(3), x)[1]

    x = floats(4, 3)
    both(run, x)
    both(ek.grad(lambda x: (run(x) ** 2).sum(), (0, w)), x)


def test_no_grad_and_untracked_operands() -> None:
    w = ek.Parameter(floats(3), name="w")

    def loss(x: Any) -> Any:
        with ek.no_grad():
            a = ek.scan(lambda c, x: (c * w, c), x[0], x)[0]
        b = ek.scan(lambda c, x: (c + ek.stop_gradient(w) * x, None), x[0], x)[0]
        return (a * b * w).sum()

    both(ek.grad(loss, w), floats(4, 3))
    both(lambda x: ek.scan(lambda c, x: (c + x, c), 0.0, x)[1], floats(3))


def test_calls_from_several_threads_do_not_mix() -> None:
    fn = ek.compile(lambda x: ek.fori_loop(0, 2000, lambda i, v: ek.sin(v) + x, x))
    xs = [floats(64, seed=k) for k in range(4)]
    want = [np.asarray(fn(x)) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, value in zip(pool.map(fn, xs), want):
                assert_same_bits(np.asarray(got), value)


# -- inspection ------------------------------------------------------------------------------------


def _nested(x: Any) -> Any:
    def step(c: Any, x: Any) -> Any:
        y = ek.cond(x > 0, lambda: ek.fori_loop(0, 2, lambda i, v: v * c, x), lambda: -x)
        z = ek.while_loop(lambda v: v < 3, lambda v: v + y * y + 1, y)
        return c + y, z

    return ek.scan(step, 0.5, x)


def test_text_python_and_reference_of_nested_control() -> None:
    x = floats(5)
    for fn in (_nested, lambda x: _nested(x)[0]):
        graph = ek.trace(fn)(x)
        again = parse(str(graph))
        assert (str(again), again.key) == (str(graph), graph.key)
        want = [np.asarray(t) for t in ek.tree_leaves(both(fn, x))]
        space: dict[str, Any] = {}
        exec(graph.to_python(), space)
        outputs, _ = space[graph.name](x) if graph.name in space else _last(space)(x)
        for got, value in zip(outputs, want, strict=True):
            assert_same_bits(np.asarray(got), value)
        for got, value in zip(reference.run(expand(graph), [x])[0], want, strict=True):
            np.testing.assert_allclose(got, value, rtol=1e-5)


def _last(space: dict[str, Any]) -> Any:
    return [value for name, value in space.items() if callable(value) and name != "ek"][-1]


def test_keys_tell_nested_graphs_apart() -> None:
    def key(number: float) -> str:
        return ek.trace(lambda x: ek.cond(x > 0, lambda: x * number, lambda: x))(1.0).key

    assert key(2.0) == key(2.0) != key(3.0)


def test_every_pass_keeps_the_rules() -> None:
    with override(verify=True):
        scanned = ek.grad(lambda x: ek.scan(lambda c, x: (ek.sin(c) * x, c), 1.0, x)[1].sum())
        both(scanned, floats(4))
        both(_nested, floats(4))


def test_reports_know_what_is_nested() -> None:
    low = ek.compile(lambda x: ek.scan(lambda c, x: (ek.tanh(c @ c) + x, None), x[0], x)[0]).lower(
        floats(7, 8, 8)
    )
    (loop,) = [row for row in low.cost.rows if row.kernel == "ScanLoop"]
    assert loop.flops == 7 * (2 * 8**3 + 2 * 64)
    assert any(row.label.startswith("carry") for row in low.memory.temporaries)
    assert "TiledDot" in str(low.program)
    assert "fma" in low.llvm_ir()
    assert "Scan" in str(low.ir("lower"))


def test_a_long_scan_is_as_small_as_a_short_one() -> None:
    runs: list[int] = []

    def f(c: Any, x: Any) -> Any:
        runs.append(1)
        return ek.tanh(c * x), c

    step = ek.compile(ek.value_and_grad(lambda x: ek.scan(f, ek.ones(3), x)[1].sum()))
    sizes = []
    for length in (2, 2000):
        program: Program = step.lower(floats(length, 3)).program
        sizes.append((len(program.instructions), len(list(program.walk()))))
    assert sizes[0] == sizes[1]
    runs.clear()
    step(floats(2000, 3))
    step(floats(2000, 3))
    assert len(runs) == 1
    assert isinstance(step.trace(floats(3, 3)), Graph)


def test_what_nobody_reads_is_not_computed() -> None:
    w = ek.Parameter(floats(3), name="w")

    def f(c: Any, x: Any) -> Any:
        a, b, n = c
        return (ek.sin(a) * x, b + ek.exp(a) * w, n + 1), (a * 2, b)

    def scanned(x: Any) -> Any:
        return ek.scan(f, (x[0], x[0], 0), x)

    def stage(fn: Callable[[Any], Any]) -> str:
        return ek.compile(fn).lower(floats(4, 3)).ir("dce")

    text = stage(lambda x: scanned(x)[1][0])
    assert "exp" not in text
    assert "carries=1 consts=0" in text
    assert "exp" in stage(lambda x: scanned(x)[0][1])
    for k in range(3):
        both(lambda x, k=k: scanned(x)[0][k], floats(4, 3))
    both(ek.grad(lambda x: scanned(x)[1][1].sum()), floats(4, 3))
    text = stage(lambda x: ek.cond(x[0, 0] > 0, lambda: (x, ek.exp(x)), lambda: (-x, x))[0])
    assert "exp" not in text

    def loop(x: Any) -> Any:
        return ek.while_loop(
            lambda v: v[0] < 3, lambda v: (v[0] + 1, v[1] * x, ek.exp(v[2])), (0, x, x)
        )

    assert "exp" not in stage(lambda x: loop(x)[1])
    both(lambda x: loop(x)[1], floats(4, 3))


def test_a_linear_scan_keeps_no_carries_for_its_reverse() -> None:
    fn = ek.grad(lambda x: ek.scan(lambda c, x: (c * 0.5 + x, None), x[0], x)[0].sum())
    low = ek.compile(fn).lower(floats(4, 3))
    assert [row.kernel for row in low.cost.rows].count("ScanLoop") == 1
