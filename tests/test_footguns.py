"""Traps of tracing compilers, one test for each: what comes out is right, or an error says why not.

"Right" is what the same function gives eagerly, call by call.
"""

from __future__ import annotations

import functools
import gc
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, traces
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)

FACTOR = 2.0
TABLE = {"rate": 0.5, "names": ["a", "b"]}
LAYERS: list[Any] = []


def compiled(fn: Callable[..., Any]) -> Any:
    return ek.compile(fn, on_retrace="allow")


def check(step: Any, *args: Any) -> Any:
    """The result of a compiled call, which is that of the eager one."""
    with ek.eager():
        want = step(*args)
    got = step(*args)
    assert_same_nest(got, want)
    return got


# -- names -----------------------------------------------------------------------------------------


def test_closures_over_a_loop_variable() -> None:
    steps = [compiled(lambda x: x * k) for k in (1.0, 2.0, 3.0)]  # noqa: B023 # that is the trap
    for step in steps:
        assert_same_bits(step(X).numpy(), X * 3)  # as in Python: all see the last value
    bound = [compiled(lambda x, k=k: x * k) for k in (1.0, 2.0, 3.0)]
    for k, step in enumerate(bound, 1):
        assert_same_bits(step(X).numpy(), X * np.float32(k))


def test_a_mutable_default() -> None:
    def scale(x: Any, by: Any = [2.0]) -> Any:  # noqa: B006 # that is the trap
        return x * by[0]

    step = compiled(lambda x: scale(x))
    for number in (2.0, 5.0, -0.0, 0.0):
        scale.__defaults__[0][0] = number
        check(step, X)
    assert traces(step) == 4


def test_a_helper_of_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    def inner(x: Any) -> Any:
        return x * FACTOR + TABLE["rate"]

    def outer(x: Any) -> Any:
        return inner(x) + 1

    step = compiled(lambda x: outer(x))
    check(step, X)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    check(step, X)
    monkeypatch.setitem(TABLE, "rate", 0.25)
    check(step, X)
    assert traces(step) == 3


def test_a_function_that_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SimpleNamespace(activation=ek.tanh)
    step = compiled(lambda x: space.activation(x))
    check(step, X)
    space.activation = ek.nn.relu
    check(step, X)
    holder = {"f": lambda x: x + 1}
    other = compiled(lambda x: holder["f"](x))
    check(other, X)
    holder["f"] = lambda x: x - 1
    check(other, X)


def test_code_that_is_exchanged() -> None:
    def helper(x: Any) -> Any:
        return x + 1

    def better(x: Any) -> Any:
        return x + 2

    step = compiled(lambda x: helper(x))
    check(step, X)
    helper.__code__ = better.__code__
    assert_same_bits(check(step, X).numpy(), X + 2)


def test_a_list_of_layers_as_a_global() -> None:
    LAYERS[:] = [ek.nn.Linear(4, 4)]

    def forward(x: Any) -> Any:
        for layer in LAYERS:
            x = layer(x)
        return x.detach()

    step = compiled(forward)
    check(step, X)
    LAYERS.append(ek.nn.Linear(4, 2))
    assert check(step, X).shape == (3, 2)
    LAYERS[1] = ek.nn.Linear(4, 3)
    assert check(step, X).shape == (3, 3)
    LAYERS.clear()
    assert_same_bits(check(step, X).numpy(), X)


@pytest.mark.parametrize(
    "numbers", [(0.0, -0.0), (1, True, 1.0), (float("nan"), 1.0), (2, 2.0), ("a", "b")]
)
def test_values_that_compare_equal_are_told_apart(numbers: tuple[Any, ...]) -> None:
    holder = SimpleNamespace(value=None)
    step = compiled(lambda x: x * (len(holder.value) if holder.value == "a" else 3.0)
                    if isinstance(holder.value, str) else 1 / (x * holder.value))  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        for number in numbers * 2:
            holder.value = number
            check(step, X)
    assert traces(step) == len(numbers)


