"""Traps of tracing compilers: state, effects and retraces, each right or an error that says why."""

from __future__ import annotations

import gc
import random
import re
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, traces
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def compiled(fn: Callable[..., Any]) -> Any:
    return ek.compile(fn, on_retrace="allow")


def check(step: Any, *args: Any) -> Any:
    """The result of a compiled call, which is that of the eager one."""
    with ek.eager():
        want = step(*args)
    got = step(*args)
    assert_same_nest(got, want)
    return got


# -- state -----------------------------------------------------------------------------------------


def test_an_optimizer_that_is_exchanged() -> None:
    model = ek.nn.Linear(4, 2)
    holder = SimpleNamespace(opt=ek.optim.SGD(model, lr=0.1))

    def train(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: (model(x) ** 2).mean(), model)()
        holder.opt.step(grads)
        return loss

    step = compiled(train)
    for opt in (None, ek.optim.Adam(model, lr=0.01), ek.optim.SGD(model, lr=0.5)):
        holder.opt = opt or holder.opt
        for _ in range(2):
            start = model.state_dict()
            kept = holder.opt.state_dict() if hasattr(holder.opt, "state_dict") else None
            with ek.eager():
                want, after = step(X), model.state_dict()
            model.load_state_dict(start)
            if kept is not None:
                holder.opt.load_state_dict(kept)
            assert_same_bits(step(X).numpy(), want.numpy())
            assert_same_nest(model.state_dict(), after)


def test_a_leaf_that_is_exchanged() -> None:
    holder = SimpleNamespace(w=ek.tensor(X, trainable=False))
    step = compiled(lambda x: x * holder.w)
    check(step, X)
    holder.w = ek.tensor(X * 3, trainable=False)
    check(step, X)
    holder.w.value = X * 5
    check(step, X)
    assert traces(step) == 2


def test_weights_that_are_tied() -> None:
    class Tied(ek.nn.Module):
        def __init__(self) -> None:
            self.a, self.b = ek.nn.Linear(4, 4), ek.nn.Linear(4, 4)
            self.b.w = self.a.w

        def forward(self, x: Any) -> Any:
            return self.b(self.a(x)).sum()

    model = Tied()
    gradient = compiled(ek.grad(lambda x: model(x), model))
    check(gradient, X)
    model.b.w = None
    model.b.w = ek.Parameter(X[:1].repeat(4, 0))
    check(gradient, X)


def test_the_same_leaf_as_argument_and_capture() -> None:
    w = ek.tensor(X, trainable=False)

    @ek.compile
    def step(v: Any) -> Any:
        w.value = w + 1
        return v * w

    assert_same_bits(step(w).numpy(), (X + 1) * (X + 1))


def test_masks_are_other_ones_in_each_call_and_the_same_as_eager() -> None:
    drop = ek.nn.Dropout(0.5)
    step = compiled(lambda x: drop(x))
    ones = np.ones((64, 8), np.float32)
    ek.random.seed(3)
    first = [step(ones).numpy() for _ in range(3)]
    ek.random.seed(3)
    with ek.eager():
        again = [step(ones).numpy() for _ in range(3)]
    for a, b in zip(first, again):
        assert_same_bits(a, b)
    assert not np.array_equal(first[0], first[1])


def test_statistics_are_updated_once_for_each_call() -> None:
    mean = ek.tensor(np.zeros(4, np.float32), trainable=False)

    @ek.compile
    def step(x: Any) -> Any:
        mean.value = 0.5 * mean + 0.5 * x.mean(axis=0)
        return x - mean

    want = np.zeros(4, np.float32)
    for k in range(4):
        step(X + k)
        want = np.float32(0.5) * want + np.float32(0.5) * ek.mean(X + k, axis=0).numpy()
    assert_same_bits(mean.numpy(), want)


def test_an_exception_in_the_middle_changes_nothing() -> None:
    w = ek.tensor(X, trainable=False)
    holder = SimpleNamespace(fail=True)

    def fn(x: Any) -> Any:
        w.value = w * 2
        if holder.fail:
            raise KeyError("mine")
        return x * w

    step = compiled(fn)
    with pytest.raises(KeyError, match="mine"):
        step(X)
    assert_same_bits(w.numpy(), X)
    holder.fail = False
    assert_same_bits(step(X).numpy(), X * (X * 2))
    holder.fail = True
    with pytest.raises(KeyError, match="mine"):
        step(X)
    assert_same_bits(w.numpy(), X * 2)


def test_two_models_of_one_class_share_nothing() -> None:
    class Net(ek.nn.Module):
        def __init__(self, k: float) -> None:
            self.w = ek.Parameter(X * k)
            self.k = k

        @ek.compile
        def loss(self, x: Any) -> Any:
            return (self.w * x * self.k).sum()

    one, two = Net(2.0), Net(3.0)
    for _ in range(2):
        for net in (one, two):
            assert_same_bits(net.loss(X).numpy(), ek.sum(X * net.k * X * net.k).numpy())
    one.k = 5.0
    with ek.eager():
        want = one.loss(X).numpy()
    assert_same_bits(one.loss(X).numpy(), want)


def test_models_at_the_address_of_one_that_is_gone() -> None:
    step = compiled(lambda x, net: net(x))

    class Net(ek.nn.Module):
        def __init__(self, k: float) -> None:
            self.k = k

        def forward(self, x: Any) -> Any:
            return x * self.k

    for k in range(12):
        assert_same_bits(step(X, Net(float(k))).numpy(), X * np.float32(k))
        gc.collect()


