"""What a compiled function refuses, and what its errors say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compile_checks import both, state
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def branch(x: Any) -> Any:
    total = x.sum()  # the line that the error names
    if total > 0:
        return x
    return -x


def loop(x: Any) -> Any:
    while x.sum() > 0:
        x = x - 1
    return x


READERS: dict[str, Callable[[Any], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "index": lambda x: "abcdefghijkl"[x.argmax()],
    "asarray": lambda x: np.asarray(x),
    "numpy": lambda x: x.numpy(),
    "numpy-function": lambda x: np.cbrt(x),
    "tolist": lambda x: x.tolist(),
    "range": lambda x: list(range(x.argmax())),
    "dlpack": lambda x: np.from_dlpack(x),
    "format": lambda x: f"{x.sum():.3f}",
}


@pytest.mark.parametrize("name", READERS)
def test_values_do_not_exist_while_tracing(name: str) -> None:
    fn = READERS[name]
    step = ek.compile(fn, name="my_step")
    with pytest.raises(ek.TraceError) as info:
        step(X)
    message = str(info.value)
    assert "my_step" in message
    assert re.search(r"ek\.where|return the tensor", message)
    with ek.eager():
        fn(ek.asarray(X))  # none of them is an error of the user's outside of a trace


@pytest.mark.parametrize("fn", [branch, loop])
def test_a_tensor_branch_that_cannot_be_decided_names_the_users_line(fn: Any) -> None:
    line = fn.__code__.co_firstlineno
    inner = ek.compile(fn)
    with pytest.raises(ek.TraceError, match=r"ek\.where\(condition, a, b\)") as info:
        ek.compile(lambda x: inner(x) + 1)(X)
    assert re.search(rf"test_compile_errors\.py:({line + 1}|{line + 2})\b", str(info.value))
    assert "if t:" in str(info.value)
    assert fn.__name__ in str(info.value)


def test_escaped_tracers_name_their_function() -> None:
    @ek.compile
    def leaky(x: Any) -> Any:
        y = x * 2
        return lambda: y

    tracer = leaky(X)()
    uses: list[Callable[[], Any]] = [
        lambda: tracer + 1,
        lambda: tracer.numpy(),
        lambda: tracer.sum(),
        lambda: tracer.sum().backward(),
        lambda: float(tracer.sum()),
        lambda: ek.compile(lambda y: y + tracer)(X),
        lambda: ek.compile(lambda y: y)(tracer),
        lambda: ek.tensor(tracer),
    ]
    for use in uses:
        with pytest.raises(ek.EinkornError, match="leaky"):
            use()
    assert "leaky" in repr(tracer)
    w = ek.tensor(X)
    with pytest.raises(ek.EinkornError, match="leaky"):
        w.value = tracer
    assert_same_bits(w.numpy(), X)


def test_tracers_of_an_outer_function_may_be_used_inside() -> None:
    @ek.compile
    def outer(x: Any) -> Any:
        inner = ek.compile(lambda y: y * x.sum())
        return inner(x) + inner(x * 2)

    both(outer, X)


def test_a_tracer_of_an_inner_function_does_not_escape_to_the_outer_one() -> None:
    kept: list[Any] = []

    @ek.compile
    def inner(y: Any) -> Any:
        kept.append(y * 2)
        return y

    @ek.compile
    def outer(x: Any) -> Any:
        return inner(x) + kept[0]

    with pytest.raises(ek.EinkornError, match="inner"):
        outer(X)


def test_errors_of_ops_are_those_of_eager_mode() -> None:
    bad: list[Callable[[Any], Any]] = [
        lambda x: x @ x,
        lambda x: x + np.ones(5, np.float32),
        lambda x: x.reshape(5, 5),
        lambda x: x.sum(axis=7),
        lambda x: x[5],
        lambda x: x & 1,
    ]
    for fn in bad:
        with pytest.raises(ek.EinkornError) as eager:
            fn(ek.asarray(X))
        with pytest.raises(type(eager.value)) as compiled:
            ek.compile(fn)(X)
        assert str(compiled.value).split("\n")[0] == str(eager.value).split("\n")[0]


def test_exceptions_of_the_user_pass_through_unchanged() -> None:
    class Mine(Exception):
        pass

    def step(x: Any) -> Any:
        raise Mine("as it is")

    with pytest.raises(Mine, match=r"^as it is$"):
        ek.compile(step)(X)


def test_what_is_not_a_function_is_refused() -> None:
    with pytest.raises(ek.EinkornError, match="needs a function"):
        ek.compile(3)
    with pytest.raises(ek.EinkornError, match="no backend 'gpu'"):
        ek.compile(branch, backend="gpu")


def test_writing_into_a_tensor_is_refused() -> None:
    def write(x: Any) -> Any:
        x[0] = 1.0
        return x

    with pytest.raises(ek.StateError, match=r"x\.at\[0\]\.set\(value\)"):
        ek.compile(write)(X)

    w = ek.tensor(X)

    def in_place(x: Any) -> Any:
        nonlocal w
        w += x
        return w

    with pytest.raises(ek.StateError, match=r"\.value = "):
        ek.compile(in_place)(X)
    assert state(w) == state(ek.tensor(X))


def test_trace_and_lower_run_nothing() -> None:
    w = ek.tensor(X, trainable=False)

    @ek.compile
    def step(x: Any) -> Any:
        w.value = w + x
        return ek.random.uniform((2,))

    ek.random.seed(5)
    before = state(w, ek.random.default_generator().draw)
    graph = step.trace(X)
    low = step.lower(X)
    assert len(graph.updates) == 2
    assert next(iter(low.stages)) == "trace"
    assert list(low.stages)[-1] == "plan-memory"
    assert "add" in low.ir()
    assert "define" in low.llvm_ir()
    assert state(w, ek.random.default_generator().draw) == before
    assert str(ek.parse(str(graph))) == str(graph)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True])
def test_thread_counts_are_checked(bad: Any) -> None:
    with pytest.raises(ek.EinkornError, match="at least 1"):
        ek.compile(lambda x: x, threads=bad)
    with pytest.raises(ek.EinkornError, match="at least 1"), ek.settings(threads=bad):
        pass


def test_errors_of_native_code_name_line_module_and_shapes() -> None:
    class Rows(ek.nn.Module):
        def __init__(self) -> None:
            self.table = ek.Parameter(X)

        def forward(self, i: Any, a: Any) -> Any:
            return self.table[i].sum() + ek.linalg.inv(a).sum()

    class Net(ek.nn.Module):
        def __init__(self) -> None:
            self.rows = Rows()

        def forward(self, i: Any, a: Any) -> Any:
            return self.rows(i, a)

    line = Rows.forward.__code__.co_firstlineno + 1
    place = rf"net/rows  test_compile_errors\.py:{line}"
    step, unit = ek.compile(Net()), np.eye(2)
    step(np.array([0]), unit)
    with pytest.raises(ek.BoundsError, match=f"{place}, along an axis of 3 elements"):
        step(np.array([3]), unit)
    with pytest.raises(ek.LinAlgError, match=rf"{place}, with f64\[2,2\].*no state changed"):
        step(np.array([0]), unit * 0)
