"""Arguments and settings of calls of a trace that is known: recognised quickly, or looked at."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.tunable import Mode, Tunable

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def test_arrays_of_every_memory_layout() -> None:
    step = ek.compile(lambda x, y: x * 2 + y)
    wide = np.zeros((3, 8), np.float32)
    wide[:, ::2] = X
    raw = np.zeros(49, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(3, 4)
    unaligned[...] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    layouts = [
        X,
        np.asfortranarray(X),
        wide[:, ::2],
        X[::-1][::-1],
        unaligned,
        read_only,
        X.astype(">f4"),
        X.view(np.ndarray),
        np.ma.MaskedArray(X).data,
        X.view(type("Sub", (np.ndarray,), {})),
        ek.asarray(X),
        ek.asarray(X.copy(), copy=False),
        ek.asarray(X).T.T,
    ]
    for _ in range(2):
        for x in layouts:
            for y in (X, ek.asarray(X)):
                assert_same_bits(step(x, y).numpy(), X * 2 + X)
    assert traces(step) == 1


def test_kinds_of_arguments_that_come_in_turns() -> None:
    def fn(x: Any, y: Any, k: Any = 1.0, flag: bool = True, name: str | None = None) -> Any:
        out = x + y * k if flag else x - y * k
        return out * 2 if name == "twice" else out

    step = ek.compile(fn, on_retrace="allow")
    calls = [
        ((X, X), {}),
        ((X, X, 2.0), {}),
        ((X, X), {"k": 3.0}),
        ((X, X), {"flag": False, "k": 3.0}),
        ((X, X), {"k": 4.0, "flag": False}),
        ((X, X, 2), {"name": "twice"}),
        ((X, X, 2, True, None), {}),
        ((X[:2], X[:2]), {"k": 0.5}),
        ((X, X[0]), {}),
        ((X.astype(np.float64), X.astype(np.float64)), {}),
        ((X,), {"y": X}),
        ((X, ek.asarray(X), np.float32(2)), {}),
        ((X, 2.0), {}),
        ((X, 2), {}),
    ]
    with ek.eager():
        wants = [step(*args, **kwargs).numpy() for args, kwargs in calls]
    for _ in range(3):
        for (args, kwargs), want in zip(calls, wants):
            assert_same_bits(step(*args, **kwargs).numpy(), want)
    count = traces(step)
    rng = random.Random(0)
    for _ in range(60):
        k = rng.randrange(len(calls))
        assert_same_bits(step(*calls[k][0], **calls[k][1]).numpy(), wants[k])
    assert traces(step) == count <= len(calls)


def test_numbers_that_the_trace_needed_are_told_apart_by_their_bits() -> None:
    step = ek.compile(lambda x, k: x * math.copysign(2.0, k) + k)
    for k in (0.0, -0.0, 0.0, 1.0, float("nan"), float("nan"), -0.0):
        with ek.eager():
            want = step(X, k).numpy()
        assert_same_bits(step(X, k).numpy(), want)


def test_integers_of_64_bits_and_more() -> None:
    step = ek.compile(lambda x, n: x + n, on_retrace="allow")
    x = np.arange(3)
    for n in (0, 5, -(1 << 63), (1 << 63) - 1):
        with np.errstate(over="ignore"):
            assert_same_bits(step(x, n).numpy(), x + np.int64(n))
    for n in (1 << 63, -(1 << 63) - 1, 1 << 200):  # as eager code has it, for each dtype
        for other in (x.astype(np.float32), x.astype(np.float64), x.astype(np.uint64), x):
            if other.dtype.kind == "f":
                assert_same_bits(step(other, n).numpy(), (ek.asarray(other) + n).numpy())
            elif n == 1 << 63 and other.dtype == np.uint64:
                assert_same_bits(step(other, n).numpy(), other + np.uint64(n))
            else:
                with pytest.raises(ek.DTypeError) as eager:
                    ek.asarray(other) + n
                with pytest.raises(ek.DTypeError) as compiled:
                    step(other, n)
                assert str(compiled.value) == str(eager.value)
    with pytest.raises(ek.DTypeError, match=r"does not fit int64.*cast"):
        step(x, 1 << 63)
    assert_same_bits(step(x, True).numpy(), x + 1)


def test_objects_and_methods_as_arguments() -> None:
    class Scale:
        def __init__(self, k: float) -> None:
            self.k = k

        @ek.compile(on_retrace="allow")
        def __call__(self, x: Any, other: Any = None) -> Any:
            return x * self.k + (0 if other is None else other.k)

    scales = [Scale(2.0), Scale(3.0)]
    for _ in range(3):
        for one in scales:
            assert_same_bits(one(X).numpy(), X * np.float32(one.k))
            for two in scales:
                want = X * np.float32(one.k) + np.float32(two.k)
                assert_same_bits(one(X, two).numpy(), want)
                assert_same_bits(one(X, other=two).numpy(), want)


def test_a_tracked_tensor_after_one_that_is_not() -> None:
    step = ek.compile(lambda x: (x * x).sum())
    w = ek.Parameter(X)
    plain = ek.asarray(X)
    for _ in range(3):
        assert not step(plain).requires_grad
        w.zero_grad()
        step(w * 1).backward()
        assert_same_bits(w.grad.numpy(), X * 2)
        with ek.no_grad():
            assert not step(w * 1).requires_grad
    v = ek.Parameter(X)
    captured = ek.compile(lambda x: (x * v).sum())
    for _ in range(2):
        assert captured(X).requires_grad
        with ek.no_grad():
            assert not captured(X).requires_grad


class Layer:
    rate = Tunable()
    training = Mode()

    def __init__(self) -> None:
        self.rate, self.training = 0.5, True

    def __call__(self, x: Any) -> Any:
        return x * self.rate if self.training else x


def test_settings_and_modes_that_change_between_quick_calls() -> None:
    layer, other = Layer(), Layer()
    step = ek.compile(lambda x: layer(x) + other(x) * 2, on_retrace="allow")

    def check() -> None:
        with ek.eager():
            want = step(X).numpy()
        for _ in range(2):
            assert_same_bits(step(X).numpy(), want)

    for change in (0.25, 1e-3, 2, 3, 2.0, 0.125):
        layer.rate = change
        check()
        other.training = not other.training
        check()
        other.rate = change
        check()
    count = traces(step)
    for training in (True, False, True):
        layer.training = other.training = training
        check()
    assert traces(step) <= count + 2


def test_a_call_that_refused_leaves_the_tables_as_they_have_to_be() -> None:
    table = ek.tensor(X, trainable=False)
    step = ek.compile(lambda i: (table[i], setattr(table, "value", table * 2))[0])
    good, bad = np.array([0, 2]), np.array([0, 3])
    view = table.numpy()
    value = X
    for k in range(6):
        with pytest.raises(ek.BoundsError):
            step(bad)
        assert_same_bits(step(good).numpy(), value[[0, 2]])
        value = value * 2
        if k % 2:
            assert_same_bits(table.numpy(), value)
    assert_same_bits(view, X)


def test_results_of_every_nesting() -> None:
    w = ek.tensor(X, trainable=False)

    @ek.compile
    def step(x: Any, k: float) -> Any:
        return {"a": (x + k, [w, None, "text"]), "b": k * 2, "c": (), "d": x.sum()}

    for k in (1.0, 2.0, 3.0):
        got = step(X, k)
        assert_same_bits(got["a"][0].numpy(), X + np.float32(k))
        assert got["a"][1][0] is w
        assert got["a"][1][1:] == [None, "text"]
        assert (type(got["b"]), got["b"], got["c"]) == (float, 2 * k, ())
        assert got["d"].shape == ()
    assert ek.compile(lambda: None)() is None
    assert ek.compile(lambda x: x)(X) is not None