def test_attributes_of_objects_of_all_kinds() -> None:
    class Slots:
        __slots__ = ("k",)

    class Plain:
        shared = 2.0

        def __init__(self) -> None:
            self.k = 1.0

        @property
        def twice(self) -> float:
            return self.k * 2

        @staticmethod
        def constant() -> float:
            return FACTOR

        @classmethod
        def of_class(cls) -> float:
            return cls.shared

    slots, plain = Slots(), Plain()
    slots.k = 1.0

    def fn(x: Any) -> Any:
        return x * slots.k + plain.twice * plain.shared + plain.constant() + plain.of_class()

    step = compiled(fn)
    check(step, X)
    for change in (
        lambda: setattr(slots, "k", 3.0),
        lambda: setattr(plain, "k", 4.0),
        lambda: setattr(Plain, "shared", 5.0),
        lambda: setattr(plain, "shared", 6.0),
        lambda: plain.__dict__.update(k=7.0),
    ):
        change()
        check(step, X)
    assert traces(step) == 6


def test_an_object_reached_through_a_local_name() -> None:
    config = SimpleNamespace(inner=SimpleNamespace(rate=0.5, sizes=[1, 2]))

    def fn(x: Any) -> Any:
        inner = config.inner
        chosen, sizes = inner, inner.sizes
        return x * chosen.rate + sizes[1]

    step = compiled(fn)
    check(step, X)
    config.inner.rate = 0.25
    check(step, X)
    config.inner.sizes[1] = 7
    check(step, X)
    config.inner = SimpleNamespace(rate=2.0, sizes=(0, 1))
    check(step, X)
    assert traces(step) == 4


def test_a_configuration_as_an_argument() -> None:
    class Config:
        def __init__(self) -> None:
            self.rate, self.nested = 0.5, SimpleNamespace(k=1.0)

    config = Config()

    def deep(x: Any, config: Any) -> Any:
        return x * config.rate + config.nested.k

    step = compiled(lambda x, c: deep(x, c) + 1)
    check(step, X, config)
    config.rate = 2.0
    check(step, X, config)
    config.nested.k = -1.0
    check(step, X, config)
    other = Config()
    check(step, X, other)
    other.rate = 9.0
    check(step, X, other)


def test_a_module_keeps_plain_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(ek.nn.Module):
        scale = 1.5

        def __init__(self, config: Any) -> None:
            self.config = config
            self.steps = [1.0, 2.0]

        def forward(self, x: Any) -> Any:
            for k in self.steps:
                x = x * k
            return x * self.config["rate"] * self.scale

    config = {"rate": 0.5}
    net = Net(config)
    step = compiled(net)
    check(step, X)
    config["rate"] = 0.75
    check(step, X)
    net.steps[0] = 4.0
    check(step, X)
    monkeypatch.setattr(Net, "scale", 2.5)
    check(step, X)
    net.scale = 3.5
    check(step, X)


def test_partial_functions_and_decorated_ones() -> None:
    def scaled(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args) * holder.k

        return wrapper

    holder = SimpleNamespace(k=2.0)

    @scaled
    def base(x: Any, by: float) -> Any:
        return x * by + holder.shift

    holder.shift = 1.0
    step = compiled(functools.partial(base, by=3.0) if False else lambda x: base(x, 3.0))
    check(step, X)
    holder.k = 4.0
    check(step, X)
    holder.shift = 5.0
    check(step, X)
    part = functools.partial(lambda x, by: x * by * holder.k, by=2.0)
    bound = compiled(part)
    check(bound, X)
    holder.k = 5.0
    check(bound, X)


def test_recursion_and_mutual_calls() -> None:
    limit = SimpleNamespace(depth=3)

    def power(x: Any, n: int) -> Any:
        return x if n >= limit.depth else x * power(x, n + 1)

    step = compiled(lambda x: power(x, 0))
    check(step, X)
    limit.depth = 1
    check(step, X)


def test_what_a_function_only_writes_to_is_no_condition() -> None:
    log: list[int] = []
    seen: dict[str, int] = {}

    def fn(x: Any) -> Any:
        log.append(1)
        seen["x"] = 1
        return x + 1

    step = ek.compile(fn, on_retrace="error")
    for _ in range(3):
        step(X)
        seen["other"] = 1
        log.append(2)
    assert log.count(1) == 1


