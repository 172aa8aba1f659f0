"""Optimizers against their formulas in NumPy, and what they refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn import nn
from einkorn.container import Container
from einkorn.functions import elementwise as ew
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf, Parameter, tensor
from einkorn.optim import (
    LAMB,
    LARS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AMSGrad,
    Lion,
    Momentum,
    NAdam,
    Optimizer,
    RAdam,
    RMSProp,
    clip_by_global_norm,
)
from einkorn.tensor import Tensor
from einkorn.transforms.gradients import value_and_grad

Array = Any
Step = Callable[[Array, Array, dict[str, Array], int], Array]


class Model(nn.Module):
    def __init__(self, dtype: str = "float64") -> None:
        self.w = Parameter([[1.0, -2.0], [0.5, 3.0]], dtype)
        self.inner = {"b": Parameter([0.1, -0.2], dtype)}


# -- the formulas, on plain arrays -----------------------------------------------------------------


def sgd(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    return p - 0.1 * (g + 0.01 * p)


def momentum(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.8 * s["m"] + g
    return p - 0.1 * s["m"]


def nesterov(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.8 * s["m"] + g
    return p - 0.1 * (g + 0.8 * s["m"])


def rmsprop(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["v"] = 0.9 * s["v"] + 0.1 * g * g
    return p - 0.1 * g / (np.sqrt(s["v"]) + 1e-8)


def adagrad(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["v"] = s["v"] + g * g
    return p - 0.1 * g / (np.sqrt(s["v"]) + 1e-10)


def adam(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g * g
    m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.999**t)
    return p - 0.1 * m / (np.sqrt(v) + 1e-8)


def adamw(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    return adam(p, g, s, t) - 0.1 * 0.05 * p


def adamax(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = np.maximum(0.999 * s["v"], np.abs(g) + 1e-8)
    return p - 0.1 / (1 - 0.9**t) * s["m"] / s["v"]


def amsgrad(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g * g
    s["largest"] = np.maximum(s.get("largest", 0.0), s["v"])
    m, v = s["m"] / (1 - 0.9**t), s["largest"] / (1 - 0.999**t)
    return p - 0.1 * m / (np.sqrt(v) + 1e-8)


def nadam(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g * g
    m = 0.9 * s["m"] / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
    return p - 0.1 * m / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)


def radam(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.8 * s["v"] + 0.2 * g * g
    r = 2 / 0.2 - 1
    now = r - 2 * t * 0.8**t / (1 - 0.8**t)
    m = s["m"] / (1 - 0.9**t)
    if now <= 5:
        return p - 0.1 * m
    factor = np.sqrt((now - 4) * (now - 2) * r / ((r - 4) * (r - 2) * now))
    return p - 0.1 * factor * m / (np.sqrt(s["v"] / (1 - 0.8**t)) + 1e-8)


def adadelta(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["v"] = 0.9 * s["v"] + 0.1 * g * g
    d = g * np.sqrt(s["m"] + 1e-6) / np.sqrt(s["v"] + 1e-6)
    s["m"] = 0.9 * s["m"] + 0.1 * d * d
    return p - 0.1 * d


def lion(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    move = np.sign(0.9 * s["m"] + 0.1 * g)
    s["m"] = 0.99 * s["m"] + 0.01 * g
    return p - 0.1 * (move + 0.05 * p)


def lars(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    size, slope = np.sqrt((p * p).sum()), np.sqrt((g * g).sum())
    rate = 0.1 * 0.5 * size / (slope + 0.05 * size + 1e-8)
    s["m"] = 0.9 * s["m"] + rate * (g + 0.05 * p)
    return p - s["m"]


def lamb(p: Array, g: Array, s: dict[str, Array], t: int) -> Array:
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g * g
    u = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-6) + 0.05 * p
    ratio = min(np.sqrt((p * p).sum()), 1.5) / np.sqrt((u * u).sum())
    return p - 0.1 * ratio * u


CASES: list[Any] = [
    pytest.param(lambda p: SGD(p, 0.1, weight_decay=0.01), sgd, id="sgd"),
    pytest.param(lambda p: Momentum(p, 0.1, 0.8), momentum, id="momentum"),
    pytest.param(lambda p: Momentum(p, 0.1, 0.8, nesterov=True), nesterov, id="nesterov"),
    pytest.param(lambda p: RMSProp(p, 0.1, alpha=0.9), rmsprop, id="rmsprop"),
    pytest.param(lambda p: Adagrad(p, 0.1), adagrad, id="adagrad"),
    pytest.param(lambda p: Adam(p, 0.1), adam, id="adam"),
    pytest.param(lambda p: AdamW(p, 0.1, weight_decay=0.05), adamw, id="adamw"),
    pytest.param(lambda p: Adamax(p, 0.1), adamax, id="adamax"),
    pytest.param(lambda p: AMSGrad(p, 0.1), amsgrad, id="amsgrad"),
    pytest.param(lambda p: NAdam(p, 0.1), nadam, id="nadam"),
    pytest.param(lambda p: RAdam(p, 0.1, beta2=0.8), radam, id="radam"),
    pytest.param(lambda p: Adadelta(p, 0.1), adadelta, id="adadelta"),
    pytest.param(lambda p: Lion(p, 0.1, weight_decay=0.05), lion, id="lion"),
    pytest.param(lambda p: LARS(p, 0.1, trust=0.5, weight_decay=0.05), lars, id="lars"),
    pytest.param(lambda p: LAMB(p, 0.1, weight_decay=0.05, max_norm=1.5), lamb, id="lamb"),
]


def gradients(t: int, dtype: str = "float64") -> dict[str, Array]:
    rng = np.random.default_rng(t)
    shapes = {"w": (2, 2), "inner/b": (2,)}
    return {path: rng.normal(size=shape).astype(dtype) for path, shape in shapes.items()}


def run_formula(formula: Step, steps: int) -> dict[str, Array]:
    params = {path: np.asarray(leaf) for path, leaf in Model().named_parameters()}
    state = {path: {"m": 0.0 * p, "v": 0.0 * p} for path, p in params.items()}
    for t in range(1, steps + 1):
        for path, grad in gradients(t).items():
            params[path] = formula(params[path], grad, state[path], t)
    return params


def assert_params(model: nn.Module, expected: dict[str, Array], rtol: float) -> None:
    for path, leaf in model.named_parameters():
        np.testing.assert_allclose(np.asarray(leaf), expected[path], rtol, rtol / 10)


@pytest.mark.parametrize(("make", "formula"), CASES)
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 2e-5)])
def test_steps_follow_the_formula(make: Any, formula: Step, dtype: str, rtol: float) -> None:
    model = Model(dtype)
    optimizer = make(model)
    for t in range(1, 8):
        optimizer.step(Container(gradients(t, dtype)))
    assert float(optimizer.state.count) == 7
    assert all(p.dtype == dtype for p in model.parameters())
    assert_params(model, run_formula(formula, 7), rtol)


@pytest.mark.parametrize(("make", "formula"), CASES)
def test_the_pure_functions_agree_with_the_shell(make: Any, formula: Step) -> None:
    model = Model()
    optimizer = make(model)
    params, state = model.v.copy(), optimizer.init(model)
    for t in range(1, 4):
        params, state = optimizer.update(params, Container(gradients(t)), state)
    assert float(optimizer.state.count) == 0
    assert_params(model, run_formula(formula, 0), 0)
    expected = run_formula(formula, 3)
    for path, value in params.flat_items():
        np.testing.assert_allclose(np.asarray(value), expected[path], 1e-12, 1e-13)
    assert float(state.count) == 3
    assert state.key_chains() == optimizer.state.key_chains()


@pytest.mark.parametrize(("make", "formula"), CASES)
def test_compiled_steps_have_the_same_bits(make: Any, formula: Step) -> None:
    results: list[dict[str, bytes]] = []
    for compiled in (False, True):
        model = Model("float32")
        optimizer = make(model)

        def step(scale: Any) -> Tensor:
            loss, grads = value_and_grad(lambda: quadratic(model) * scale, model)()  # noqa: B023
            optimizer.step(clip_by_global_norm(grads, 1.0))  # noqa: B023
            return loss

        run = ek.compile(step) if compiled else step
        for k in range(3):
            optimizer.lr = 0.1 / (k + 1)
            run(np.float32(k + 0.5))
        state = {**model.state_dict(), **optimizer.state_dict()}
        results.append({key: value.tobytes() for key, value in state.items()})
    assert results[0] == results[1]


# -- where gradients come from ---------------------------------------------------------------------


def quadratic(model: Model) -> Tensor:
    return (model.w**2).sum() + (model.inner["b"] ** 2).sum()


def test_gradients_of_value_and_grad_and_of_backward() -> None:
    first, second = Model(), Model()
    one, two = Adam(first, 0.1), Adam(second, 0.1)
    for _ in range(3):
        _, grads = value_and_grad(lambda: quadratic(first), first)()
        one.step(grads)
        two.zero_grad()
        quadratic(second).backward()
        two.step()
    assert_params(second, {path: np.asarray(p) for path, p in first.named_parameters()}, 0)
    assert abs(float(first.w[0, 0])) < 1
    two.zero_grad()
    assert all(p.grad is None for p in second.parameters())


@pytest.mark.parametrize(
    "nest",
    [
        lambda a, b: [a, b],
        lambda a, b: (a, b),
        lambda a, b: Container(a=a, b=b),
        lambda a, b: {"x": [a], "y": b},
    ],
)
def test_nests_of_leaves_as_parameters(nest: Any) -> None:
    a, b = Parameter([1.0]), tensor([2.0])
    _, grads = value_and_grad(lambda: (a * b).sum(), [a, b])()
    SGD(nest(a, b), 1.0).step(nest(*grads))
    assert (float(a), float(b)) == (-1.0, 1.0)


def test_one_leaf_and_several_modules_as_parameters() -> None:
    only = Parameter(1.0)
    SGD(only, 0.5).step(np.float32(1.0))
    assert float(only) == 0.5
    models = [Model(), Model()]
    optimizer = SGD(models, 0.5)
    _, grads = value_and_grad(lambda: quadratic(models[0]) + quadratic(models[1]), models)()
    optimizer.step(grads)
    assert not any(np.asarray(p).any() for model in models for p in model.parameters())


def test_frozen_parameters_stay() -> None:
    model = Model()
    optimizer = Adam(model, 0.1)
    model.w.trainable = False
    before = np.asarray(model.w)
    _, grads = value_and_grad(lambda: quadratic(model), model)()
    assert grads.key_chains() == ["inner/b"]
    optimizer.step(grads)
    np.testing.assert_array_equal(np.asarray(model.w), before)
    assert not np.asarray(optimizer.state.m.w).any()
    assert np.asarray(optimizer.state.m.inner.b).all()
    model.unfreeze()
    optimizer.step(Container(gradients(1)))
    assert (np.asarray(model.w) != before).all()


def test_backward_skips_parameters_without_gradient() -> None:
    model = Model()
    (model.w**2).sum().backward()
    SGD(model, 0.5).step()
    assert not np.asarray(model.w).any()
    assert np.asarray(model.inner["b"]).tolist() == [0.1, -0.2]


# -- refusals --------------------------------------------------------------------------------------


def refused(optimizer: Optimizer, model: nn.Module, grads: Any, error: Any, match: str) -> None:
    params, state = model.state_dict(), optimizer.state_dict()
    with pytest.raises(error, match=match):
        optimizer.step(grads)
    for before, now in ((params, model.state_dict()), (state, optimizer.state_dict())):
        for key, value in before.items():
            np.testing.assert_array_equal(now[key], value)


def test_a_refused_step_changes_nothing() -> None:
    model = Model()
    optimizer = Adam(model, 0.1)
    good = gradients(1)
    b = good["inner/b"]
    refused(optimizer, model, None, StateError, "no gradient: call loss.backward")
    refused(optimizer, model, Container(w=good["w"]), EinkornError, "no gradient for inner/b")
    refused(optimizer, model, Container(good, more=b), EinkornError, "more is not among")
    refused(optimizer, model, Container({**good, "inner/b": b[:1]}), ShapeError, "inner/b is f64")
    single = Container({**good, "inner/b": b.astype("f4")})
    refused(optimizer, model, single, DTypeError, r"\.astype\('float64'\)")
    optimizer.lr = lambda count: ew.add(count, np.zeros(3))
    refused(optimizer, model, Container(good), ShapeError, "a schedule gives a scalar")


def test_parameters_that_cannot_be_trained() -> None:
    a = Parameter([1.0])
    with pytest.raises(StateError, match="v0 and v1 are the same leaf"):
        SGD([a, a], 0.1)
    with pytest.raises(DTypeError, match="v0 is i64"):
        SGD([Leaf([1])], 0.1)
    with pytest.raises(EinkornError, match="got float at v0"):
        SGD([1.0], 0.1)
    with pytest.raises(EinkornError, match="no parameter to train"):
        SGD(nn.ReLU(), 0.1)


def test_exchanged_parameters_are_noticed() -> None:
    model = Model()
    optimizer = SGD(model, 0.1)
    model.w = Parameter(np.zeros((2, 2)))
    refused(optimizer, model, Container(gradients(1)), StateError, "'w' is not the parameter")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Adam(m, -1.0), "lr is at least 0"),
        (lambda m: Adam(m, beta1=1.0), "beta1 is at least 0 and below 1"),
        (lambda m: Adam(m, "fast"), "lr is a number, a schedule or a tensor"),
        (lambda m: Adam(m, True), "lr is a number"),
        (lambda m: Adam(m, float("nan")), "lr is at least 0"),
        (lambda m: Adam(m, Leaf([1.0])), "a float scalar"),
        (lambda m: AdamW(m, weight_decay=lambda t: 1), "weight_decay is a number"),
        (lambda m: Momentum(m, 0.1, nesterov=1), "nesterov is True or False"),
    ],
)
def test_hyper_parameters_are_checked(make: Any, message: str) -> None:
    with pytest.raises(EinkornError, match=message):
        make(Model())


# -- learning rates --------------------------------------------------------------------------------


def test_ints_become_floats_and_a_new_rate_counts() -> None:
    model = Model()
    optimizer = SGD(model, 1)
    assert type(optimizer.lr) is float
    assert repr(optimizer) == "SGD(lr=1.0, weight_decay=0.0)"
    optimizer.lr = 0
    optimizer.step(Container(gradients(1)))
    assert_params(model, run_formula(sgd, 0), 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_schedules_and_tensors_as_learning_rate(dtype: str) -> None:
    seen: list[float] = []

    def schedule(count: Tensor) -> Tensor:
        assert count.dtype == "float64"
        seen.append(float(count))
        return 0.5 / (count + 1)

    model = Model(dtype)
    optimizer = SGD(model, schedule)
    start = np.asarray(model.w)
    one = Container(gradients(1, dtype)).map(np.ones_like)
    optimizer.step(one)
    optimizer.step(one)
    assert seen == [0.0, 1.0]
    np.testing.assert_allclose(np.asarray(model.w), start - 0.75, rtol=1e-6)
    optimizer.lr = rate = Leaf(0.25, "float32")
    optimizer.step(one)
    rate.value = 1.0
    optimizer.step(one)
    np.testing.assert_allclose(np.asarray(model.w), start - 2.0, rtol=1e-6)
    assert model.w.dtype == dtype


# -- state -----------------------------------------------------------------------------------------


def test_state_can_be_saved_and_restored() -> None:
    model, other = Model(), Model()
    first, second = Adam(model, 0.1), Adam(other, 0.1)
    first.step(Container(gradients(1)))
    saved = list(first.state_dict())
    assert saved[:5] == ["count", "m.w", "m.inner.b", "v.w", "v.inner.b"]
    settings = ("lr", "weight_decay", "beta1", "beta2", "eps")
    assert saved[5:] == [f"settings.{name}" for name in settings]
    assert first.state.m.w.name == "adam.m.w"
    second.load_state_dict(first.state_dict())
    other.v = model.v
    for optimizer in (first, second):
        optimizer.step(Container(gradients(2)))
    assert_params(other, {path: np.asarray(p) for path, p in model.named_parameters()}, 0)
    second.set_state(first.init(model))
    assert float(second.state.count) == 0
    with pytest.raises(StateError, match=r"missing key 'v\.inner\.b'"):
        second.load_state_dict({k: x for k, x in first.state_dict().items() if k != "v.inner.b"})
    with pytest.raises(StateError, match="missing keys"):
        second.set_state({"count": 1.0})
    assert float(second.state.count) == 0


def test_a_model_and_its_optimizer_copy_together() -> None:
    model = Model()
    optimizer = Momentum(model, 0.1)
    twin, other = copy.deepcopy((model, optimizer))
    other.step(Container(gradients(1)))
    assert float(other.state.count) == 1
    assert float(optimizer.state.count) == 0
    assert (np.asarray(twin.w) != np.asarray(model.w)).all()


def test_nothing_is_recorded() -> None:
    model = Model()
    optimizer = Adam(model, 0.1)
    params, state = optimizer.update(model, Container(gradients(1)), optimizer.state)
    assert not any(x.requires_grad for x in (*params.to_flat_list(), *state.to_flat_list()))
