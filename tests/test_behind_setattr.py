"""Attributes of modules and optimizers that are changed behind `__setattr__` are seen."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek

nn = ek.nn
X = np.linspace(-1, 1, 6).reshape(2, 3).astype("float32")


class Net(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.Linear(3, 3)
        self.scale: Any = 2
        self.mode = "plain"

    def forward(self, x: Any) -> Any:
        out = self.layer(x) * self.scale
        return out if self.mode == "plain" else -out


def remove_and_add(net: Net) -> None:
    del vars(net)["scale"]
    vars(net)["scale"] = 3


def replace_all(net: Net) -> None:
    state = dict(vars(net))
    net.__dict__ = {**state, "scale": 4}


WAYS: dict[str, Callable[[Net], Any]] = {
    "item": lambda net: vars(net).__setitem__("layer", nn.Linear(3, 3)),
    "update": lambda net: net.__dict__.update(scale=5),
    "update by pairs": lambda net: net.__dict__.update([("scale", 5)]),
    "or": lambda net: vars(net).__ior__({"mode": "negative"}),
    "pop": lambda net: (vars(net).pop("mode"), vars(net).setdefault("mode", "negative")),
    "delete": remove_and_add,
    "new dict": replace_all,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_change_behind_setattr_is_seen(way: str) -> None:
    net = Net()
    step = ek.compile(net)
    before = step(X)
    assert_same_bits(before, net(X))
    WAYS[way](net)
    assert not np.array_equal(net(X), before)
    assert_same_bits(step(X), net(X))


def test_parameters_behind_setattr_are_found() -> None:
    net = Net()
    assert list(net.v) == ["layer"]
    vars(net)["second"] = nn.Linear(3, 1)
    assert list(net.v) == ["layer", "second"]
    vars(net).pop("second")
    assert list(net.v) == ["layer"]


def test_a_dict_that_replaces_that_of_a_module_is_watched_too() -> None:
    net = Net()
    net.__dict__ = dict(vars(net))
    step = ek.compile(net)
    step(X)
    vars(net)["scale"] = 7
    assert_same_bits(step(X), net(X))


def test_settings_of_an_optimizer_behind_setattr_are_seen() -> None:
    def run(compiled: bool) -> Any:
        ek.random.seed(0)
        net = nn.Linear(3, 1)
        opt = ek.optim.SGD(net, lr=0.1)

        def step(x: Any) -> Any:
            loss, grads = ek.value_and_grad(lambda x: net(x).sum(), net)(x)
            opt.step(grads)
            return loss

        call = ek.compile(step) if compiled else step
        call(X)
        vars(opt)["lr"] = 0.5
        call(X)
        vars(opt)["clip_value"] = 0.1
        call(X)
        return net.w

    assert_same_bits(run(True), run(False))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_watched(way: Callable[[Any], Any]) -> None:
    net = way(Net())
    step = ek.compile(net)
    step(X)
    vars(net)["scale"] = 9
    assert_same_bits(step(X), net(X))


def test_a_learning_rate_makes_no_new_trace() -> None:
    net = nn.Linear(3, 1)
    opt = ek.optim.SGD(net, lr=0.1)

    @ek.compile
    def step(x: Any) -> Any:
        loss, grads = ek.value_and_grad(lambda x: net(x).sum(), net)(x)
        opt.step(grads)
        return loss

    for rate in (0.1, 0.2, 0.3):
        opt.lr = rate
        step(X)
    assert len(step.explain().traces) == 1
