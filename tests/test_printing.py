"""`ek.print` in compiled functions: each call prints what the eager code prints, once."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


@dataclass
class Row:
    values: Any
    rate: Any


def printed(capsys: pytest.CaptureFixture[str], call: Callable[[], Any]) -> str:
    capsys.readouterr()
    call()
    return capsys.readouterr().out


def check(capsys: pytest.CaptureFixture[str], step: Any, *args: Any) -> str:
    """What a call prints, which is what the eager one prints."""

    def eager() -> None:
        with ek.eager():
            step(*args)

    want = printed(capsys, eager)
    assert printed(capsys, lambda: step(*args)) == want
    return want


def test_tensors_numbers_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    @ek.compile
    def step(x: Any, k: float) -> Any:
        ek.print("sum", x.sum(), "of", 12, None)
        y = x * k
        ek.print(y[0], k, k * 2, sep=" | ", end="!\n")
        ek.print()
        return y

    for k in (0.5, 2.0, 2.0):
        text = check(capsys, step, X * np.float32(k), k)
    assert text.startswith("sum Tensor(")
    assert "| 2.0 | 4.0!" in text
    assert len(step.explain().traces) == 1


def test_gradients_state_and_recorded_calls(capsys: pytest.CaptureFixture[str]) -> None:
    w = ek.Parameter(X)

    def loss(x: Any) -> Any:
        y = (w * x).sum()
        ek.print("loss", y)
        return y

    @ek.compile
    def step(x: Any) -> Any:
        value, grad = ek.value_and_grad(loss, w)(x)
        ek.print("gradient", grad[0])
        return value

    for _ in range(2):
        assert check(capsys, step, X).count("\n") == 2
        assert check(capsys, ek.compile(loss), X).startswith("loss")


def test_a_leaf_is_printed_as_it_is_at_that_line(capsys: pytest.CaptureFixture[str]) -> None:
    w = ek.Parameter(X[0], name="w")
    count = ek.tensor(0, trainable=False)

    @ek.compile
    def inner(x: Any) -> Any:
        ek.print("inner", w)
        w.value = w * 2
        ek.print("doubled", w)
        return x

    @ek.compile
    def step(x: Any) -> Any:
        ek.print(w, count)
        w.value, count.value = w - 1, count + 1
        ek.print("changed", w, count)
        fresh = ek.tensor(X[0])
        ek.print(fresh)
        fresh.value = fresh + 1
        return inner(x) * fresh

    for _ in range(3):
        before = w.numpy().copy(), count.numpy().copy()
        with ek.eager():
            want = printed(capsys, lambda: step(X))
        w.value, count.value = before
        assert printed(capsys, lambda: step(X)) == want
        assert "name='w'" in want


def test_tensors_and_numbers_in_nests(capsys: pytest.CaptureFixture[str]) -> None:
    model = ek.nn.Linear(4, 2)

    @ek.compile
    def step(x: Any, k: float) -> Any:
        ek.print([x[0], k], {"sum": (x.sum(), k + 1), "none": None}, model.v, Row(x[1], k))
        return x

    for k in (0.5, 2.0, 2.5):
        assert "Row(" in check(capsys, step, X * np.float32(k), k)
    assert len(step.explain().traces) == 1


def test_a_text_of_a_tensor_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    @ek.compile
    def step(x: Any) -> Any:
        ek.print(f"loss {x.sum()}")
        return x

    message = r"print at test_printing\.py:\d+: the text 'loss .*pass the tensor itself"
    with pytest.raises(ek.TraceError, match=message):
        step(X)
    assert capsys.readouterr().out == ""


def test_a_compiled_function_inside_another(capsys: pytest.CaptureFixture[str]) -> None:
    @ek.compile
    def inner(x: Any) -> Any:
        ek.print("inner", x.max())
        return x + 1

    @ek.compile
    def outer(x: Any) -> Any:
        ek.print("before")
        y = inner(inner(x) * 2)
        ek.print("after", y.min())
        return y

    lines = check(capsys, outer, X).splitlines()
    assert [line.split()[0] for line in lines] == ["before", "inner", "inner", "after"]


def test_branches_print_once(capsys: pytest.CaptureFixture[str]) -> None:
    @ek.compile(on_retrace="allow")
    def step(x: Any) -> Any:
        ek.print("start")
        if x.sum() > 0:
            ek.print("more", x.sum())
            return x
        ek.print("less", x.sum())
        return -x

    for k in (1, -1, 2, -2):
        text = check(capsys, step, X + np.float32(k))
        assert text.count("start") == 1
        assert ("more" in text) is (k > 0)


def test_a_step_that_is_refused_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    @ek.compile
    def step(i: Any) -> Any:
        ek.print("taking", i)
        return ek.take(X, i, axis=0)

    step(np.array([1]))
    capsys.readouterr()
    with pytest.raises(ek.BoundsError):
        step(np.array([9]))
    assert capsys.readouterr().out == ""


def test_other_files(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()

    @ek.compile
    def step(x: Any) -> Any:
        ek.print(x.sum(), file=file)
        return x

    step(X)
    step(X + 1)
    assert file.getvalue().count("Tensor") == 2
    assert capsys.readouterr().out == ""


def test_lowering_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    step = ek.compile(lambda x: (ek.print(x), x)[1])
    step.lower(X)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: ek.scan(lambda c, v: (ek.print(v), (c, v))[1], x[0], x),
        lambda x: ek.vmap(lambda v: (ek.print(v), v)[1])(x),
        lambda x: ek.cond(x.sum() > 0, lambda: (ek.print(x), x)[1], lambda: x),
    ],
)
def test_where_there_is_no_moment_of_printing(fn: Any) -> None:
    for call in (fn, ek.compile(fn)):
        with pytest.raises(ek.TraceError, match=r"ek\.print at test_printing\.py:\d+: inside of"):
            call(ek.asarray(X))
