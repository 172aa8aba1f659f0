"""Gradients and training under `@ek.compile`: the bits of eager mode, at any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compile_checks import both, state, traces
from same_bits import assert_same_bits, bits, split_finely

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
Y = np.cos(7 * X)


def weights() -> tuple[ek.Leaf, ek.Leaf]:
    w = ek.tensor(np.sin(np.arange(20, dtype=np.float32)).reshape(4, 5), name="w")
    return w, ek.tensor(np.linspace(-1, 1, 5, dtype=np.float32), name="b")


def grads(*leaves: Any) -> list[Any]:
    return [None if leaf.grad is None else bits(leaf.grad.numpy()) for leaf in leaves]


def gradients_both_ways(
    fn: Callable[..., Any], loss: Callable[[Any], Any], *args: Any, leaves: Any
) -> list[Any]:
    """Backward through a compiled function, eager and compiled, gives the same bits."""
    compiled = ek.compile(fn)
    found = []
    for mode in ("eager", "compiled"):
        for leaf in leaves:
            leaf.grad = None
        if mode == "eager":
            with ek.eager():
                loss(compiled(*args)).backward()
        else:
            loss(compiled(*args)).backward()
        found.append(grads(*leaves))
    assert found[0] == found[1]
    return found[0]


def layer(x: Any, w: Any, b: Any) -> Any:
    return ek.tanh(x @ w + b)


# -- backward through a compiled function ----------------------------------------------------------


def test_backward_through_captured_leaves() -> None:
    w, b = weights()
    found = gradients_both_ways(
        lambda x: layer(x, w, b), lambda out: (out * out).sum(), X, leaves=(w, b)
    )
    assert None not in found
    (layer(ek.asarray(X), w, b) ** 2).sum().backward()


def test_backward_through_several_outputs_of_which_some_are_used() -> None:
    w, b = weights()

    def fn(x: Any) -> Any:
        h = layer(x, w, b)
        return {"a": h.sum(axis=0), "i": h.argmax(axis=1), "s": [ek.exp(h), h.mean()]}

    uses: list[Callable[[Any], Any]] = [
        lambda out: out["a"].sum() + out["s"][1],
        lambda out: (out["s"][0] * out["s"][0]).sum() / out["s"][1],
        lambda out: out["s"][1] * 3,
    ]
    for use in uses:
        gradients_both_ways(fn, use, X, leaves=(w, b))


def test_backward_to_what_the_arguments_came_from() -> None:
    w, b = weights()
    inner = ek.compile(lambda h, v: h.sigmoid() * v)
    for mode in (True, False):
        w.grad = b.grad = None
        with ek.settings(compile=mode):
            h = ek.asarray(X) @ w
            (inner(h, b) + h).sum().backward()
        if mode:
            want = grads(w, b)
    assert grads(w, b) == want


def test_a_leaf_that_is_argument_and_capture_has_one_gradient() -> None:
    w, _ = weights()
    gradients_both_ways(lambda v: (v * w).sum() + w.mean(), lambda out: out, w, leaves=(w,))


def test_retain_graph_and_second_backward() -> None:
    w, b = weights()
    compiled = ek.compile(lambda x: layer(x, w, b).sum())
    loss = compiled(X)
    loss.backward(retain_graph=True)
    once = w.grad.numpy().copy()
    loss.backward()
    assert_same_bits(w.grad.numpy(), once + once)
    with pytest.raises(ek.StateError, match="retain_graph=True"):
        loss.backward()


def test_a_recorded_call_uses_the_values_it_saw() -> None:
    w, b = weights()

    def run() -> list[Any]:
        w.value, b.value = X[:, :1].repeat(4, 0)[:4].repeat(5, 1), np.ones(5, np.float32)
        w.grad = b.grad = None
        loss = compiled(X)
        w.value = w.numpy() * 0
        update()
        loss.backward()
        return grads(w, b)

    compiled = ek.compile(lambda x: (layer(x, w, b) ** 2).sum())
    update = ek.compile(lambda: setattr(b, "value", b * 0))
    with ek.eager():
        want = run()
    assert run() == want


def test_detach_no_grad_and_untracked_calls_record_nothing() -> None:
    w, b = weights()
    compiled = ek.compile(lambda x: layer(x, w, b))
    assert compiled(X).requires_grad
    with ek.no_grad():
        assert not compiled(X).requires_grad
    with ek.no_grad(), ek.eager():
        assert not compiled(X).requires_grad
    assert not ek.compile(lambda x: layer(x, w, b).detach())(X).requires_grad
    assert not ek.compile(lambda x: x * 2)(X).requires_grad


def test_state_changed_in_a_recorded_call_changes_once() -> None:
    w, b = weights()
    count = ek.tensor(0)

    def fn(x: Any) -> Any:
        count.value = count + 1
        return layer(x, w, b).sum()

    compiled = ek.compile(fn)
    loss = compiled(X)
    assert count.item() == 1
    loss.backward()
    assert count.item() == 1
    compiled(X)
    assert count.item() == 2


# -- gradients inside of a compiled function -------------------------------------------------------


def loss_of(x: Any, y: Any, w: Any, b: Any) -> Any:
    return ((layer(x, w, b).mean(axis=1, keepdims=True) - y) ** 2).mean()


def test_value_and_grad_inside_compile() -> None:
    w, b = weights()

    def step(x: Any, y: Any) -> Any:
        return ek.value_and_grad(lambda x, y: loss_of(x, y, w, b), [w, b])(x, y)

    value, (gw, gb) = both(step, X, Y)
    assert (value.shape, gw.shape, gb.shape) == ((), (4, 5), (5,))
    plain = ek.value_and_grad(lambda x, y: loss_of(x, y, w, b), [w, b])(X, Y)
    assert_same_bits(value.numpy(), plain[0].numpy())
    assert_same_bits(gw.numpy(), plain[1][0].numpy())


def test_compile_inside_value_and_grad_inside_compile() -> None:
    w, b = weights()
    inner = ek.compile(lambda x: layer(x, w, b))

    def step(x: Any, y: Any) -> Any:
        def loss(x: Any) -> Any:
            return ((inner(x) + inner(x * 2)).mean(axis=1, keepdims=True) - y).sum()

        return ek.value_and_grad(loss, (0, [w, b]))(x)

    both(step, X, Y)


def test_nested_compiled_functions_with_state() -> None:
    w, b = weights()
    count = ek.tensor(0)

    @ek.compile
    def inner(x: Any) -> Any:
        count.value = count + 1
        b.value = b * 0.5
        return layer(x, w, b)

    def outer(x: Any) -> Any:
        first = inner(x)
        b.value = b + 1
        return first + inner(x) * count

    both(outer, X, leaves=(b, count))
    assert count.item() == 2


def test_gradients_of_gradients() -> None:
    def f(x: Any) -> Any:
        return (ek.sin(x) * x * x).sum()

    def g(x: Any) -> Any:
        return ek.grad(f)(x).sum()

    def h(x: Any) -> Any:
        return ek.grad(g)(x).sum()

    x = np.linspace(0.1, 1, 7)
    for fn in (ek.grad(f), ek.grad(g), ek.grad(h)):
        both(lambda x, fn=fn: fn(x), x)
        assert_same_bits(ek.compile(fn)(x).numpy(), fn(x).numpy())
    third = -6 * np.sin(x) + 0 * x
    third += 6 * np.cos(x) - 6 * x * np.sin(x) - x * x * np.cos(x) + 6 * np.sin(x)
    np.testing.assert_allclose(ek.grad(h)(x).numpy(), third, rtol=1e-9)


def test_grad_of_a_compiled_function_that_takes_grads() -> None:
    penalty = ek.compile(lambda x: (ek.grad(lambda z: (z**3).sum())(x) ** 2).sum())
    for mode in (True, False):
        with ek.settings(compile=mode):
            got = ek.grad(penalty)(X)
        np.testing.assert_allclose(got.numpy(), 36 * X**3, rtol=1e-5)
    both(ek.grad(penalty), X)


def test_backward_inside_compile_sets_gradients() -> None:
    w, b = weights()

    def step(x: Any) -> Any:
        loss = layer(x, w, b).sum()
        loss.backward()
        return loss

    compiled = ek.compile(step)
    for count in (1, 2, 3):
        found = []
        for mode in (False, True):
            w.grad = b.grad = None
            with ek.settings(compile=mode):
                for _ in range(count):
                    compiled(X)
            found.append(grads(w, b))
        assert found[0] == found[1]


# -- random numbers --------------------------------------------------------------------------------


def test_generator_state_advances_alike() -> None:
    generator = ek.random.default_generator()

    def step(x: Any, keep: Any) -> Any:
        mask = ek.random.uniform((3, 4)) < keep
        noise = ek.random.normal((4,)) + ek.random.uniform((4,), dtype="float64").sum()
        return ek.where(mask, x / keep, 0.0), noise, ek.random.randint(0, 9, (5,))

    compiled = ek.compile(step)
    found = []
    for mode in (False, True):
        ek.random.seed(11)
        with ek.settings(compile=mode):
            drawn = [compiled(X, keep) for keep in (0.5, 0.8, 0.5)]
        found.append([bits(t.numpy()) for t in ek.tree_leaves(drawn)])
        found[-1].append((generator.draw.item(), generator.key.item()))
    assert found[0] == found[1]
    assert found[0][0] != found[0][6]
    assert traces(compiled) == 1


def test_explicit_keys() -> None:
    def step(x: Any, n: Any) -> Any:
        key = ek.random.fold_in(ek.random.key(3), n)
        one, two = ek.random.split(key)
        return x + ek.random.normal((4,), key=one), ek.random.bernoulli(0.3, (9,), key=two)

    for n in (0, 1, 1 << 40):
        both(step, X, n)


# -- training loops --------------------------------------------------------------------------------


class Trainer:
    """A two-layer net with dropout, momentum, a running mean and clipping, all in leaves."""

    def __init__(self, rows: int) -> None:
        random = np.random.default_rng(0)
        shapes = {"w1": (6, 16), "b1": (16,), "w2": (16, 3), "b2": (3,)}
        self.params = {
            name: ek.tensor(random.normal(0, 0.4, shape).astype(np.float32), name=name)
            for name, shape in shapes.items()
        }
        self.slots = {k: ek.tensor(p.numpy() * 0, trainable=False) for k, p in self.params.items()}
        self.mean = ek.tensor(np.zeros(6, np.float32), trainable=False)
        self.count = ek.tensor(0)
        self.x = random.normal(size=(rows, 6)).astype(np.float32)
        self.y = random.integers(0, 3, rows)
        self.step = ek.compile(self._step)

    def _loss(self, x: Any, y: Any) -> Any:
        p = self.params
        h = ek.maximum(x @ p["w1"] + p["b1"], 0.0)
        h = ek.where(ek.random.uniform(h.shape) < 0.9, h / 0.9, 0.0)
        logits = h @ p["w2"] + p["b2"]
        shifted = logits - logits.max(axis=1, keepdims=True)
        logs = shifted - ek.log(ek.exp(shifted).sum(axis=1, keepdims=True))
        return -ek.take_along_axis(logs, y[:, None], axis=1).mean()

    def _step(self, x: Any, y: Any, lr: Any) -> Any:
        self.count.value = self.count + 1
        self.mean.value = self.mean * 0.9 + x.mean(axis=0) * 0.1
        loss, found = ek.value_and_grad(self._loss, self.params)(x - self.mean, y)
        size = ek.sqrt(sum((g * g).sum() for g in found.values()))
        scale = ek.minimum(1.0 / (size + 1e-6), 1.0)
        for name, param in self.params.items():
            slot = self.slots[name]
            slot.value = slot * 0.9 + found[name] * scale
            param.value = param - slot * lr
        return loss

    def train(self, steps: int) -> list[Any]:
        """The bits of every loss, and of all state at the end."""
        ek.random.seed(7)
        losses = [self.step(self.x, self.y, 0.1 / (1 + 0.01 * k)) for k in range(steps)]
        leaves = (*self.params.values(), *self.slots.values(), self.mean, self.count)
        return [bits(loss.numpy()) for loss in losses] + state(*leaves)


def test_500_steps_are_the_same_bits_eager_and_compiled_at_any_number_of_threads() -> None:
    with ek.eager():
        want = Trainer(40).train(500)
    assert Trainer(40).train(500) == want
    with split_finely():
        for threads in (2, 3):
            with ek.settings(threads=threads):
                assert Trainer(40).train(500) == want
    assert traces(Trainer(40).step) == 0


def test_a_larger_step_is_split_and_keeps_its_bits() -> None:
    with ek.eager(), ek.settings(threads=1):
        want = Trainer(3000).train(4)
    for threads in (1, 2, 4):
        with ek.settings(threads=threads):
            assert Trainer(3000).train(4) == want


def test_backward_style_training_is_the_same_bits() -> None:
    def train() -> list[Any]:
        w, b = weights()

        @ek.compile
        def forward(x: Any, y: Any) -> Any:
            return loss_of(x, y, w, b)

        @ek.compile
        def update(lr: Any) -> None:
            for p in (w, b):
                p.value = p - lr * p.grad
                p.grad = None

        for _ in range(100):
            forward(X, Y).backward()
            update(0.1)
        return state(w, b)

    with ek.eager():
        want = train()
    assert train() == want
    with split_finely(), ek.settings(threads=2):
        assert train() == want
