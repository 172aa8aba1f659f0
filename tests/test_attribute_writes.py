"""Attributes that a compiled function writes: each call writes them, as the eager code does."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attribute_models import (
    CLASSES,
    ENOUGH,
    Averages,
    Counts,
    Every,
    Parts,
    Remembers,
    X,
    assert_same_attributes,
    attributes,
)
from compile_checks import assert_same_nest, traces

import einkorn as ek
from einkorn import nn


@pytest.mark.parametrize("kind", CLASSES)
def test_each_call_writes_what_eager_code_writes(kind: Any) -> None:
    model, twin = kind(), kind()
    step = ek.compile(model, on_retrace="allow")
    for k in range(6):
        want = twin(ek.asarray(X + k))
        assert_same_nest(step(X + k), want)
        assert_same_attributes(model, twin)
    assert traces(step) <= ENOUGH.get(kind, 1)


def test_the_reference_writes_too() -> None:
    model, twin = Averages(), Averages()
    step = ek.compile(model, on_retrace="error", backend="reference")
    for k in range(3):
        assert_same_nest(step(X + k), twin(ek.asarray(X + k)))
        assert_same_attributes(model, twin)


@pytest.mark.parametrize("kind", CLASSES)
def test_compiled_and_eager_calls_may_be_mixed(kind: Any) -> None:
    model, twin, rng = kind(), kind(), random.Random(3)
    step = ek.compile(model, on_retrace="allow")
    for k in range(8):
        want = twin(ek.asarray(X * k))
        if rng.random() < 0.5:
            with ek.eager():
                got = step(X * k)
        else:
            got = step(X * k)
        assert_same_nest(got, want)
        assert_same_attributes(model, twin)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_compiled_part_writes_too(kind: Any) -> None:
    model, twin = kind(), kind()
    inner = ek.compile(model)
    step = ek.compile(lambda x: inner(x) + inner(x * 2).sum(), on_retrace="allow")
    for k in range(4):
        x = ek.asarray(X + k)
        want = twin(x) + twin(x * 2).sum()
        assert_same_nest(step(X + k), want)
        assert_same_attributes(model, twin)


@pytest.mark.parametrize("kind", CLASSES)
def test_nothing_is_written_by_what_runs_nothing(kind: Any) -> None:
    model = kind()
    before = attributes(model)
    step = ek.compile(model)
    ek.trace(model)(X) if kind is not Every else None
    step.lower(X)
    model.build(X)
    model.summary(X)
    assert_same_nest(attributes(model), before)


def test_a_counter_is_no_reason_for_another_trace() -> None:
    model = Counts()
    step = ek.compile(model, on_retrace="error")
    for k in range(1, 20):
        assert_same_nest(step(X), X * np.float32(k))
    model.steps = 100
    assert_same_nest(step(X), X * np.float32(101))
    assert model.steps == 101
    assert "Counts.steps is read at each call" in str(step.explain())


def test_a_counter_of_another_type_is_another_trace() -> None:
    model, twin = Counts(), Counts()
    step = ek.compile(model, on_retrace="allow")
    for value in (0, 0.5, True, 2**70, 2**63 - 1, 3, np.int32(4)):
        for _ in range(2):
            model.steps = twin.steps = value
            assert_same_nest(step(X), twin(ek.asarray(X)))
            assert_same_nest(model.steps, twin.steps)
            assert type(model.steps) is type(twin.steps)


NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda n, k: n + k - 1 + n,
    "product": lambda n, k: n * k * 3,
    "quotient": lambda n, k: (n + 1) / 7 + 1 / (n + 1),
    "floor": lambda n, k: (n - 5) // 3 + (n - 5) % 3,
    "power": lambda n, k: n**2 + 0.5**n,
    "comparison": lambda n, k: 1 if n > k else 2 if n == 1 else 3,
    "float comparison": lambda n, k: 1.5 if 0.5 * n >= 1.0 else -n,
    "bool": lambda n, k: 5 if n else 7,
    "not": lambda n, k: 5 if not n - 2 else 7,
    "chain": lambda n, k: 1 < n <= 3,
    "text": lambda n, k: len(f"{n}"),
    "int": lambda n, k: int(n / 2) + abs(-n),
    "round": lambda n, k: round(n / 3, 1),
    "range": lambda n, k: sum(range(n)),
    "item": lambda n, k: [4, 5, 6][n % 3],
    "min": lambda n, k: min(n, 3) + max(n, k),
    "mixed": lambda n, k: (n / 2 > k) + (n * 0.5 == 1),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_arithmetic_of_counters_is_that_of_python(name: str) -> None:
    fn = NUMBERS[name]

    class Number(nn.Module):
        def __init__(self) -> None:
            self.n, self.out = 0, None

        def forward(self, x: Any, k: Any) -> Any:
            self.out = fn(self.n, k)
            self.n += 1
            return x * self.out

    model, twin = Number(), Number()
    step = ek.compile(model, on_retrace="allow")
    for _ in range(7):
        assert_same_nest(step(X, 2), twin(ek.asarray(X), 2))
        assert_same_attributes(model, twin)


def test_what_a_step_of_training_writes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.fc = nn.Linear(4, 2, weight_initializer=ek.initializers.Ones)
            self.calls, self.last, self.worst = 0, None, None

        def forward(self, x: Any) -> Any:
            self.calls += 1
            self.last = self.fc(x)
            return (self.last**2).mean()

    class Counted(ek.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.1)
            self._steps = 0

        def step(self, grads: Any = None) -> None:
            self._steps += 1
            super().step(grads)

    def made() -> tuple[Any, Any, Any]:
        net = Net()
        opt = Counted(net)

        def train(x: Any) -> Any:
            loss, grads = ek.value_and_grad(lambda: net(x), net)()
            net.worst = loss
            opt.step(grads)
            return loss

        return net, opt, train

    net, opt, train = made()
    twin, other, eager = made()
    step = ek.compile(train, on_retrace="allow")
    for k in range(4):
        assert_same_nest(step(X + k), eager(ek.asarray(X + k)))
        assert_same_attributes(net, twin)
        assert (net.calls, opt._steps) == (twin.calls, other._steps) == (k + 1, k + 1)
    assert traces(step) == 1
    for model in (net, twin):  # the gradient was taken: what was kept has no history
        with pytest.raises(ek.EinkornError):
            model.last.sum().backward()


def test_a_refused_call_writes_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.n, self.last, self.fail = 0, None, False

        def forward(self, x: Any, k: Any) -> Any:
            self.n += 1
            self.last = x * 2
            if self.fail:
                raise KeyError("mine")
            return x[k]

    net = Net()
    step = ek.compile(net, on_retrace="allow")
    index = np.array([0, 2])
    with pytest.raises(ek.BoundsError):
        step(X, np.array([0, 3]))
    assert (net.n, net.last) == (0, None)
    step(X, index)
    kept = net.last
    with pytest.raises(ek.BoundsError):
        step(X, np.array([0, 3]))
    net.fail = True
    with pytest.raises(KeyError, match="mine"):
        step(X, index)
    assert net.n == 1
    assert net.last is kept


def test_a_callback_that_raises_writes_nothing() -> None:
    seen: list[int] = []
    net = Counts()

    def look(x: Any) -> Any:
        seen.append(net.steps)
        if len(seen) == 2:
            raise ValueError("mine")
        return x

    def fn(x: Any) -> Any:
        y = net(x)
        return ek.callback(look, ek.ShapeDtype(y.shape, "float32"), y)

    step = ek.compile(fn)
    step(X)
    with pytest.raises(ValueError, match="mine"):
        step(X)
    assert net.steps == 1
    step(X)
    assert (net.steps, seen) == (2, [0, 1, 1])  # before the step is committed


def test_branches_on_tensors_write_their_own() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.up, self.down, self.last = 0, 0, "none"

        def forward(self, x: Any) -> Any:
            self.last = "started"
            if x.sum() > 0:
                self.up += 1
                self.last = "up"
                return x * self.up
            self.down -= 1
            self.last = "down"
            return x * self.down

    net, twin = Net(), Net()
    step = ek.compile(net, on_retrace="allow")
    for sign in (1, -1, -1, 1, 1, -1):
        x = np.full((2, 2), sign, np.float32)
        assert_same_nest(step(x), twin(ek.asarray(x)))
        assert_same_attributes(net, twin)
    assert traces(step) == 2


def test_calls_of_many_threads_count_each() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.n, self.h = 0, ek.asarray(np.zeros(4, np.float32))

        def forward(self, x: Any) -> Any:
            self.n += 1
            self.h = self.h + x
            return self.h * 1

    net = Net()
    step = ek.compile(net)
    ones = np.ones(4, np.float32)

    def work() -> None:
        for _ in range(50):
            step(ones)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert net.n == 200
    assert_same_nest(net.h, ones * 200)


def test_what_a_step_in_buckets_writes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.rows, self.mean = 0, ek.asarray(np.zeros(4, np.float32))

        def forward(self, x: Any) -> Any:
            self.rows += x.shape[0]
            self.mean = 0.5 * self.mean + 0.5 * x.mean(axis=0)
            return x - self.mean

    net, twin = Net(), Net()
    step = ek.compile(lambda x: net(x), buckets={"x": {0: "pow2"}}, on_retrace="allow")
    for n in (16, 11, 9, 14):
        x = np.ones((n, 4), np.float32) * n
        assert_same_nest(step(x), twin(ek.asarray(x)))
        assert_same_attributes(net, twin)
    assert traces(step) == 1


def test_other_functions_see_what_was_written() -> None:
    model = Counts()
    step = ek.compile(model)
    reader = ek.compile(lambda x: x * model.steps, on_retrace="allow")
    for k in range(1, 5):
        step(X)
        assert_same_nest(reader(X), X * np.float32(k))
    assert traces(reader) <= 2  # a constant at first, read at each call since steps write it


def test_one_function_for_several_models() -> None:
    one, two = Counts(), Counts()
    step = ek.compile(lambda model, x: model(x), on_retrace="allow")
    for k in range(1, 4):
        assert_same_nest(step(one, X), X * np.float32(k))
    assert_same_nest(step(two, X), X)
    assert (one.steps, two.steps) == (3, 1)


def test_a_method_writes_its_object() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.n = 0

        @ek.compile
        def step(self, x: Any) -> Any:
            self.n += 1
            return x * self.n

    one, two = Net(), Net()
    one.step(X)
    one.step(X)
    two.step(X)
    assert (one.n, two.n) == (2, 1)


def test_names_that_the_code_does_not_show() -> None:
    class Net(nn.Module):
        def forward(self, x: Any, name: str) -> Any:
            n = getattr(self, name, 0) + 1
            setattr(self, name, n)
            return x * n

    net = Net()
    step = ek.compile(net, on_retrace="allow")
    for k in range(1, 6):
        assert_same_nest(step(X, "count"), X * np.float32(k))
    assert traces(step) <= 3  # missing, a constant, read at each call


def test_an_array_of_numpy_is_another_one_in_each_call() -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            self.mask = np.ones(3)
            return x

    net = Net()
    step = ek.compile(net)
    step(X)
    net.mask[:] = 5
    step(X)
    np.testing.assert_array_equal(net.mask, np.ones(3))
    with pytest.raises(ek.TraceError, match=r"Net\.mask"):
        ek.compile(net, strict=True)(X)


def test_no_trace_keeps_a_model_alive() -> None:
    def run(step: Any) -> Any:
        model = Remembers()
        for _ in range(2):
            step(model, X)
        return weakref.ref(model)

    step = ek.compile(lambda model, x: model(x))
    gone = run(step)
    gc.collect()
    assert gone() is None


def test_models_that_were_written_can_be_copied() -> None:
    model = Parts()
    step = ek.compile(model)
    step(X)
    twin = copy.deepcopy(model)
    again = pickle.loads(pickle.dumps(model.one))
    assert_same_attributes(twin, model)
    assert again.steps == model.one.steps
    other = ek.compile(twin)
    assert_same_nest(other(X), step(X))
    assert_same_attributes(twin, model)


def test_a_write_of_the_same_value_is_a_write() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.mode = "a"

        def forward(self, x: Any) -> Any:
            self.mode = "a"
            return x

    net = Net()
    step = ek.compile(net)
    step(X)
    net.mode = "b"
    step(X)
    assert net.mode == "a"


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_of_attributes(seed: int) -> None:
    rng = random.Random(seed)
    actions: list[Callable[[Any, Any], Any]] = [
        lambda m, x: setattr(m, "a", m.a + 1),
        lambda m, x: setattr(m, "b", m.a * 0.5 + m.b),
        lambda m, x: setattr(m, "t", m.t * 0.5 + x),
        lambda m, x: setattr(m, "u", m.t - m.a),
        lambda m, x: setattr(m, "s", m.s[-3:] + "x"),
        lambda m, x: setattr(m, "k", (m.t, m.a, m.k[0])),
        lambda m, x: setattr(m, "a", m.a - 3 if m.a > 4 else m.a),
        lambda m, x: setattr(m, "n", None if m.n is not None else x),
        lambda m, x: setattr(m, "t", m.k[0] + m.b),
    ]
    program = [rng.choice(actions) for _ in range(8)]

    class Net(nn.Module):
        def __init__(self) -> None:
            self.a, self.b, self.s, self.n = 0, 0.0, "", None
            self.t = self.u = ek.asarray(X)
            self.k: Any = (ek.asarray(X), 0, ek.asarray(X))

        def forward(self, x: Any) -> Any:
            for action in program:
                action(self, x)
            return self.t * self.b + self.u + self.a

    net, twin = Net(), Net()
    step = ek.compile(net, on_retrace="allow")
    for k in range(6):
        assert_same_nest(step(X + k), twin(ek.asarray(X + k)))
        assert_same_attributes(net, twin)
