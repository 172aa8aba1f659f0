"""Traps of tracing compilers, one test for each: what comes out is right, or an error says why not.

"Right" is what the same function gives eagerly, call by call.
"""

from __future__ import annotations

import functools
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
