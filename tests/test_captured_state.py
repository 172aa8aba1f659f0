"""Every kind of state that a step captures: right in each call, and changed by whole steps only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits, bits

import einkorn as ek

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def trained(compiled: bool, make: Any, steps: int = 4) -> list[bytes]:
    """The bits of losses and of all state after some steps."""
    ek.random.seed(1)
    step, states = make()
    with ek.settings(compile=compiled):
        found = [bits(ek.compile(step)(X + k).numpy()) for k in range(steps)]
    return [*map(str, found), *(str(bits(x.numpy())) for x in states())]


class Block(ek.nn.Module):
    def __init__(self, inner: Any = None) -> None:
        self.linear, self.inner = ek.nn.Linear(4, 4), inner
        self.seen = ek.tensor(np.zeros(4, np.float32), trainable=False)
        self.calls = ek.tensor(0)

    def forward(self, x: Any) -> Any:
        self.seen.value = 0.9 * self.seen + 0.1 * x.mean(axis=0)
        self.calls.value = self.calls + 1
        y = ek.tanh(self.linear(x - self.seen))
        return y if self.inner is None else self.inner(y)


def leaves(*modules: Any) -> list[Any]:
    found = {}
    for block in modules:
        while block is not None:
            for leaf in (block.linear.w, block.linear.b, block.seen, block.calls):
                found[leaf.id] = leaf
            block = block.inner
    return list(found.values())


def nested() -> Any:
    model = Block(Block(Block()))
    optimizer = ek.optim.Adam(model, lr=0.1)

    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda x: (model(x) ** 2).sum(), model)(x)
        optimizer.step(grads)
        return loss

    return step, lambda: leaves(model)


def sharing() -> Any:
    """Two modules with one module inside, and one weight in two layers."""
    shared = Block()
    a, b = Block(shared), Block(shared)
    b.linear.w = a.linear.w
    parameters = [a.linear.w, a.linear.b, b.linear.b, shared.linear.w, shared.linear.b]
    optimizer = ek.optim.Adam(parameters, lr=0.1)

    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: (a(x) * b(x)).sum(), parameters)()
        optimizer.step(grads)
        return loss

    return step, lambda: leaves(a, b)


def generators() -> Any:
    model, own = Block(), ek.random.Generator(7)
    drop = ek.nn.Dropout(0.5)

    def step(x: Any) -> Any:
        with own.drawing() as key:
            noise = ek.random.normal((3, 4), key=key)
        return (drop(model(x)) + noise + ek.random.uniform((3, 4))).sum()

    return step, lambda: [*leaves(model), own.key, own.draw]


@pytest.mark.parametrize("make", [nested, sharing, generators])
def test_state_is_that_of_eager_calls(make: Any) -> None:
    def started() -> Any:
        ek.random.seed(3)  # also what the initial weights are drawn with
        return make()

    assert trained(True, started) == trained(False, started)


def test_optimizer_slots_made_inside_of_the_step() -> None:
    w = ek.Parameter(X)
    optimizer = ek.optim.Adam([w], lr=0.1)
    twin = ek.Parameter(X)
    eager = ek.optim.Adam([twin], lr=0.1)

    @ek.compile
    def step(x: Any, fails: bool) -> Any:
        loss, grads = ek.value_and_grad(lambda: (w * x).sum(), [w])()
        optimizer.step(grads)
        if fails:
            raise KeyError("in the middle")
        return loss

    with pytest.raises(KeyError):
        step(X, True)
    assert_same_bits(w.numpy(), X)
    for k in range(3):
        loss = step(X + k, False)
        want, grads = ek.value_and_grad(lambda k=k: (twin * (X + k)).sum(), [twin])()
        eager.step(grads)
        assert_same_bits(loss.numpy(), want.numpy())
        assert_same_bits(w.numpy(), twin.numpy())
        if k:
            with pytest.raises(KeyError):
                step(X, True)
            assert_same_bits(w.numpy(), twin.numpy())


def test_one_leaf_as_two_arguments_and_a_capture() -> None:
    w = ek.tensor(X, trainable=False)

    @ek.compile
    def step(a: Any, b: Any) -> Any:
        w.value = w * 2
        return a + b + w

    for k in range(3):
        now = w.numpy()
        got = step(w, w) if k else step(w, b=w)
        with ek.eager():
            other = ek.tensor(now, trainable=False)
            other.value = other * 2
        assert_same_bits(w.numpy(), other.numpy())
        assert_same_bits(got.numpy(), w.numpy() + w.numpy() + w.numpy())


def test_arrays_from_everywhere_are_read_at_each_call() -> None:
    cell, items, table = X.copy(), [X.copy()], {"a": X.copy()}

    class Holder:
        array = X.copy()

    holder = Holder()
    holder.own = X.copy()  # type: ignore[attr-defined]

    def fn(x: Any, default: Any = items) -> Any:
        return x + cell * x - default[0] + x * table["a"] - holder.array + x / holder.own

    step = ek.compile(fn)
    for place in (cell, items[0], table["a"], Holder.array, holder.own):
        place[1] += 1  # where it lies
        with ek.eager():
            want = fn(ek.asarray(X)).numpy()
        assert_same_bits(step(X).numpy(), want)
    assert len(step.explain().traces) == 1


def test_what_a_step_was_given_and_gave_stays_as_it_is() -> None:
    """Inputs are never taken as storage: not for outputs, not for leaves that are assigned."""
    w = ek.tensor(X, trainable=False)

    @ek.compile
    def step(x: Any) -> Any:
        w.value = x
        return x, w + 0

    x = ek.asarray(X * 2)
    same, copy = step(x)
    step(ek.asarray(X * 5))
    w.value = X * 9
    for tensor in (x, same, copy):
        assert_same_bits(tensor.numpy(), X * 2)
    mine = X * 3
    out, _ = step(mine)
    mine += 1
    assert_same_bits(out.numpy(), X * 3)
    assert_same_bits(w.numpy(), X * 3)
