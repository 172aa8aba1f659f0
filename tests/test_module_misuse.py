"""Modules and optimizers used wrongly, and changes that compiled functions must not miss."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_checks import traces

import einkorn as ek
from einkorn import initializers, nn
from einkorn.container import Container
from einkorn.ir.errors import EinkornError, ShapeError, StateError, TraceError

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


class Scaled(nn.Module):
    """Reads what it is given without being called."""

    def __init__(self, **items: Any) -> None:
        self.s = 2.0
        self.w = ek.Parameter([1.0, 2.0, 3.0])
        for name, item in items.items():
            setattr(self, name, item)

    def g(self, x: Any) -> Any:
        return x * self.w * self.s

    def plain(self, x: Any) -> Any:
        return x * self.s

    def forward(self, x: Any) -> Any:
        return self.g(x)


def agree(compiled: Any, fn: Callable[[Any], Any]) -> None:
    with ek.no_grad():
        np.testing.assert_array_equal(np.asarray(compiled(X)), np.asarray(fn(X)))


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_name", "_values", "_structure", "_observed", "_found", "_text"])
def test_private_names_belong_to_the_user(name: str) -> None:
    model = Scaled(**{name: ek.Parameter([5.0])})
    assert model.v.key_chains() == ["w", name.lstrip("_")]
    model(X)
    assert getattr(model, name) is model.v[name.lstrip("_")]
    assert repr(model) == "Scaled()"
    setattr(model, name, {"a": 1})
    assert model.v.key_chains() == ["w"]


@pytest.mark.parametrize("name", ["buffers", "parameters", "train", "modules", "save", "_ek_name"])
@pytest.mark.parametrize("value", [ek.Parameter([1.0]), nn.ReLU(), 3, None])
def test_names_of_every_module_are_refused(name: str, value: Any) -> None:
    with pytest.raises(EinkornError, match=f"Scaled.{name} cannot be assigned.*another name"):
        Scaled(**{name: value})


@pytest.mark.parametrize("value", [ek.Parameter([1.0]), nn.ReLU(), None, [1.0]])
def test_v_is_reserved(value: Any) -> None:
    with pytest.raises(EinkornError, match="'v' is reserved"):
        Scaled(v=value)


def test_forward_can_be_exchanged() -> None:
    model = Scaled(forward=lambda x: x)
    assert model(3) == 3


# -- replacing leaves ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [lambda m: m.w * 2, lambda m: X, lambda m: 1.0])
def test_a_leaf_is_not_replaced_by_a_value(value: Any) -> None:
    model = Scaled(n=ek.tensor(0, trainable=False))
    w = model.w
    with pytest.raises(StateError, match=r"Scaled.w is a Parameter.*Scaled.w.value = "):
        model.w = value(model)
    with pytest.raises(StateError, match=r"Scaled.n is a Leaf.*Scaled.n.value = "):
        model.n = value(model)
    with pytest.raises(StateError, match=r"Scaled.w.value = "):
        ek.compile(lambda x: setattr(model, "w", model.w + x))(X[0])
    assert model.w is w


def test_a_leaf_is_replaced_by_another_none_or_deleted() -> None:
    model = Scaled()
    model.w = ek.Parameter([1.0])
    model.w = None
    assert model.v.key_chains() == []
    model.w = ek.Parameter([1.0])
    del model.w
    model.w = 3.0


# -- writes while tracing --------------------------------------------------------------------------


def test_a_buffer_counts_in_compiled_calls() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            self.n = ek.tensor(0)

        def forward(self, x: Any) -> Any:
            self.n.value = self.n + 1
            return x

    model = Counting()
    step = ek.compile(model)
    for _ in range(3):
        step(X)
    assert model.n.item() == 3


def test_modules_made_inside_a_trace_may_be_filled_there() -> None:
    class Made(nn.Module):
        def __init__(self) -> None:
            self.parts: list[nn.Module] = []
            self.parts.append(nn.Tanh())

        def forward(self, x: Any) -> Any:
            self.last = x
            return self.parts[0](x)

    def step(x: Any) -> Any:
        made = Made()
        made.scale = 2.0
        return made(x) * made.scale

    compiled = ek.compile(step)
    agree(compiled, step)
    gc.collect()  # the modules that were traced are gone
    agree(compiled, step)
    assert traces(compiled) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LeakyReLU(0.3),
        lambda: nn.Dropout(0.25),
        lambda: nn.HuberLoss(0.5, weight=2.0),
        lambda: ek.regularizers.L1L2(0.5, 2.0),
    ],
)
def test_settings_of_what_is_made_inside_a_trace(make: Callable[[], Any]) -> None:
    def step(x: Any) -> Any:
        made = make()
        return made(x, x * 2) if isinstance(made, nn.Loss) else made(x)

    compiled = ek.compile(step)
    found: list[Any] = []
    for run in (compiled, step, compiled):
        ek.random.seed(3)
        found.append(np.asarray(run(X)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert traces(compiled) == 1


def test_a_setting_of_the_outside_is_not_set_while_tracing() -> None:
    layer = nn.Dropout(0.25)
    with pytest.raises(TraceError, match=r"Dropout\.rate was set"):
        ek.compile(lambda: setattr(layer, "rate", 0.5))()
    assert layer.rate == 0.25


def test_a_setting_of_an_optimizer_is_not_set_while_tracing() -> None:
    model = Scaled()
    opt = ek.optim.SGD(model, 0.1)
    with pytest.raises(TraceError, match=r"SGD\.lr was set"):
        ek.compile(lambda: setattr(opt, "lr", 1.0))()
    with pytest.raises(EinkornError, match=r"'betas' \(did you mean beta1 and beta2\?\)"):
        ek.optim.Adam(Scaled(), betas=(0.9, 0.99))  # type: ignore[call-arg]
    with pytest.raises(EinkornError, match="SGD has no setting 'calls'"):
        ek.compile(lambda: setattr(opt, "calls", 1))()
    assert opt.lr == 0.1


# -- changes that compiled functions see -----------------------------------------------------------


@pytest.mark.parametrize("name", ["g", "plain"])
def test_a_module_that_is_read_but_not_called(name: str) -> None:
    model = Scaled()
    fn = getattr(model, name)
    compiled = ek.compile(lambda x: getattr(model, name)(x))
    agree(compiled, fn)
    model.s = 4.0
    agree(compiled, fn)
    model.w = ek.Parameter([5.0, 6.0, 7.0])
    agree(compiled, fn)
    count = traces(compiled)
    model.s = 4.0
    model.w.value = [0.0, 1.0, 2.0]
    agree(compiled, fn)
    assert traces(compiled) == count


def test_an_attribute_that_was_missing() -> None:
    model = Scaled()

    def fn(x: Any) -> Any:
        return x * getattr(model, "extra", 1.0)

    compiled = ek.compile(fn)
    agree(compiled, fn)
    model.extra = 3.0
    agree(compiled, fn)
    del model.extra
    agree(compiled, fn)


def test_lists_and_dicts_that_are_changed_in_place() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    compiled = ek.compile(lambda x: model(x))

    def check() -> None:
        for _ in range(2):
            agree(compiled, model)

    check()
    model._submodules.append(nn.Sigmoid())
    check()
    model._submodules[1] = nn.ReLU()
    check()
    model._submodules.pop()
    model._submodules.append(nn.SiLU())
    check()
    model._submodules.reverse()
    check()
    assert "the items of Sequential._submodules" in str(compiled.explain())


def test_numbers_in_nests_are_compared_by_value() -> None:
    model = Scaled(config={"gains": [1.5, 2.5], "pair": ([1.0],)})

    def fn(x: Any) -> Any:
        gains = model.config["gains"]
        return x * gains[0] + gains[1] + model.config["pair"][0][0]

    compiled = ek.compile(fn)
    agree(compiled, fn)
    model.config["gains"][0] = float("1.5")
    agree(compiled, fn)
    assert traces(compiled) == 1
    model.config["gains"][0] = 2.0
    agree(compiled, fn)
    model.config["pair"][0][0] = 3.0
    agree(compiled, fn)
    model.config["gains"] = [0.0, 1.0]
    agree(compiled, fn)
    assert traces(compiled) == 4


def test_a_list_that_only_its_parameters_were_read_from() -> None:
    model = Scaled(parts=[nn.Linear(3, 3)])

    def fn(x: Any) -> Any:
        return x * sum((p * p).sum() for p in model.parameters())

    compiled = ek.compile(fn)
    agree(compiled, fn)
    model.parts.append(nn.Linear(2, 2))
    agree(compiled, fn)


def test_steps_of_changing_settings_are_traced_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    opt = ek.optim.Adam(model)

    @ek.compile
    def step(x: Any) -> Any:
        _, grads = ek.value_and_grad(lambda: (model(x) ** 2).mean(), model)()
        opt.step(grads)

    for k in range(1, 5):
        step(X)
        opt.lr = 0.1 / k
        model[1].rate = 0.1 * k
    assert traces(step) == 1


# -- bad arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: Container(3),
        lambda: Container(None),
        lambda: Container([1, 2]),
        lambda: Container().update(3),
        lambda: Container().popitem(),
        lambda: Scaled().set_parameters(3),
        lambda: Scaled().set_parameters([1.0]),
        lambda: Scaled().freeze(3),
        lambda: Scaled().unfreeze(None),
        lambda: Scaled().load_state_dict({1: 2}),
        lambda: Scaled().load_state_dict({1: 2}, strict=False),
        lambda: Scaled().save(None),
        lambda: Scaled().load(3.5),
        lambda: nn.Linear(-1, 2),
        lambda: nn.Linear(2.0, 2),
        lambda: nn.Linear(np.array([1, 2]), 2),
        lambda: nn.Linear(2**62, 2),
        lambda: nn.Linear(2**40, 2**10),
        lambda: setattr(nn.Dropout(), "training", 1),
        lambda: setattr(nn.Dropout(), "rate", "0.5"),
        lambda: nn.LeakyReLU("a"),
        lambda: initializers.Constant("a"),
        lambda: initializers.RandomNormal("a"),
        lambda: initializers.RandomNormal(0.0, None),
        lambda: initializers.RandomUniform("a", 2),
        lambda: initializers.RandomUniform(0, None),
        lambda: initializers.GlorotNormal(gain="a"),
        lambda: initializers.KaimingNormal("a"),
        lambda: ek.optim.SGD(Scaled(), 0.1).set_state(3),
        lambda: ek.optim.SGD(Scaled(), 0.1).load_state_dict({1: 2}),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(EinkornError):
        call()


def test_sizes_that_fit_no_memory() -> None:
    with pytest.raises(ShapeError):
        nn.Linear(2**62, 2)
    with pytest.raises(ShapeError, match="does not fit in memory"):
        Scaled().add_parameter("huge", (2**40, 2**10))  # its zeros are one number until then


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    model, path = Scaled(), tmp_path / "m.safetensors"
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        model.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no such folder: '.*none'"):
        model.save(tmp_path / "none" / "file")
    with pytest.raises(FileNotFoundError):
        model.load(path)
    model.save(path)
    data = path.read_bytes()
    for broken in (b"", b"x" * 100, data[:-3], data.replace(b'"F32"', b'"F99"'), data[:8] + data):
        path.write_bytes(broken)
        with pytest.raises(StateError, match="is not a safetensors file that can be read"):
            model.load(path)
    path.write_bytes(data)
    model.load(str(path))
    model.load(bytes(path))


def test_numbers_of_numpy_are_settings() -> None:
    layer = nn.Dropout(np.float32(0.5))
    assert layer.__dict__["rate"] == 0.5
    assert nn.LeakyReLU(np.float64(0.1)).negative_slope == 0.1
    assert np.asarray(initializers.Constant(np.int64(3))((2,))).tolist() == [3, 3]
    assert nn.Linear(np.int64(3), 2).w.shape == (2, 3)


def test_a_parameter_of_integers_says_what_to_write() -> None:
    with pytest.raises(EinkornError, match=r"\[1\., 2\.\].*dtype='float32'"):
        ek.Parameter([1, 2])


# -- optimizers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [iter, lambda x: (p for p in x), lambda x: dict(enumerate(x)).values()]
)
def test_optimizers_take_iterators_of_leaves(given: Any) -> None:
    model = nn.Linear(3, 2)
    opt = ek.optim.SGD(given(model.parameters()), 0.1)
    for _ in range(2):
        (model(X) ** 2).mean().backward()
        opt.step()
        opt.zero_grad()
    assert opt.state.count.item() == 2


@pytest.mark.parametrize(
    "given", [lambda m: m.named_parameters(), lambda m: list(m.named_parameters())]
)
def test_named_parameters_are_refused(given: Any) -> None:
    with pytest.raises(EinkornError, match=r"pairs of a name.*model.parameters\(\)"):
        ek.optim.Adam(given(nn.Linear(3, 2)))


def test_unknown_settings_of_an_optimizer_are_refused() -> None:
    opt = ek.optim.Adam(nn.Linear(3, 2))
    with pytest.raises(EinkornError, match=r"no setting 'learning_rate' \(did you mean lr\?\)"):
        opt.learning_rate = 0.5
    with pytest.raises(EinkornError, match=r"'momentum' \(did you mean ek.optim.Momentum\(params"):
        ek.optim.SGD(nn.Linear(3, 2), 0.1, momentum=0.9)  # type: ignore[call-arg]
    with pytest.raises(EinkornError, match="did you mean beta1"):
        opt.beta_1 = 0.5
    opt._note = 1
    opt.lr = 0.5

    class Own(ek.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, 0.1)
            self.rho = 1.0

    own = Own(nn.Linear(3, 2))
    own.rho = 2.0
    with pytest.raises(EinkornError, match="no setting 'rhoo'"):
        own.rhoo = 2.0


def test_an_attribute_of_an_optimizer_is_seen_by_compiled_steps() -> None:
    class Own(ek.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, 0.5)
            self.rho = 1.0

        def direction(self, grad: Any, slots: Any, shared: Any) -> Any:
            return grad * self.rho, slots

    model = Scaled()
    opt = Own(model)
    step = ek.compile(lambda: opt.step({"w": np.ones(3, np.float32)}))
    step()
    opt.rho = 0.0
    step()
    assert model.w.numpy().tolist() == [0.5, 1.5, 2.5]
