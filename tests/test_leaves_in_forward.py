"""Parameters and buffers that `forward` asks for, and names of modules that it makes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from same_bits import assert_same_bits

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import DTypeError, ShapeError, StateError
from einkorn.nn.making import ModuleOrderError

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
NORMAL = ek.initializers.RandomNormal


class Affine(nn.Module):
    """x @ w + b, and how often it was called."""

    def __init__(self, out: int, name: str | None = None) -> None:
        self.out, self.name = out, name

    def forward(self, x: Any) -> Any:
        w = self.add_parameter("w", (x.shape[-1], self.out), initializer=NORMAL)
        self.b = self.add_parameter("b", (self.out,))
        calls = self.add_buffer("calls", 0)
        calls.value = calls + 1
        return x @ w + self.b


class Net(nn.Module):
    def forward(self, x: Any) -> Any:
        x = nn.relu(Affine(5)(x))
        x = Affine(4, name="middle")(x)
        return Affine(2)(nn.Dropout(0.3)(x))


def test_they_are_made_once_with_names_of_the_whole() -> None:
    model = Net()
    model(X)
    keys = ["affine/w", "affine/b", "middle/w", "middle/b", "affine_1/w", "affine_1/b"]
    assert model.v.key_chains() == keys
    assert [p.name for p in model.parameters()] == [key.replace("/", ".") for key in keys]
    assert model.buffers.key_chains() == ["affine/calls", "middle/calls", "affine_1/calls"]
    w = model.middle.w
    model(X)
    assert model.middle.w is w
    assert model.middle.calls.item() == 2


def trained(compiled: bool) -> tuple[Any, list[Any], Any]:
    """Three steps of a model that makes everything in the first one."""
    ek.random.seed(4)
    model = Net()

    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda: (model(x) ** 2).mean(), model)()
        model.set_parameters(model.v - grads * 0.1)
        return loss

    run = ek.compile(step) if compiled else step
    return model, [run(X) for _ in range(3)], run


def test_eager_and_compiled_first_steps_have_the_same_bits() -> None:
    model, losses, run = trained(True)
    other, want, _ = trained(False)
    assert traces(run) == 1
    for a, b in zip(losses, want):
        assert_same_bits(a, b)
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[key], value)
    assert model.middle.calls.item() == 3


def test_values_for_one_call_and_copies() -> None:
    model = Net().eval()
    y = np.asarray(model(X))
    other = model.v.copy() * 2.0
    assert not np.array_equal(np.asarray(model(X, v=other)), y)
    np.testing.assert_array_equal(np.asarray(model(X)), y)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(np.asarray(twin(X)), y)
        assert twin.affine.w is not model.affine.w
    model.to("float64")
    assert np.asarray(model(X.astype(np.float64))).dtype == np.float64


def test_another_size_names_the_parameter_and_both_lines() -> None:
    model = Net()
    model(X)
    message = (
        r"net/affine: forward asks for 'w' as \(2, 5\) of float32 at \S+:\d+, but it was made as "
        r"\(3, 5\) of float32 at \S+:\d+"
    )
    for run in (model, ek.compile(lambda x: model(x))):
        with pytest.raises(ShapeError, match=message):
            run(X[:, :2])
    assert model.affine.w.shape == (3, 5)


class Varying(nn.Module):
    """Asks for what `names` says."""

    def __init__(self, *names: str, dtype: str = "float32") -> None:
        self.names, self.dtype = names, dtype

    def forward(self, x: Any) -> Any:
        for name in self.names:
            x = x + self.add_parameter(name, (), self.dtype)
        return x


def test_what_is_not_the_same_in_every_call_is_refused() -> None:
    model = Varying("a")
    model(1.0)
    model.names = ("a", "b")
    with pytest.raises(ModuleOrderError, match=r"the parameter 'b' at .* first call did not"):
        model(1.0)
    model.names = ("a", "a")
    with pytest.raises(StateError, match="the parameter 'a' a second time in one call"):
        model(1.0)
    model.names, model.dtype = ("a",), "float64"
    with pytest.raises(DTypeError, match=r"as \(\) of float64 .* made as \(\) of float32"):
        model(1.0)
    assert model.v.key_chains() == ["a"]


def test_a_first_call_that_raises_leaves_nothing() -> None:
    model = Varying("a", "not a name")
    for run in (model, ek.compile(lambda x: model(x))):
        with pytest.raises(ek.EinkornError, match="is an identifier"):
            run(1.0)
        assert model.v.key_chains() == []
    model.names = ("b", "names")
    with pytest.raises(StateError, match="already has an attribute 'names'"):
        model(1.0)
    model.names = ("b",)
    assert float(model(1.0)) == 1.0
    assert model.v.key_chains() == ["b"]


def test_a_buffer_is_written_before_other_parts_are_built() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            self.add_buffer("calls", 0)
            self.last = nn.Linear(2)

        def forward(self, x: Any) -> Any:
            self.update_parameter("calls", self.calls + 1)
            return self.last(x)

    for run in (Counts(), ek.compile(Counts())):
        assert run(X).shape == (4, 2)
    model = Counts()
    with pytest.raises(StateError, match=r"Counts .*last .*has none yet"):
        model.update_parameter("last/w", 0.0)
    model(X)
    assert model.calls.item() == 1


def test_in_a_compiled_part_of_forward_it_is_refused() -> None:
    class Partly(nn.Module):
        def forward(self, x: Any) -> Any:
            return ek.compile(lambda x: x * self.add_parameter("w", ()))(x)

    with pytest.raises(ModuleOrderError, match=r"the parameter 'w' is made at .*compiled function"):
        Partly()(X)


def test_within_itself_it_is_refused() -> None:
    class Within(nn.Module):
        def forward(self, x: Any, depth: int = 0) -> Any:
            w = self.add_parameter("w", ())
            return self(x, 1) + w if depth == 0 else x

    with pytest.raises(ModuleOrderError, match="calls itself while it makes"):
        Within()(X)
