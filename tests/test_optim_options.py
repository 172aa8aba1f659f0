"""What every optimizer can do: groups, weight decay, clipping, accumulation, averages, saving."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn import nn, optim
from einkorn.container import Container
from einkorn.ir.errors import EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf, Parameter
from einkorn.optim import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Momentum,
    Optimizer,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    global_norm,
    schedules,
)
from einkorn.recording import no_grad

Make = Callable[[nn.Module], Optimizer]

OPTIONS: dict[str, Make] = {
    "groups": lambda m: AdamW(m, 0.1, groups={"*/b": {"weight_decay": 0.0, "lr": 0.3}}),
    "clip_value": lambda m: Adam(m, 0.1, clip_value=0.25),
    "clip_norm": lambda m: Momentum(m, 0.1, clip_norm=0.5, groups={"w": {"clip_norm": 0.1}}),
    "clip_global_norm": lambda m: SGD(m, 0.1, clip_global_norm=0.5),
    "accumulate": lambda m: Adam(m, 0.1, accumulate=3),
    "ema": lambda m: Adam(m, 0.1, ema=EMA(m, 0.9, warm_up=True)),
    "decoupled": lambda m: SGD(m, 0.1, 0.5, decoupled=True),
    "schedule": lambda m: AdamW(m, schedules.WarmUp(schedules.Cosine(0.1, 5), 2)),
    "all": lambda m: optim.LAMB(
        m, 0.1, groups={"w": {"beta1": 0.5}}, clip_global_norm=0.5, accumulate=2, ema=0.5
    ),
}


class Model(nn.Module):
    def __init__(self, dtype: str = "float32") -> None:
        self.w = Parameter([[1.0, -2.0], [0.5, 3.0]], dtype)
        self.inner = {"b": Parameter([0.1, -0.2], dtype)}

    def forward(self, x: Any) -> Any:
        return (x @ self.w.T + self.inner["b"]).tanh()


def batch(k: int) -> Any:
    return np.random.default_rng(k).normal(size=(3, 2)).astype("float32")


def train(model: nn.Module, optimizer: Optimizer, compiled: bool) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: (model(x) ** 2).sum(), model)()
        optimizer.step(grads)
        return loss

    return ek.compile(step) if compiled else step


def bits(model: nn.Module, optimizer: Optimizer) -> dict[str, bytes]:
    state = {**model.state_dict(), **optimizer.state_dict()}
    return {key: value.tobytes() for key, value in state.items()}


@pytest.mark.parametrize("make", OPTIONS.values(), ids=OPTIONS)
def test_options_have_the_same_bits_compiled_and_go_on_after_a_restore(make: Make) -> None:
    def run(compiled: bool) -> tuple[Any, Any]:
        model = Model()
        optimizer = make(model)
        step = train(model, optimizer, compiled)
        for k in range(5):
            step(batch(k))
        return model, optimizer

    eager, compiled = run(False), run(True)
    assert bits(*eager) == bits(*compiled)
    model = Model()
    optimizer = make(model)
    model.load_state_dict(compiled[0].state_dict())
    optimizer.load_state_dict(compiled[1].state_dict())
    for one, other in (compiled, (model, optimizer)):
        step = train(one, other, True)
        for k in range(4):
            step(batch(10 + k))
    assert bits(*compiled) == bits(model, optimizer)


# -- groups ----------------------------------------------------------------------------------------


def test_groups_have_settings_of_their_own_and_share_the_rest() -> None:
    model = Model("float64")
    optimizer = SGD(model, 0.5, groups={"inner/*": {"lr": 0.1}, "*": {"weight_decay": 1.0}})
    w, b = np.array(model.w), np.array(model.inner["b"])
    ones = Container(w=np.ones((2, 2)), inner={"b": np.ones(2)})
    optimizer.step(ones)
    np.testing.assert_allclose(np.array(model.w), w - 0.5 * (1 + w))
    np.testing.assert_allclose(np.array(model.inner["b"]), b - 0.1)
    assert list(optimizer.groups) == ["inner/*", "*"]
    group = optimizer.groups["inner/*"]
    assert (group.lr, group.weight_decay) == (0.1, 0.0)
    optimizer.weight_decay = 2.0
    assert group.weight_decay == 2.0
    assert repr(group) == "SGD(lr=0.1)"


def test_settings_of_groups_change_without_a_new_trace() -> None:
    results: list[Any] = []
    for compiled in (False, True):
        model = Model()
        optimizer = Momentum(model, 0.1, groups={"w": {"lr": 0.2}, "*": {"nesterov": True}})
        step = train(model, optimizer, compiled)
        for k in range(3):
            optimizer.groups["w"].lr = 0.1 * (k + 1)
            optimizer.lr = 0.2 / (k + 1)
            step(batch(k))
        if compiled:
            assert len(step.explain().traces) == 1  # type: ignore[attr-defined]
        optimizer.groups["w"].momentum = 0.5  # inherited until now
        step(batch(3))
        optimizer.groups["w"].momentum = 0.1
        optimizer.momentum = 0.2
        step(batch(4))
        results.append(bits(model, optimizer))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"*/c": {"lr": 1.0}}, "no parameter fits the pattern '\\*/c' of groups; there are w"),
        ({"w": {"rate": 1.0}}, "no setting 'rate'"),
        ({"w": {"step": 1.0}}, "no setting 'step'"),
        ({"w": {"lr": -1.0}}, "lr is at least 0"),
        ({"w": {"accumulate": 2}}, "accumulate is a setting of the whole optimizer"),
        ({"w": 0.1}, "groups is a dict of a pattern and settings"),
        ([("w", {})], "groups is a dict"),
    ],
)
def test_groups_are_checked(groups: Any, message: str) -> None:
    with pytest.raises(EinkornError, match=message):
        Adam(Model(), groups=groups)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: SGD(m, 0.1, clip_value=0.0), "clip_value is above 0, got 0.0"),
        (lambda m: SGD(m, 0.1, clip_norm="much"), "clip_norm is a number or None"),
        (lambda m: SGD(m, 0.1, accumulate=0), "accumulate is a whole number of at least 1"),
        (lambda m: SGD(m, 0.1, accumulate=2.0), "accumulate is a whole number"),
        (lambda m: SGD(m, 0.1, ema="yes"), "ema is the decay"),
        (lambda m: SGD(m, 0.1, ema=1.0), "decay is at least 0 and below 1"),
        (lambda m: SGD(m, 0.1, decoupled=1), "decoupled is True or False"),
        (lambda m: optim.LAMB(m, decoupled=True), "applies its weight decay in its own way"),
        (lambda m: EMA(m, warm_up=3), "warm_up is True or False"),  # type: ignore[arg-type]
        (lambda m: EMA([1.0]), "got float at v0"),
    ],
)
def test_options_are_checked(make: Any, message: str) -> None:
    with pytest.raises(EinkornError, match=message):
        make(Model())


def test_updates_stay_one_launch_whatever_the_groups() -> None:
    class Deep(nn.Module):
        def __init__(self, depth: int) -> None:
            self.layers = [nn.Linear(32, 32) for _ in range(depth)]

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = nn.relu(layer(x))
            return x

    def updates(depth: int, **options: Any) -> int:
        model = Deep(depth)
        step = train(model, AdamW(model, 1e-3, **options), True)
        low = step.lower(np.ones((8, 32), "float32"))  # type: ignore[attr-defined]
        written = [launch.writes for launch in low.stages["schedule"].steps]
        return sum(any(b.role == "update" for b, _ in writes) for writes in written)

    plain = updates(2)
    groups = {"*/b": {"weight_decay": 0.0}, "layers/v0/*": {"lr": 1e-4}}
    for depth in (2, 5):
        assert updates(depth) == plain
        assert updates(depth, groups=groups) == plain
        assert updates(depth, groups=groups, clip_value=1.0, accumulate=2) == plain
        assert updates(depth, ema=0.9, clip_global_norm=1.0) <= plain + 1


# -- accumulation ----------------------------------------------------------------------------------


def test_accumulated_steps_are_steps_with_the_mean() -> None:
    one, other = Model("float64"), Model("float64")
    whole, parts = Adam(one, 0.1), Adam(other, 0.1, accumulate=4)
    rng = np.random.default_rng(0)
    for _ in range(2):
        grads = [
            Container(w=rng.normal(size=(2, 2)), inner={"b": rng.normal(size=2)}) for _ in range(4)
        ]
        for k, grad in enumerate(grads):
            before = np.array(other.w)
            parts.step(grad)
            assert (np.array(other.w) == before).all() == (k < 3)
        mean = grads[0].map(lambda *x: sum(x) / 4, *grads[1:])
        whole.step(mean)
        np.testing.assert_allclose(np.array(other.w), np.array(one.w), rtol=1e-14)
    assert float(parts.state.count) == 2
    assert not np.array(parts.state.accumulated.w).any()
    assert parts.accumulate == 4


def test_accumulation_needs_every_gradient() -> None:
    model = Model()
    optimizer = SGD(model, 0.1, accumulate=2)
    (model.w**2).sum().backward()
    with pytest.raises(EinkornError, match="no gradient for inner/b"):
        optimizer.step()


def test_a_step_that_is_refused_by_when_moves_no_average() -> None:
    model = Model()
    optimizer = SGD(model, 0.1, ema=0.5)
    grads = Container(w=np.ones((2, 2), "f4"), inner={"b": np.ones(2, "f4")})
    before = bits(model, optimizer)
    optimizer.step(grads, when=np.False_)
    assert bits(model, optimizer) == before
    optimizer.step(grads, when=np.True_)
    assert bits(model, optimizer) != before


# -- averages --------------------------------------------------------------------------------------


def test_the_average_follows_its_formula() -> None:
    model = Model("float64")
    optimizer, ema = SGD(model, 0.5), EMA(model, 0.75)
    slow = EMA(model, 0.75, warm_up=True)
    expected = late = np.array(model.w)
    for t in range(1, 5):
        optimizer.step(Container(w=np.full((2, 2), t), inner={"b": np.ones(2)}).map(np.float64))
        ema.update()
        slow.update()
        expected = 0.75 * expected + 0.25 * np.array(model.w)
        decay = min(0.75, (1 + t) / (10 + t))
        late = decay * late + (1 - decay) * np.array(model.w)
    np.testing.assert_allclose(np.array(ema.average.w), expected, rtol=1e-14)
    np.testing.assert_allclose(np.array(slow.average.w), late, rtol=1e-14)
    weights = np.array(model.w)

    def fails() -> None:
        with ema.applied():
            np.testing.assert_array_equal(np.array(model.w), np.array(ema.average.w))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    np.testing.assert_array_equal(np.array(model.w), weights)
    other = EMA(model, 0.75)
    other.load_state_dict(ema.state_dict())
    np.testing.assert_array_equal(np.array(other.average.w), np.array(ema.average.w))
    ema.copy_to_params()
    np.testing.assert_array_equal(np.array(model.w), np.array(ema.average.w))
    model.w = Parameter(np.zeros((2, 2)))
    with pytest.raises(StateError, match="'w' is not the parameter"):
        ema.update()
    assert repr(ema) == "EMA(decay=0.75, warm_up=False)"


# -- saving ----------------------------------------------------------------------------------------


def test_settings_rates_and_plateaus_are_saved() -> None:
    model, other = Model(), Model()
    plateau = schedules.ReduceOnPlateau(0.5, patience=0)
    groups = {"w": {"lr": Leaf(0.25, "float32")}, "inner/*": {"lr": 0.125}}
    first = SGD(model, plateau, groups=groups)
    for measure in (1.0, 2.0):
        plateau.update(measure)
    first.groups["inner/*"].lr = 0.0625
    first.weight_decay = 0.5
    groups["w"]["lr"].value = 0.75
    saved = first.state_dict()
    assert set(saved) >= {"settings.lr.scale", "settings.w.lr", "settings.inner/*.lr"}
    again = {"w": {"lr": Leaf(0.0, "float32")}, "inner/*": {"lr": 0.0}}
    second = SGD(other, schedules.ReduceOnPlateau(0.5, patience=0), groups=again)
    second.load_state_dict(saved)
    assert float(second.lr(0)) == 0.05
    assert float(again["w"]["lr"]) == 0.75
    assert second.groups["inner/*"].lr == 0.0625
    assert second.weight_decay == 0.5


def test_what_does_not_fit_changes_no_setting() -> None:
    optimizer = Adam(Model(), 0.1)
    saved = optimizer.state_dict()
    for key, value, error, message in [
        ("settings.lr", -1.0, EinkornError, "lr is at least 0"),
        ("settings.lr", np.ones(2), StateError, "'settings.lr' is one number"),
        ("settings.lrr", 1.0, StateError, "perhaps 'settings.lr'"),
        ("m.w", np.ones(3, "f4"), ShapeError, "m.w"),
        ("m.q", np.ones(3, "f4"), StateError, "unknown key 'm.q'"),
    ]:
        with pytest.raises(error, match=message):
            optimizer.load_state_dict({**saved, "settings.beta1": 0.5, key: value})
        assert optimizer.beta1 == 0.9
    with pytest.raises(EinkornError, match="needs a dict of arrays"):
        optimizer.load_state_dict(3)  # type: ignore[arg-type]
    only = {key: value for key, value in saved.items() if not key.startswith("settings.")}
    optimizer.load_state_dict(only)
    found = optimizer.load_state_dict({**saved, "settings.other": 1.0}, strict=False)
    assert found.unknown == ["settings.other"]


def test_an_optimizer_with_everything_is_copied() -> None:
    model = Model()
    optimizer = OPTIONS["all"](model)
    twin, other = copy.deepcopy((model, optimizer))
    assert bits(model, optimizer) == bits(twin, other)
    other.groups["w"].lr = 0.5
    train(twin, other, True)(batch(0))
    assert other.groups["w"].beta2 == 0.999
    assert "lr" not in vars(optimizer.groups["w"])


def test_unknown_attributes_are_named() -> None:
    with pytest.raises(AttributeError, match="SGD has no attribute 'rate_'"):
        SGD(Model(), 0.1).rate_  # noqa: B018


# -- clipping --------------------------------------------------------------------------------------


def test_clipping_by_the_global_norm() -> None:
    grads = Container(a=np.float32([3.0]), b={"c": np.float32([0.0, 4.0])})
    assert float(global_norm(grads)) == 5.0
    clipped = clip_by_global_norm(grads, 1)
    assert clipped.key_chains() == ["a", "b/c"]
    np.testing.assert_allclose(np.asarray(clipped.b.c), [0.0, 0.8], rtol=1e-6)
    same = clip_by_global_norm([grads.a, grads.b.c], 10.0)
    assert isinstance(same, list)
    np.testing.assert_array_equal(np.asarray(same[1]), grads.b.c)
    with no_grad(), pytest.raises(EinkornError, match="above 0"):
        clip_by_global_norm(grads, 0)


def test_clipping_keeps_half_types() -> None:
    halves = Container(a=np.full(4, 300.0, np.float16))
    clipped = clip_by_global_norm(halves, 1.0)
    assert clipped.a.dtype == "float16"
    np.testing.assert_allclose(np.asarray(clipped.a), 0.5, rtol=1e-3)


def test_clipping_each_by_norm_and_by_value() -> None:
    grads = {"a": np.float64([3.0, 4.0]), "b": np.float64([0.3, np.nan])}
    by_norm = clip_by_norm(grads, 1.0)
    assert type(by_norm) is dict
    np.testing.assert_allclose(np.asarray(by_norm["a"]), [0.6, 0.8])
    by_value = clip_by_value(grads, 0.5)
    np.testing.assert_array_equal(np.asarray(by_value["a"]), [0.5, 0.5])
    np.testing.assert_array_equal(np.asarray(by_value["b"]), [0.3, np.nan])
    np.testing.assert_array_equal(np.asarray(clip_by_value([-grads["a"]], 0.5)[0]), [-0.5, -0.5])
    for fn, name in ((clip_by_norm, "max_norm"), (clip_by_value, "limit")):
        with pytest.raises(EinkornError, match=f"{name} is above 0, got -1"):
            fn(grads, -1)
