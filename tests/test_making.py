"""Modules that are made inside `forward`, and the ways of building."""

from __future__ import annotations

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from compile_checks import traces

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError, StateError
from einkorn.nn.making import ModuleOrderError, snake_case

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class MLP(nn.Module):
    """Makes all of its layers in forward."""

    def forward(self, x: Any) -> Any:
        x = nn.relu(nn.Linear(3, 8)(x))
        x = nn.Dropout(0.5)(x)
        x = nn.relu(nn.Linear(8, 8)(x))
        return nn.Linear(8, 2)(x)


class Lazy(nn.Module):
    """Sizes of the first input."""

    def __init__(self, out: int) -> None:
        self.out = out

    def build(self, x: Any) -> None:
        self.add_parameter("w", (self.out, x.shape[-1]), x.dtype, ek.initializers.GlorotUniform)
        self.add_buffer("calls", 0)

    def forward(self, x: Any) -> Any:
        self.calls.value = self.calls + 1
        return x @ self.w.T


class LazyNet(nn.Module):
    def __init__(self) -> None:
        self.first, self.drop, self.rest = Lazy(4), nn.Dropout(0.5), [Lazy(5), Lazy(2)]

    def forward(self, x: Any) -> Any:
        x = self.drop(self.first(self.drop(x)))
        return nn.Linear(2, 3)(self.rest[1](self.rest[0](x)))


def test_names_and_references_are_stable() -> None:
    model = MLP()
    model(X)
    assert list(dict(model.named_modules())) == ["", "linear", "dropout", "linear_1", "linear_2"]
    linear, w = model.linear_1, model.linear_1.w
    model(X)
    assert model.linear_1 is linear
    assert model.linear_1.w is w
    assert model.v.key_chains()[:3] == ["linear/w", "linear/b", "linear_1/w"]
    assert [p.name for p in model.parameters()][:2] == ["linear.w", "linear.b"]


def test_names_of_attributes() -> None:
    names = {
        "Linear": "linear", "LayerNorm": "layer_norm", "Conv2D": "conv2d", "ReLU": "relu",
        "MSELoss": "mse_loss", "LeakyReLU": "leaky_relu", "LSTM": "lstm", "SiLU": "silu",
        "MyMLP": "my_mlp", "Block2": "block2", "_Hidden": "hidden", "Conv2DTranspose":
        "conv2d_transpose", "GELU": "gelu",
    }  # fmt: skip
    assert {name: snake_case(name) for name in names} == names


@pytest.mark.parametrize("make", [MLP, LazyNet])
def test_eager_and_compiled_make_the_same(make: Any) -> None:
    """Draws of the model itself come before and between the making of its parameters."""
    ek.random.seed(5)
    eager = make()
    want = [np.asarray(eager(X)) for _ in range(3)]
    ek.random.seed(5)
    made = make()
    step = ek.compile(lambda x: made(x))
    got = [np.asarray(step(X)) for _ in range(3)]
    assert traces(step) == 1
    for a, b in zip(want, got):
        np.testing.assert_array_equal(a, b)
    for (key, a), (other, b) in zip(eager.state_dict().items(), made.state_dict().items()):
        assert key == other
        np.testing.assert_array_equal(a, b)
    ek.random.seed(5)
    built = make()
    built.build(X)
    for a in want:
        np.testing.assert_array_equal(np.asarray(built(X)), a)