def test_what_a_function_counts_in_python_is_right_and_loud() -> None:
    holder = SimpleNamespace(count=0)

    def fn(x: Any) -> Any:
        holder.count += 1
        return x * holder.count

    step = ek.compile(fn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(1, 6):
            assert_same_bits(step(X).numpy(), X * np.float32(k))
    assert any("holder.count" in str(w.message) for w in caught)
    assert all(issubclass(w.category, ek.RetraceWarning) for w in caught)


def test_objects_made_while_tracing_are_no_condition() -> None:
    def fn(x: Any) -> Any:
        box = SimpleNamespace(k=2.0, parts=[])
        box.parts.append(x * box.k)
        helper = lambda y: y + box.k  # noqa: E731
        box.k = 3.0
        return helper(box.parts[0])

    step = ek.compile(fn, on_retrace="error")
    for _ in range(3):
        assert_same_bits(step(X).numpy(), X * 2 + 3)


# -- arguments -------------------------------------------------------------------------------------


def test_arguments_that_become_arrays_and_back() -> None:
    step = compiled(lambda x, mask=None: x if mask is None else ek.where(mask, x, 0.0))
    mask = X > 0
    for value in (None, mask, None, mask):
        check(step, X, value)
    assert traces(step) == 2


def test_the_order_of_keyword_arguments() -> None:
    step = compiled(lambda x, **kw: x * kw["a"] - kw["b"])
    one, two = step(X, a=2.0, b=3.0), step(X, b=3.0, a=2.0)
    assert_same_bits(one.numpy(), two.numpy())
    assert traces(step) == 1


def test_lists_of_arrays_are_inputs() -> None:
    step = compiled(lambda xs: xs[0] + xs[1] * 2)
    for k in range(3):
        check(step, [X + k, X * k])
    check(step, [X, X[0]])
    assert traces(step) == 2


def test_a_dataclass_of_arrays_and_settings() -> None:
    @dataclass
    class Batch:
        x: Any
        scale: float
        flip: bool

    step = compiled(lambda b: -b.x * b.scale if b.flip else b.x * b.scale)
    for k in range(3):
        check(step, Batch(X + k, 0.5 * k, False))
    check(step, Batch(X, 0.5, True))
    assert traces(step) == 2


def test_weak_scalars_keep_the_dtype_of_the_array() -> None:
    step = compiled(lambda x, k: x * k)
    half = X.astype(np.float16)
    assert check(step, half, 0.1).dtype == ek.float16
    assert check(step, half, np.float32(0.1)).dtype == ek.float32
    assert check(step, X, 2).dtype == ek.float32


def test_arrays_are_read_at_each_call() -> None:
    held = X.copy()
    step = compiled(lambda x: x + held)
    first = step(X)
    held *= 3
    assert_same_bits(step(X).numpy(), X + held)
    assert_same_bits(first.numpy(), X + X)
    view = held[1]
    rows = compiled(lambda: ek.multiply(view, 2))
    check(rows)
    held[1] = 7
    assert_same_bits(check(rows).numpy(), held[1] * 2)


def test_arrays_that_become_constants_are_listed_and_can_be_refused() -> None:
    held = X.copy()
    model = SimpleNamespace(mask=X > 0, parts=[X, ek.asarray(X)])

    def seen(x: Any) -> Any:
        return x + held + ek.where(model.mask, x, 0.0) + model.parts[0] * model.parts[1]

    def baked(x: Any) -> Any:
        return x + np.exp(held)

    assert ek.compile(seen, strict=True)(X).shape == X.shape
    step = ek.compile(baked)
    step(X)
    (constant,) = step.explain().traces[0].constants
    assert constant.startswith("f32[3,4] used at test_footguns.py:")
    with pytest.raises(ek.TraceError, match=r"strict=True refuses: f32\[3,4\] used at test_foot"):
        ek.compile(baked, strict=True)(X)
    with pytest.raises(ek.TraceError, match="a returned NumPy array of shape"):
        ek.compile(lambda: held * 2, strict=True)()


def test_outputs_do_not_change_with_the_next_call() -> None:
    step = compiled(lambda x: x * 2)
    outputs = [step(X + k) for k in range(4)]
    for k, out in enumerate(outputs):
        assert_same_bits(out.numpy(), (X + np.float32(k)) * 2)


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
    with pytest.warns(ek.RetraceWarning, match=r"new kinds of arguments: f32\[2,4\]"):
        step(X[:2])
    many = ek.compile(lambda x: x.sum())
    for k in range(1, 9):
        many(np.ones(k, np.float32))
    with pytest.warns(ek.RetraceWarning, match="has been traced 8 times"):
        many(np.ones(9, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many(np.ones(10, np.float32))  # once is enough


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