def test_traces_keep_no_model_alive() -> None:
    import weakref

    holder = SimpleNamespace(net=None)
    step = compiled(lambda x: holder.net(x).detach())
    gone: list[Any] = []
    for _ in range(4):
        holder.net = ek.nn.Linear(4, 4)
        gone.append(weakref.ref(holder.net))
        step(X)
    holder.net = None
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4


def test_a_schedule_that_is_read_as_a_number() -> None:
    w = ek.Parameter(X)
    opt = ek.optim.SGD([w], lr=0.1)

    @ek.compile
    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: (w * x).sum(), [w])()
        opt.step(grads)
        return loss

    want = X
    for rate in (0.1, 0.05, 0.025):
        opt.lr = rate
        step(X)
        want = want - np.float32(rate) * X
        assert_same_bits(w.numpy(), want)
    assert traces(step) == 1


# -- effects ---------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)

EFFECTS: dict[str, Callable[[Any], Any]] = {
    "print": lambda x: (print("traced"), x)[1],  # noqa: T201
    "np.random function": lambda x: x * np.random.rand(),
    "np.random generator": lambda x: x * RNG.normal(),
    "random": lambda x: x * random.random(),
    "random function": lambda x: x * random.randint(1, 6),
    "open": lambda x: (open("/dev/null").close(), x)[1],
}


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_that_a_call_would_not_repeat_are_refused(name: str) -> None:
    state = RNG.bit_generator.state
    step = ek.compile(EFFECTS[name])
    for _ in range(2):
        with pytest.raises(ek.TraceError, match=r"while .* was being traced.*test_footguns"):
            step(X)
    assert RNG.bit_generator.state == state
    with ek.eager():
        step(X)


def test_effects_that_do_not_happen_are_not_refused() -> None:
    def fn(x: Any, verbose: bool = False) -> Any:
        if verbose:
            print("verbose")  # noqa: T201
        return x * 2

    assert_same_bits(ek.compile(fn)(X).numpy(), X * 2)
    with pytest.raises(ek.TraceError, match="print was called"):
        ek.compile(fn)(X, True)


# -- policy ----------------------------------------------------------------------------------------


def test_a_retrace_that_is_forbidden_changes_nothing() -> None:
    w = ek.tensor(np.float32(0), trainable=False)

    @ek.compile(on_retrace="error")
    def step(x: Any) -> Any:
        w.value = w + 1
        return x.sum()

    step(X)
    with pytest.raises(ek.TraceError, match=r"on_retrace='error' forbids: new kinds.*f32\[2,4\]"):
        step(X[:2])
    assert w.item() == 1
    step(X)
    assert w.item() == 2


def test_warnings_of_retraces() -> None:
    step = ek.compile(lambda x: x.sum(), on_retrace="warn")
    step(X)
    with pytest.warns(ek.RetraceWarning, match=r"new kinds of arguments: f32\[2,4\]") as caught:
        step(X[:2])
    assert caught[0].filename == __file__
    many = ek.compile(lambda x: x.sum())
    for k in range(1, 9):
        many(np.ones(k, np.float32))
    with pytest.warns(ek.RetraceWarning, match="has been traced 8 times"):
        many(np.ones(9, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many(np.ones(10, np.float32))  # once is enough


def test_a_lambda_is_named_by_its_line() -> None:
    step = ek.compile(lambda x, k: x[k], on_retrace="warn")
    place = r"<lambda> at test_footguns_state\.py:\d+"
    step(X, np.array([1]))
    with pytest.warns(ek.RetraceWarning, match=rf"^{place} is traced again: new kinds"):
        step(X[:2], np.array([1]))
    with pytest.raises(ek.BoundsError, match=rf"^{place}: an index is out of range"):
        step(X, np.array([7]))
    with pytest.raises(ek.TraceError, match=rf"print was called while {place} was being traced"):
        ek.compile(lambda x: (print("here"), x)[1])(X)  # noqa: T201
    assert re.match(f"<compiled {place}>$", repr(step))
    assert re.match(f"{place}: 2 traces", str(step.explain()))
    assert "graph compiled(" in str(ek.trace(lambda x: x * 2)(X))  # an identifier there


def test_a_condition_is_told_once() -> None:
    inner = [ek.compile(lambda x: ek.nn.relu(x @ x.T)) for _ in range(3)]
    step = ek.compile(lambda x: ek.vmap(lambda y: y @ x.T)(x[None]) + sum(f(x) for f in inner))
    step(X)
    (trace,) = step.explain().traces
    assert trace.guards.count("autocast was off") == 1
    assert len(trace.guards) == len(set(trace.guards))


def test_a_number_that_changes_again_brings_the_hint() -> None:
    holder = SimpleNamespace(k=1.0)
    step = ek.compile(lambda x: x * holder.k)
    step(X)
    holder.k = 2.0
    step(X)
    holder.k = 3.0
    with pytest.warns(ek.RetraceWarning, match=r"holder\.k.*pass it as an argument"):
        step(X)


def test_traces_are_bounded() -> None:
    step = ek.compile(lambda x: x * 2, on_retrace="allow", max_traces=3)
    for k in range(1, 8):
        step(np.ones(k, np.float32))
    told = step.explain()
    assert (len(told.traces), told.made) == (3, 7)
    assert "4 more were dropped" in str(told)
    assert_same_bits(step(X).numpy(), X * 2)


@pytest.mark.parametrize(
    "options", [{"on_retrace": "maybe"}, {"max_traces": 0}, {"max_traces": 1.5}]
)
def test_policies_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ek.EinkornError):
        ek.compile(lambda x: x, **options)


def test_caches_can_be_cleared() -> None:
    step = ek.compile(lambda x: x * 2)
    step(X)
    ek.clear_caches()
    assert step.explain().traces == ()
    assert_same_bits(step(X).numpy(), X * 2)