def test_what_was_made_is_trained_in_one_step() -> None:
    model = MLP().eval()

    @ek.compile
    def step(x: Any) -> Any:
        model(x)
        loss, grads = ek.value_and_grad(lambda: (model(x) ** 2).mean(), model)()
        for path, leaf in model.named_parameters():
            leaf.value = leaf - 0.1 * grads[path]
        return loss

    losses = [float(step(X)) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 4
    assert traces(step) == 1


def test_a_name_that_is_taken() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            return nn.Linear(3, 2)(self.linear(x))

    model = Mixed()
    model(X)
    assert model.v.key_chains() == ["linear/w", "linear/b", "linear_1/w", "linear_1/b"]


class Choosy(nn.Module):
    """Makes what it is told to make."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps

    def forward(self, x: Any) -> Any:
        for step in self.steps:
            x = step()(x)
        return x


def first() -> Any:
    return nn.Linear(3, 3)


def second() -> Any:
    return nn.Linear(3, 3, with_bias=False)


def third() -> Any:
    return nn.Tanh()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ((first, third), (third, first), r"made L at P before, and now makes T at P[.]"),
        ((first,), (second,), r"L at P before, and now makes Linear\(3, 3, with_bias=False\)"),
        ((first, third), (first,), r"not made T, as it did at P before; the last one was L at P"),
        ((first, third), (first,), r"It made 1 instead of 2"),
        ((first, third), (), r"has not made L, .*it made none"),
        ((first,), (first, third), r"1 module before, the last one L at P, and now makes T at P b"),
    ],
)
def test_other_modules_than_before(before: Any, after: Any, message: str, compiled: bool) -> None:
    model = Choosy(*before)
    run = ek.compile(lambda x: model(x)) if compiled else model
    want = np.asarray(run(X))
    names = list(dict(model.named_modules()))
    model.steps = after
    short = {"L": r"Linear\(3, 3\)", "T": r"Tanh\(\)", "P": r"test_making.py:\d+"}
    message = re.sub(r"\b[LTP]\b", lambda m: short[m.group()], message)
    with pytest.raises(ModuleOrderError, match=message):
        run(X)
    assert list(dict(model.named_modules())) == names
    model.steps = before
    np.testing.assert_array_equal(np.asarray(run(X)), want)


def test_arguments_that_are_alike() -> None:
    class Same(nn.Module):
        def forward(self, x: Any) -> Any:
            scale = 0.5
            for given in (lambda shape, dtype: np.full(shape, scale, np.float32),
                          ek.initializers.RandomNormal(0.0, 0.1), np.ones):  # fmt: skip
                x = nn.Linear(3, 3, weight_initializer=given)(x)
            return Choosy(*[third] * 2)(x)

    model = Same()
    want = np.asarray(model(X))
    np.testing.assert_array_equal(np.asarray(model(X)), want)
    assert len(model.modules()) == 7


@pytest.mark.parametrize(
    ("old", "new"),
    [(1, True), (1, 1.0), (0.0, -0.0), ([1], (1,)), ({"a": 1}, {"b": 1}), (np.ones(2), np.ones(3)),
     (ek.initializers.Constant(1.0), ek.initializers.Constant(2.0)), (lambda: 1, lambda: 1)],
)  # fmt: skip
def test_arguments_that_differ(old: Any, new: Any) -> None:
    class Takes(nn.Module):
        def __init__(self, given: Any) -> None:
            self.given = None

        def forward(self, x: Any) -> Any:
            return x

    class Makes(nn.Module):
        def forward(self, x: Any, given: Any) -> Any:
            return Takes(given)(x)

    model = Makes()
    model(X, old)
    model(X, old)
    with pytest.raises(ModuleOrderError, match="now makes Takes"):
        model(X, new)


def test_a_first_call_that_raises_makes_nothing() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            self.fail = True

        def forward(self, x: Any) -> Any:
            x = nn.Linear(3, 2)(x)
            if self.fail:
                raise ValueError("mine")
            return nn.Tanh()(x)

    model = Fails()
    for run in (model, ek.compile(lambda x: model(x))):
        with pytest.raises(ValueError, match="mine"):
            run(X)
        assert model.modules() == [model]
    model.fail = False
    model(X)
    assert [type(m).__name__ for m in model.modules()] == ["Fails", "Linear", "Tanh"]


def test_modules_inside_of_modules_that_are_made() -> None:
    class Outer(nn.Module):
        def forward(self, x: Any) -> Any:
            return Choosy(first, third)(Choosy(first)(x))

    model = Outer()
    model(X)
    model(X)
    assert model.v.key_chains() == [
        "choosy/linear/w", "choosy/linear/b", "choosy_1/linear/w", "choosy_1/linear/b"
    ]  # fmt: skip


def test_modes_of_what_is_made() -> None:
    model = MLP().eval()
    a = np.asarray(model(X))
    np.testing.assert_array_equal(a, np.asarray(model(X)))
    assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.train().modules())


def test_a_slice_of_a_sequential_in_forward() -> None:
    class Tail(nn.Module):
        def __init__(self) -> None:
            self.net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))

        def forward(self, x: Any) -> Any:
            return self.net[1:](x)

    model = Tail()
    model(X)
    model(X)
    assert len(model.parameters()) == 4


def test_copies_keep_what_was_made() -> None:
    model = MLP().eval()
    want = np.asarray(model(X))
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(np.asarray(twin(X)), want)
    assert twin.linear is not model.linear
    assert twin.linear is twin.modules()[1]
    twin.linear.w.value = twin.linear.w * 0.0
    assert not np.array_equal(np.asarray(twin(X)), want)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(np.asarray(again(X)), want)


def test_threads_make_one_set_of_modules() -> None:
    for compiled in (False, True):
        for _ in range(5):
            model = MLP().eval()
            run = ek.compile(lambda x, model=model: model(x)) if compiled else model
            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(lambda _, run=run: np.asarray(run(X)), range(8)))
            assert len(model.modules()) == 5
            for result in results:
                np.testing.assert_array_equal(result, results[0])


def test_making_in_a_compiled_part_is_refused() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            self.run = ek.compile(lambda x: nn.Linear(3, 2)(x))

        def forward(self, x: Any) -> Any:
            return self.run(x)

    model = Part()
    for context in (ek.eager(), ek.settings(compile=True)):
        with (
            context,
            pytest.raises(ModuleOrderError, match=r"Linear\(3, 2\) is made at .*compiled"),
        ):
            model(X)


def test_a_forward_that_calls_itself() -> None:
    class Recursive(nn.Module):
        def forward(self, x: Any, n: int) -> Any:
            x = nn.Linear(3, 3)(x)
            return self(x, n - 1) if n else x

    model = Recursive()
    with pytest.raises(ModuleOrderError, match="calls itself"):
        model(X, 1)
    assert model.modules() == [model]
    model(X, 0)


# -- building --------------------------------------------------------------------------------------


def test_parts_that_are_not_built_are_named() -> None:
    model = LazyNet()
    for ask in (
        lambda: model.v, lambda: model.buffers, model.parameters, model.state_dict,
        model.named_parameters, model.get_parameters, lambda: model.freeze("*"),
        lambda: model.load_state_dict({}), lambda: setattr(model, "v", {}),
        lambda: model(X, v={}), lambda: model.to("float64"), lambda: ek.optim.SGD(model, 0.1),
    ):  # fmt: skip
        with pytest.raises(
            StateError, match=r"LazyNet are asked for, but first .*model.build\(x\)"
        ):
            ask()
    assert "Lazy" in repr(model)
    assert "first: Lazy()" in model.tree()


def test_building_computes_nothing_and_changes_no_state() -> None:
    ek.random.seed(1)
    before = ek.random.default_generator().draw.numpy().copy()
    model = LazyNet()
    model.build(X)
    assert int(model.first.calls) == 0
    assert ek.random.default_generator().draw.numpy() == before
    assert model.v.key_chains() == [
        "first/w", "rest/v0/w", "rest/v1/w", "linear/w", "linear/b"
    ]  # fmt: skip
    v = model.v
    model.build(X)
    assert model.v is v
    model(X)
    assert int(model.first.calls) == 1


def test_a_layer_is_built_once() -> None:
    layer = Lazy(4)
    layer.build(X)
    w = layer.w
    layer.build(X)
    layer(X)
    assert layer.w is w
    assert layer.v.key_chains() == ["w"]


def test_a_build_that_raises_leaves_nothing() -> None:
    class Bad(Lazy):
        def build(self, x: Any) -> None:
            super().build(x)
            if x.shape[-1] != 3:
                raise ShapeError("three, please")

    layer = Bad(2)
    for run in (layer, layer.build, ek.compile(lambda x: layer(x))):
        with pytest.raises(ShapeError, match="three, please"):
            run(X[:, :2])
        assert "w" not in vars(layer)
    assert layer(X).shape == (4, 2)


# -- dtypes ----------------------------------------------------------------------------------------


def test_to_another_dtype() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.a, self.nest = nn.Linear(3, 3), [nn.Linear(3, 3)]
            self.weights = [self.a.w, ek.tensor([1.0, 2.0])]
            self.add_buffer("n", 3)
            self.add_buffer("mean", np.ones(3, np.float32))

        def forward(self, x: Any) -> Any:
            return self.nest[0](self.a(x)) @ self.weights[0]

    model = Tied()
    model.freeze("nest/*")
    step = ek.compile(lambda x: model(x))
    want = np.asarray(step(X))
    state = model.state_dict()
    assert model.to("float64") is model
    assert model.a.w is model.weights[0]
    assert {str(p.dtype) for p in model.parameters()} == {"float64"}
    assert str(model.n.dtype) == "int64"
    assert str(model.mean.dtype) == "float64"
    assert [p.trainable for p in model.parameters()] == [True, True, False, False, True]
    assert list(model.state_dict()) == list(state)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[key])
    np.testing.assert_allclose(np.asarray(step(X.astype(np.float64))), want, rtol=1e-5)
    model.to("cpu").to(ek.float32)
    np.testing.assert_array_equal(np.asarray(step(X)), want)


def test_to_what_is_not_possible() -> None:
    model = MLP()
    model(X)
    w = model.linear.w
    for target, error in (("int64", DTypeError), ("cuda", DTypeError), ("float99", EinkornError)):
        with pytest.raises(error):
            model.to(target)
    with pytest.raises(EinkornError, match="cast the model outside"):
        ek.compile(lambda x: model.to("float64")(x))(X)
    assert model.linear.w is w


def test_an_optimizer_notices_a_cast() -> None:
    model = nn.Linear(3, 2)
    opt = ek.optim.SGD(model, 0.1)
    model.to("float64")
    x = X.astype(np.float64)
    _, grads = ek.value_and_grad(lambda: (model(x) ** 2).mean(), model)()
    with pytest.raises(EinkornError):
        opt.step(grads)
