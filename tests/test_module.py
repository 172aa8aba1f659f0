"""Module: discovery, values, modes, saving and the layers of the first version."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn import nn
from einkorn.container import Container
from einkorn.epochs import EPOCHS
from einkorn.initializers import Ones
from einkorn.ir.errors import EinkornError, ShapeError, StateError
from einkorn.leaf import Leaf, Parameter, tensor
from einkorn.seen import STRUCTURE, observe
from einkorn.transforms.gradients import value_and_grad
from einkorn.tunable import module_path


class MLP(nn.Module):
    def __init__(self) -> None:
        self.hidden = nn.Linear(3, 4)
        self.out = nn.Linear(4, 2)
        self.add_buffer("calls", 0)

    def forward(self, x: Any) -> Any:
        return self.out(nn.relu(self.hidden(x)))


class Holder(nn.Module):
    """Holds what it is given."""

    def __init__(self, **items: Any) -> None:
        for name, item in items.items():
            setattr(self, name, item)

    def forward(self, x: Any) -> Any:
        return module_path.get()


def inputs() -> Any:
    return np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)


# -- discovery -------------------------------------------------------------------------------------


def test_paths_of_parameters_and_buffers() -> None:
    model = MLP()
    assert model.v.key_chains() == ["hidden/w", "hidden/b", "out/w", "out/b"]
    assert model.buffers.key_chains() == ["calls"]
    assert model.v.hidden.w is model.hidden.w
    assert [p.name for p in model.parameters()] == ["hidden.w", "hidden.b", "out.w", "out.b"]
    assert [path for path, _ in model.named_modules()] == ["", "hidden", "out"]


def test_nests_of_lists_tuples_and_dicts() -> None:
    def leaf() -> Parameter:
        return Parameter([1.0])

    nest = [[leaf(), (leaf(),)], {"k": leaf(), 3: leaf()}]
    model = Holder(_private=nest, n=[1, 2], t=tensor(1.0))
    assert model.v.key_chains() == [
        "private/v0/v0", "private/v0/v1/v0", "private/v1/k", "private/v1/3", "t",
    ]  # fmt: skip


def test_shared_ones_count_once_and_every_path_resolves() -> None:
    first, second = nn.Linear(3, 4), nn.Linear(4, 4)
    model = Holder(linear=[first, second], linear0=first, linear1=second, w=first.w)
    assert model.v.key_chains() == ["linear/v0/w", "linear/v0/b", "linear/v1/w", "linear/v1/b"]
    assert model.v.linear0.w is model.v["linear0/w"] is model.v.w is first.w
    assert model.v.linear1 is model.v.linear.v1


def test_tied_weights_get_one_gradient() -> None:
    layer = nn.Linear(2, 2, with_bias=False)
    model = Holder(a=layer, b=layer)
    x = np.ones((1, 2), np.float32)
    _, grads = value_and_grad(lambda: layer(layer(x)).sum(), model)()
    assert grads.key_chains() == ["a/w"]
    w = np.asarray(layer.w)
    expected = w.T @ np.ones((2, 1)) @ x + np.ones((2, 1)) @ (w @ x.T).T
    np.testing.assert_allclose(np.asarray(grads.a.w), expected, rtol=1e-5)


def test_cycles_end() -> None:
    child = Holder(w=Parameter([1.0]))
    parent = Holder(child=child)
    child.parent = parent
    nest: list[Any] = [Parameter([2.0])]
    nest.append(nest)
    parent.nest = nest
    assert parent.v.key_chains() == ["child/w", "nest/v0"]
    assert parent.v.child.parent.child.w is child.w
    assert "..." in repr(parent)
    assert parent(1, v=parent.v.copy()) == "parent"


def test_clashing_and_unfit_keys_are_refused() -> None:
    with pytest.raises(StateError, match="'_w' and 'w' both become the key 'w'"):
        Holder(_w=Parameter([1.0]), w=Parameter([1.0])).v  # noqa: B018
    with pytest.raises(StateError, match="the dict key 'a/b' cannot be part"):
        Holder(d={"a/b": Parameter([1.0])}).v  # noqa: B018
    assert Holder(config={"a/b": [1]}, _n=[1], n=[2]).v.key_chains() == []


def test_v_is_cached_until_the_structure_changes() -> None:
    model = Holder(layers=[nn.Linear(2, 2)])
    v = model.v
    assert model.v is v
    model.layers[0].w.value = np.zeros((2, 2), np.float32)
    assert model.v is v
    model.layers.append(nn.Linear(2, 2))
    assert model.v.key_chains()[-1] == "layers/v1/b"
    model.layers[0].extra = Parameter([1.0])
    assert "layers/v0/extra" in model.v
    del model.layers[0].extra
    assert "layers/v0/extra" not in model.v


def test_no_class_has_to_call_the_base() -> None:
    class Calls(nn.Module):
        def __init__(self) -> None:
            self.w = Parameter([1.0])
            super().__init__()

    assert Calls().training
    assert Calls().v.key_chains() == ["w"]
    assert MLP().training


# -- values ----------------------------------------------------------------------------------------


def test_assigning_v_writes_through() -> None:
    model = MLP()
    w = model.hidden.w
    before = model.v.copy()
    model.v = model.v - before * 0.5
    assert model.hidden.w is w
    np.testing.assert_array_equal(np.asarray(w), np.asarray(before.hidden.w) * np.float32(0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.out.__delitem__("b"), "differ at 'out/b'"),
        (lambda c: c.out.__setitem__("b", np.zeros(3, "f4")), r"'out/b': .*f32\[2\].*f32\[3\]"),
        (lambda c: c.__setitem__("out/b", np.zeros(2)), r"'out/b': .*f32\[2\].*f64\[2\]"),
        (lambda c: c.__setitem__("more", np.zeros(2)), "'more': the first has none"),
    ],
)
def test_an_assignment_that_does_not_fit_changes_nothing(change: Any, message: str) -> None:
    model = MLP()
    before = model.state_dict()
    values = model.v.map(lambda x: np.asarray(x) + 1)
    change(values)
    with pytest.raises(EinkornError, match=message):
        model.v = values
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_leaves_can_be_swapped_by_one_assignment() -> None:
    model = Holder(a=Parameter([1.0]), b=Parameter([2.0]))
    model.v = {"a": model.b, "b": model.a}
    assert (float(model.a), float(model.b)) == (2.0, 1.0)


def test_a_call_with_other_values() -> None:
    model = MLP()
    x = inputs()
    own = np.asarray(model(x))
    zero = model.v * 0.0
    assert not np.asarray(model(x, v=zero)).any()
    np.testing.assert_array_equal(np.asarray(model(x)), own)
    assert isinstance(model.hidden.w, Parameter)
    with pytest.raises(ShapeError):
        model(x[:, :2], v=zero)
    assert isinstance(model.hidden.w, Parameter)
    with pytest.raises(EinkornError, match="differ at 'hidden'"):
        model(x, v=zero.out)


def test_other_values_reach_nests_and_are_differentiable() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    x = inputs()
    values = model.v.copy()
    _, by_argument = value_and_grad(lambda v: (model(x, v=v) ** 2).mean())(values)
    _, by_model = value_and_grad(lambda: (model(x) ** 2).mean(), model)()
    for a, b in zip(by_argument.to_flat_list(), by_model.to_flat_list()):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6)


def test_a_v_that_is_no_dict_goes_to_forward() -> None:
    class Attention(nn.Module):
        def forward(self, q: Any, v: Any) -> Any:
            return q + v

    assert Attention()(1, v=2) == 3


def test_get_and_set_parameters() -> None:
    model = MLP()
    model.freeze("hidden/*")
    assert model.get_parameters(trainable=True).key_chains() == ["out/w", "out/b"]
    assert model.get_parameters(trainable=False).key_chains() == ["hidden/w", "hidden/b"]
    model.set_parameters({"out": {"b": [1.0, 2.0]}})
    assert np.asarray(model.out.b).tolist() == [1.0, 2.0]
    with pytest.raises(KeyError, match="no key 'out/c'"):
        model.set_parameters({"out": {"b": [3.0, 3.0], "c": 1}})
    assert np.asarray(model.out.b).tolist() == [1.0, 2.0]


# -- training --------------------------------------------------------------------------------------


def test_gradients_have_the_structure_of_the_trainable_leaves() -> None:
    model = MLP()
    x = inputs()
    _, grads = value_and_grad(lambda: model(x).sum(), model)()
    assert grads.key_chains() == model.v.key_chains()
    assert isinstance(grads, Container)
    model.freeze("hidden/*")
    _, grads = value_and_grad(lambda: model(x).sum(), model)()
    assert grads.key_chains() == ["out/w", "out/b"]
    np.testing.assert_allclose(np.asarray(grads.out.b), [5.0, 5.0])


def test_freezing_keeps_leaves_parameters() -> None:
    model = Holder(scale=tensor(1.0), w=Parameter([1.0]))
    model.freeze()
    assert not any(p.trainable for p in model.parameters())
    assert model.v.key_chains() == ["scale", "w"]
    assert model._gradient_targets().key_chains() == []
    model.unfreeze()
    assert all(p.trainable for p in model.parameters())
    with pytest.raises(EinkornError, match="no parameter matches 'head/\\*'"):
        model.freeze("head/*")


def test_train_and_eval_reach_every_module() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    model.eval()
    assert [m.training for m in model.modules()] == [False] * 4
    x = inputs()
    np.testing.assert_array_equal(np.asarray(model(x)), x)
    assert model.train().modules()[-1].training


def test_an_observed_module_reports_changes() -> None:
    model = MLP()
    observe(model, "scale")
    observe(model, STRUCTURE)
    for change in (
        lambda: setattr(model, "scale", 2.0),
        lambda: setattr(model, "out", nn.Linear(4, 2)),
        lambda: delattr(model, "scale"),
        lambda: model.freeze("hidden/*"),
    ):
        epoch = EPOCHS.structure
        change()
        assert epoch != EPOCHS.structure
    epoch = EPOCHS.structure
    model.other = 1.0  # nobody asked for it
    layer = nn.Dropout(0.5)
    observe(layer, STRUCTURE)
    layer.rate = 0.25
    layer.training = False  # a guard of its own: both traces are kept
    assert epoch == EPOCHS.structure


def test_compiled_functions_see_changes() -> None:
    model = MLP()
    model.scale = 1.0
    run = ek.compile(lambda x: model(x) * model.scale)
    x = inputs()

    def agree() -> None:
        with ek.no_grad():
            np.testing.assert_array_equal(np.asarray(run(x)), np.asarray(model(x) * model.scale))

    agree()
    model.scale = 3.0
    agree()
    model.out = nn.Linear(4, 5)
    agree()
    model.v = model.v * 2.0
    agree()
    model.hidden.b = Parameter([1.0, 2.0, 3.0, 4.0])
    agree()
    dropout = nn.Dropout(0.5)
    masked = ek.compile(lambda x: dropout(x))
    assert (np.asarray(masked(np.ones(1000, np.float32))) == 2).any()
    dropout.rate = 0.0
    assert (np.asarray(masked(np.ones(1000, np.float32))) == 1).all()
    dropout.rate = 0.75
    assert (np.asarray(masked(np.ones(1000, np.float32))) == 4).any()
    dropout.eval()
    assert (np.asarray(masked(np.ones(1000, np.float32))) == 1).all()


def test_calls_with_other_values_compile() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    x = inputs()
    both = value_and_grad(lambda v, x: (model(x, v=v) ** 2).mean())
    values = model.v.map(lambda p: p.numpy() + np.float32(0.5))
    loss, grads = both(values, x)
    compiled_loss, compiled_grads = ek.compile(both)(values, x)
    assert float(loss) == float(compiled_loss)
    assert compiled_grads.key_chains() == model.v.key_chains()
    for a, b in zip(grads.to_flat_list(), compiled_grads.to_flat_list()):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_v_is_assigned_in_a_compiled_step() -> None:
    first, second = MLP(), MLP()
    second.v = first.v
    x = inputs()

    def step(model: MLP) -> None:
        _, grads = value_and_grad(lambda: (model(x) ** 2).mean(), model)()
        model.v = model.v - grads * 0.1

    compiled = ek.compile(lambda: step(second))
    for _ in range(3):
        step(first)
        compiled()
    for key, value in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[key], value)


# -- state -----------------------------------------------------------------------------------------


def test_state_dict_and_back() -> None:
    model, other = MLP(), MLP()
    state = model.state_dict()
    assert list(state) == ["hidden.w", "hidden.b", "out.w", "out.b", "calls"]
    other.load_state_dict(state)
    x = inputs()
    np.testing.assert_array_equal(np.asarray(other(x)), np.asarray(model(x)))
    state["hidden.w"][:] = 7
    assert not (np.asarray(model.hidden.w) == 7).any()


def test_loading_reports_unknown_and_missing_keys() -> None:
    model = MLP()
    before = model.state_dict()
    values = {key: value + 1 for key, value in before.items()}
    values["hidden.weight"] = values.pop("hidden.w")
    with pytest.raises(StateError, match=r"unknown key 'hidden.weight'.*missing key 'hidden.w'"):
        model.load_state_dict(values)
    np.testing.assert_array_equal(np.asarray(model.out.b), before["out.b"])
    result = model.load_state_dict(values, strict=False)
    assert result == (["hidden.w"], ["hidden.weight"])
    np.testing.assert_array_equal(np.asarray(model.out.b), before["out.b"] + 1)
    values = {**before, "out.b": np.zeros(9, np.float32), "hidden.b": before["hidden.b"] + 5}
    with pytest.raises(ShapeError, match=r"'out\.b'"):
        model.load_state_dict(values)
    np.testing.assert_array_equal(np.asarray(model.hidden.b), before["hidden.b"] + 1)


def test_shared_leaves_load_under_each_name() -> None:
    layer = nn.Linear(2, 2)
    model = Holder(a=layer, b=layer)
    assert list(model.state_dict()) == ["a.w", "a.b"]
    model.load_state_dict({"b.w": np.ones((2, 2), np.float32), "b.b": np.ones(2, np.float32)})
    assert np.asarray(layer.w).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_save_and_load(tmp_path: Path, dtype: str) -> None:
    model, other = (
        Holder(w=nn.Linear(3, 2, dtype=dtype), n=Leaf(3, "int64"), s=Parameter(2.0, dtype))
        for _ in range(2)
    )
    path = tmp_path / "model.safetensors"
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    other.load(path)
    for key, value in model.state_dict().items():
        assert other.state_dict()[key].tobytes() == value.tobytes()
    path.write_bytes(b"no such format")
    with pytest.raises(StateError, match="not a safetensors file"):
        other.load(path)


def test_a_deep_copy_is_apart() -> None:
    model = Holder(a=MLP())
    model.again = model.a
    model.v  # noqa: B018 # fills the cache
    twin = copy.deepcopy(model)
    assert twin.again is twin.a
    twin.a.out.b.value = [5.0, 5.0]
    assert np.asarray(model.a.out.b).tolist() == [0.0, 0.0]
    assert twin.v.key_chains() == model.v.key_chains()
    assert twin.v.a.out.b is twin.a.out.b


def test_add_parameter_and_add_buffer() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            self.add_parameter("gain", (3,), initializer=Ones)
            self.add_parameter("fixed", trainable=False)
            self.add_buffer("mean", np.zeros(3, np.float32))

    model = Scale()
    assert model.v.key_chains() == ["gain", "fixed"]
    assert model.buffers.key_chains() == ["mean"]
    assert not model.fixed.trainable
    with pytest.raises(StateError, match="already has an attribute 'gain'"):
        model.add_parameter("gain", (3,))


# -- calling and text ------------------------------------------------------------------------------


def test_module_paths() -> None:
    inner = Holder()
    outer = nn.Sequential(Holder(), inner)
    assert inner(1) == "submodules.v1"  # a module of its own: nothing is above
    assert outer(1) == "sequential/submodules/v1"
    assert module_path.get() == ""


def test_a_module_without_forward_says_so() -> None:
    class Empty(nn.Module):
        pass

    with pytest.raises(EinkornError, match="Empty has no forward"):
        Empty()(1)


def test_text() -> None:
    model = nn.Sequential(nn.Linear(3, 2, with_bias=False), nn.Softmax())
    assert repr(model) == (
        "Sequential(\n"
        "  (submodules/v0): Linear(3, 2, with_bias=False)\n"
        "  (submodules/v1): Softmax(axis=-1)\n"
        ")"
    )


def test_copying_values_in_keeps_the_structure() -> None:
    layer = ek.nn.Linear(2, 1)
    step = ek.compile(lambda x: layer(x))
    shown, x = layer.v, np.ones((3, 2), "float32")
    step(x)
    layer.v = shown * 2
    assert layer.v is shown
    assert np.array_equal(step(x), layer(x))
    assert len(step.explain().traces) == 1
