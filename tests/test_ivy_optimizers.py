"""The optimizers of the dialect `ivy`: the formulas, state, and compiled steps like eager ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.dialects import ivy
from einkorn.ir.errors import EinkornError, ShapeError

MAKERS: dict[str, Callable[[], ivy.Optimizer]] = {
    "SGD": lambda: ivy.SGD(0.1),
    "LARS": lambda: ivy.LARS(0.05, decay_lambda=0.01),
    "Adam": lambda: ivy.Adam(0.02),
    "AdamW": lambda: ivy.AdamW(0.02, weight_decay=0.1),
    "LAMB": lambda: ivy.LAMB(0.02, decay_lambda=0.01, max_trust_ratio=2),
    "schedule": lambda: ivy.Adam(ek.optim.schedules.Exponential(0.1, 0.5, 1)),
}
X = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)


def training(optimizer: ivy.Optimizer, compiled: bool = False) -> tuple[Any, Any]:
    """A small net, and a step that trains it."""
    ek.random.seed(5)
    net = ivy.Sequential(ivy.Linear(3, 4), ivy.Tanh(), ivy.Linear(4, 1))

    def step(x: Any) -> Any:
        loss, grads = ivy.execute_with_gradients(
            lambda v: ivy.reduce_mean((net(x, v=v) - 1.0) ** 2)[0], net.v
        )
        net.v = optimizer.step(net.v, grads)
        return loss

    return net, ek.compile(step) if compiled else step


@pytest.mark.parametrize("name", MAKERS)
def test_many_compiled_steps_have_the_bits_of_eager_ones(name: str) -> None:
    eager, compiled = MAKERS[name](), MAKERS[name]()
    net, step = training(eager)
    other, run = training(compiled, compiled=True)
    losses = [float(step(X)) for _ in range(8)]
    assert losses == [float(run(X)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert net.v.identical(other.v)
    assert eager.state.identical(compiled.state)
    assert compiled.state.count == 8
    assert traces(run) == 1


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_state_goes_on_in_another_optimizer(name: str, compiled: bool) -> None:
    first, second = MAKERS[name](), MAKERS[name]()
    net, step = training(first)
    for _ in range(3):
        step(X)
    other, run = training(second, compiled)
    if compiled:
        run(X)  # with a state of its own, which is replaced
    other.v = net.v
    second.set_state(first.state)
    for _ in range(3):
        step(X)
        run(X)
    assert net.v.identical(other.v)
    assert first.state.identical(second.state)


def test_a_state_is_a_copy_and_a_wrong_one_changes_nothing() -> None:
    adam = ivy.Adam(0.1)
    assert adam.state.to_dict() == {"count": 0, "mw": None, "vw": None}
    adam.set_state(adam.state)
    net, step = training(adam)
    step(X)
    state = adam.state
    step(X)
    assert state.count == 1
    assert not state.mw.identical(adam.state.mw)
    before = adam.state
    with pytest.raises(EinkornError, match="a state has mw, vw, count, got mw, vw"):
        adam.set_state({"mw": state.mw, "vw": state.vw})
    with pytest.raises(EinkornError, match="set_state: vw: the structures differ"):
        adam.set_state({**state, "vw": state.vw.submodules})
    with pytest.raises(ShapeError, match=r"'submodules/v0/b'.*f32\[4\].*f32\[2\]"):
        adam.set_state({**state, "vw": state.vw.map(lambda x: ek.zeros(2))})
    assert adam.state.identical(before)
    with pytest.raises(EinkornError, match="what is kept and the variables: the structures differ"):
        adam.step(net.v.submodules, net.v.submodules)
    assert adam.state.identical(before)


def test_a_step_that_fails_changes_no_state() -> None:
    v = ivy.Container(a=ivy.array([1.0, 2.0]), b=ivy.array([1.0]))
    for name, make in MAKERS.items():
        optimizer = make()
        optimizer.step(v, v)
        before = optimizer.state
        with pytest.raises(ShapeError, match=r"have one type, got f32.*f32"):
            optimizer.step(v, ivy.Container(a=v.a, b=ek.ones(3)))
        assert optimizer.state.identical(before), name

    adam, table = ivy.Adam(0.1), ek.tensor([1.0, 2.0])

    @ek.compile
    def step(index: Any) -> Any:
        loss, grads = ivy.execute_with_gradients(
            lambda v: ek.take(v["table"], index).sum(), {"table": table}
        )
        table.value = adam.step({"table": table}, grads)["table"]
        return loss

    with pytest.raises(IndexError):
        step(np.array([5]))
    assert adam.state.count == 0
    assert table.tolist() == [1.0, 2.0]
    step(np.array([1]))
    again = ivy.Adam(0.1)
    want = again.step({"w": ek.asarray([1.0, 2.0])}, {"w": ek.asarray([0.0, 1.0])})
    assert_same_bits(table, want["w"])


def numpy_adam(g: Any, m: Any, v: Any, t: int, eps: float = 1e-7) -> tuple[Any, Any, Any]:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    size = np.sqrt(1 - 0.999**t) / (1 - 0.9**t + eps)
    return size * m / (np.sqrt(v) + eps), m, v


def numpy_updates(name: str, w: Any, grads: list[Any]) -> Any:
    """The published formulas, in float64."""
    m, v = (grads[0], grads[0] ** 2) if name.startswith("Adam") else (0.0, 0.0)
    for t, g in enumerate(grads, 1):
        if name == "LARS":
            rate = np.linalg.norm(w) / (np.linalg.norm(g) + 0.1 * np.linalg.norm(w))
            w = w - 0.05 * rate * (g + 0.1 * w)
            continue
        if name == "AdamW":
            w = w - 0.05 * 0.1 * w
        move, m, v = numpy_adam(g, m, v, t)
        if name == "LAMB":
            move = move + 0.1 * w
            move = min(np.linalg.norm(w) / np.linalg.norm(move), 1.5) * move
        w = w - 0.05 * move
    return w


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("LARS", {"decay_lambda": 0.1}),
        ("Adam", {}),
        ("AdamW", {"weight_decay": 0.1}),
        ("LAMB", {"max_trust_ratio": 1.5, "decay_lambda": 0.1}),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_updates_are_the_published_ones(name: str, settings: Any, scale: float) -> None:
    w = np.array([[1.0, -2.0], [0.5, 3.0]]) * scale
    grads = [np.cos(w + t) for t in range(4)]
    optimizer = getattr(ivy, name)(0.05, **settings)
    v = ivy.Container(w=ivy.array(w, dtype="float64"))
    for g in grads:
        v = optimizer.step(v, ivy.Container(w=ivy.array(g, dtype="float64")))
    np.testing.assert_allclose(v.w.numpy(), numpy_updates(name, w, grads), rtol=1e-12)


def test_functional_updates_take_arrays_and_nests() -> None:
    w, g, zero = ek.asarray([3.0, 4.0]), ek.asarray([0.0, 2.0]), ek.zeros(2)
    assert ivy.gradient_descent_update(w, g, 0.5).tolist() == [3.0, 3.0]
    assert ivy.optimizer_update([w], [g], 0.5)[0].tolist() == [3.0, 3.0]
    assert ivy.lars_update(w, g, 0.1).tolist() == [3.0, 3.5]
    assert ivy.lars_update(w, zero, 0.1).tolist() == [3.0, 4.0]
    nest = ivy.Container(w=w), ivy.Container(w=g), 0.1, ivy.Container(w=zero)
    new, mw, _ = ivy.adam_update(*nest, {"w": zero}, 1)
    assert isinstance(new, ivy.Container)
    assert isinstance(ek.optim.clip_by_global_norm(new, 1.0), ivy.Container)
    np.testing.assert_allclose(new.w.numpy(), [3.0, 3.9], rtol=1e-5)
    np.testing.assert_allclose(mw.w.numpy(), [0.0, 0.2], rtol=1e-5)
    direction = ivy.adam_step(g, zero, zero, 1)[0]
    np.testing.assert_allclose(direction.numpy(), [0.0, 1.0], rtol=1e-5)
    lamb = ivy.lamb_update(w, g, 0.1, zero, zero, 1, max_trust_ratio=2.0)[0]
    np.testing.assert_allclose(lamb.numpy(), [3.0, 3.8], rtol=1e-5)
    with pytest.raises(ShapeError, match="adam_step: a variable, its gradient"):
        ivy.adam_update(w, ek.ones(3), 0.1, zero, zero, 1)


def test_the_number_of_the_step_may_be_an_argument_of_a_compiled_function() -> None:
    w, g = ek.asarray([3.0, 4.0]), ek.asarray([0.5, 2.0])

    def update(step: int) -> Any:
        return ivy.adam_update(w, g, 0.1, g, g, step)[0]

    run = ek.compile(update)
    for step in (1, 2, 30):
        assert_same_bits(run(step), update(step))
    assert traces(run) == 1


def test_gradients_stop_at_new_variables_unless_asked_otherwise() -> None:
    w = ek.tensor([3.0, 4.0])

    def length(stop: bool) -> Any:
        new = ivy.SGD(0.5, stop_gradients=stop).step({"w": w}, {"w": 2.0 * w})["w"]
        return (new * new + w).sum()

    assert ek.grad(length, w)(True).tolist() == [1.0, 1.0]
    assert ek.grad(lambda: length(False) + (w * w).sum(), w)().tolist() == [7.0, 9.0]


def test_in_place_the_variables_are_written() -> None:
    net, _ = training(ivy.SGD(0.1))
    grads = net.v.map(lambda x: x.detach())
    want = (net.v - grads * 0.5).copy()
    for optimizer in (ivy.SGD(0.5, inplace=True), ivy.SGD(0.5, True, trace_on_next_step=True)):
        net.v = grads
        optimizer.step(net.v, grads)
        np.testing.assert_allclose(*(x.submodules.v0.w.numpy() for x in (net.v, want)))
    with pytest.raises(EinkornError, match=r"inplace=True .* but w is a Tensor, not a variable"):
        ivy.Adam(0.5, inplace=True).step({"w": ek.ones(2)}, {"w": ek.ones(2)})


def test_a_step_can_compile_itself() -> None:
    v = ivy.Container(w=ivy.array([1.0, -2.0]), b=ivy.array([0.5]))
    eager, traced = ivy.Adam(0.1), ivy.Adam(0.1, trace_on_next_step=True)
    a = b = v
    for _ in range(5):
        a, b = eager.step(a, a * 0.3), traced.step(b, b * 0.3)
    assert isinstance(b, ivy.Container)
    assert a.identical(b)
    assert traced._traced is not None
    assert traces(traced._traced) == 1


def test_rates_can_change() -> None:
    rates = [0.5]
    adam = ivy.Adam(lambda: rates[0])
    sgd = ivy.SGD(1)
    assert sgd.lr == 1.0

    @ek.compile
    def step(v: Any, grads: Any) -> Any:
        return adam.step(v, grads), sgd.step(v, grads)

    v = {"w": ek.zeros(1)}
    grads = {"w": ek.ones(1)}
    first = step(v, grads)
    rates[0], sgd.lr, adam.beta1 = 0.25, 0.5, 0.5
    second = step(v, grads)
    assert first[1]["w"].tolist() == [-1.0]
    assert second[1]["w"].tolist() == [-0.5]
    again = ivy.Adam(0.5)
    again.step(v, grads)
    again.lr, again.beta1 = 0.25, 0.5
    assert_same_bits(second[0]["w"], again.step(v, grads)["w"])
    with pytest.raises(EinkornError, match="SGD: lr is at least 0"):
        sgd.lr = -1.0
    with pytest.raises(EinkornError, match="Adam: beta1 is at least 0 and below 1"):
        ivy.Adam(0.1, beta1=1.0)


class Counting(ivy.Optimizer):
    """Steps that shrink with their number; the first one is kept as Ivy's page does it."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.is_first, self.mean = True, None

    def _step(self, v: Any, grads: Any) -> Any:
        if self.is_first:
            self.mean = grads
            self.is_first = False
        self.mean = self.mean * 0.9 + grads * 0.1
        return v - self.mean * (self._lr / self._count)


def test_an_optimizer_of_ones_own_compiles() -> None:
    optimizer, other = Counting(), Counting()
    run = ek.compile(optimizer.step)
    v = other_v = ivy.Container(w=ek.zeros(2))
    for k in range(5):
        grads = ivy.Container(w=ek.full(2, 1.0 + k))
        v, other_v = run(v, grads), other.step(other_v, grads)
        assert v.identical(other_v)
    assert optimizer.is_first is False
    assert optimizer.mean.identical(other.mean)
    with pytest.raises(EinkornError, match="Optimizer has no _step method"):
        ivy.Optimizer(0.1).step(v, grads)
