"""Hooks: the same values and names eagerly and compiled, and nothing traced leaks."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from compile_checks import traces

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError, TraceError

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class Dense(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        self.linear = nn.Linear(n, m)

    def forward(self, x: Any) -> Any:
        y = self.linear(x)
        ek.add_loss("activity", (y * y).mean() * 0.1)
        ek.add_metric("mean", y.mean())
        ek.add_summary("y", {"out": y, "kind": "dense"})
        return y


class Net(nn.Module):
    def __init__(self) -> None:
        self.a, self.b = Dense(3, 5), Dense(5, 5)

    def forward(self, x: Any) -> Any:
        ek.add_loss("base_loss", 1.5)
        x = self.b(nn.relu(self.b(nn.relu(self.a(x)))))
        ek.add_metric("mean", x.mean())
        return x


LOSSES = ["base_loss", "a/activity_loss", "b/activity_loss"]
METRICS = ["a/mean", "b/mean", "b/mean_1", "mean"]
SUMMARIES = ["a/y", "b/y", "b/y_1"]


def gathered(fn: Any, *args: Any) -> tuple[Any, dict[str, Any]]:
    with nn.collect() as found:
        out = fn(*args)
    return out, {**found.losses, **found.metrics}


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert list(a) == list(b)
    for key in a:
        assert np.asarray(a[key]).tobytes() == np.asarray(b[key]).tobytes(), key


def test_names_and_sums() -> None:
    model = Net()
    with nn.collect() as found:
        out = model(X)
    assert list(found.losses) == LOSSES
    assert list(found.metrics) == METRICS
    assert list(found.summaries) == SUMMARIES
    assert type(found.losses) is type(found.metrics) is dict
    h = nn.relu(model.a.linear(X))
    first = model.b.linear(h)
    second = model.b.linear(nn.relu(first))
    expected = (first * first).mean() * 0.1 + (second * second).mean() * 0.1
    np.testing.assert_array_equal(np.asarray(found.losses["b/activity_loss"]), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(found.metrics["mean"]), np.asarray(out.mean()))
    assert found.summaries["b/y"]["kind"] == "dense"
    np.testing.assert_array_equal(np.asarray(found.summaries["b/y_1"]["out"]), np.asarray(out))


def test_nothing_happens_without_a_collector() -> None:
    model = Net()
    step = ek.compile(lambda x: model(x))
    graph = step.trace(X)
    assert len(graph.outputs) == 1
    np.testing.assert_array_equal(np.asarray(step(X)), np.asarray(model(X)))
    with nn.collect() as found:
        pass
    model(X)
    assert found.losses == {}


@pytest.mark.parametrize("recording", [True, False])
def test_a_collector_outside_of_a_compiled_function(recording: bool) -> None:
    model = Net()
    step = ek.compile(lambda x: model(x))
    with nullcontext() if recording else ek.no_grad():
        with ek.eager():
            eager = gathered(step, X)[1]
        for _ in range(3):
            same(gathered(step, X)[1], eager)
    assert traces(step) == 1
    same(gathered(lambda x: model(x), X)[1], eager)
    step(X)
    assert traces(step) == 2  # nothing is collected: a trace of its own


def test_a_collector_inside_of_a_compiled_function() -> None:
    model = Net()

    def step(x: Any) -> Any:
        with nn.collect() as found:
            y = model(x)
        return (y * y).mean() + sum(found.losses.values()), found.losses, found.metrics

    compiled = ek.compile(step)
    for _ in range(2):
        (loss, losses, metrics), (loss_2, losses_2, metrics_2) = step(X), compiled(X)
        assert float(loss) == float(loss_2)
        same(losses, losses_2)
        same(metrics, metrics_2)
    assert traces(compiled) == 1


def test_gradients_flow_through_collected_losses() -> None:
    model = Net()

    def loss(x: Any) -> Any:
        with nn.collect() as found:
            y = model(x)
        return (y * y).mean() + sum(found.losses.values())

    def plain(x: Any) -> Any:
        a = model.a.linear(x)
        b = model.b.linear(nn.relu(a))
        c = model.b.linear(nn.relu(b))
        extra = [(t * t).mean() * 0.1 for t in (a, b, c)]
        return (c * c).mean() + (1.5 + extra[0] + (extra[1] + extra[2]))

    _, grads = ek.value_and_grad(loss, model)(X)
    _, compiled = ek.compile(ek.value_and_grad(loss, model))(X)
    _, expected = ek.value_and_grad(plain, model)(X)
    for g, c, e in zip(grads.to_flat_list(), compiled.to_flat_list(), expected.to_flat_list()):
        np.testing.assert_array_equal(np.asarray(g), np.asarray(c))
        np.testing.assert_allclose(np.asarray(g), np.asarray(e), rtol=1e-5, atol=1e-7)


def test_backward_through_losses_that_a_compiled_function_hands_over() -> None:
    model = Net()
    step = ek.compile(lambda x: model(x))

    def grads() -> list[Any]:
        for p in model.parameters():
            p.zero_grad()
        with nn.collect() as found:
            y = step(X)
        (y.mean() + sum(found.losses.values())).backward()
        return [np.asarray(p.grad) for p in model.parameters()]

    compiled = grads()
    with ek.eager():
        eager = grads()
    for a, b in zip(compiled, eager):
        assert a.any()
        np.testing.assert_array_equal(a, b)


def test_a_whole_step_keeps_no_gradient() -> None:
    model = Net()
    opt = ek.optim.SGD(model, 0.1)

    def step(x: Any) -> Any:
        with nn.collect() as found:
            loss, grads = ek.value_and_grad(lambda: (model(x) ** 2).mean(), model)()
            opt.step(grads)
        return loss, found.losses, found.metrics

    loss, losses, metrics = ek.compile(step)(X)
    for value in (loss, *losses.values(), *metrics.values()):
        assert value._tracked() is None
    assert list(losses) == LOSSES
    assert list(metrics) == METRICS


def test_nested_compiled_functions() -> None:
    model = Net()
    inner = ek.compile(lambda x: model(x))

    def outer(x: Any) -> Any:
        ek.add_metric("mean", x.mean())
        return inner(inner(x)[:, :3])

    compiled = ek.compile(outer)
    with ek.eager():
        out, eager = gathered(compiled, X)
    assert list(eager) == [*LOSSES, "mean", "a/mean", "b/mean", "b/mean_1", "mean_1"] + [
        "a/mean_1", "b/mean_2", "b/mean_3", "mean_2"
    ]  # fmt: skip
    assert list(eager) == list(gathered(outer, X)[1])
    found, values = gathered(compiled, X)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(out))
    same(values, eager)


def test_a_compiled_part_of_a_model_is_named_after_its_place() -> None:
    part = Dense(3, 3)
    run = ek.compile(lambda x: part(x))

    class Holder(nn.Module):
        def __init__(self, name: str) -> None:
            setattr(self, name, Caller())

        def forward(self, x: Any) -> Any:
            return next(iter(m for path, m in self.named_modules() if path))(x)

    class Caller(nn.Module):
        def forward(self, x: Any) -> Any:
            return run(x)

    for name in ("first", "second"):
        with ek.eager():
            eager = gathered(Holder(name), X)[1]
        found = gathered(Holder(name), X)[1]
        assert list(found) == [f"{name}/dense/activity_loss", f"{name}/dense/mean"]
        same(found, eager)
    assert traces(run) == 1


def test_checkpoint_hands_over() -> None:
    model = Net()
    block = ek.checkpoint(lambda x: model(x))
    same(gathered(block, X)[1], gathered(model, X)[1])
    same(gathered(ek.compile(lambda x: block(x)), X)[1], gathered(model, X)[1])
    _, grads = ek.value_and_grad(lambda: sum(gathered(block, X)[1].values()), model)()
    assert np.asarray(grads.a.linear.w).any()


@pytest.mark.parametrize(
    "inside",
    [
        lambda f: ek.vmap(f)(X),
        lambda f: ek.map(f, X),
        lambda f: ek.cond(ek.asarray(True), f, lambda x: x, ek.asarray(X)),
    ],
)
@pytest.mark.parametrize("add", [ek.add_loss, ek.add_metric, ek.add_summary])
@pytest.mark.parametrize("compiled", [True, False])
def test_values_of_recorded_functions_do_not_leak(inside: Any, add: Any, compiled: bool) -> None:
    def f(x: Any) -> Any:
        add("name", x.sum())
        return x * 2.0

    run = ek.compile(lambda: inside(f)) if compiled else lambda: inside(f)
    with nn.collect() as found:
        with pytest.raises(
            TraceError, match=r"add_\w+\('name'\) at .*test_hooks.*inside of (f|step),"
        ):
            run()
    assert [*found.losses, *found.metrics, *found.summaries] == []
    run()


def test_a_collector_of_the_outside_is_not_read_inside() -> None:
    model = Net()
    with nn.collect() as found:

        @ek.compile
        def step(x: Any) -> Any:
            return model(x).mean() + sum(found.losses.values())

        for context in (nullcontext(), ek.eager()):
            with context, pytest.raises(StateError, match="open the collector inside"):
                step(X)
        assert found.losses == {}
    with nn.collect() as outer, nn.collect() as inner:
        model(X)
        assert outer.losses == {}
        assert list(inner.losses) == LOSSES


def test_bad_names_and_values() -> None:
    with nn.collect() as found:
        for hook in (ek.add_loss, ek.add_metric, ek.add_summary):
            for name in ("", 3, None):
                with pytest.raises(EinkornError, match="a name is text that is not empty"):
                    hook(name, 1.0)
        with pytest.raises(ShapeError, match=r"add_loss\('x'\).*scalar.*f32\[4,3\].*mean"):
            ek.add_loss("x", X)
        with pytest.raises(DTypeError, match=r"add_loss\('x'\).*i64"):
            ek.add_loss("x", 3)
    assert found.losses == found.metrics == found.summaries == {}


def test_values_are_those_of_the_moment() -> None:
    count = ek.tensor(1.0)
    with nn.collect() as found:
        ek.add_metric("count", count)
        ek.add_loss("count", count)
        ek.add_metric("number", 3.0)
        count.value = 5.0
    assert float(found.metrics["count"]) == float(found.losses["count_loss"]) == 1.0
    assert found.metrics["number"].dtype == ek.float32
    step = ek.compile(lambda s: ek.add_metric("s", s * 2))
    for s in (1.0, 2.0):
        value = gathered(step, s)[1]["s"]
        assert float(value) == 2 * s
        assert value.dtype == ek.float32
    assert traces(step) == 1


def test_a_summary_of_a_module() -> None:
    class Shows(nn.Module):
        def __init__(self) -> None:
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Any) -> Any:
            y = self.inner(x)
            ek.add_summary(self.inner, y)
            ek.add_summary(self, [y, None])
            return y

    model = Shows()
    step = ek.compile(lambda x: model(x))
    for fn in (model, step):
        with nn.collect() as found:
            y = fn(X)
        assert list(found.summaries) == ["inner", "shows"]
        np.testing.assert_array_equal(np.asarray(found.summaries["inner"]), np.asarray(y))
        assert found.summaries["shows"][1] is None


def test_training_is_that_of_the_running_module() -> None:
    class Asks(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2.0 if ek.training() else x

    model = nn.Sequential(Asks())
    step = ek.compile(lambda x: model(x))
    for mode in (True, False, True):
        model.train(mode)
        for fn in (model, step):
            np.testing.assert_array_equal(np.asarray(fn(X)), X * 2 if mode else X)
    assert traces(step) == 2
    assert ek.training()


def test_keys_are_never_repeated() -> None:
    def draw() -> Any:
        return ek.random.uniform((3,), key=ek.next_rng_key()), ek.random.uniform((3,))

    compiled = ek.compile(draw)
    ek.random.seed(3)
    eager = [np.asarray(x) for _ in range(3) for x in draw()]
    ek.random.seed(3)
    both = [np.asarray(x) for _ in range(3) for x in compiled()]
    for a, b in zip(eager, both):
        np.testing.assert_array_equal(a, b)
    assert len({a.tobytes() for a in eager}) == 6


def test_collectors_belong_to_a_context() -> None:
    model = Net()
    step = ek.compile(lambda x: model(x))

    def work(k: int) -> Any:
        return gathered(step, X * np.float32(k))[1]

    with ThreadPoolExecutor(4) as pool, nn.collect() as found:
        results = list(pool.map(work, range(8)))
    assert found.losses == {}
    for k, result in enumerate(results):
        same(result, work(k))
    with nn.collect() as found:
        contextvars.copy_context().run(model, X)
    assert list(found.losses) == LOSSES


def test_an_exception_in_a_compiled_call_hands_overnullcontext() -> None:
    fail = [True]

    @ek.compile
    def step(x: Any) -> Any:
        ek.add_metric("m", x.sum())
        if fail[0]:
            raise ValueError("mine")
        return x

    with nn.collect() as found:
        with pytest.raises(ValueError, match="mine"):
            step(X)
        assert found.metrics == {}
        fail[0] = False
        step(X)
    assert list(found.metrics) == ["m"]
