"""Attributes that a compiled function must not write: refused with the line, nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attribute_models import Counts, Keeps, Remembers, X, attributes
from compile_checks import assert_same_nest

import einkorn as ek
from einkorn import nn


def in_a_map(model: Any, x: Any) -> Any:
    return ek.vmap(lambda row: model(row))(x)


def in_a_branch(model: Any, x: Any) -> Any:
    return ek.cond(x.sum() > 0, lambda: model(x), lambda: x)


def in_a_loop(model: Any, x: Any) -> Any:
    return ek.fori_loop(0, 3, lambda k, h: model(h), x)


def in_a_scan(model: Any, x: Any) -> Any:
    return ek.scan(lambda h, row: (h, model(row)), 0.0, x)[1]


@pytest.mark.parametrize("kind", [Counts, Keeps, Remembers])
@pytest.mark.parametrize("where", [in_a_map, in_a_branch, in_a_loop, in_a_scan])
def test_functions_that_are_recorded_once_write_nothing(where: Any, kind: Any) -> None:
    model = kind()
    before = attributes(model)
    for step in (ek.compile(where), where):
        with pytest.raises(ek.TraceError, match=r"was set, at attribute_models\.py:\d+, in"):
            step(model, ek.asarray(X))
    assert_same_nest(attributes(model), before)


def test_a_loop_that_only_reads_is_fine() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.n, self.h = 0, ek.asarray(X)

        def forward(self, x: Any) -> Any:
            self.n += 1
            self.h = self.h + 1
            return ek.fori_loop(0, 3, lambda k, y: y * self.n + self.h, x)

    net, twin = Net(), Net()
    step = ek.compile(net, on_retrace="error")
    for _ in range(3):
        assert_same_nest(step(X), twin(ek.asarray(X)))


STRUCTURE: dict[str, Callable[[Any, Any], Any]] = {
    "a leaf": lambda net, x: setattr(net, "w", ek.Parameter(X)),
    "a module": lambda net, x: setattr(net, "part", nn.ReLU()),
    "a module as it is": lambda net, x: setattr(net, "other", net.part),
    "no module": lambda net, x: setattr(net, "part", None),
    "a list of modules": lambda net, x: setattr(net, "rows", [net.part]),
    "a leaf in a dict": lambda net, x: setattr(net, "named", {"w": net.v}),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_the_structure_of_a_model_is_not_changed_by_a_step(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.part, self.rows = nn.Linear(4, 4), [nn.Tanh()]

    net = Net()
    before = dict(vars(net))
    with pytest.raises(
        ek.TraceError, match=r"Net\.\w+ was set while .* at test_attribute_refusals"
    ):
        ek.compile(lambda x: (STRUCTURE[name](net, x), x)[1])(X)
    names = {key for key in vars(net) if not key.startswith("_ek_")}
    assert names == {key for key in before if not key.startswith("_ek_")}
    assert net.part is before["part"]


def test_padding_is_not_kept() -> None:
    keeps = Keeps()
    step = ek.compile(lambda x: keeps(x), buckets={"x": {0: "pow2"}})
    with pytest.raises(ek.EinkornError, match=r"Keeps\.last was set .*models\.py:\d.* in buckets"):
        step(np.ones((11, 4), np.float32))
    assert keeps.last is None


def test_an_attribute_is_not_deleted_by_a_step() -> None:
    model = Counts()
    with pytest.raises(ek.TraceError, match=r"Counts\.steps was deleted while .*refusals\.py:\d"):
        ek.compile(lambda x: (delattr(model, "steps"), x)[1])(X)
    assert model.steps == 0


def test_a_tensor_in_an_object_is_refused() -> None:
    class Box:
        def __init__(self, x: Any) -> None:
            self.x = x

    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            self.box = Box(x * 2)
            return x

    net = Net()
    with pytest.raises(ek.TraceError, match=r"Net\.box was set .* of type Box that holds a traced"):
        ek.compile(net)(X)
    assert not hasattr(net, "box")


def _deleted(net: Any) -> None:
    del net.__dict__["steps"]


DICTS: dict[str, Callable[[Any], Any]] = {
    "item": lambda net: vars(net).__setitem__("steps", net.steps + 1),
    "update": lambda net: net.__dict__.update(steps=net.steps + 1),
    "setdefault": lambda net: vars(net).setdefault("more", 1),
    "pop": lambda net: vars(net).pop("steps"),
    "del": _deleted,
}


@pytest.mark.parametrize("way", DICTS)
def test_the_dict_of_a_module_is_not_changed_by_a_step(way: str) -> None:
    counts = Counts()
    before = attributes(counts)
    with pytest.raises(ek.TraceError, match=r"Counts\.__dict__ was changed .* setattr\(self"):
        ek.compile(lambda x: (DICTS[way](counts), x)[1])(X)
    assert_same_nest(attributes(counts), before)


def test_the_dict_of_a_module_shows_what_the_step_wrote() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.n = 0

        def forward(self, x: Any) -> Any:
            self.n += 1
            self.more = self.n * 2
            return x * vars(self)["n"] + self.__dict__["more"] + len(vars(self))

    net, twin = Net(), Net()
    step = ek.compile(net)
    for _ in range(3):
        assert_same_nest(step(X), twin(ek.asarray(X)))
    net.other = twin.other = 1
    assert_same_nest(step(X), twin(ek.asarray(X)))
