"""`ek.callback`: called in order by each call, before the commit; its exceptions change nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, both, traces
from same_bits import assert_same_bits, split_finely

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def test_results_and_nested_operands() -> None:
    def host(pair: Any, named: Any) -> Any:
        return {"sum": pair[0] + pair[1], "rows": (named["x"] > 0).sum(axis=1)}

    def step(x: Any, y: Any) -> Any:
        like = {"sum": x, "rows": ek.ShapeDtype(3, "int64")}
        found = ek.callback(host, like, (x * 2, y), {"x": y})
        return ek.tanh(found["sum"]) + found["rows"][:, None]

    for k in range(3):
        both(step, X * k, X + k)


def test_calls_come_in_order_and_once_for_each_call() -> None:
    seen: list[Any] = []
    w = ek.tensor(np.float32(0), trainable=False)

    @ek.compile
    def step(x: Any) -> Any:
        ek.callback(lambda v: seen.append(("first", float(v))), None, w)
        w.value = w + 1
        y = ek.callback(lambda v: (seen.append("second"), v * 2)[1], x, x)
        ek.callback(lambda *_: seen.append("third"), None)
        ek.callback(lambda v: seen.append(("last", float(v))), None, w)
        return y.sum()

    def run() -> Any:
        seen.clear()
        w.value = 0.0
        out = [step(X + k).item() for k in range(3)]
        return out, list(seen)

    with ek.eager():
        want = run()
    assert len(want[1]) == 12
    for threads in (1, 2, 3):
        with split_finely(), ek.settings(threads=threads):
            assert run() == want


def test_what_a_callback_keeps_never_changes() -> None:
    kept: list[Any] = []
    step = ek.compile(lambda x: (ek.callback(kept.append, None, x * 2), x + 1)[1])
    for k in range(4):
        step(X * k)
        kept[0][...] += 1  # its own
    for k, array in enumerate(kept[1:], 1):
        assert_same_bits(array, X * k * 2)


def test_an_exception_is_raised_as_it_is_and_changes_nothing() -> None:
    w, fail = ek.tensor(X, trainable=False), [False]

    class Mine(Exception):
        pass

    def host(x: Any) -> Any:
        if fail[0]:
            raise Mine("stop")
        return x

    @ek.compile
    def step(x: Any) -> Any:
        w.value = w + x
        ek.random.normal(3)
        return ek.callback(host, x, x * w)

    step(X)
    before = w.numpy().copy()
    ek.random.seed(1)
    fail[0] = True
    for _ in range(2):
        with pytest.raises(Mine, match="stop"):
            step(X)
    assert_same_bits(w.numpy(), before)
    fail[0] = False
    first = ek.random.normal(3).numpy()
    ek.random.seed(1)
    assert_same_bits(ek.random.normal(3).numpy(), first)
    step(X)
    assert_same_bits(w.numpy(), before + X)


@pytest.mark.parametrize(
    ("host", "declared", "match"),
    [
        (lambda x: x[0], X, r"gave float32\[4\] where f32\[3,4\] was declared"),
        (lambda x: x.astype("float64"), X, r"gave float64\[3, 4\] where f32\[3,4\]"),
        (lambda x: (x, x), X, "returned .*, declared is"),
        (lambda x: None, X, "gave .* where"),
    ],
)
def test_results_that_are_not_those_declared(host: Any, declared: Any, match: str) -> None:
    def step(x: Any) -> Any:
        return ek.callback(host, declared, x)

    for call in (step, ek.compile(step)):
        with pytest.raises(ek.EinkornError, match=match):
            call(ek.asarray(X))


def test_calls_that_make_no_sense() -> None:
    with pytest.raises(ek.EinkornError, match="takes a function"):
        ek.callback(X, None)  # type: ignore[arg-type]
    with pytest.raises(ek.EinkornError, match="has no shape and dtype"):
        ek.callback(lambda: 0, 3.0)
    with pytest.raises(ek.ShapeError):
        ek.ShapeDtype((-1, 2), "float32")
    with pytest.raises(ek.DTypeError):
        ek.ShapeDtype((1, 2), "nothing")


def test_branches_come_before_callbacks() -> None:
    seen: list[str] = []

    @ek.compile(on_retrace="allow")
    def right(x: Any) -> Any:
        if x.sum() > 0:
            ek.callback(lambda: seen.append("more"), None)
            return x
        ek.callback(lambda: seen.append("less"), None)
        return -x

    for k in (1, -1, 2, -2, 3):
        right(X + np.float32(k))
    assert seen == ["more", "less", "more", "less", "more"]

    @ek.compile
    def wrong(x: Any) -> Any:
        ek.callback(lambda: None, None)
        return x if x.sum() > 0 else -x

    with pytest.raises(ek.TraceError, match=r"branches on a tensor at test_callbacks.*callback"):
        wrong(X)


def test_numbers_behind_a_callback_are_computed_by_python() -> None:
    @ek.compile(on_retrace="allow")
    def step(n: int) -> Any:
        ek.callback(lambda: None, None)
        return n * n

    for n in (3, 1 << 40, 5):
        assert step(n) == n * n


def inside(x: Any) -> Any:
    return ek.callback(lambda v: v, x, x)


NO_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "scan": lambda fn, x: ek.scan(lambda c, v: (c, fn(v)), x[0], x)[1],
    "fori_loop": lambda fn, x: ek.fori_loop(0, 2, lambda k, h: fn(h), x),
    "while_loop": lambda fn, x: ek.while_loop(lambda h: h.sum() < 0, fn, x),
    "cond": lambda fn, x: ek.cond(x.sum() > 0, lambda: fn(x), lambda: x),
    "vmap": lambda fn, x: ek.vmap(fn)(x),
    "jacobian": lambda fn, x: ek.jacobian(lambda y: fn(y).sum())(x),
    "checkpoint": lambda fn, x: ek.checkpoint(fn)(x),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("transform", NO_PLACE)
def test_where_a_callback_has_no_place(transform: str, compiled: bool, nested: bool) -> None:
    fn = ek.compile(inside) if nested else inside

    def call(x: Any) -> Any:
        return NO_PLACE[transform](fn, x)

    with pytest.raises(ek.TraceError, match=r"ek\.callback at test_callbacks\.py:\d+: inside of"):
        (ek.compile(call) if compiled else call)(ek.asarray(X))


@pytest.mark.parametrize("way", ["plain", "gradient", "recorded", "deep"])
def test_compiled_functions_inside_call_back_in_order(way: str) -> None:
    seen: list[tuple[str, float]] = []

    def told(name: str, x: Any) -> Any:
        def host(v: Any) -> Any:
            seen.append((name, float(v)))
            return v * 2

        return ek.callback(host, ek.ShapeDtype((), "float32"), x.sum())

    one = ek.compile(lambda x: x + told("one", x))
    two = ek.compile(lambda x: one(x * 2) * told("two", x))
    w = ek.Parameter(X[:2])

    def fn(x: Any) -> Any:
        y = one(x)
        between = told("between", y)
        return two(y + w) + between + one(y)

    calls: dict[str, Any] = {
        "plain": fn,
        "gradient": lambda x: ek.value_and_grad(lambda: (fn(x) ** 2).sum(), w)(),
        "recorded": fn,
        "deep": ek.compile(lambda x: ek.compile(fn)(x) * 2),
    }
    step = ek.compile(calls[way])
    with ek.no_grad() if way == "plain" else nullcontext():
        with ek.eager():
            want, wanted = step(X[:2]), [*seen]
        for k in range(1, 3):
            seen.clear()
            got = step(X[:2] * k)
            if k == 1:
                assert_same_nest(got, want)
                assert seen == wanted
            assert [name for name, _ in seen] == ["one", "between", "one", "two", "one"]
    if way == "recorded":
        got.sum().backward()
        assert len(seen) == 5  # the backward pass calls nobody


def test_a_callback_inside_that_raises_changes_nothing() -> None:
    count = ek.tensor(0.0, trainable=False)

    def host(v: Any) -> Any:
        raise RuntimeError("mine")

    @ek.compile
    def inner(x: Any) -> Any:
        count.value = count + 1
        return ek.callback(host, ek.ShapeDtype((), "float32"), x.sum())

    step = ek.compile(lambda x: inner(x) + 1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="mine"):
            step(X)
    assert count.item() == 0


def test_no_gradient_flows_through() -> None:
    w = ek.Parameter(X)
    gradient = ek.grad(lambda: (w * ek.callback(lambda v: v * 3, X, w)).sum(), w)
    for call in (gradient, ek.compile(gradient)):
        assert_same_bits(call().numpy(), X * 3)


def test_functions_go_with_their_traces() -> None:
    class Host:
        def __call__(self, x: Any) -> Any:
            return x + 1

    host = Host()
    gone = weakref.ref(host)
    step = ek.compile(lambda x, host=host: ek.callback(host, x, x))
    step(X)
    assert traces(step) == 1
    del step, host
    gc.collect()
    assert gone() is None


def test_threads_that_call_one_step() -> None:
    step = ek.compile(lambda x: ek.callback(lambda v: v * 2, x, x) + 1)

    def work(k: int) -> bool:
        return all(np.array_equal(step(X + k).numpy(), (X + k) * 2 + 1) for _ in range(40))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_a_step_with_a_callback_prints_and_has_no_python_form() -> None:
    step = ek.compile(lambda x: ek.callback(lambda v: v, x, x))
    low = step.lower(X)
    assert "callback=<lambda>#" in low.ir("dce")
    assert "HostCall" in str(low.program)
    with pytest.raises(ek.IRError, match="calls a function of the user"):
        low.stages["dce"].to_python()


def test_the_debugger_stops_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[Any] = []

    def hook() -> None:
        import sys

        stops.append(sys._getframe(1).f_locals["values"])

    monkeypatch.setattr("sys.breakpointhook", hook)

    @ek.compile
    def step(x: Any) -> Any:
        y = x * 2
        ek.debug.breakpoint(x=x, y=y)
        return y

    for k in range(2):
        step(X * k)
    assert [sorted(values) for values in stops] == [["x", "y"]] * 2
    assert_same_bits(stops[1]["y"], X * 2)


# -- state in the middle of a step -----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["llvm", "reference"])
def test_what_a_callback_saw_of_a_leaf_stays(backend: str) -> None:
    w, seen = ek.tensor(np.zeros(64, np.float32), trainable=False), []

    @ek.compile(backend=backend)
    def step(x: Any) -> Any:
        y = ek.callback(lambda v: (seen.append(w.numpy()), v)[1], x, x)
        w.value = w + y
        return y

    for _ in range(4):
        step(np.ones(64, np.float32))
    assert [x.tolist() for x in seen] == [[float(k)] * 64 for k in range(4)]


@pytest.mark.parametrize("backend", ["llvm", "reference"])
@pytest.mark.parametrize("way", ["assignment", "step", "draw"])
def test_a_leaf_of_the_step_is_not_written_in_its_callback(way: str, backend: str) -> None:
    w, other = ek.tensor(np.float32(1), trainable=False), ek.tensor(0)

    @ek.compile
    def inner() -> None:
        w.value = w * 10

    def write(v: Any) -> Any:
        other.value = 7  # the step does not use it
        if way == "assignment":
            w.value = 5.0
        elif way == "step":
            inner()
        else:
            ek.random.normal(())
        return v

    @ek.compile(backend=backend)
    def step(x: Any) -> Any:
        y = ek.callback(write, x, x)
        w.value = w + y + (ek.random.uniform(()) if way == "draw" else 0)
        return w * 1

    for _ in range(2):
        with pytest.raises(ek.StateError, match="written in a callback of a step that uses it"):
            step(np.float32(1))
        assert w.item() == 1
        assert other.item() == 7
    w.value = 3.0
    inner()
    assert w.item() == 30
