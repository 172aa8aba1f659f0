"""Modules that make their parameters for the sizes of their first inputs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.ir.errors import ShapeError, StateError, TraceError

nn = ek.nn


class Scale(nn.Module):
    """x * w with as many numbers as the last axis of x has."""

    def __init__(self, size: int | None = None) -> None:
        self.size, self.calls = size, 0

    def build(self, x: Any) -> None:
        if x.ndim == 0:
            raise ShapeError("Scale: needs an axis")
        self.calls += 1
        self.add_parameter("w", x.shape[-1:], x.dtype, ek.initializers.RandomNormal)

    def forward(self, x: Any) -> Any:
        return x * self.w


class Net(nn.Module):
    def __init__(self) -> None:
        self.first, self.rest = Scale(), [Scale(), Scale()]

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x.sum()


def test_build_is_called_once_and_makes_the_same_parameters_in_a_trace() -> None:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    ek.random.seed(3)
    eager = Net()
    want = [eager(x), eager(x)]
    ek.random.seed(3)
    traced = Net()
    step = ek.compile(lambda x: traced(x))
    for got, value in zip([step(x), step(x)], want):
        assert_same_bits(got, value)
    assert len(step.explain().traces) == 1
    assert traced.first.calls == traced.rest[1].calls == 1
    assert traced.v.key_chains() == ["first/w", "rest/v0/w", "rest/v1/w"]
    assert [leaf.name for leaf in traced.parameters()] == ["first.w", "rest.v0.w", "rest.v1.w"]
    for got, value in zip(traced.parameters(), eager.parameters()):
        assert_same_bits(got, value)


def test_parameters_made_in_a_trace_are_trained_by_it() -> None:
    model = Net()

    @ek.compile
    def step(x: Any) -> Any:
        loss = model(x)
        gradients = ek.grad(lambda: model(x), model)()
        for path, leaf in model.named_parameters():
            leaf.value = leaf - 0.1 * gradients[path]
        return loss

    x = np.ones((2, 3), np.float32)
    losses = [float(step(x)) for _ in range(3)]
    assert len(set(losses)) == 3
    assert len(step.explain().traces) == 1


def test_a_build_that_raises_is_tried_again() -> None:
    layer = Scale()
    with pytest.raises(ShapeError, match="needs an axis"):
        layer(ek.asarray(1.0))
    assert layer.calls == 0
    layer(ek.ones((2,)))
    assert layer.calls == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_take_up_what_their_call_makes(compiled: bool) -> None:
    model, x = Net(), ek.ones((2,))

    def step(scale: Any) -> Any:
        return ek.value_and_grad(lambda s: (model(x) * s).sum(), (model, 0))(scale)

    run = ek.compile(step) if compiled else step
    _, (first, by_scale) = run(2.0)
    _, (second, again) = run(2.0)
    assert first.key_chains() == model.v.key_chains()
    assert first.identical(second)
    assert float(by_scale) == float(again)
    leaf = model.parameters()[0]
    leaf.trainable = False
    assert len(run(2.0)[1][0].key_chains()) == len(model.parameters()) - 1


def test_gradients_of_what_remains_unbuilt_are_refused() -> None:
    model = Net()
    with pytest.raises(StateError, match=r"Net are asked for, but .*Call the model once"):
        ek.grad(lambda: (model.first(ek.ones((2,)))).sum(), model)()


def test_copies_are_built_apart() -> None:
    layer = Scale()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        twin(ek.ones((4,)))
        assert twin.w.shape == (4,)
    assert "w" not in vars(layer)


class Makes(nn.Module):
    """Everything that can depend on the first input, and a layer of a known size."""

    def __init__(self) -> None:
        self.lazy, self.known = nn.Linear(2), nn.Linear(2, 2)

    def forward(self, x: Any) -> Any:
        w = self.add_parameter("w", x.shape[-1:], initializer=ek.initializers.Ones)
        return self.known(nn.Linear(2)(self.lazy(x * w)))


def test_what_was_made_for_a_first_input_is_taken_away() -> None:
    model = Makes()
    step = ek.compile(lambda x: model(x))
    fresh = list(model.named_modules())
    known = model.known.w
    assert step(ek.ones((4, 3))).shape == (4, 2)
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.unbuild() is twin
        assert [path for path, _ in twin.named_modules()] == [path for path, _ in fresh]
        assert "w" not in vars(twin)
        assert twin.lazy.in_features is None
        with pytest.raises(StateError, match=r"lazy \(Linear\(\?, 2\)\) has none yet"):
            twin.parameters()
        assert twin(ek.ones((4, 5))).shape == (4, 2)
        assert (twin.w.shape, twin.lazy.w.shape, twin.linear.w.shape) == ((5,), (2, 5), (2, 2))
    assert model.known.w is known
    assert_same_bits(step(ek.ones((4, 5))), model(ek.ones((4, 5))))
    model.unbuild()
    assert step(ek.ones((1, 7))).shape == (1, 2)
    assert model.unbuild().unbuild().lazy.in_features is None
    with pytest.raises(TraceError, match=r"Makes\.unbuild\(\) takes leaves away while <lambda>"):
        ek.compile(lambda x: model.unbuild()(x))(ek.ones((4, 3)))
    with pytest.raises(ShapeError):
        model(ek.asarray(1.0))
    assert model(ek.ones((4, 6))).shape == (4, 2)
