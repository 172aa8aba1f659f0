"""`@ek.compile` and state: captured and assigned leaves, lent storage, all or nothing, settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compile_checks import both, state, traces
from same_bits import assert_same_bits, bits

import einkorn as ek
from einkorn.tunable import Mode, Tunable

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def leaf(value: Any, **kwargs: Any) -> ek.Leaf:
    return ek.tensor(value, trainable=False, **kwargs)


def test_captured_leaves_are_inputs() -> None:
    w = leaf(X)
    step = ek.compile(lambda x: x * w)
    for _ in range(3):
        assert_same_bits(step(X).numpy(), X * w.numpy())
        w.value = w.numpy() + 1
    assert traces(step) == 1


def test_assigned_leaves_are_outputs() -> None:
    w, count = leaf(X), leaf(0, dtype="int32")

    def step(x: Any) -> Any:
        count.value = count + 1
        w.value = w * 0.5 + x
        count.value = count + 1
        return w + 0, count + 0

    got = both(step, X, leaves=(w, count))
    assert_same_bits(got[0].numpy(), w.numpy())
    assert got[1].item() == count.item() == 2


def test_unused_captures_and_assignments_of_the_same_value() -> None:
    w, v = leaf(X), leaf(X + 1)

    def step(x: Any) -> Any:
        w.sum()
        w.value = w
        return x + v

    both(step, X, leaves=(w, v))
    assert state(w, v) == [bits(X), bits(X + 1)]


def test_leaf_as_argument_and_capture() -> None:
    w = leaf(X)

    def step(a: Any, x: Any) -> Any:
        w.value = w + x
        return a + w, a is w

    got = both(step, w, X, leaves=(w,))
    assert_same_bits(got[0].numpy(), w.numpy() * 2)
    assert got[1]


def test_leaves_change_places() -> None:
    a, b, c = leaf(X), leaf(X + 1), leaf(X * 2)

    def step() -> None:
        a.value, b.value = b.value, a.value
        c.value = a + b + c

    compiled = ek.compile(step)
    for k in range(4):
        both(compiled, leaves=(a, b, c))
        low, high = (b, a) if k % 2 == 0 else (a, b)
        assert state(low, high) == [bits(X), bits(X + 1)]


def test_a_leaf_assigned_another_leaf_holds_its_value_of_that_moment() -> None:
    a, b = leaf(X), leaf(X + 1)

    def step() -> None:
        a.value, b.value = b, a  # a holds the value of b by the time that b is assigned
        b.value = b * 2

    both(step, leaves=(a, b))
    assert state(a, b) == [bits(X + 1), bits((X + 1) * 2)]


def test_rotation_of_many_leaves() -> None:
    cells = [leaf(np.full(5, k, np.float32)) for k in range(7)]

    def step() -> None:
        values = [cell * 1 for cell in cells]
        for cell, value in zip(cells, values[1:] + values[:1]):
            cell.value = value

    compiled = ek.compile(step)
    for _ in range(3):
        both(compiled, leaves=cells)
    assert [cell.numpy()[0] for cell in cells] == [3, 4, 5, 6, 0, 1, 2]


def test_lent_storage_never_changes() -> None:
    w = leaf(X)
    step = ek.compile(lambda x: setattr(w, "value", w * 2 + x))
    views: list[tuple[Any, Any]] = []
    for k in range(6):
        if k % 2 == 0:
            views.append((w.numpy(), w.numpy().copy()))
            views.append((np.asarray(w), w.numpy().copy()))
            views.append((w[1:].numpy(), w.numpy()[1:].copy()))
            views.append((np.from_dlpack(w.T), w.numpy().T.copy()))
        step(X)
    for view, then in views:
        assert_same_bits(view, then)


def test_an_argument_that_is_a_view_of_the_leaf() -> None:
    w = leaf(X)

    def step(x: Any) -> Any:
        w.value = w * 2
        return x + w

    compiled = ek.compile(step)
    view = w.numpy()
    assert_same_bits(compiled(view).numpy(), X * 3)
    assert_same_bits(view, X)
    assert_same_bits(compiled(w.numpy()).numpy(), X * 6)


def test_other_dtype_or_shape_is_refused_while_tracing() -> None:
    w = leaf(X, name="w")
    before = state(w)
    with pytest.raises(ek.DTypeError, match=r"w holds f32\[3,4\], got f64\[3,4\]"):
        ek.compile(lambda x: setattr(w, "value", x))(X.astype(np.float64))
    with pytest.raises(ek.ShapeError, match=r"w holds f32\[3,4\], got f32\[4,3\]"):
        ek.compile(lambda x: setattr(w, "value", x))(X.T)
    assert state(w) == before


# -- all or nothing --------------------------------------------------------------------------------


def test_an_index_out_of_range_leaves_all_state_as_it_was() -> None:
    table, count, other = leaf(X), leaf(0), leaf(X + 5)

    def step(i: Any) -> Any:
        count.value = count + 1
        table.value = table * 2
        rows = table[i]
        other.value = other.at[i].add(rows)
        return rows

    compiled = ek.compile(step)
    compiled(np.array([0, 2, -1]))
    before = state(table, count, other)
    view = other.numpy()
    for bad in (3, -4, 1 << 40):
        with pytest.raises(ek.BoundsError, match="no state changed"):
            compiled(np.array([0, bad]) if bad < 4 else np.array([0, bad, 1]))
        assert state(table, count, other) == before
    assert_same_bits(view, other.numpy())
    both(compiled, np.array([0, 2, -1]), leaves=(table, count, other))


def test_an_exception_while_tracing_leaves_state_as_it_was() -> None:
    w = leaf(X)
    fail = [True]

    @ek.compile
    def step(x: Any) -> Any:
        w.value = w + x
        ek.random.uniform((3,))
        if fail[0]:
            raise KeyError("in the middle")
        return w * 1

    ek.random.seed(3)
    before = state(w, ek.random.default_generator().draw)
    for _ in range(2):
        with pytest.raises(KeyError, match="in the middle"):
            step(X)
        assert state(w, ek.random.default_generator().draw) == before
    assert_same_bits((ek.asarray(X) + 1).numpy(), X + 1)  # no trace is left open
    fail[0] = False
    assert_same_bits(step(X).numpy(), X * 2)
    assert ek.random.default_generator().draw.item() == 1


# -- settings and modes ----------------------------------------------------------------------------


class Layer:
    rate = Tunable()
    training = Mode()

    def __init__(self) -> None:
        self.rate, self.training = 0.5, True

    def __call__(self, x: Any) -> Any:
        return x * self.rate if self.training else x


def test_settings_are_read_at_each_call_and_modes_are_guarded() -> None:
    layer = Layer()
    step = ek.compile(lambda x: layer(x))
    for rate in (0.5, 0.25, 1e-3):
        layer.rate = rate
        assert_same_bits(step(X).numpy(), X * np.float32(rate))
    assert traces(step) == 1
    layer.training = False
    assert_same_bits(step(X).numpy(), X)
    layer.training = True
    assert_same_bits(step(X).numpy(), X * np.float32(1e-3))
    assert traces(step) == 2
    layer.rate = 2
    assert_same_bits(step(X).numpy(), X * 2)
    assert "rate" in str(step.explain())


def test_setting_a_setting_while_tracing_is_refused() -> None:
    layer = Layer()

    def step(x: Any) -> Any:
        layer.rate = 0.1
        return x

    with pytest.raises(ek.TraceError, match=r"Layer\.rate was set while step was being traced"):
        ek.compile(step)(X)
    assert layer.rate == 0.5
